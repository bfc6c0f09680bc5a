"""Models of Tortoise ORM, by its own ways of saving them."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tortoise import Tortoise, connections
from tortoise.exceptions import IntegrityError
from tortoise.expressions import F
from tortoise.transactions import atomic, in_transaction

import bemi
from bemi.errors import BemiError
from bemi.integrations.tortoise import tracked
from tests.conformance.clients.tortoise import Todo
from tests.support.wal import Log

ANN = {"user_id": "ann"}


@pytest.fixture
def log(log: Log) -> Log:
    bemi.set_context(ANN)
    return log


def use(log: Log, act: Callable[[], Awaitable[None]], **options: Any) -> None:
    async def used() -> None:
        await Tortoise.init(
            config={
                "connections": {"default": tracked(log.url, **options)},
                "apps": {"models": {"models": [Todo.__module__]}},
            }
        )
        try:
            await act()
        finally:
            await Tortoise.close_connections()

    asyncio.run(used())


def test_models_that_are_saved(log: Log) -> None:
    async def act() -> None:
        todo = await Todo.create(task="a", n=1)
        assert todo.id == 1
        todo.task = "b"
        await todo.save()
        assert (await Todo.get(id=1)).task == "b"
        _, created = await Todo.update_or_create(defaults={"n": 2}, task="b")
        assert not created
        _, created = await Todo.get_or_create(task="c")
        assert created
        await todo.delete()

    use(log, act)
    assert log.seen() == [
        [ANN, "insert"],
        [ANN, "update"],
        [ANN, "update"],
        [ANN, "insert"],
        [ANN, "delete"],
    ]


def test_many_at_once(log: Log) -> None:
    async def act() -> None:
        await Todo.bulk_create([Todo(task="a"), Todo(task="b"), Todo(task="c")])
        todos = await Todo.all()
        for todo in todos:
            todo.n = todo.id
        assert await Todo.bulk_update(todos, fields=["n"]) == 3
        assert await Todo.filter(n__gt=1).update(n=F("n") + 1) == 2
        assert await Todo.all().delete() == 3

    use(log, act)
    seen = log.seen()
    assert [each[0] for each in seen] == [ANN] * 4
    assert [each[1:] for each in seen] == [
        ["insert"] * 3,
        ["update"] * 3,
        ["update"] * 2,
        ["delete"] * 3,
    ]


def test_transactions_in_transactions(log: Log) -> None:
    @atomic()
    async def rename(task: str) -> None:
        await Todo.all().update(task=task)

    async def fail() -> None:
        async with in_transaction():
            await Todo.create(task="lost")
            raise ZeroDivisionError

    async def act() -> None:
        async with in_transaction():
            with pytest.raises(ZeroDivisionError):
                await fail()
            await Todo.create(task="a")
            async with in_transaction() as inner:
                await Todo.create(task="b", using_db=inner)
            await rename("c")
        await rename("d")
        with pytest.raises(ZeroDivisionError):
            await fail()

    use(log, act)
    assert log.seen() == [
        [ANN, "insert", "insert", "update", "update"],
        [ANN, "update", "update"],
    ]
    assert log.tasks() == ["d", "d"]


def test_statements_by_hand(log: Log) -> None:
    async def act() -> None:
        client = connections.get("default")
        insert = "insert into todo (task) values ($1) returning id"
        assert await client.execute_query_dict(insert, ["a"]) == [{"id": 1}]
        await client.execute_script("update todo set n = 1; update todo set n = 2")
        update = "with x as (update todo set n = 3 returning *) select * from x"
        rows: list[Todo] = await Todo.raw(update)
        assert [row.n for row in rows] == [3]

    use(log, act)
    assert log.seen() == [[ANN, "insert"], [ANN, "update", "update"], [ANN, "update"]]


def test_errors_are_those_of_tortoise(log: Log) -> None:
    async def act() -> None:
        await Todo.create(id=1)
        with pytest.raises(IntegrityError):
            await Todo.create(id=1)
        await Todo.create(id=2)

    use(log, act)
    assert log.seen() == [[ANN, "insert"]] * 2


def test_each_task_has_its_own_context(log: Log) -> None:
    async def write(user: int) -> None:
        with bemi.context(user_id=user):
            todo = await Todo.create(n=user)
            async with in_transaction():
                todo.task = "a"
                await todo.save()

    async def act() -> None:
        await asyncio.gather(*(write(user) for user in range(8)))

    use(log, act)
    rows = log.conn.execute("select count(*) from todo").fetchone()
    assert rows == (8,)
    users = [each[0]["user_id"] for each in log.seen()]
    assert sorted(users) == sorted([*range(8)] * 2)


def test_options(log: Log) -> None:
    async def act() -> None:
        await Todo.create(task="secret")

    use(log, act, sql=True)
    (((context, _)),) = log.seen()
    assert context["SQL"].startswith('INSERT INTO "todo"')
    assert "secret" not in context["SQL"]


def test_a_mapping_stays_as_it_was() -> None:
    given = {"engine": "tortoise.backends.asyncpg", "credentials": {"host": "db"}}
    made = tracked(given)
    assert given["credentials"] == {"host": "db"}
    assert made["credentials"]["host"] == "db"


def test_other_engines_are_refused() -> None:
    with pytest.raises(BemiError, match="the engine tortoise"):
        tracked("psycopg://localhost/db")
