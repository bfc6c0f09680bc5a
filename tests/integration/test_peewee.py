"""What Peewee has and drivers have not: its models, blocks and pools, over both drivers."""

from collections.abc import Iterator
from typing import Any

import peewee
import pytest
from playhouse.pool import PooledPostgresqlDatabase

import bemi
from bemi.integrations.peewee import install
from tests.support.wal import Log

ANN = {"user_id": "ann"}


class Todo(peewee.Model):
    id = peewee.AutoField()
    task = peewee.TextField(null=True)
    n = peewee.IntegerField(null=True)


@pytest.fixture
def log(log: Log) -> Log:
    bemi.set_context(ANN)
    return log


@pytest.fixture(params=[False, True], ids=["psycopg2", "psycopg"])
def database(request: pytest.FixtureRequest, log: Log) -> Iterator[Any]:
    made = peewee.PostgresqlDatabase(log.url, prefer_psycopg3=request.param)
    install(made)
    with made.bind_ctx([Todo]), made.connection_context():
        yield made


def test_models_are_saved_one_by_one(log: Log, database: Any) -> None:
    todo = Todo.create(task="a")
    todo.n = 1
    assert todo.save() == 1
    assert Todo.get_by_id(todo.id).n == 1
    todo.delete_instance()
    assert log.seen() == [[ANN, "insert"], [ANN, "update"], [ANN, "delete"]]


def test_blocks_and_savepoints(log: Log, database: Any) -> None:
    with database.atomic():
        with database.savepoint() as savepoint:
            Todo.create(task="lost")
            savepoint.rollback()
        Todo.create(task="a")
        with database.atomic(), bemi.context(job="mail"):
            Todo.create(task="b")
    with database.transaction() as transaction:
        Todo.create(task="lost")
        transaction.rollback()
        Todo.create(task="c")
    with database.manual_commit():
        database.begin()
        Todo.create(task="d")
        database.commit()
    mail = {**ANN, "job": "mail"}
    assert log.seen() == [[ANN, "insert", mail, "insert"], [ANN, "insert"], [ANN, "insert"]]
    assert log.tasks() == ["a", "b", "c", "d"]


def test_writes_in_bulk(log: Log, database: Any) -> None:
    Todo.insert_many([{"task": "a"}, {"task": "%s */ ;"}]).execute()
    Todo.bulk_create([Todo(task="c")])
    todos = [*Todo.select().order_by(Todo.id)]
    for todo in todos:
        todo.n = todo.id
    assert Todo.bulk_update(todos, [Todo.n]) == 3  # type: ignore[no-untyped-call]
    assert Todo.update(n=0).where(Todo.task == "a").execute() == 1
    gone = [*Todo.raw("delete from todo returning *")]
    assert sorted(todo.task for todo in gone) == ["%s */ ;", "a", "c"]
    assert log.seen() == [
        [ANN, "insert", "insert"],
        [ANN, "insert"],
        [ANN, "update", "update", "update"],
        [ANN, "update"],
        [ANN, "delete", "delete", "delete"],
    ]


@pytest.mark.parametrize("psycopg3", [False, True])
def test_a_pool_gives_connections_again(log: Log, psycopg3: bool) -> None:
    pool = PooledPostgresqlDatabase(log.url, prefer_psycopg3=psycopg3, max_connections=1)
    install(pool)
    with pool.bind_ctx([Todo]):
        for user in (1, 2):
            with bemi.context(user_id=user), pool.connection_context():
                Todo.create()
    pool.close_all()
    assert log.seen() == [[{"user_id": user}, "insert"] for user in (1, 2)]


def test_an_open_database(log: Log) -> None:
    database = peewee.PostgresqlDatabase(log.url)
    database.connect()
    install(database, sql=True)
    with database.bind_ctx([Todo]):
        Todo.create(task="secret")
    database.close()
    ((context, _),) = log.seen()
    assert context["SQL"].startswith('INSERT INTO "todo" ("task") VALUES (%s)')


def test_other_databases_are_refused() -> None:
    with pytest.raises(TypeError, match="SqliteDatabase"):
        install(peewee.SqliteDatabase(":memory:"))
