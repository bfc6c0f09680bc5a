"""Logical messages, in which contexts travel: what PostgreSQL does with them, and the answers."""

import struct
from typing import Any

import psycopg
import pytest
from psycopg import sql

import bemi
from tests.integration.conftest import Track
from tests.integration.facts.stream import Frame, kinds, peek
from tests.support.tracked import Tracked

Connection = psycopg.Connection[Any]

TODOS = "create table todos (id int primary key, title text)"


def emit(
    conn: Connection, content: str | bytes, *, prefix: str = "_bemi", transactional: bool = True
) -> None:
    kind = "bytea" if isinstance(content, bytes) else "text"
    conn.execute(
        f"select pg_logical_emit_message(%s, %s, %s::{kind})".encode(),
        [transactional, prefix, content],
    )


def insert(conn: Connection, key: int) -> None:
    conn.execute("insert into todos values (%s, 'x')", [key])


def content(frame: Frame) -> bytes:
    """Of an M: flags, LSN, prefix, length, content."""
    assert frame.kind == "M"
    at = frame.data.index(b"\0", 10) + 1
    (length,) = struct.unpack(">I", frame.data[at : at + 4])
    assert len(frame.data) == at + 4 + length
    return frame.data[at + 4 :]


def sent(at: Tracked) -> list[Frame]:
    return peek(at.source, at.settings.slot)


def contents(at: Tracked) -> list[bytes]:
    return [content(frame) for frame in sent(at) if frame.kind == "M"]


def contexts(at: Tracked) -> dict[str, Any]:
    return {row["primary_key"]: row["context"] for row in at.changes()}


def test_a_transactional_message_has_its_place_among_the_rows(tracked: Track) -> None:
    """And none when it was rolled back, with its transaction or with a savepoint."""
    at = tracked(TODOS)
    with at.source.transaction():
        insert(at.source, 1)
        emit(at.source, '{"n": 1}')
        insert(at.source, 2)
        with at.source.transaction(force_rollback=True):
            emit(at.source, '{"n": "savepoint"}')
            insert(at.source, 98)
        insert(at.source, 3)
        emit(at.source, '{"n": 2}')
        insert(at.source, 4)
    with at.source.transaction(force_rollback=True):
        emit(at.source, '{"n": "transaction"}')
        insert(at.source, 99)
    assert kinds(sent(at), of="BIMC") == "BIMIIMIC"
    assert contents(at) == [b'{"n": 1}', b'{"n": 2}']

    assert contexts(at) == {"1": {"n": 1}, "2": {"n": 1}, "3": {"n": 1}, "4": {"n": 2}}


def test_a_message_may_be_sent_behind_the_change_that_its_record_ends_at(tracked: Track) -> None:
    """Where a savepoint is released between the two: they have one place in the log."""
    at = tracked(TODOS)
    with at.source.transaction():
        emit(at.source, '{"n": 1}')
        insert(at.source, 1)
        with at.source.transaction():
            emit(at.source, '{"n": 2}')
        insert(at.source, 2)
        insert(at.source, 3)
    assert kinds(sent(at), of="BIMC") == "BMIIMIC"

    assert contexts(at) == {"1": {"n": 1}, "2": {"n": 2}, "3": {"n": 2}}


def test_the_first_message_is_lost_with_the_savepoint_it_was_sent_in(tracked: Track) -> None:
    """Whoever rolls back to a savepoint sends the context again."""
    at = tracked(TODOS)
    with bemi.context(user_id=42):
        with at.source.transaction():
            with at.source.transaction(force_rollback=True):
                bemi.emit(at.source)
                insert(at.source, 99)
            insert(at.source, 1)
        assert contents(at) == []
        with at.source.transaction():
            with at.source.transaction(force_rollback=True):
                bemi.emit(at.source)
            bemi.emit(at.source)
            insert(at.source, 2)
    assert len(contents(at)) == 1

    assert contexts(at) == {"1": {}, "2": {"user_id": 42}}


def test_a_message_without_a_transaction_comes_at_once_and_stays(tracked: Track) -> None:
    """Before the BEGIN of the transaction that it was sent in, even if that is rolled back."""
    at = tracked(TODOS)
    with at.source.transaction():
        insert(at.source, 1)
        emit(at.source, '{"n": "aside"}', transactional=False)
        insert(at.source, 2)
    with at.source.transaction(force_rollback=True):
        emit(at.source, '{"n": "rolled back"}', transactional=False)
    insert(at.source, 3)
    assert kinds(sent(at), of="BIMC") == "MBIICMBIC"
    assert contents(at) == [b'{"n": "aside"}', b'{"n": "rolled back"}']

    assert contexts(at) == {"1": {}, "2": {}, "3": {}}
    assert at.query("select from bemi.contexts where dropped is not null") == []


def test_a_message_stays_in_the_encoding_of_the_server(tracked: Track) -> None:
    at = tracked(TODOS, encoding="LATIN1", locale="C")
    with at.source.transaction():
        emit(at.source, '{"name": "Zoë"}')
        insert(at.source, 1)
    assert contents(at) == ['{"name": "Zoë"}'.encode("latin-1")]
    assert contexts(at) == {"1": {"name": "Zoë"}}


def test_the_content_of_a_message_may_be_in_no_encoding(tracked: Track) -> None:
    """The function for bytea looks at nothing."""
    at = tracked(TODOS)
    with at.source.transaction():
        emit(at.source, b'{"name": "Zo\xeb"}')
        insert(at.source, 1)
    assert contents(at) == [b'{"name": "Zo\xeb"}']

    (row,) = at.changes()
    assert (row["context"], row["flags"]) == ({}, ["context_dropped"])
    assert at.query("select dropped, raw from bemi.contexts") == [
        {"dropped": "undecodable", "raw": b'{"name": "Zo\xeb"}'}
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [("{", "not_json"), ("[1]", "not_object"), ('{"a": "%s"}' % ("x" * (1 << 20)), "too_large")],
    ids=["not JSON", "not an object", "too large"],
)
def test_any_content_arrives(tracked: Track, text: str, reason: str) -> None:
    at = tracked(TODOS)
    with at.source.transaction():
        emit(at.source, '{"good": 1}')
        insert(at.source, 1)
        emit(at.source, text)
        insert(at.source, 2)
        emit(at.source, '{"good": 2}')
        insert(at.source, 3)
    assert contents(at)[1] == text.encode()

    rows = at.changes()
    assert [row["context"] for row in rows] == [{"good": 1}, {}, {"good": 2}]
    assert [row["flags"] for row in rows] == [None, ["context_dropped"], None]
    counted = at.query("select dropped, count(*) as n from bemi.contexts group by 1 order by 1")
    assert counted == [{"dropped": reason, "n": 1}, {"dropped": None, "n": 2}]


def test_every_role_may_send_messages(tracked: Track) -> None:
    """Until the function is revoked from PUBLIC; a context is no evidence."""
    at = tracked(TODOS)
    role = sql.Identifier(f"nobody_{at.source.info.dbname}")
    at.source.execute(sql.SQL("create role {}").format(role))
    at.source.execute(sql.SQL("grant insert on todos to {}").format(role))
    try:
        with at.connect() as nobody:
            nobody.execute(sql.SQL("set role {}").format(role))
            with nobody.transaction():
                emit(nobody, '{"user_id": "the director"}')
                insert(nobody, 1)
            revoke(at.source)
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                emit(nobody, '{"user_id": "the director"}')
            insert(nobody, 2)
    finally:
        at.source.execute(sql.SQL("drop owned by {}").format(role))
        at.source.execute(sql.SQL("drop role {}").format(role))
    assert contents(at) == [b'{"user_id": "the director"}']
    # Bemi's own messages, by which a worker finds its end, need the right as well: an owner has it.
    assert contexts(at) == {"1": {"user_id": "the director"}, "2": {}}


def revoke(conn: Connection) -> None:
    """From PUBLIC, each form that this version has; of this database only."""
    rows = conn.execute(
        "select oid::regprocedure::text from pg_proc where proname = 'pg_logical_emit_message'"
    ).fetchall()
    for (signature,) in rows:
        conn.execute(f"revoke execute on function {signature} from public".encode())
