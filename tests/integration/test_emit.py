"""`bemi.emit` puts the current context into the transaction's WAL, and never fails a write."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import asyncpg
import psycopg
import psycopg2
import pytest
import sqlalchemy

import bemi
from bemi.context import notice
from bemi.embedded import Server
from tests.support.wal import Log

INSERT = "insert into todo (n) values (1)"


def told(log: Log) -> list[Any]:
    """Since the last call: contexts as objects, writes by their names, in order."""
    return [each for transaction in log.seen() for each in transaction]


def test_the_context_is_in_the_transaction_before_the_write(log: Log) -> None:
    with psycopg.connect(log.url) as conn, bemi.context(user_id=42):
        bemi.emit(conn)
        conn.execute("insert into todo values (1)")
        with bemi.context(job="mail"):
            bemi.emit(conn)
            conn.execute("insert into todo values (2)")
    assert told(log) == [
        {"user_id": 42},
        "insert",
        {"user_id": 42, "job": "mail"},
        "insert",
    ]


def test_an_empty_context_is_sent_too_so_that_an_earlier_one_ends(log: Log) -> None:
    with psycopg.connect(log.url) as conn:
        bemi.emit(conn)
        conn.execute("insert into todo values (1)")
    assert told(log) == [{}, "insert"]


def test_hostile_values_are_data(log: Log) -> None:
    value = "*/ '; drop table todo; -- %s $1 \\ \" é\n"
    with psycopg.connect(log.url) as conn, bemi.context({value: value}):
        bemi.emit(conn)
        conn.execute("insert into todo values (1)")
    assert told(log) == [{value: value}, "insert"]


def test_an_asynchronous_connection_is_awaited(log: Log) -> None:
    async def write() -> None:
        async with await psycopg.AsyncConnection.connect(log.url) as conn:
            with bemi.context(user_id=42):
                await bemi.emit(conn)
                await conn.execute("insert into todo values (1)")

    asyncio.run(write())
    assert told(log) == [{"user_id": 42}, "insert"]


def test_autocommit_outside_of_a_transaction_warns_and_sends_nothing(log: Log) -> None:
    with psycopg.connect(log.url, autocommit=True) as conn, bemi.context(user_id=42):
        with pytest.warns(RuntimeWarning, match="outside of a transaction") as caught:
            bemi.emit(conn)
        assert caught[0].filename == __file__
        with conn.transaction():
            bemi.emit(conn)
            conn.execute("insert into todo values (1)")
    assert told(log) == [{"user_id": 42}, "insert"]


def test_a_failed_transaction_keeps_its_own_error(log: Log) -> None:
    with psycopg.connect(log.url) as conn, bemi.context(user_id=42):
        with pytest.raises(psycopg.errors.DivisionByZero):
            conn.execute("select 1 / 0")
        bemi.emit(conn)
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            conn.execute("select 1")


def test_a_read_only_transaction_and_row_factories_are_no_obstacle(log: Log) -> None:
    with psycopg.connect(log.url, row_factory=psycopg.rows.dict_row) as conn:
        conn.read_only = True
        bemi.emit(conn)
        assert conn.execute("select 1 as one").fetchone() == {"one": 1}


def test_a_context_outside_of_the_servers_encoding_fails_no_write(
    server: Server, make_database: Any
) -> None:
    url = make_database("emit_latin1", encoding="LATIN1", locale="C")
    log = Log(url)
    with psycopg.connect(url) as conn, bemi.context(user="木 😀 \0"):
        bemi.emit(conn)
        conn.execute("insert into todo values (1)")
    context, insert = told(log)
    log.close()
    assert (context["user"], insert) == ("木 😀 \ufffd", "insert")


def test_a_large_context_arrives_whole(log: Log) -> None:
    with psycopg.connect(log.url) as conn, bemi.context(body="x" * 1_048_000):
        bemi.emit(conn)
        conn.execute("insert into todo values (1)")
    assert told(log)[0] == {"body": "x" * 1_048_000}


async def _through_psycopg_async(url: str) -> None:
    async with await psycopg.AsyncConnection.connect(url) as conn:
        for _ in range(2):
            await bemi.emit(conn)
            await conn.execute(INSERT)


async def _through_asyncpg(url: str) -> None:
    conn = await asyncpg.connect(url)
    try:
        async with conn.transaction():
            for _ in range(2):
                await bemi.emit(conn)
                await conn.execute(INSERT)
    finally:
        await conn.close()


def _through_psycopg(url: str) -> None:
    with psycopg.connect(url) as conn:
        for _ in range(2):
            bemi.emit(conn)
            conn.execute(INSERT)


def _through_psycopg2(url: str) -> None:
    with contextlib.closing(psycopg2.connect(url)) as conn:
        for _ in range(2):
            bemi.emit(conn)
            conn.cursor().execute(INSERT)
        conn.commit()


def _through_sqlalchemy(url: str) -> None:
    engine = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as conn:
        for _ in range(2):
            bemi.emit(conn)
            conn.execute(sqlalchemy.text(INSERT))
    engine.dispose()


WAYS: list[Callable[[str], None]] = [
    _through_psycopg,
    lambda url: asyncio.run(_through_psycopg_async(url)),
    _through_psycopg2,
    lambda url: asyncio.run(_through_asyncpg(url)),
    _through_sqlalchemy,
]
NAMES = ["psycopg", "psycopg, async", "psycopg2", "asyncpg", "sqlalchemy"]


@pytest.mark.parametrize("write", WAYS, ids=NAMES)
def test_each_kind_of_connection(log: Log, write: Callable[[str], None]) -> None:
    with bemi.context(user_id=42):
        write(log.url)
    assert told(log) == [{"user_id": 42}, "insert"] * 2


@pytest.mark.parametrize("write", WAYS, ids=NAMES)
def test_a_role_that_may_not_send_is_told_of_and_writes_on(
    log: Log, write: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notice, "_told", set())
    with (
        log.not_allowed() as url,
        bemi.context(user_id=42),
        pytest.warns(RuntimeWarning, match="grant execute on function"),
    ):
        write(url)
    assert told(log) == ["insert", "insert"]


def test_what_is_no_connection_is_refused() -> None:
    engine = sqlalchemy.create_engine("sqlite://")
    with pytest.raises(TypeError, match="Engine is no connection or session"):
        bemi.emit(engine)
    with engine.connect() as conn, pytest.raises(bemi.BemiError, match="sqlite"):
        bemi.emit(conn)
    with pytest.raises(bemi.BemiError, match="does not know connections of the type int"):
        bemi.emit(1)
