"""When a context is sent: once per transaction that writes, and again when it has to be."""

import json
import threading
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import peewee
import pytest
import sqlalchemy

import bemi
from bemi.context import notice
from bemi.context.lazy import Lazy
from bemi.context.sender import Sender


@pytest.fixture(autouse=True)
def no_context() -> Iterator[None]:
    bemi.clear_context()
    yield
    bemi.clear_context()


class Session:
    """A connection of which only the sender is there: what it would send, in order."""

    def __init__(self, *, autocommit: bool = False, **options: object) -> None:
        self.sender = Sender(**options)  # type: ignore[arg-type]
        self.sender.allowed = True
        self.autocommit = autocommit
        self.open = False
        self.sent: list[object] = []

    def run(self, *texts: str, fails: bool = False) -> list[object]:
        """What was sent before each of these statements; None: nothing. `fails`: all of them."""
        before = len(self.sent)
        for text in texts:
            statement = self.sender.statement(text)
            due = self.sender.due(
                statement, in_transaction=self.open, autocommit=self.autocommit, text=text
            )
            self.sent.append(None if due is None else json.loads(due.content))
            if due is not None:
                assert due.wrap is (self.autocommit and not self.open)
                self.sender.sent(due)
            (self.sender.failed if fails else self.sender.ran)(statement)
            controls = {control for control, _ in statement.controls}
            self.open = (self.open or not self.autocommit or "begin" in controls) and (
                not controls & {"end", "rollback"}
            )
        return self.sent[before:]


WRITE = "insert into t values (1)"
CASES = Path(__file__).parents[2] / "spec" / "context-cases" / "sending.json"


@pytest.mark.parametrize("case", json.loads(CASES.read_text()), ids=lambda case: case["name"])
def test_sending_follows_the_spec(case: dict[str, Any]) -> None:
    at = Session(autocommit=True, **case.get("options", {}))
    for step in case["steps"]:
        with bemi.context(step["context"]):
            sent = at.run(step["run"], fails=step.get("fails", False))
        assert sent == [step.get("sends")], step


def test_once_per_transaction_before_the_first_write() -> None:
    at = Session()
    with bemi.context(user_id=1):
        assert at.run("select 1", WRITE, "select 1", WRITE) == [None, {"user_id": 1}, None, None]
        assert at.run("commit", "select 1", "commit") == [None] * 3
        assert at.run(WRITE) == [{"user_id": 1}]


def test_again_when_it_changed_and_not_when_it_is_as_it_was() -> None:
    at = Session()
    with bemi.context(user_id=1):
        at.run(WRITE)
        with bemi.context(job="mail"):
            assert at.run("select 1", WRITE) == [None, {"user_id": 1, "job": "mail"}]
        with bemi.context(user_id=1, job="mail"):
            assert at.run(WRITE) == [None]
        assert at.run(WRITE, WRITE) == [{"user_id": 1}, None]
    assert at.run(WRITE) == [{}], "an earlier one ends"


def test_no_context_sends_nothing() -> None:
    assert Session().run(WRITE, "commit", WRITE) == [None] * 3


def test_a_savepoint_that_was_rolled_back_took_it_along() -> None:
    at = Session()
    with bemi.context(user_id=1):
        assert at.run("savepoint a", WRITE, "rollback to a", WRITE) == [
            None,
            {"user_id": 1},
            None,
            {"user_id": 1},
        ]


def test_what_was_sent_before_a_savepoint_stays() -> None:
    at = Session()
    with bemi.context(user_id=1):
        at.run(WRITE, "savepoint a", "savepoint b", WRITE)
        assert at.run("rollback to b", WRITE, "rollback to a", WRITE) == [None] * 4
        with bemi.context(job="mail"):
            at.run(WRITE)
        assert at.run("rollback to a", WRITE) == [None, None]


def test_a_released_savepoint_keeps_it() -> None:
    at = Session()
    with bemi.context(user_id=1):
        at.run("savepoint a", "savepoint b", WRITE, "release b")
        assert at.run(WRITE, "rollback to a", WRITE) == [None, None, {"user_id": 1}]


def test_savepoints_of_one_name_hide_each_other() -> None:
    at = Session()
    with bemi.context(user_id=1):
        at.run("savepoint a", WRITE, "savepoint a")
        assert at.run("rollback to a", WRITE, "release a") == [None] * 3
        assert at.run("rollback to a", WRITE) == [None, {"user_id": 1}]


def test_back_to_a_savepoint_that_nobody_saw() -> None:
    at = Session()
    with bemi.context(user_id=1):
        at.run(WRITE)
        assert at.run("rollback to unseen", WRITE) == [None, {"user_id": 1}]


def test_autocommit_sends_it_with_each_write() -> None:
    at = Session(autocommit=True)
    with bemi.context(user_id=1):
        assert at.run(WRITE, "select 1", WRITE) == [{"user_id": 1}, None, {"user_id": 1}]
        assert at.run("begin", WRITE, WRITE, "commit") == [None, {"user_id": 1}, None, None]
        assert at.run("vacuum t", "create index concurrently i on t (a)") == [None, None]


def test_sql_goes_with_its_changes_and_never_into_reads() -> None:
    at = Session(sql=True)
    with bemi.context(user_id=1):
        assert at.run("select 1", WRITE, WRITE, "delete from t") == [
            None,
            {"user_id": 1, "SQL": WRITE},
            None,
            {"user_id": 1, "SQL": "delete from t"},
        ]
    assert at.run(WRITE) == [{"SQL": WRITE}]


def test_functions_count_when_they_are_named() -> None:
    at = Session(functions=["app.close_month"])
    with bemi.context(user_id=1):
        assert at.run("select other()", "select app.close_month()") == [None, {"user_id": 1}]


def test_values_are_found_out_once_and_only_for_writes() -> None:
    calls: list[int] = []

    def user() -> int:
        calls.append(1)
        return len(calls)

    one, other = Session(), Session()
    with bemi.context(user_id=user):
        one.run("select 1")
        assert calls == []
        assert one.run(WRITE, "commit", WRITE) == [{"user_id": 1}, None, {"user_id": 1}]
        with bemi.context(job="mail"):
            assert other.run(WRITE) == [{"user_id": 1, "job": "mail"}]
    assert calls == [1]


def test_a_function_that_fails_or_needs_itself_is_named_instead() -> None:
    at = Session()

    def fails() -> int:
        raise RuntimeError

    with bemi.context(a=fails, b=lambda: at.run(WRITE)):
        (sent, *_) = at.run(WRITE)[-1:]
    assert isinstance(sent, dict)
    assert sent["a"] == "Lazy"
    assert "a" in sent["_bemi"]["replaced"]


def test_a_role_that_may_not_send_is_told_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notice, "_told", set())
    first, second = Sender(), Session()
    with pytest.warns(RuntimeWarning, match="grant execute on function f"):
        assert first.checked((False, False, "f", True)) is False
    second.sender.allowed = None
    assert second.sender.checked((False, False, "f", True)) is False, (
        "without a warning, an error here"
    )
    with bemi.context(user_id=1):
        assert second.run(WRITE) == [None]


def test_a_standby_is_told_of_once_and_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notice, "_told", set())
    at = Sender()
    with pytest.warns(RuntimeWarning, match="the server is a standby"):
        assert at.checked((True, False, "f", False)) is False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert at.checked((True, False, "f", False)) is False
        assert at.allowed is None
        assert at.checked((False, True, "f", True)) is True


def test_a_role_that_was_changed_is_asked_again() -> None:
    at = Sender()
    at.allowed = True
    told: list[bool | None] = []
    for text in ("set role ann", "commit", "commit"):  # the first takes back what was set locally
        at.ran(at.statement(text))
        told.append(at.allowed)
        at.allowed = False
    assert told == [None, None, False]


def test_without_logical_decoding_it_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notice, "_told", set())
    with pytest.warns(RuntimeWarning, match="wal_level is not logical"):
        assert Sender().checked((False, True, "f", False)) is False


def test_where_warnings_are_errors_it_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(notice, "_told", set())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Sender().checked((False, False, "f", True)) is False
    assert "grant execute on function f" in caplog.text


def test_after_a_failure_it_is_not_known_what_was_sent() -> None:
    at = Session()
    with bemi.context(user_id=1):
        assert at.run(WRITE, WRITE) == [{"user_id": 1}, None]
        at.sender.failed(at.sender.statement(WRITE))
        assert at.run(WRITE, WRITE) == [{"user_id": 1}, None]
    at.sender.failed(at.sender.statement(WRITE))
    assert at.run(WRITE) == [{}], "what may have been sent ends"


def test_a_commit_that_fails_ends_the_transaction() -> None:
    at = Session()
    with bemi.context(user_id=1):
        at.run(WRITE)
        at.sender.failed(at.sender.statement("commit"))
        assert at.run(WRITE) == [{"user_id": 1}]


def test_a_savepoint_that_nobody_saw_may_have_taken_it_along() -> None:
    at = Session()
    with bemi.context(user_id=1):
        assert at.run(WRITE, "rollback to a", WRITE) == [{"user_id": 1}, None, {"user_id": 1}]
    at = Session()
    with bemi.context(user_id=1):
        at.run(WRITE, "rollback to a")
    assert at.run(WRITE) == [{}]


def test_begin_in_a_transaction_changes_nothing() -> None:
    at = Session()
    with bemi.context(user_id=1):
        assert at.run(WRITE, "begin", WRITE) == [{"user_id": 1}, None, None]


def test_emit_sends_what_the_sender_would() -> None:
    with bemi.context(password="p"):
        assert json.loads(Sender(redact=False).now().content) == {"password": "p"}
        assert json.loads(Sender().now().content)["password"] == "***"


def test_a_lazy_value_is_found_out_once_whoever_asks() -> None:
    asked: list[int] = []
    met = threading.Barrier(4)

    def slow() -> int:
        asked.append(1)
        threading.Event().wait(0.05)
        return 7

    lazy = Lazy(slow)
    found: list[object] = []

    def ask() -> None:
        met.wait()
        found.append(lazy())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert (found, asked) == ([7] * 4, [1])


def test_none_settles_nothing_where_it_is_not_known_yet() -> None:
    answers = [None, 7, 8]
    lazy = Lazy(lambda: answers.pop(0), settles=False)
    assert [lazy(), lazy(), lazy()] == [None, 7, 7]


def test_who_rolls_back_is_not_asked_what_was_written() -> None:
    at = Session(check_at_commit=True)
    with bemi.context(user_id=1):
        assert at.run("select 1", "rollback") == [None, None]
        assert at.run("select 1", "commit") == [None, {"user_id": 1}]


@pytest.mark.parametrize("functions", ["add_one", ["add_one()"], [1], [""]])
def test_functions_that_are_no_names_are_refused(functions: Any) -> None:
    with pytest.raises(TypeError, match="functions= takes names"):
        Sender(functions=functions)


def test_an_option_that_there_is_not_is_refused() -> None:
    with pytest.raises(TypeError, match="no option functons; there are functions, check_at"):
        Sender(functons=["add_one"])


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("psycopg", "is no connection or cursor of psycopg"),
        ("psycopg2", "is no connection of psycopg2"),
        ("asyncpg", "is no connection of asyncpg"),
        ("sqlalchemy", "is no engine of SQLAlchemy"),
        ("peewee", "is no synchronous database of Peewee"),
        ("piccolo", "is no engine of Piccolo"),
        ("celery", "is no application of Celery"),
    ],
)
def test_what_an_integration_is_not_for_is_refused(name: str, told: str) -> None:
    with pytest.raises(TypeError, match=f"object {told}"):
        import_module(f"bemi.integrations.{name}").install(object())


@pytest.mark.parametrize("name", ["asyncpg", "sqlalchemy", "peewee"])
def test_a_misspelt_option_is_told_before_there_is_a_connection(name: str) -> None:
    integration = import_module(f"bemi.integrations.{name}")
    of = {
        "asyncpg": lambda: integration.connection_class(functons=[]),
        "sqlalchemy": lambda: integration.install(
            sqlalchemy.create_engine("postgresql+psycopg://"), functons=[]
        ),
        "peewee": lambda: integration.install(peewee.PostgresqlDatabase("shop"), functons=[]),
    }
    with pytest.raises(TypeError, match="no option functons"):
        of[name]()
