"""`bemi.emit` puts the current context into the transaction's WAL, and never fails a write."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

import bemi
from bemi.embedded import Server


class Emitted:
    """What a slot of test_decoding says of the contexts in the WAL."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.conn = psycopg.connect(url, autocommit=True)
        self.conn.execute("create table todo (id int primary key)")
        self.slot = f"emit_{self.conn.info.dbname}"
        self.conn.execute(
            "select pg_create_logical_replication_slot(%s, 'test_decoding')", [self.slot]
        )

    def seen(self) -> list[Any]:
        """Since the last call: contexts as objects, inserts as texts, in order."""
        rows = self.conn.execute(
            "select data from pg_logical_slot_get_changes(%s, null, null, 'skip-empty-xacts', '1')",
            [self.slot],
        ).fetchall()
        found: list[Any] = []
        for (data,) in rows:
            if data.startswith("message: transactional: 1 prefix: _bemi,"):
                found.append(json.loads(data.partition("content:")[2]))
            elif data.startswith("table"):
                found.append("insert")
        return found


@pytest.fixture
def emitted(source_url: str) -> Iterator[Emitted]:
    bemi.clear_context()
    made = Emitted(source_url)
    yield made
    made.conn.close()


def test_the_context_is_in_the_transaction_before_the_write(emitted: Emitted) -> None:
    with psycopg.connect(emitted.url) as conn, bemi.context(user_id=42):
        bemi.emit(conn)
        conn.execute("insert into todo values (1)")
        with bemi.context(job="mail"):
            bemi.emit(conn)
            conn.execute("insert into todo values (2)")
    assert emitted.seen() == [
        {"user_id": 42},
        "insert",
        {"user_id": 42, "job": "mail"},
        "insert",
    ]


def test_an_empty_context_is_sent_too_so_that_an_earlier_one_ends(emitted: Emitted) -> None:
    with psycopg.connect(emitted.url) as conn:
        bemi.emit(conn)
        conn.execute("insert into todo values (1)")
    assert emitted.seen() == [{}, "insert"]


def test_hostile_values_are_data(emitted: Emitted) -> None:
    value = "*/ '; drop table todo; -- %s $1 \\ \" é\n"
    with psycopg.connect(emitted.url) as conn, bemi.context({value: value}):
        bemi.emit(conn)
        conn.execute("insert into todo values (1)")
    assert emitted.seen() == [{value: value}, "insert"]


def test_an_asynchronous_connection_is_awaited(emitted: Emitted) -> None:
    async def write() -> None:
        async with await psycopg.AsyncConnection.connect(emitted.url) as conn:
            with bemi.context(user_id=42):
                await bemi.emit(conn)
                await conn.execute("insert into todo values (1)")

    asyncio.run(write())
    assert emitted.seen() == [{"user_id": 42}, "insert"]


def test_autocommit_outside_of_a_transaction_warns_and_sends_nothing(emitted: Emitted) -> None:
    with psycopg.connect(emitted.url, autocommit=True) as conn, bemi.context(user_id=42):
        with pytest.warns(RuntimeWarning, match="outside of a transaction") as caught:
            bemi.emit(conn)
        assert caught[0].filename == __file__
        with conn.transaction():
            bemi.emit(conn)
            conn.execute("insert into todo values (1)")
    assert emitted.seen() == [{"user_id": 42}, "insert"]


def test_a_failed_transaction_keeps_its_own_error(emitted: Emitted) -> None:
    with psycopg.connect(emitted.url) as conn, bemi.context(user_id=42):
        with pytest.raises(psycopg.errors.DivisionByZero):
            conn.execute("select 1 / 0")
        bemi.emit(conn)
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            conn.execute("select 1")


def test_a_read_only_transaction_and_row_factories_are_no_obstacle(emitted: Emitted) -> None:
    with psycopg.connect(emitted.url, row_factory=psycopg.rows.dict_row) as conn:
        conn.read_only = True
        bemi.emit(conn)
        assert conn.execute("select 1 as one").fetchone() == {"one": 1}


def test_a_context_outside_of_the_servers_encoding_fails_no_write(
    server: Server, make_database: Any
) -> None:
    url = make_database("emit_latin1", encoding="LATIN1", locale="C")
    emitted = Emitted(url)
    with psycopg.connect(url) as conn, bemi.context(user="木 😀 \0"):
        bemi.emit(conn)
        conn.execute("insert into todo values (1)")
    context, insert = emitted.seen()
    emitted.conn.close()
    assert (context["user"], insert) == ("木 😀 \ufffd", "insert")


def test_a_large_context_arrives_whole(emitted: Emitted) -> None:
    with psycopg.connect(emitted.url) as conn, bemi.context(body="x" * 1_048_000):
        bemi.emit(conn)
        conn.execute("insert into todo values (1)")
    assert emitted.seen()[0] == {"body": "x" * 1_048_000}
