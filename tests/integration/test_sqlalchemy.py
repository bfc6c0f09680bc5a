"""What SQLAlchemy has and other libraries have not: its units of work, levels, pools, bulk ways."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import (
    Engine,
    bindparam,
    create_engine,
    event,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.exc import DBAPIError, InternalError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import NullPool

import bemi
from bemi.integrations.sqlalchemy import install
from tests.support.wal import Log

ANN = {"user_id": "ann"}
DRIVERS = ("psycopg", "psycopg2")


class Base(DeclarativeBase):
    pass


class Todo(Base):
    __tablename__ = "todo"

    id: Mapped[int] = mapped_column(primary_key=True)
    task: Mapped[str | None]
    n: Mapped[int | None]


def address(url: str, driver: str) -> str:
    return f"postgresql+{driver}://{url.partition('://')[2]}"


@pytest.fixture
def log(log: Log) -> Log:
    bemi.set_context(ANN)
    return log


@pytest.fixture(params=DRIVERS)
def plain(request: pytest.FixtureRequest, log: Log) -> Iterator[Engine]:
    """An engine that sends nothing yet."""
    made = create_engine(address(log.url, request.param))
    yield made
    made.dispose()


@pytest.fixture
def engine(plain: Engine) -> Engine:
    install(plain)
    return plain


def test_a_unit_of_work(log: Log, engine: Engine) -> None:
    with Session(engine) as session:
        todo = Todo(task="a")
        session.add_all([todo, Todo(task="b")])
        session.flush()
        assert (todo.id, todo.task) == (1, "a")
        todo.n = 1
        session.commit()
        session.delete(todo)
        session.commit()
    assert log.seen() == [[ANN, "insert", "insert", "update"], [ANN, "delete"]]


def test_bulk_ways(log: Log, engine: Engine) -> None:
    """Many rows with one message, their counts and keys as ever."""
    rows = [{"task": str(at)} for at in range(2500)]
    with Session(engine) as session:
        ids = session.scalars(insert(Todo).returning(Todo.id, sort_by_parameter_order=True), rows)
        assert [*ids] == [*range(1, 2501)]
        session.commit()
        session.execute(update(Todo), [{"id": at, "n": at} for at in range(1, 4)])
        session.commit()
        session.execute(update(Todo).where(Todo.id <= 2).values(n=0))
        session.commit()
    with engine.begin() as conn:
        table: Any = Todo.__table__
        result = conn.execute(
            update(table).where(table.c.id == bindparam("key")).values(n=bindparam("value")),
            [{"key": 1, "value": 5}, {"key": 2, "value": 6}],
        )
        assert result.rowcount == 2
        assert conn.execute(insert(table).values(task="z")).inserted_primary_key == (2501,)
    seen = log.seen()
    assert [each.count(ANN) for each in seen] == [1] * 4
    assert [len(each) - 1 for each in seen] == [2500, 3, 2, 3]


def test_savepoints(log: Log, engine: Engine) -> None:
    with Session(engine) as session:
        lost = session.begin_nested()
        session.add(Todo(task="lost"))
        session.flush()
        lost.rollback()
        with session.begin_nested():
            session.add(Todo(task="a"))
        session.add(Todo(task="b"))
        session.commit()
    assert log.seen() == [[ANN, "insert", "insert"]]


def test_autocommit_on_the_engine_and_on_a_connection(log: Log, engine: Engine) -> None:
    """By whatever way it is set, and for that connection only."""
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as conn:
        conn.execute(insert(Todo).values(task="a"))
        assert conn.execute(update(Todo).values(n=1)).rowcount == 1
    with engine.connect() as conn:
        conn.execution_options(isolation_level="AUTOCOMMIT")
        assert conn.execute(insert(Todo).values(task="b").returning(Todo.id)).scalar() == 2
        with pytest.raises(DBAPIError, match="division by zero"):
            conn.exec_driver_sql("insert into todo (n) values (1 / 0)")
        conn.exec_driver_sql("insert into todo (task) values ('c')")
    with engine.connect() as conn:
        conn.execute(insert(Todo).values(task="d"))
        conn.rollback()
        conn.execute(insert(Todo).values(task="e"))
        conn.execute(insert(Todo).values(task="f"))
        conn.commit()
    assert log.seen() == [
        [ANN, "insert"],
        [ANN, "update"],
        [ANN, "insert"],
        [ANN, "insert"],
        [ANN, "insert", "insert"],
    ]


def test_a_transaction_of_ones_own_in_autocommit(log: Log, engine: Engine) -> None:
    """BEGIN and COMMIT as text, as scripts have them."""
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as conn:
        for _ in range(2):
            conn.exec_driver_sql("begin")
            conn.execute(insert(Todo).values(task="a"))
            conn.execute(insert(Todo).values(task="b"))
            conn.exec_driver_sql("commit")
    assert log.seen() == [[ANN, "insert", "insert"]] * 2


def test_what_a_deferred_constraint_says_in_autocommit(log: Log, engine: Engine) -> None:
    """An error at the end of the statement's own transaction is the statement's error."""
    log.conn.execute("alter table todo add unique (task) deferrable initially deferred")
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as conn:
        with pytest.raises(DBAPIError, match="duplicate key"):
            conn.execute(text("insert into todo (task) values ('a'), ('a')"))
        conn.execute(insert(Todo).values(task="b"))
    assert log.tasks() == ["b"]
    assert log.seen() == [[ANN, "insert"]]


def test_two_phases(log: Log, engine: Engine) -> None:
    with engine.connect() as conn:
        transaction = conn.begin_twophase()
        conn.execute(insert(Todo).values(task="a"))
        transaction.commit()
        transaction = conn.begin_twophase()
        conn.execute(insert(Todo).values(task="b"))
        transaction.rollback()
        with conn.begin():
            conn.execute(insert(Todo).values(task="c"))
        transaction = conn.begin_twophase()  # in the same context as the one before
        conn.execute(insert(Todo).values(task="d"))
        transaction.commit()
    assert log.seen() == [[ANN, "insert"]] * 3


def test_connections_that_come_back(log: Log, engine: Engine) -> None:
    """A pool resets what was left open: the next user's transaction has its own message."""
    with engine.connect() as conn:
        conn.execute(insert(Todo).values(task="lost"))
    with bemi.context(user_id="bob"), engine.begin() as conn:
        conn.execute(insert(Todo).values(task="a"))
    raw = engine.raw_connection()
    raw.cursor().execute("select 1")
    raw.close()
    with engine.begin() as conn:
        conn.execute(insert(Todo).values(task="b"))
    bob = {"user_id": "bob"}
    assert log.seen() == [[bob, "insert"], [ANN, "insert"]]


def test_what_was_open_before(log: Log, plain: Engine) -> None:
    """An engine whose pool has connections already, and options made of it, send from then on."""
    options = plain.execution_options(isolation_level="AUTOCOMMIT")
    with plain.connect():
        pass
    install(plain)
    install(plain)  # again, which changes nothing
    with plain.begin() as conn:
        conn.execute(insert(Todo).values(task="a"))
    with options.connect() as conn:
        conn.execute(insert(Todo).values(task="b"))
    assert log.seen() == [[ANN, "insert"]] * 2


def test_without_a_pool(log: Log, plain: Engine) -> None:
    engine = create_engine(plain.url, poolclass=NullPool)
    install(engine)
    for _ in range(2):
        with engine.begin() as conn:
            conn.execute(insert(Todo).values(task="a"))
    assert log.seen() == [[ANN, "insert"]] * 2


def test_a_transaction_that_failed(log: Log, plain: Engine) -> None:
    """It says so itself, at the statement and at its commit."""
    install(plain, check_at_commit=True)
    with plain.connect() as conn:
        with pytest.raises(DBAPIError, match="division by zero"):
            conn.exec_driver_sql("select 1 / 0")
        with pytest.raises(InternalError, match="current transaction is aborted"):
            conn.execute(insert(Todo).values(task="a"))
        conn.commit()
        conn.execute(insert(Todo).values(task="b"))
        conn.commit()
    assert log.seen() == [[ANN, "insert"]]


def test_statements_are_not_altered(log: Log, engine: Engine) -> None:
    """Listeners of the application's see what they saw, and nothing of ours."""
    seen: list[str] = []

    @event.listens_for(engine, "before_cursor_execute")
    def note(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    with engine.begin() as conn:
        conn.execute(text("insert into todo (task) values (:task)"), {"task": "%s :x $1"})
    assert [each.partition("(")[0] for each in seen] == ["insert into todo "]
    assert log.tasks() == ["%s :x $1"]


def test_emit(log: Log, plain: Engine) -> None:
    """By hand, with a connection and with a session; not in autocommit."""
    with plain.begin() as conn:
        bemi.emit(conn)
        conn.execute(insert(Todo).values(task="a"))
    with Session(plain) as session:
        bemi.emit(session)
        session.add(Todo(task="b"))
        session.commit()
    with plain.execution_options(isolation_level="AUTOCOMMIT").connect() as conn:
        with pytest.warns(RuntimeWarning, match="autocommit"):
            bemi.emit(conn)
    assert log.seen() == [[ANN, "insert"]] * 2


def test_other_databases() -> None:
    with pytest.raises(bemi.BemiError, match="sqlite"):
        install(create_engine("sqlite://"))


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_asynchronous_sessions(log: Log, driver: str) -> None:
    async def work() -> None:
        engine = create_async_engine(address(log.url, driver))
        install(engine, check_at_commit=True)
        async with AsyncSession(engine) as session:
            todo = Todo(task="a")
            session.add(todo)
            await session.flush()
            assert todo.id == 1
            lost = await session.begin_nested()
            session.add(Todo(task="lost"))
            await session.flush()
            await lost.rollback()
            await session.execute(insert(Todo), [{"task": "b"}, {"task": "c"}])
            await session.commit()
            with pytest.raises(DBAPIError, match="division by zero"):
                await session.execute(text("select 1 / 0"))
            with pytest.raises(DBAPIError, match="current transaction is aborted"):
                await session.execute(insert(Todo).values(task="d"))
            await session.rollback()
        async with engine.connect() as conn:
            transaction = await conn.begin()
            with pytest.raises(DBAPIError, match="division by zero"):
                await conn.execute(text("select 1 / 0"))
            await transaction.commit()
        async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as conn:
            with pytest.raises(DBAPIError, match="division by zero"):
                await conn.execute(text("insert into todo (n) values (1 / 0)"))
            await conn.execute(insert(Todo).values(task="e"))
        async with engine.connect() as conn, conn.stream(select(Todo.id)) as streamed:
            assert [row.id async for row in streamed] == [1, 3, 4, 5]
        await engine.dispose()
        plain = create_async_engine(address(log.url, driver), pool_size=1, max_overflow=0)
        async with AsyncSession(plain) as session:
            await bemi.emit(session)
            session.add(Todo(task="f"))
            await session.commit()
        # What it has prepared by now is not run unseen.
        install(plain)
        async with AsyncSession(plain) as session:
            session.add(Todo(task="g"))
            await session.commit()
        await plain.dispose()

    asyncio.run(work())
    assert log.seen() == [[ANN, "insert", "insert", "insert"], *[[ANN, "insert"]] * 3]


def test_a_task_that_is_cancelled(log: Log) -> None:
    """A write that is given up in autocommit leaves no transaction open."""

    async def work() -> None:
        engine = create_async_engine(
            address(log.url, "asyncpg"), isolation_level="AUTOCOMMIT", pool_size=1, max_overflow=0
        )
        install(engine)
        async with engine.connect() as conn:
            slow = text("insert into todo (task) select 'lost' from pg_sleep(60)")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(conn.execute(slow), 0.5)
        async with engine.connect() as conn:
            await conn.execute(insert(Todo).values(task="a"))
        await engine.dispose()

    asyncio.run(work())
    assert log.seen() == [[ANN, "insert"]]
