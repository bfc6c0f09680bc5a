"""Casting a stored row back to its table's type gives a row equal to the original, for every type.

A case is one change, the insert, update or delete of one row of a random table: 2,000 of them, or
BEMI_TEST_CASES. The source's triggers keep each row before and after as the row that it was. The
images of the change are cast back by the destination's `populate`, in a session whose settings are
unlike those that they were written under, and compared byte by byte (`record_image_eq`): sizes of
numerics, signs of zeros, bounds of arrays and all. Besides, the worker's own inverse (`text_form`)
must give each value's text, byte by byte. In the end the rows that are left are read by a baseline,
whose images are cast back and compared with them in the same way.

Exceptions:

- `json` in its natural form is compared as JSON, with numbers by their value and sign, because
  jsonb keeps neither white space nor the order of keys; in its text form, as text, but where the
  old row is taken from the history itself, which may have had it in its natural form.
- `xml` is compared as PostgreSQL writes it: the declaration of an encoding is no part of that.
- A generated column does not come through the stream before PostgreSQL 18: it comes back as null.
- A column that the flags call unknown may be missing, in tables that are not REPLICA IDENTITY FULL.
- What the types in NOT_READ_BACK hold is kept as text: PostgreSQL itself reads it from nowhere.
"""

import itertools
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import hypothesis
import psycopg
import pytest

from bemi.capture import worker
from bemi.capture.catalog import Catalog
from bemi.capture.encodings import encoding_of
from bemi.capture.source import STREAM_SETTINGS
from bemi.embedded import Server
from tests.conftest import MakeDatabase
from tests.support import databases
from tests.support.baselines import take
from tests.support.kinds import APPLICATION_TYPES, NOT_READ_BACK, Kind, kinds
from tests.support.random_tables import RECORD, SCHEMAS, Table, create, numbered, run, tables
from tests.support.row_comparison import Findings, count, report, rows, snapshots, texts
from tests.support.tracking import track

Connection = psycopg.Connection[Any]

CASES: Final = int(os.environ.get("BEMI_TEST_CASES", "2000"))

_WANTED: Final = 3
"""Kinds that a table is made for."""
_TABLES: Final = 6
"""Tables for each so many kinds, half of them with arrays."""

_MANY: Final = 20_000
"""Cases after which each kind was updated, and set to its limits, whatever the seed."""

_KEYS: Final = (
    "numeric(30,10)",
    "bigint",
    "text",
    "varchar(10)",
    "char(5)",
    "citext",
    "bytea",
    "uuid",
    "date",
    "timestamptz",
    "double precision",
    "interval",
    "mood",
    "int4range",
    "boolean",
    "name",
)
"""Kinds that a key's second column may have."""

_UNLIKE: Final = {
    "datestyle": "German, DMY",
    "intervalstyle": "sql_standard",
    "timezone": "Asia/Kathmandu",
    "bytea_output": "escape",
    "extra_float_digits": "0",
    "xmloption": "document",
    "array_nulls": "off",
    "search_path": "app, public, pg_catalog",
    "quote_all_identifiers": "on",
}


@pytest.mark.timeout(max(600, CASES // 10))
def test_values_come_back(make_database: MakeDatabase, server: Server, seed: int) -> None:
    found = Findings()
    began = time.monotonic()
    rounds = 0
    while found.cases < CASES:
        name = databases.unused_name("values")
        _round(make_database(name), f"{seed}/{rounds}", found)
        databases.drop(server, name)
        rounds += 1
    print(report(found, seed, time.monotonic() - began))
    assert not found.differences, "\n".join(found.differences[:20])
    with psycopg.connect(server.url()) as conn:
        sends_generated = conn.info.server_version >= 180000
    # The history has seen all of the rows from their beginning: it has to know the old ones.
    assert set(found.missing) <= (set() if sends_generated else {"generated"})
    assert found.in_baselines
    for kind, counts in found.counts.items():
        plain = counts["values"] - counts["array"]
        assert plain, f"{kind} was not tried"
        assert counts["array"], f"arrays of {kind} were not tried"
        if CASES >= _MANY:  # by then, only by a mistake
            assert counts["update"], f"no update of {kind} was tried"
            assert counts["limit"], f"no limit of {kind} was tried"


def _round(url: str, seed: str, found: Findings) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(APPLICATION_TYPES.encode() + RECORD.encode())
        version = conn.info.server_version // 10_000
        made = _draw(kinds(version, xml=_has_xml(conn)), random.Random(seed), found)
        with conn.transaction():
            for table in made:
                for statement in create(table):
                    conn.execute(statement)
    settings = track(url, url, schemas=SCHEMAS)
    with psycopg.connect(url) as conn:
        run(conn, made)
    worker.run(settings, stop=threading.Event(), until_caught_up=True)
    with (
        psycopg.connect(url, autocommit=True) as unlike,
        psycopg.connect(url, autocommit=True) as as_stream,
    ):
        for session, given in ((unlike, _UNLIKE), (as_stream, STREAM_SETTINGS)):
            for name, value in given.items():
                session.execute("select set_config(%s, %s, false)", [name, value])
        catalog = Catalog(as_stream, encoding_of("UTF8"), settings.publication)
        for table in made:
            differences = [*rows(unlike, table, found), *texts(as_stream, catalog, table)]
            found.differences += differences
            found.cases += len(table.changes)
            if not differences:
                count(table, found)
        # So few at a time that it goes on behind keys of every kind.
        for result in take(settings, chosen=lambda _: True, rows=3):
            found.differences += [f"{result.table}: {result.error}"] if result.error else []
        for table in made:
            found.differences += snapshots(unlike, table, found)


def _draw(all_kinds: Sequence[Kind], rng: random.Random, found: Findings) -> list[Table]:
    """Tables in which each kind is wanted some times."""
    for kind in all_kinds:
        found.counts.setdefault(kind.name, Counter())
    shuffled = list(all_kinds)
    rng.shuffle(shuffled)
    keys = [kind for kind in all_kinds if kind.name in _KEYS]
    made: list[Table] = []

    def add(table: Table) -> None:
        made.append(numbered(table, len(made)))

    groups = [shuffled[at : at + _WANTED] for at in range(0, len(shuffled), _WANTED)]
    for wanted, arrays in itertools.product(groups, (False, True)):
        strategy = tables(wanted, all_kinds, keys, arrays=arrays)
        settings = hypothesis.settings(
            max_examples=_TABLES // 2,
            phases=[hypothesis.Phase.generate],
            database=None,
            deadline=None,
            derandomize=False,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        hypothesis.seed(rng.randrange(1 << 32))(settings(hypothesis.given(strategy)(add)))()
    return made


def _has_xml(conn: Connection) -> bool:
    try:
        conn.execute("select '<a/>'::xml")
    except psycopg.errors.FeatureNotSupported:
        return False
    return True


def test_no_type_is_left_out(server: Server) -> None:
    """Every built-in type that a column can have is tried above, or is one that can't be read."""
    with psycopg.connect(server.url()) as conn:
        version = conn.info.server_version // 10_000
        built_in = conn.execute(
            """select typname from pg_type
            where typnamespace = 'pg_catalog'::regnamespace and typtype in ('b', 'r', 'm')
            and typinput <> 'array_in'::regproc"""
        ).fetchall()
        tried = set()
        for kind in kinds(version, xml=True):
            row = conn.execute(
                "select t.typname from pg_type t where t.oid = to_regtype(%s)", [kind.sql]
            ).fetchone()
            tried |= {row[0]} if row else set()
    names = {row[0] for row in built_in}
    assert names == tried | (NOT_READ_BACK & names)


def test_what_postgresql_does_not_read_back_is_kept_as_text(make_database: MakeDatabase) -> None:
    url = make_database()
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(
            """create schema app;
            create table app.t (id int primary key default 7, tree pg_node_tree)"""
        )
        settings = track(url, url)
        conn.execute("insert into app.t (tree) select adbin from pg_attrdef limit 1")
        worker.run(settings, stop=threading.Event(), until_caught_up=True)
        row = conn.execute(
            "select c.after ->> 'tree' = t.tree::text from bemi.changes c, app.t t"
        ).fetchone()
        assert row == (True,)
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="pg_node_tree"):
            conn.execute("select bemi.populate(null::app.t, after, flags) from bemi.changes")
        row = conn.execute(
            "select (bemi.populate(null::app.t, after - 'tree', flags)).id from bemi.changes"
        ).fetchone()
        assert row == (7,)


def test_a_char_beyond_ascii_is_no_text_before_15(make_database: MakeDatabase) -> None:
    url = make_database()
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute('create schema app; create table app.t (id int primary key, c "char")')
        settings = track(url, url)
        conn.execute('insert into app.t values (1, (-61)::"char")')
        worker.run(settings, stop=threading.Event(), until_caught_up=True)
        row = conn.execute(
            """select c.flags, p.c = t.c, (bemi.populate(t, c.after, c.flags)).c = t.c
            from app.t t, bemi.changes c,
                lateral bemi.populate((1, 'x')::app.t, c.after, c.flags) p"""
        ).fetchone()
        if conn.info.server_version >= 150000:
            assert row == (None, True, True)
        else:
            # Both flags: its bytes are written out, and then the value is a text.
            assert row == (["text:c", "undecodable:c"], False, True)


def test_a_regproc_that_shares_its_name_can_not_be_read(make_database: MakeDatabase) -> None:
    url = make_database()
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("create schema app; create table app.t (id int primary key, f regproc)")
        settings = track(url, url)
        conn.execute("insert into app.t values (1, 'abs(int)'::regprocedure)")
        worker.run(settings, stop=threading.Event(), until_caught_up=True)
        for read in (
            "select f::text::regproc from app.t",
            "select bemi.populate(null::app.t, after, flags) from bemi.changes",
        ):
            with pytest.raises(psycopg.errors.AmbiguousFunction):
                conn.execute(read.encode())
