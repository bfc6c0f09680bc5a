"""What Django has and other libraries have not: requests, its ORM, and the history in it.

Django is configured once in a process. Its databases are those of the test.
"""

# ruff: noqa: E402 - models come after the settings

import asyncio
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import django
import psycopg
import pytest
from django.conf import settings
from django.http import HttpResponse
from django.urls import path
from psycopg import conninfo

import bemi
from bemi import config
from bemi.capture import worker
from bemi.capture.setup import init
from tests.conftest import MakeDatabase
from tests.support.wal import Log

ENGINE = "django.db.backends.postgresql"

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        SECRET_KEY="of the tests",
        USE_TZ=True,
        INSTALLED_APPS=[
            "django.contrib.admin",
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.messages",
            "django.contrib.sessions",
            "bemi.integrations.django",
        ],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
            "bemi.integrations.django.ContextMiddleware",
        ],
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {
                    "context_processors": [
                        "django.template.context_processors.request",
                        "django.contrib.auth.context_processors.auth",
                        "django.contrib.messages.context_processors.messages",
                    ]
                },
            }
        ],
        DATABASES={"default": {"ENGINE": ENGINE}, "other": {"ENGINE": ENGINE}},
    )
    django.setup()

from django.contrib import admin
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.base import BaseCommand
from django.db import DatabaseError, NotSupportedError, connection, connections, models, transaction
from django.test import AsyncClient, Client, override_settings

from bemi.integrations.django.admin import HistoryAdmin
from bemi.integrations.django.middleware import ContextMiddleware
from bemi.integrations.django.models import Change, HistoryMixin, bemi_changes

ANN = {"user_id": "ann"}


class Todo(HistoryMixin, models.Model):
    task = models.TextField(null=True)
    n = models.IntegerField(null=True)

    class Meta:
        app_label = "bemi"
        db_table = "todo"

    def __str__(self) -> str:
        return f"todo {self.pk}"


class TodoAdmin(HistoryAdmin):
    fields = ("task",)


admin.site.register(Todo, TodoAdmin)


def write(request: Any, key: int = 0) -> HttpResponse:
    Todo.objects.create(n=key)
    return HttpResponse()


async def write_async(request: Any) -> HttpResponse:
    await Todo.objects.acreate(n=1)
    return HttpResponse()


def read(request: Any) -> HttpResponse:
    return HttpResponse(str(Todo.objects.count()))


def fail_of_request(request: Any) -> dict[str, Any]:
    return {"never": 1 / 0}


def of_request(request: Any) -> dict[str, Any]:
    return {"tenant": request.headers["X-Tenant"], "method": "mine"}


urlpatterns = [
    path("write/<int:key>/", write),
    path("async/", write_async),
    path("read/", read),
    path("admin/", admin.site.urls),
]


def use(alias: str, url: str, **options: Any) -> None:
    address = conninfo.conninfo_to_dict(url)
    connections[alias].close()
    del connections[alias]
    connections.databases[alias].update(
        NAME=address["dbname"],
        USER=address["user"],
        PASSWORD=address.get("password", ""),
        HOST=address["host"],
        PORT=address["port"],
        OPTIONS=options,
        ATOMIC_REQUESTS=False,
        CONN_MAX_AGE=None,
    )


@pytest.fixture
def log(log: Log) -> Iterator[Log]:
    use("default", log.url)
    yield log
    connections.close_all()


def test_each_way_of_the_orm(log: Log) -> None:
    """In autocommit mode each is a transaction of its own, and each of them has its context."""
    with bemi.context(ANN):
        todo = Todo.objects.create(task="%s */")
        todo.n = 2
        todo.save()
        Todo.objects.bulk_create([Todo(), Todo()])
        Todo.objects.update(n=3)
        Todo.objects.filter(pk=todo.pk).delete()
        assert (
            len(Todo.objects.raw("insert into todo (task) values (%s) returning *", ["raw"])) == 1
        )
        with connection.cursor() as cursor:
            cursor.execute("update todo set n = 4 where task = 'raw'")
            with cursor.copy("copy todo (n) from stdin") as copy:
                copy.write_row([5])
    assert log.seen() == [
        [ANN, "insert"],
        [ANN, "update"],
        [ANN, "insert", "insert"],
        [ANN, "update", "update", "update"],
        [ANN, "delete"],
        [ANN, "insert"],
        [ANN, "update"],
        [ANN, "insert"],
    ]


def test_blocks_in_blocks(log: Log) -> None:
    with bemi.context(ANN), transaction.atomic(durable=True):
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            Todo.objects.create(n=1 // int(Todo.objects.create().pk and 0))
        Todo.objects.create()
        mark = transaction.savepoint()
        Todo.objects.create()
        transaction.savepoint_rollback(mark)
        Todo.objects.create()
    assert log.seen() == [[ANN, "insert", "insert"]]


def test_an_error_is_the_same(log: Log) -> None:
    todo = Todo.objects.create()
    with bemi.context(ANN):
        with pytest.raises(django.db.IntegrityError):
            Todo.objects.create(pk=todo.pk)
        with pytest.raises(DatabaseError), transaction.atomic():
            Todo.objects.create(pk=todo.pk)
        Todo.objects.create()
    assert log.seen() == [["insert"], [ANN, "insert"]]


def test_several_databases(log: Log, make_database: MakeDatabase) -> None:
    with psycopg.connect(make_database(), autocommit=True) as conn:
        url = f"{log.url.rpartition('/')[0]}/{conn.info.dbname}"
    other = Log(url)
    use("other", url)
    with bemi.context(ANN), transaction.atomic(), transaction.atomic(using="other"):
        Todo.objects.create()
        Todo.objects.using("other").create()
        Todo.objects.using("other").create()
    assert (log.seen(), other.seen()) == ([[ANN, "insert"]], [[ANN, "insert", "insert"]])
    connections["other"].close()
    other.close()


def test_a_pool(log: Log) -> None:
    """A connection is asked once whether it may send, however often it comes out of the pool."""
    use("default", log.url, pool={"min_size": 1, "max_size": 1})
    connections.databases["default"]["CONN_MAX_AGE"] = 0
    try:
        senders = set()
        for _ in range(3):
            with bemi.context(ANN):
                Todo.objects.create()
            assert connection.connection is not None
            senders.add(id(connection.connection.bemi_sender))
            connection.close()
        assert len(senders) == 1
        assert log.seen() == [[ANN, "insert"]] * 3
    finally:
        connection.close_pool()


@pytest.mark.parametrize("atomic", [False, True])
def test_requests(log: Log, atomic: bool) -> None:
    connections.databases["default"]["ATOMIC_REQUESTS"] = atomic
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = {"X-Request-ID": "r-1", "traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    assert Client().get("/read/").status_code == 200
    Client().post("/write/7/", headers=headers)
    Client().post("/write/8/", headers={"X-Request-ID": " ", "traceparent": "00-x"})
    ((first, _), (second, _)) = log.seen()
    assert first == {
        "endpoint": "/write/<int:key>/",
        "method": "POST",
        "request_id": "r-1",
        "trace_id": trace,
    }
    assert str(uuid.UUID(second["request_id"])) == second["request_id"]
    assert "trace_id" not in second
    assert bemi.current_context() == {}


def test_asynchronous_requests(log: Log) -> None:
    async def both() -> None:
        await asyncio.gather(*(AsyncClient().post(f"/async/?{n}") for n in range(2)))

    asyncio.run(both())
    Client().post("/async/")
    seen = log.seen()
    assert [(each[0]["endpoint"], each[1]) for each in seen] == [("/async/", "insert")] * 3
    assert len({each[0]["request_id"] for each in seen}) == 3


def test_who_it_is_takes_no_query(log: Log, django_assert: Any) -> None:
    call_command("migrate", verbosity=0)
    user = User.objects.create_user("ada")
    client = Client()
    client.force_login(user)
    log.seen()
    statements = django_assert(lambda: client.post("/write/1/"))
    assert len(statements) == 1, statements
    assert [each[0]["user_id"] for each in log.seen()] == [str(user.pk)]


def test_that_we_look_at_the_session_changes_no_response(log: Log) -> None:
    """It varies by the cookie, or takes it away, where the view itself looked."""
    call_command("migrate", verbosity=0)
    with override_settings(SESSION_ENGINE="django.contrib.sessions.backends.db"):
        user, client = User.objects.create_user("ada"), Client()
        client.force_login(user)
        stale = Client()
        stale.cookies["sessionid"] = "gone" * 8
        log.seen()
        for each in (client, stale):
            response = each.post("/write/1/")
            assert (response.status_code, response.cookies) == (200, {})
            assert "Vary" not in response.headers
    first, second = (each[0].get("user_id") for each in log.seen())
    assert (first, second) == (str(user.pk), None)


@pytest.fixture
def django_assert() -> Any:
    """The statements that a function sends through Django."""

    def sent(function: Any) -> list[str]:
        found: list[str] = []

        def note(execute: Any, sql: str, *rest: Any) -> Any:
            found.append(sql)
            return execute(sql, *rest)

        with connection.execute_wrapper(note):
            function()
        return found

    return sent


def test_a_function_of_ones_own(log: Log) -> None:
    with override_settings(BEMI_CONTEXT=f"{__name__}.of_request"):
        Client().post("/write/1/", headers={"X-Tenant": "acme"})
    ((context, _),) = log.seen()
    assert (context["tenant"], context["method"]) == ("acme", "mine")


def test_a_function_of_ones_own_that_fails_is_told(log: Log) -> None:
    with (
        override_settings(BEMI_CONTEXT=f"{__name__}.fail_of_request"),
        pytest.warns(RuntimeWarning, match="ZeroDivisionError"),
    ):
        assert Client().post("/write/1/").status_code == 200
    assert [each[0]["method"] for each in log.seen()] == ["POST"]


def test_whose_context_is_taken_over(log: Log) -> None:
    with bemi.context(tenant="acme", user_id=42):
        headers = bemi.outgoing_headers()
    Client().post("/write/1/", headers=headers)
    with override_settings(BEMI={"trust": ["tenant"]}):
        Client().post("/write/1/", headers=headers)
    first, second = (each[0] for each in log.seen())
    assert "tenant" not in first
    assert "user_id" not in first | second
    assert second["tenant"] == "acme"


class _Command(BaseCommand):
    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("--command")  # a name that is an argument of ours, too

    def handle(self, **_: Any) -> None:
        Todo.objects.create()


def test_commands_name_themselves(log: Log) -> None:
    call_command(_Command(), command="x")
    assert log.seen() == [[{"job": __name__.rpartition(".")[2]}, "insert"]]


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({"BEMI": {"chek_at_commit": True}}, "no key 'chek_at_commit'; there are functions"),
        ({"BEMI": {"history": "nowhere"}}, "DATABASES has no 'nowhere'"),
        ({"BEMI": {"functions": "add_one"}}, "functions= takes names"),
        ({"BEMI": {"trust": "tenant"}}, "trust= takes names"),
        ({"BEMI_CONTEXT": "nowhere.at_all"}, "BEMI_CONTEXT: No module named 'nowhere'"),
    ],
)
def test_a_wrong_setting_is_told_at_the_start(setting: dict[str, Any], told: str) -> None:
    with override_settings(**setting), pytest.raises(ImproperlyConfigured, match=told):
        ContextMiddleware(lambda request: None)


def test_the_middleware_alone_is_refused() -> None:
    others = [app for app in settings.INSTALLED_APPS if not app.startswith("bemi")]
    with (
        override_settings(INSTALLED_APPS=others),
        pytest.raises(ImproperlyConfigured, match="INSTALLED_APPS"),
    ):
        ContextMiddleware(lambda request: None)


@pytest.fixture
def history(log: Log) -> Any:
    """Captures what was done since; it is in the database that is tracked."""
    found = config.load(environ={"BEMI_SOURCE_URL": log.url})
    init(found, full=["public.todo"], report=lambda _line: None)
    return lambda: worker.run(found, stop=threading.Event(), until_caught_up=True)


def test_the_history_is_read(history: Any) -> None:
    with bemi.context(user_id=42, job="mail"):
        todo = Todo.objects.create(task="a", n=1)
    with bemi.context(user_id=7):
        todo.task = "b"
        todo.save()
    Todo.objects.create(task="other")
    key = todo.pk
    todo.delete()
    todo.pk = key
    history()
    changes = todo.bemi_changes()
    kinds = ["CREATE", "UPDATE", "DELETE"]
    assert [each.operation for each in changes.asc()] == kinds
    assert [each.operation for each in bemi_changes(todo).desc()] == kinds[::-1]
    assert changes.created().get().context == {"user_id": 42, "job": "mail"}
    assert changes.updated().get().diff() == {"task": ("a", "b")}
    assert changes.deleted().get().before == {"id": key, "task": "b", "n": 1}
    assert [each.operation for each in changes.before(task="a")] == ["UPDATE"]
    assert [each.operation for each in changes.before_not(task="a").asc()] == ["CREATE", "DELETE"]
    assert [each.operation for each in changes.after(task="b")] == ["UPDATE"]
    assert [each.operation for each in changes.after_not(task="b").asc()] == ["CREATE", "DELETE"]
    assert [each.operation for each in changes.context(user_id=7)] == ["UPDATE"]
    assert changes.context_not(user_id=7).count() == 2
    assert changes.field_changed("task").count() == 1
    assert [(change.flags, change.rules) for change in changes] == [(None, 1)] * changes.count()
    assert changes.updated().field_changed("n").count() == 0
    assert Change.objects.of(Todo).count() == 4


def test_the_history_is_not_written(history: Any) -> None:
    Todo.objects.create()
    history()
    change = Change.objects.get()
    for attempt in (change.save, change.delete):
        with pytest.raises(NotSupportedError):
            attempt()
    with pytest.raises(DatabaseError):
        Change.objects.update(table="x")
    with pytest.raises(DatabaseError):
        Change.objects.all().delete()


def test_the_history_is_elsewhere(log: Log, history: Any) -> None:
    use("other", log.url)
    with override_settings(BEMI={"history": "other"}):
        assert Change.objects.all().db == "other"
        assert bemi_changes(Todo(pk=1)).db == "other"
    connections["other"].close()


def test_the_admin_shows_it(history: Any) -> None:
    call_command("migrate", verbosity=0)
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    with bemi.context(user_id=42, why="<b>bold</b>"):
        todo = Todo.objects.create(task="first <i>", n=4711)
        todo.task = "second"
        todo.save()
    history()
    listed = client.get("/admin/bemi/change/", {"q": "todo", "operation": "UPDATE"})
    assert listed.status_code == 200
    assert len(listed.context_data["cl"].result_list) == 1
    change = Change.objects.updated().of(Todo).get()
    assert client.get(f"/admin/bemi/change/{change.pk}/change/").status_code == 200
    assert client.post(f"/admin/bemi/change/{change.pk}/change/", {}).status_code == 403
    assert client.get("/admin/bemi/change/add/").status_code == 403
    for _ in range(2):  # the second time without the object
        page = client.get(f"/admin/bemi/todo/{todo.pk}/history/").content.decode()
        assert "first &lt;i&gt;" in page
        assert "second" in page
        assert "&lt;b&gt;bold" in page
        assert "4711" not in page, "its own page does not show that field"
        Todo.objects.filter(pk=todo.pk).delete()


def test_the_admin_shows_it_to_those_who_may(history: Any) -> None:
    call_command("migrate", verbosity=0)
    client = Client()
    client.force_login(User.objects.create_user("staff", is_staff=True))
    todo = Todo.objects.create()
    assert client.get("/admin/bemi/change/").status_code == 403
    assert client.get(f"/admin/bemi/todo/{todo.pk}/history/").status_code == 403
