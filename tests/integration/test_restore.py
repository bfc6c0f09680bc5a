"""Tables as they were, made again elsewhere: rows, types, keys, constraints; and what is told."""

from dataclasses import replace
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

import bemi
from bemi.connections import connect
from bemi.errors import NotYetError, UnknownStateError, UsageError
from bemi.history.moments import Moment
from bemi.history.restore import Restored, restore
from bemi.lsn import Lsn
from bemi.rules import Rules
from bemi.store.grants import grant
from tests.conftest import MakeDatabase
from tests.integration.conftest import Track
from tests.integration.test_travel import Traveller
from tests.support.asked import Asked
from tests.support.tracked import Tracked

SCHEMA = (
    "create schema app",
    "create schema other",
    "create type app.mood as enum ('sad', 'ok', 'Größe; \"x\"')",
    "create domain app.score as int not null default 3 check (value between 0 and 9)",
    "create type app.place as (city text, moods app.mood[])",
    "create type app.span as range (subtype = float8, multirange_type_name = app.multispan)",
    """create table app.users (id int generated always as identity primary key,
    email text unique, boss int references app.users, v int check (v > 0))""",
    "create unique index on app.users (lower(email)) where v > 0",
    """create table app.notes (id bigserial primary key, user_id int not null
    references app.users on delete cascade deferrable initially deferred,
    mood app.mood default 'ok', moods app.mood[], score app.score, place app.place, span app.span,
    spans app.multispan, twice int generated always as (user_id * 2) stored,
    code varchar(7) collate "C", data jsonb, loose json, constraint "it's" check (user_id > 0),
    unique (user_id, code))""",
    'create table other."; drop table x; --" (id int primary key, "ä""b%" app.mood not null)',
    "create table other.rows (id int primary key, user_row app.users)",
    """create table other.parts (id int, at date, primary key (id, at)) partition by range (at)""",
    "create table other.parts_1 partition of other.parts default",
)


@pytest.fixture
def at(tracked: Track) -> Tracked:
    return tracked(*SCHEMA)


def fill(at: Tracked) -> None:
    at.source.execute(
        """
        insert into app.users (email, boss, v) values ('A@x', null, 1), ('b', 1, null),
            (null, 2, 7);
        insert into app.notes (user_id, mood, moods, score, place, span, spans, code, data, loose)
        values (1, 'Größe; "x"', '{sad,NULL}', 4, '("a, b","{ok}")', '[1,2.5)', '{[1,2),[3,4)}',
            'x', 'null', '{"a": 1}'),
            (3, null, null, 0, null, 'empty', '{}', null, '{"a": [1, 2.50]}', null);
        insert into other."; drop table x; --" values (1, 'sad');
        insert into other.rows select 1, u from app.users u where id = 1;
        insert into other.parts values (1, '2026-01-01'), (2, '2027-01-01');
        """
    )


def end(at: Tracked) -> Moment:
    at.catch_up()
    (row,) = at.query("select epoch, position from bemi.checkpoints")
    return Moment(at.settings.source, row["epoch"], Lsn(row["position"] - 1))


def restored(
    at: Tracked, url: str, place: Moment, *, into: str | None = None, **options: Any
) -> Restored:
    with (
        psycopg.connect(at.settings.destination_url, autocommit=True) as history,
        connect(url, what="destination") as target,
        target.transaction(),
    ):
        return restore(history, "bemi", place, target, into=into, **options)


TABLES = ("app.users", "app.notes", 'other."; drop table x; --"', "other.rows", "other.parts")


def rows(url: str, table: str) -> list[Any]:
    with psycopg.connect(url) as conn:
        return conn.execute(f"select t::text from {table} t order by 1".encode()).fetchall()


def constraints(url: str, *schemas: str) -> list[Any]:
    with psycopg.connect(url) as conn:
        conn.execute("set search_path to pg_catalog")
        return conn.execute(
            "select conrelid::regclass::text, conname, pg_get_constraintdef(oid) from pg_constraint"
            " where connamespace = any(%s::regnamespace[]) and contype in ('p','u','c','f')"
            " and conparentid = 0 union all"
            " select attrelid::regclass::text, attname, format('%%s %%s %%s %%s %%s',"
            " format_type(atttypid, atttypmod), attnotnull, attidentity, attgenerated,"
            " pg_get_expr(adbin, adrelid)) from pg_attribute left join pg_attrdef"
            " on adrelid = attrelid and adnum = attnum join pg_class c on c.oid = attrelid"
            " where relnamespace = any(%s::regnamespace[]) and relkind in ('r', 'p')"
            " and not relispartition and attnum > 0 union all"
            " select indrelid::regclass::text, '',"
            " replace(pg_get_indexdef(indexrelid), 'ONLY ', '')"
            " from pg_index join pg_class c on c.oid = indrelid"
            " where relnamespace = any(%s::regnamespace[]) and relkind in ('r', 'p')"
            " and not relispartition order by 1, 2, 3",
            [list(schemas)] * 3,
        ).fetchall()


def test_into_another_database_all_comes_back(at: Tracked, make_database: MakeDatabase) -> None:
    fill(at)
    place = end(at)
    expected = {table: rows(at.settings.source_url, table) for table in TABLES}
    at.source.execute("delete from app.notes")
    at.source.execute("truncate other.parts")
    at.source.execute("update app.users set email = email || '?', v = 9 where v is not null")
    at.catch_up()
    url = make_database()
    found = restored(at, url, place)
    assert [(each.table, each.rows) for each in found.tables] == [
        ("app.notes", 2),
        ("app.users", 3),
        ("other.; drop table x; --", 1),
        ("other.parts", 2),
        ("other.rows", 1),
    ]
    assert {table: rows(url, table) for table in TABLES} == expected
    assert [each.what for each in found.left_out] == ["partitions"]
    assert found.unknown == ()
    assert constraints(url, "app", "other") == constraints(at.settings.source_url, "app", "other")
    with psycopg.connect(url) as conn:
        # Behind the largest value.
        conn.execute("insert into app.notes (user_id, score) values (1, 1)")
        conn.execute("insert into app.users (v) values (1)")


def test_into_a_schema_all_names_are_of_it(at: Tracked) -> None:
    fill(at)
    place = end(at)
    into = 'Wie"der; drop'
    found = restored(at, at.settings.destination_url, place, into=into)
    assert [each.what for each in found.left_out] == ["partitions"]
    quoted = sql.Identifier(into).as_string()
    assert rows(at.settings.destination_url, f"{quoted}.notes") == rows(
        at.settings.source_url, "app.notes"
    )
    with psycopg.connect(at.settings.destination_url) as conn:
        for statement in (
            f"set constraints all immediate; insert into {quoted}.notes (user_id) values (77)",
            f"insert into {quoted}.notes (user_id, score) values (1, 10)",
            f"insert into {quoted}.users (email) values ('A@x')",
        ):
            with pytest.raises(psycopg.IntegrityError), conn.transaction():
                conn.execute(statement.encode())
        names = conn.execute(
            "select typname from pg_type where typnamespace = to_regnamespace(quote_ident(%s))"
            " and typtype in ('e','d','r','m') order by 1",
            [into],
        ).fetchall()
    assert [name for (name,) in names] == ["mood", "multispan", "score", "span"]


def test_what_is_in_the_way_is_refused(at: Tracked, make_database: MakeDatabase) -> None:
    fill(at)
    place = end(at)
    url = make_database()
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("create schema app; create table app.notes (id int)")
    with pytest.raises(UsageError, match=r"app\.notes already"):
        restored(at, url, place)
    with pytest.raises(UsageError, match="not empty"):
        restored(at, url, place, into="app")
    with pytest.raises(UsageError, match=r"no table public\.nothing"):
        restored(at, url, place, tables=["nothing"])
    restored(at, url, place, tables=["app.users"], into="fresh")
    assert rows(url, "fresh.users") == rows(at.settings.source_url, "app.users")


def test_tables_of_one_name_do_not_fit_into_one_schema(tracked: Track) -> None:
    at = tracked(
        "create schema app",
        "create table t (id int primary key)",
        "create table app.t (id int primary key)",
    )
    with pytest.raises(UsageError, match="would both be"):
        restored(at, at.settings.destination_url, end(at), into="fresh")


def test_what_can_not_be_is_told(tracked: Track, make_database: MakeDatabase) -> None:
    at = tracked(
        "create schema app",
        "create extension citext",
        "create function odd(int) returns bool immutable language sql as 'select $1 % 2 = 1'",
        "create table left_alone (id int primary key)",
        "create table app.t (id int primary key, other int references left_alone, c citext,"
        " n int check (odd(n)), g int generated always as (case when odd(id) then 1 end) stored)",
        schemas=["app"],
    )
    at.source.execute("insert into left_alone values (1)")
    at.source.execute("insert into app.t values (1, 1, 'Text', 3)")
    url = make_database()
    found = restored(at, url, end(at))
    assert {each.what for each in found.left_out} == {
        "column c: its type public.citext",
        "generated column g: its expression",
        "check t_n_check",
        "foreign key t_other_fkey",
    }
    assert rows(url, "app.t")[0][0].startswith("(1,1,Text,3,")
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("drop schema app cascade")
        conn.execute("create extension citext")
    assert len(restored(at, url, end(at)).left_out) == 3


def test_values_that_rules_keep_out_are_counted_and_not_required(tracked: Track) -> None:
    at = tracked(
        "create domain secret as text not null",
        "create table t (id int primary key, s text not null, d secret, gone int not null, v int,"
        " i int generated always as identity)",
    )
    at.settings = replace(at.settings, rules=Rules(mask=("t.s", "t.d", "t.i"), exclude=("t.gone",)))
    at.source.execute("insert into t select n, 'x', 'y', 7, n from generate_series(1, 3) n")
    found = restored(at, at.settings.destination_url, end(at), into="fresh")
    assert {(each.column, each.why, each.rows) for each in found.unknown} == {
        ("s", "masked", 3),
        ("d", "masked", 3),
        ("gone", "missing", 3),
        ("i", "masked", 3),
    }
    assert {each.what for each in found.left_out} == {
        "column s: not null",
        "column gone: not null",
        "column i: identity",
    }
    assert rows(at.settings.destination_url, "fresh.t") == [(f"({n},,,,{n},)",) for n in (1, 2, 3)]


def test_values_that_the_type_of_then_refuses_are_left_out_and_counted(tracked: Track) -> None:
    at = tracked("create table t (id int primary key, v text)")
    at.source.execute("insert into t values (1, '7'), (2, 'seven')")
    at.catch_up()
    at.source.execute("alter table t alter v type int using case v when '7' then 7 else 0 end")
    at.source.execute("insert into t values (3, 3)")
    found = restored(at, at.settings.destination_url, end(at), into="fresh")
    assert rows(at.settings.destination_url, "fresh.t") == [("(1,7)",), ("(2,)",), ("(3,3)",)]
    assert {each.why: each.rows for each in found.unknown}["refused"] == 1
    assert {each.why for each in found.unknown} == {"stale", "refused"}


def test_what_was_altered_since_is_as_it_was(tracked: Track) -> None:
    at = tracked(
        "create type mood as enum ('a', 'b')",
        "create table t (id int primary key, old text default 'x', m mood check (m <> 'b'))",
    )
    at.source.execute("insert into t values (1, 'one', 'a')")
    then = end(at)
    at.source.execute("insert into t values (9, 'later', 'a')")
    at.catch_up()  # with a look that still sees the table as it was
    at.source.execute("alter table t rename old to new")
    at.source.execute("alter table t drop constraint t_m_check")
    at.source.execute("alter type mood rename value 'a' to 'z'")
    at.source.execute("alter table t rename to u")
    at.catch_up()  # with a look that sees it as it is
    at.source.execute("insert into u values (2, 'two', 'b')")
    now = end(at)
    assert restored(at, at.settings.destination_url, then, into="before").tables[0].rows == 1
    url = at.settings.destination_url
    assert rows(url, "before.t") == [("(1,one,a)",)]
    with psycopg.connect(url) as conn:
        with pytest.raises(psycopg.errors.CheckViolation), conn.transaction():
            conn.execute("insert into before.t values (2, 'x', 'b')")
        assert conn.execute("insert into before.t (id) values (2) returning old").fetchone() == (
            "x",
        )
    assert [each.table for each in restored(at, url, now, into="later").tables] == ["public.u"]
    assert rows(url, "later.u") == [("(1,one,)",), ("(2,two,b)",), ("(9,later,)",)]


def test_what_was_altered_between_two_looks_is_as_the_rows_are(tracked: Track) -> None:
    """Until the next look has told what a column is, the values that are lost are counted."""
    t = Traveller(
        tracked(
            "create type mood as enum ('a', 'c')",
            "create table one (id int primary key, x text, y int, z int not null)",
            "create table two (id int primary key, m mood)",
            "create table three (id int primary key, x text)",
        )
    )
    t.at.source.execute("insert into one values (1, 'x', 2, 3); insert into two values (1, 'a')")
    t.now()
    t.at.source.execute("alter table one rename x to new; alter table one drop y, add n text")
    t.at.source.execute("alter type mood rename value 'c' to 'b'")
    t.at.source.execute("alter table three add n int")  # and no row tells
    t.at.source.execute("insert into one values (2, 'new', 4, 'n')")
    t.at.source.execute("insert into two values (2, 'b')")
    row = t.at.source.execute("select pg_current_wal_insert_lsn()::text").fetchone()
    assert row is not None
    expected = {table: rows(t.at.settings.source_url, table) for table in ("one", "two")}
    t.at.source.execute("select pg_logical_emit_message(true, 'other', '')")
    t.now()  # with a look that sees all as it is
    url = t.at.settings.destination_url
    with t.history:
        late = t.history.restore(row[0], "late", allow_gaps=True)
        t.at.query(
            "delete from bemi.definitions_seen where from_position > %s returning 1",
            [int(Lsn.parse(row[0]))],
        )
        early = t.history.restore(row[0], "early", allow_gaps=True)
    assert {each.why for each in late.unknown} <= {"stale", "uncertain"}
    assert {table: rows(url, f"late.{table}") for table in expected} == expected
    lost = {(each.column, each.why, each.rows) for each in early.unknown}
    assert lost >= {("new", "undefined", 2), ("n", "undefined", 2), ("m", "refused", 1)}


def test_a_table_that_may_have_come_later_is_refused_or_left_out_and_told(tracked: Track) -> None:
    """Looks only tell between which places it came."""
    t = Traveller(tracked("create table t (id int primary key)"))
    t.at.source.execute("insert into t values (1)")
    t.now()
    t.at.source.execute("insert into t values (2)")
    row = t.at.source.execute("select pg_current_wal_insert_lsn()::text").fetchone()
    assert row is not None
    t.at.source.execute("create table later (id int primary key)")
    t.at.source.execute("insert into later values (1)")
    t.now()
    with t.history:
        for tables in ([], ["later"]):
            with pytest.raises(UnknownStateError, match=r"public\.later at .* is not known"):
                t.history.restore(row[0], "fresh", tables=tables)
        found = t.history.restore(row[0], "fresh", allow_gaps=True)
        assert [(each.table, each.rows) for each in found.tables] == [("public.t", 2)]
        assert [(each.table, each.what) for each in found.left_out] == [
            ("public.later", "the table")
        ]
        # As where an event trigger has told the place.
        t.at.query("update bemi.relation_names set after_position = null returning 1")
        again = t.history.restore(row[0], "again")
        assert [each.table for each in again.tables] == ["public.t"]
        assert again.left_out == found.left_out


def test_what_is_not_known_is_refused_or_told(asked: Asked) -> None:
    asked.write("insert into todo values (1, 'a')")
    early = "0/1"
    asked.ready()
    code, _, err = asked.bemi("restore", "--at", early, "--into", "fresh")
    assert code == 1
    assert "fix:" in err
    code, _, err = asked.bemi("restore", "--at", "2999-01-01", "--into", "fresh")
    assert code == 1
    with psycopg.connect(asked.at.settings.destination_url) as conn:
        assert conn.execute("select to_regnamespace('fresh')").fetchone() == (None,)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--into", "x" * 64], "can be the name of no schema"),
        (["--into", "bemi"], "not empty"),
        (["--into", "fresh", "--table", '"; drop table todo; --'], "no table"),
        (["--into", "fresh", "--source", "\u202e; drop"], "\\u202e; drop"),
        (["--into", "pg_mine"], "pg_mine"),
        (["--into", "postgresql://127.0.0.1:1/none"], "can't connect to the target"),
        (["--into", "=nonsense"], "URL does not parse"),
    ],
)
def test_what_means_nothing_is_told_and_leaves_nothing(
    asked: Asked, arguments: list[str], told: str
) -> None:
    asked.write("insert into todo values (1, 'a')")
    asked.ready()
    code, out, err = asked.bemi("restore", "--at", str(end(asked.at).position), *arguments)
    assert code in (1, 2)
    assert told in err
    assert out == ""


def test_the_command_says_what_it_made(asked: Asked) -> None:
    asked.write("insert into todo values (1, 'a', 1.50, 'null')")
    asked.ready()
    position = str(end(asked.at).position)
    code, out, _ = asked.bemi("restore", "--at", position, "--into", "a b", "--table", "to*")
    assert code == 0
    assert "a b.todo" in out
    assert "1 table with 1 row into schema a b" in out
    found = asked.json("restore", "--at", position, "--into", "other")
    assert found["tables"] == [{"table": "public.todo", "name": "other.todo", "rows": 1}]
    assert found["position"] == position
    assert rows(asked.at.settings.destination_url, '"a b".todo') == [("(1,a,1.50,null)",)]


def test_what_is_not_captured_yet_is_waited_for(asked: Asked) -> None:
    asked.write("insert into todo values (1, 'a')")
    history = asked.ready()
    with pytest.raises(NotYetError):
        history.restore("2999-01-01", "fresh", wait=0.01)


def test_nothing_is_left_behind_when_it_is_stopped(asked: Asked) -> None:
    asked.write("insert into todo select n, 'a' from generate_series(1, 100) n")
    history = asked.ready()

    def stop(table: str, rows: int) -> None:
        assert (table, rows) == ("public.todo", 100)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        history.restore(str(end(asked.at).position), "fresh", follow=stop)
    with psycopg.connect(asked.at.settings.destination_url) as conn:
        assert conn.execute("select to_regnamespace('fresh')").fetchone() == (None,)
    history.restore(str(end(asked.at).position), "fresh")


def test_who_only_reads_the_history_restores_into_a_database_of_their_own(
    asked: Asked, make_database: MakeDatabase
) -> None:
    asked.write("insert into todo values (1, 'a')")
    asked.ready()
    url, position = make_database(), str(end(asked.at).position)
    with psycopg.connect(asked.at.settings.destination_url, autocommit=True) as conn:
        conn.execute("drop role if exists bemi_restores")
        conn.execute("create role bemi_restores login password 'p'")
        grant(conn, "bemi", "bemi_restores")
        try:
            reading = make_conninfo(
                asked.at.settings.destination_url, user="bemi_restores", password="p"
            )
            with bemi.History(reading) as history:
                history.restore(position, url)
        finally:
            conn.execute("drop owned by bemi_restores; drop role bemi_restores")
    assert rows(url, "public.todo") == [("(1,a,,)",)]
