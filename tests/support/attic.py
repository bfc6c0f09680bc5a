"""A small history with a bit of everything, and values written by somebody who means ill."""

import json
from typing import Any, Final

import psycopg

from bemi.config import Settings
from tests.support.tracked import Tracked
from tests.support.tracking import track

HOSTILE: Final = "<script>alert('x')</script>\"'&\u202e=cmd|'/c calc'!A1\r\n\x1b[31m"
BIG: Final = 2**63 - 1
PRECISE: Final = "12345678901234567890.12345678901234567890"

SCOPES: Final = [
    {"table": "public.todo", "columns": ["id", "task"]},
    {"table": "public.pa*", "columns": None},
]
"""Of somebody who may see a part of it."""

_TABLES: Final = """
create table todo (id bigint primary key, task text, price numeric, note jsonb, done bool);
create table secret (id int primary key, owner text, pin text);
create table pair (a int, b text, n int, primary key (a, b));
create table bulk (id int primary key);
create table child (id int primary key, todo_id bigint references todo)
"""
_EMIT: Final = "select pg_logical_emit_message(true, '_bemi', %s)"

_WORK: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    (
        '{"user_id": 42, "endpoint": "/todo", "request_id": "req-1", "SQL": "insert … hidden"}',
        (
            f"insert into todo values (1, 'paint', {PRECISE}, '{{\"big\": {10**30}}}', false)",
            f"insert into todo values ({BIG}, 'far', 0.10, null, null)",
            "insert into secret values (1, 'ada', 'pinwheel')",
        ),
    ),
    (
        '{"user_id": 43, "request_id": "req-2"}',
        (
            "update todo set task = 'paint it', done = true where id = 1",
            "insert into pair values (1, 'x/y', 1), (2, 'ü', 2)",
        ),
    ),
    ("{}", ("update secret set pin = 'pinafore' where id = 1",)),
    ("{}", ("insert into bulk select generate_series(1, 1500)",)),
    ("{}", ("update todo set id = 2 where id = 1", "insert into child values (1, 2)")),
    ("{}", ("delete from pair where a = 2", "truncate bulk")),
)


def filled(source_url: str, destination_url: str) -> Settings:
    """A history with these; the source is as they leave it."""
    with psycopg.connect(source_url, autocommit=True) as conn:
        conn.execute(_TABLES.encode())
        tables = ("todo", "secret", "pair", "bulk", "child")
    settings = track(
        source_url,
        destination_url,
        tables=[f"public.{name}" for name in tables],
        full=[f"public.{name}" for name in tables if name != "bulk"],
        source="attic",
    )
    tracked = Tracked(settings)
    for context, statements in _WORK:
        _write(tracked.source, context, statements)
    with tracked.source.transaction():
        tracked.source.execute(_EMIT, [f'{{"user_id": {json.dumps(HOSTILE)}}}'])
        tracked.source.execute("update todo set task = %s where id = %s", [HOSTILE, BIG])
    tracked.catch_up()
    tracked.close()
    return settings


def _write(conn: psycopg.Connection[Any], context: str, statements: tuple[str, ...]) -> None:
    with conn.transaction():
        conn.execute(_EMIT, [context])
        for statement in statements:
            conn.execute(statement.encode())
