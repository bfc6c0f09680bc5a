"""Tables of Piccolo, by its own ways of writing them."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import asyncpg
import pytest
from piccolo.columns import Integer, Serial, Text
from piccolo.engine.postgres import PostgresEngine
from piccolo.table import create_table_class

import bemi
from bemi.errors import BemiError
from bemi.integrations.piccolo import install
from tests.support.wal import Log

ANN = {"user_id": "ann"}


@pytest.fixture
def log(log: Log) -> Log:
    bemi.set_context(ANN)
    return log


@pytest.fixture
def engine(log: Log) -> PostgresEngine:
    made = PostgresEngine({"dsn": log.url})
    install(made)
    return made


@pytest.fixture
def todo(engine: PostgresEngine) -> Any:
    columns = {"id": Serial(primary_key=True), "task": Text(), "n": Integer()}
    return create_table_class("Todo", class_kwargs={"db": engine}, class_members=columns)


def in_pool(engine: PostgresEngine, act: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def used() -> None:
        await engine.start_connection_pool(min_size=1)
        try:
            await act()
        finally:
            await engine.close_connection_pool()

    asyncio.run(used())


@pytest.mark.parametrize("pool", [True, False])
def test_rows_that_are_saved(log: Log, engine: PostgresEngine, todo: Any, pool: bool) -> None:
    async def act() -> None:
        row = todo(task="a", n=1)
        await row.save()
        assert row.id == 1
        row.task = "b"
        await row.save()
        assert (await todo.objects().first()).task == "b"
        await todo.objects().get_or_create(todo.task == "c")
        assert await todo.update({todo.n: todo.n + 1}, force=True).returning(todo.n)
        await row.remove()

    if pool:
        in_pool(engine, act)
    else:
        asyncio.run(act())
    assert log.seen() == [
        [ANN, "insert"],
        [ANN, "update"],
        [ANN, "insert"],
        [ANN, "update", "update"],
        [ANN, "delete"],
    ]


def test_many_at_once(log: Log, engine: PostgresEngine, todo: Any) -> None:
    async def act() -> None:
        rows = await todo.insert(*(todo(task=task) for task in "abc"))
        assert rows == [{"id": 1}, {"id": 2}, {"id": 3}]
        await todo.delete(force=True)

    in_pool(engine, act)
    assert log.seen() == [[ANN, *["insert"] * 3], [ANN, *["delete"] * 3]]


def test_transactions_and_savepoints(log: Log, engine: PostgresEngine, todo: Any) -> None:
    async def fail() -> None:
        async with engine.transaction():
            await todo.delete(force=True)
            raise ZeroDivisionError

    async def act() -> None:
        async with engine.transaction() as transaction:
            savepoint: Any = await transaction.savepoint()
            await todo.insert(todo(task="lost"))
            await savepoint.rollback_to()
            await todo.insert(todo(task="a"))
            named: Any = await transaction.savepoint("named")
            await todo.insert(todo(task="b"))
            await named.release()
            async with engine.transaction():
                await todo.insert(todo(task="c"))
        with pytest.raises(ZeroDivisionError):
            await fail()
        atomic: Any = engine.atomic()
        atomic.add(todo.insert(todo(task="d")), todo.update({todo.n: 2}, force=True))
        await atomic.run()

    in_pool(engine, act)
    assert log.seen() == [[ANN, *["insert"] * 3], [ANN, "insert", *["update"] * 4]]
    assert sorted(log.tasks()) == ["a", "b", "c", "d"]


def test_statements_by_hand(log: Log, engine: PostgresEngine, todo: Any) -> None:
    async def act() -> None:
        insert = "insert into todo (task) values ({}) returning id"
        assert await todo.raw(insert, "*/ ' $1") == [{"id": 1}]

    in_pool(engine, act)
    assert log.seen() == [[ANN, "insert"]]
    assert log.tasks() == ["*/ ' $1"]


def test_errors_are_those_of_the_driver(log: Log, engine: PostgresEngine, todo: Any) -> None:
    async def act() -> None:
        await todo.raw("insert into todo (id) values (1)")
        with pytest.raises(asyncpg.UniqueViolationError):
            await todo.raw("insert into todo (id) values (1)")
        await todo.raw("insert into todo (id) values (2)")

    in_pool(engine, act)
    assert log.seen() == [[ANN, "insert"]] * 2


def test_without_a_loop(log: Log, todo: Any) -> None:
    todo.insert(todo(task="a")).run_sync()
    assert log.seen() == [[ANN, "insert"]]


def test_each_task_has_its_own_context(log: Log, engine: PostgresEngine, todo: Any) -> None:
    async def write(user: int) -> None:
        with bemi.context(user_id=user):
            row = todo(n=user)
            await row.save()
            async with engine.transaction():
                row.task = "a"
                await row.save()

    async def act() -> None:
        await asyncio.gather(*(write(user) for user in range(8)))

    in_pool(engine, act)
    users = [each[0]["user_id"] for each in log.seen()]
    assert sorted(users) == sorted([*range(8)] * 2)


def test_a_pool_that_is_there_is_refused(engine: PostgresEngine) -> None:
    async def act() -> None:
        with pytest.raises(BemiError, match="has connections already"):
            install(engine)

    in_pool(engine, act)
