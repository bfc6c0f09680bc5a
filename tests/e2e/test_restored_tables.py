"""Random tables of every type come back from the history as real tables, row by row.

A state is restored into another database, behind further changes, and each column's text there is
compared with what it was, under the same settings; `json` as JSON, since jsonb keeps neither white
space nor order. BEMI_TEST_RESTORED makes it more tables.
"""

import os
import random
import threading
from typing import Any, Final

import psycopg
import pytest
from psycopg import sql

import bemi
from bemi.capture import worker
from bemi.capture.source import STREAM_SETTINGS
from tests.conftest import MakeDatabase
from tests.e2e.test_values_come_back import _draw, _has_xml
from tests.support.kinds import APPLICATION_TYPES, NOT_READ_BACK, kinds
from tests.support.random_tables import RECORD, SCHEMAS, Table, create, run
from tests.support.row_comparison import Findings
from tests.support.tracking import position, track

Connection = psycopg.Connection[Any]

AS_JSON: Final = frozenset({"json", "d_json not null"})

TABLES: Final = int(os.environ.get("BEMI_TEST_RESTORED", "16"))


@pytest.mark.timeout(300 + 5 * TABLES)
def test_random_tables_come_back(make_database: MakeDatabase, seed: int) -> None:
    url, destination_url, target = make_database(), make_database(), make_database()
    rng = random.Random(seed)
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(APPLICATION_TYPES.encode() + RECORD.encode())
        version = conn.info.server_version // 10_000
        # What names an object is refused, and counted, where there is no such object.
        every = [
            kind
            for kind in kinds(version, xml=_has_xml(conn))
            if kind.name not in NOT_READ_BACK and not kind.name.startswith("reg")
        ]
        # Without a key, it may not be told which rows went: refused, and tested elsewhere.
        keyed = [table for table in _draw(every, rng, Findings()) if table.keyed]
        made = rng.sample(keyed, min(TABLES, len(keyed)))
        for table in made:
            for statement in create(table):
                conn.execute(statement)
    settings = track(url, destination_url, schemas=SCHEMAS)
    with psycopg.connect(url) as conn:
        run(conn, made)
    worker.run(settings, stop=threading.Event(), until_caught_up=True)
    end = position(settings) - 1
    with psycopg.connect(url, autocommit=True) as conn:
        expected = {table.log: texts(conn, table) for table in made}
        for table in made:
            conn.execute(sql.SQL("delete from {}").format(table.identifier))
    worker.run(settings, stop=threading.Event(), until_caught_up=True)
    with psycopg.connect(target, autocommit=True) as conn:
        conn.execute("create schema app")
        for name, schema in extensions(url):
            conn.execute(
                sql.SQL("create extension {} schema {}").format(
                    sql.Identifier(name), sql.Identifier(schema)
                )
            )
    with bemi.History(destination_url) as history:
        restored = history.restore(f"{end >> 32:X}/{end & 0xFFFFFFFF:X}", target)
    assert sum(each.rows for each in restored.tables) == sum(map(len, expected.values()))
    assert (restored.left_out, restored.unknown) == ((), ())
    with psycopg.connect(target, autocommit=True) as conn:
        different = [
            (table.name, row, was)
            for table in made
            for row, was in zip(texts(conn, table), expected[table.log], strict=True)
            if row != was
        ]
    print(f"{len(made)} tables, {sum(map(len, expected.values()))} rows")
    assert different == []


def texts(conn: Connection, table: Table) -> list[tuple[Any, ...]]:
    for name, value in STREAM_SETTINGS.items():
        conn.execute("select set_config(%s, %s, false)", [name, value])
    columns = [
        sql.SQL("{}::jsonb::text" if column.kind.name in AS_JSON else "{}::text").format(
            sql.Identifier(column.name)
        )
        for column in table.columns
    ]
    parts = [sql.SQL("part::text")] if table.part is not None else []
    parts += [sql.SQL("generated::text")] if table.generated is not None else []
    return conn.execute(
        sql.SQL("select {} from {} order by number").format(
            sql.SQL(", ").join([sql.SQL("number"), *parts, *columns]), table.identifier
        )
    ).fetchall()


def extensions(url: str) -> list[tuple[str, str]]:
    with psycopg.connect(url) as conn:
        return conn.execute(
            "select extname, extnamespace::regnamespace::text from pg_extension"
            " where extname <> 'plpgsql'"
        ).fetchall()
