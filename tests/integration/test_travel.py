"""`bemi travel` builds schemas that hold the tables as they were."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from psycopg import sql

import bemi
from bemi.capture import coverage
from bemi.errors import BemiError, UnknownStateError, UsageError
from bemi.lsn import Lsn
from tests.integration.conftest import Track
from tests.support.tracked import Tracked
from tests.support.tracking import environment


class Traveller:
    """A tracked source, and a history to travel in."""

    def __init__(self, at: Tracked) -> None:
        self.at = at
        self.history = bemi.History(at.settings.destination_url)

    def look(self) -> None:
        """What the worker looks at beside the stream: names and definitions."""
        (held,) = self.at.query("select source_id, epoch from bemi.checkpoints")
        with psycopg.connect(self.at.settings.destination_url, autocommit=True) as destination:
            coverage.keep(
                self.at.source,
                destination,
                schema="bemi",
                publication=self.at.settings.publication,
                source_id=held["source_id"],
                epoch=held["epoch"],
            )

    def now(self) -> str:
        """A position behind everything that was committed."""
        self.at.catch_up()
        self.look()
        row = self.at.source.execute("select pg_current_wal_insert_lsn()::text").fetchone()
        assert row is not None
        self.at.source.execute("select pg_logical_emit_message(true, 'other', '')")
        self.at.catch_up()
        return str(row[0])

    def rows(self, table: str, *, source: bool = False) -> list[str]:
        """As JSON of the server's, so that a type that differs shows."""
        conn: psycopg.Connection[Any] = self.at.source if source else self.at.destination
        cursor = conn.cursor(row_factory=psycopg.rows.tuple_row)
        query = f"select to_jsonb(t)::text from {table} t order by 1"
        return [row[0] for row in cursor.execute(query.encode())]

    def types(self, table: str, *, source: bool = False) -> list[tuple[str, str]]:
        conn: psycopg.Connection[Any] = self.at.source if source else self.at.destination
        cursor = conn.cursor(row_factory=psycopg.rows.tuple_row)
        return cursor.execute(
            "select attname::text, format_type(atttypid, atttypmod) from pg_attribute"
            " where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped order by attnum",
            [table],
        ).fetchall()


Travels = Callable[..., Traveller]


@pytest.fixture
def travels(tracked: Track) -> Iterator[Travels]:
    with ExitStack() as stack:

        def start(*statements: str, **options: Any) -> Traveller:
            made = Traveller(tracked(*statements, **options))
            stack.callback(made.history.close)
            return made

        yield start


PERSON = "create table person (id int primary key, name varchar(20))"
TODO = (
    "create table todo (id bigint primary key, person int references person, task text,"
    " price numeric(10,2), done bool, due timestamptz, tags text[], extra jsonb, body bytea)"
)
TWO = (PERSON, TODO)


def test_tables_are_there_as_they_were_and_join(travels: Travels) -> None:
    t = travels(*TWO)
    with t.at.source.transaction():
        t.at.source.execute("insert into person values (1, 'Ann'), (2, 'Bob')")
        t.at.source.execute(
            "insert into todo values (1, 1, 'milk', 1.10, false, '2026-05-03 10:00+02', '{a,null}',"
            """ '{"a": null}', '\\x00ff'),"""
            " (2, 2, 'oats', 'NaN', null, 'infinity', '{}', 'null', '')"
        )
    then = t.now()
    tables = ("person", "todo")
    expected = {each: t.rows(each, source=True) for each in tables}
    types = {each: t.types(each, source=True) for each in tables}
    t.at.source.execute("update todo set task = 'gone', person = 1")
    t.at.source.execute("delete from todo where id = 2")
    t.at.source.execute("truncate person, todo")
    t.at.catch_up()
    made = t.history.travel(then)
    assert [(each.table, each.view, each.text, each.uncertain) for each in made.views] == [
        (f"public.{each}", f"bemi_travel.{each}", {}, None) for each in tables
    ]
    assert (made.position, made.schemas, made.left_out) == (then, ["bemi_travel"], {})
    for each in tables:
        assert t.rows(f"bemi_travel.{each}") == expected[each]
        assert t.types(f"bemi_travel.{each}") == types[each]
    joined = t.at.query(
        "select p.name, t.task from bemi_travel.todo t join bemi_travel.person p on p.id = t.person"
        " where t.price = 1.1 and t.extra = '{\"a\": null}'"
    )
    assert joined == [{"name": "Ann", "task": "milk"}]
    for statement in (
        "insert into bemi_travel.person values (3, 'Eve')",
        "update bemi_travel.person set name = 'Eve'",
        "delete from bemi_travel.person",
        "truncate bemi_travel.person",
    ):
        with pytest.raises(psycopg.Error):
            t.at.destination.execute(statement.encode())
    empty = t.now()
    t.history.travel(empty)
    assert t.rows("bemi_travel.todo") == [], "the earlier travel was replaced"
    assert t.history.drop_travel() == ["bemi_travel"]
    assert t.history.drop_travel() == []
    assert t.at.query("select from pg_namespace where nspname = 'bemi_travel'") == []


def test_columns_and_names_are_those_of_then(travels: Travels) -> None:
    t = travels("create table a (id int primary key, old text, gone int)")
    t.at.source.execute("insert into a values (1, 'x', 5), (2, 'y', 6)")
    first, rows = t.now(), t.rows("a", source=True)
    t.at.source.execute("alter table a rename old to new")
    t.at.source.execute("alter table a drop gone, add more date")
    t.at.source.execute("update a set more = '2026-05-03' where id = 1")
    second, altered = t.now(), t.rows("a", source=True)
    t.at.source.execute("alter table a rename to b")
    t.at.source.execute("update b set id = 3 where id = 2")
    third, renamed = t.now(), t.rows("b", source=True)
    for then, name, expected in ((first, "a", rows), (second, "a", altered), (third, "b", renamed)):
        made = t.history.travel(then)
        assert [each.view for each in made.views] == [f"bemi_travel.{name}"]
        assert t.rows(f"bemi_travel.{name}") == expected


def test_what_a_look_has_seen_counts_before_a_change_shows_it(travels: Travels) -> None:
    t = travels("create table a (id int primary key, old text, gone int)")
    t.at.source.execute("insert into a values (1, 'x', 5)")
    before, rows = t.now(), t.rows("a", source=True)
    t.at.source.execute("alter table a rename old to new")
    t.at.source.execute("alter table a drop gone, add more date")
    t.at.source.execute("alter table a rename id to number")
    then, altered = t.now(), t.rows("a", source=True)
    t.at.source.execute("alter table a add n int default 7")
    filled = t.now()
    for at, expected in ((before, rows), (then, altered)):
        t.history.travel(at)
        assert t.rows("bemi_travel.a") == expected
        assert t.types("bemi_travel.a")[1][1] == "text"
    (row,) = t.at.query("select * from bemi.rows_at('a', lsn => %s::pg_lsn)", [filled])
    assert row["image"] == {"number": 1, "new": "x", "more": None}
    assert row["flags"] == ["stale:n"]
    (table,) = t.at.query("select * from bemi.tables_at(lsn => %s::pg_lsn)", [filled])
    assert [each["name"] for each in table["columns"]] == ["number", "new", "more", "n"]
    assert table["primary_key"] == ["number"]


PARTITIONED = (
    (
        "create table p (id int, region text, gone int, a text, c text, primary key (id, region))"
        " partition by list (region)"
    ),
    "alter table p drop gone",
    "create table p_eu (region text not null, x int, c text, id int not null, a text)",
    "alter table p_eu drop x",
    "alter table p attach partition p_eu for values in ('eu')",
    "create table p_us partition of p for values in ('us')",
)


def test_what_a_look_has_seen_of_a_table_counts_for_its_partitions(travels: Travels) -> None:
    """The columns of each have numbers of their own; of one that had no change since, too."""
    t = travels(*PARTITIONED)
    t.at.source.execute("insert into p values (1, 'eu', 'x', 'cx'), (2, 'us', 'y', 'cy')")
    first, was = t.now(), t.rows("p", source=True)
    t.at.source.execute("alter table p rename a to b")
    t.at.source.execute("alter table p drop c, add c int, add d int default 4, add e text")
    for changed in (False, True):
        if changed:
            t.at.source.execute("insert into p (id, region, b) values (3, 'eu', 'z')")
        t.now()
        found = t.at.query("select * from bemi.rows_at('p', lsn => %s::pg_lsn)", [t.now()])
        assert len(found) == 2 + changed
        for row in found:
            # Of one that was dropped, another of its name is not told apart everywhere.
            assert {"stale:d"} <= {*row["flags"]} <= {"stale:d", "stale:c"}
            assert {**row["image"], "d": 4} == {
                "id": row["image"]["id"],
                "region": row["image"]["region"],
                "b": "xyz"[row["image"]["id"] - 1],
                "c": None,
                "d": 4,
                "e": None,
            }
    t.at.source.execute("update p set d = 5, c = 1")
    last = t.now()
    for at, rows in ((first, was), (last, t.rows("p", source=True))):
        t.history.travel(at)
        assert t.rows("bemi_travel.p") == rows
    t.at.source.execute("alter table p rename c to f")
    t.at.source.execute("alter table p rename b to c")
    swapped = t.now()
    t.at.source.execute("alter table p rename to q")
    renamed, rows = t.now(), t.rows("q", source=True)
    t.at.source.execute("insert into q (id, region) values (7, 'eu')")
    end, more = t.now(), t.rows("q", source=True)
    for at, name, expected in ((swapped, "p", rows), (renamed, "q", rows), (end, "q", more)):
        t.history.travel(at)
        assert t.rows(f"bemi_travel.{name}") == expected


def test_a_column_got_another_type_before_a_change_shows_it(travels: Travels) -> None:
    t = travels(
        "create domain percent as int",
        "create domain fine as percent",
        "create table t (id int primary key, n int, p percent, f fine, v varchar(9))",
    )
    t.at.source.execute("insert into t values (1, 6, 7, 8, 'x')")
    before, rows = t.now(), t.rows("t", source=True)
    t.at.source.execute("alter table t add more int, alter v type varchar(20)")
    t.now()
    then, altered = t.now(), t.rows("t", source=True)
    (row,) = t.at.query("select * from bemi.rows_at('t', lsn => %s::pg_lsn)", [then])
    assert row["flags"] is None, "a domain is what it is made of"
    for at, expected in ((before, rows), (then, altered)):
        t.history.travel(at)
        assert t.rows("bemi_travel.t") == expected
    assert dict(t.types("bemi_travel.t"))["v"] == "character varying(20)"
    t.at.source.execute("alter table t alter n type text using 'n' || n")
    t.now()
    last = t.now()
    (row,) = t.at.query("select * from bemi.rows_at('t', lsn => %s::pg_lsn)", [last])
    assert (row["image"]["n"], row["flags"]) == (6, ["stale:n"])
    t.history.travel(last)
    assert dict(t.types("bemi_travel.t"))["n"] == "text"
    restored = t.history.restore(last, "again")
    assert [(each.column, each.why) for each in restored.unknown] == [("n", "stale")]


def test_a_value_of_before_that_the_type_does_not_take_is_null(travels: Travels) -> None:
    t = travels(
        "create type mood as enum ('sad', 'ok')",
        "create table t (id int primary key, n text, m text, j text, v varchar(9), tags text,"
        ' "it\'s" int, k text)',
    )
    t.at.source.execute(
        "insert into t values (1, '4', 'ok', 'null', 'x', '{}', 8, 'a'),"
        " (2, 'abc', 'sad', '{}', 'long one', '{a}', 7, 'b')"
    )
    before, rows = t.now(), t.rows("t", source=True)
    t.at.source.execute(
        "alter table t alter n type int using length(n), alter m type mood using m::mood,"
        " alter j type jsonb using j::jsonb, alter v type varchar(4) using left(v, 4),"
        ' alter tags type text[] using tags::text[], alter "it\'s" type money'
    )
    t.at.source.execute("insert into t values (3, 7, 'sad', 'null', 'abcd', '{b,null}', 9, 'c')")
    then = t.now()
    t.history.travel(before)
    assert t.rows("bemi_travel.t") == rows
    t.history.travel(then)
    first, second, third = (json.loads(row) for row in sorted(t.rows("bemi_travel.t"), key=_id))
    assert (first["n"], first["v"], first["tags"], first["it's"]) == (4, "x", [], "$8.00")
    assert (second["n"], second["v"], second["tags"], second["m"]) == (None, None, ["a"], "sad")
    assert third == json.loads(sorted(t.rows("t", source=True), key=_id)[2])
    found = t.at.query("select j::text from bemi_travel.t where id = 3")
    assert found == [{"j": "null"}], "JSON's, not SQL's"
    assert t.types("bemi_travel.t")[4] == ("v", "character varying(4)")


def _id(row: str) -> int:
    return int(json.loads(row)["id"])


def test_types_are_made_anew_as_they_were(travels: Travels) -> None:
    t = travels(
        "create schema kinds",
        "create type kinds.mood as enum ('sad', 'it''s \"ok\"')",
        "create domain kinds.percent as int not null check (value between 0 and 100)",
        "create type kinds.pair as (a int, m kinds.mood)",
        "create domain kinds.bag as jsonb",
        "create table t (id int primary key, m kinds.mood, p kinds.percent, c kinds.pair,"
        " ms kinds.mood[], cash money, b kinds.bag, j json)",
    )
    t.at.source.execute(
        "insert into t values (1, 'sad', 7, '(1,\"it''s \"\"ok\"\"\")', '{sad}', '$1.50',"
        " 'null', '{\"a\" : 1}'), (2, null, 0, null, null, null, null, null)"
    )
    then, rows = t.now(), t.rows("public.t", source=True)
    t.at.source.execute("alter type kinds.mood add value 'new'")
    t.at.source.execute("insert into t (id, m, p) values (3, 'new', 1)")
    later = t.now()
    for at, count in ((then, 2), (later, 3)):
        made = t.history.travel(at, into="back")
        assert made.schemas == ["back_kinds", "back_public"], "types have schemas, too"
        assert made.views[0].text == {}
        assert t.at.query("select count(*) as n from back_public.t") == [{"n": count}]
    t.history.travel(then, into="back")
    assert t.rows("back_public.t") == rows
    assert dict(t.types("back_public.t"))["ms"] == "back_kinds.mood[]"
    labels = t.at.query("select unnest(enum_range(null::back_kinds.mood))::text as label")
    assert [row["label"] for row in labels] == ["sad", 'it\'s "ok"']
    assert t.history.drop_travel("back") == ["back_kinds", "back_public"]


def test_a_label_that_was_renamed_since_a_row_was_written_is_that_of_before(
    travels: Travels,
) -> None:
    t = travels(
        "create type mood as enum ('sad', 'ok')",
        "create table t (id int primary key, m mood, ms mood[])",
    )
    t.at.source.execute("insert into t values (1, 'sad', '{sad,ok}'), (2, 'ok', null)")
    t.now()
    t.at.source.execute("alter type mood rename value 'sad' to 'happy'")
    renamed, written = t.now(), t.rows("t", source=True)
    t.history.travel(renamed)
    found = t.at.query("select m::text, ms::text from bemi_travel.t order by id")
    assert found == [{"m": "sad", "ms": "{sad,ok}"}, {"m": "ok", "ms": None}]
    labels = t.at.query("select enum_range(null::bemi_travel.mood)::text as all")
    assert labels == [{"all": "{happy,ok,sad}"}]
    t.at.source.execute("update t set m = m, ms = ms")
    t.history.travel(t.now())
    assert t.rows("bemi_travel.t") == written


def test_a_type_of_the_search_path_is_made_anew(travels: Travels) -> None:
    t = travels(
        "create type mood as enum ('sad')",
        "create domain small as mood",
        "create table t (id int primary key, m mood, ms mood[], s small)",
    )
    t.at.source.execute("insert into t values (1, 'sad', '{sad}', 'sad')")
    then, rows = t.now(), t.rows("t", source=True)
    (view,) = t.history.travel(then).views
    assert (view.text, t.rows("bemi_travel.t")) == ({}, rows)
    assert dict(t.types("bemi_travel.t")) == {
        "id": "integer",
        "m": "bemi_travel.mood",
        "ms": "bemi_travel.mood[]",
        "s": "bemi_travel.small",
    }


def test_a_type_that_the_catalog_could_not_name_any_more(travels: Travels) -> None:
    t = travels("create type mood as enum ('sad')", "create table t (id int primary key, m mood)")
    t.at.source.execute("insert into t values (1, 'sad')")
    then = t.now()
    # That a later look tells it would hide what this is about.
    t.at.query("delete from bemi.definitions_seen where kind = 'table' returning 1")
    for forget, text in (("", {}), (", 'type_oid', 99999", {"m": "the type 99999"})):
        t.at.query(
            "update bemi.table_versions set columns = (select jsonb_agg(case c ->> 'name'"
            f" when 'm' then c || jsonb_build_object('type', ''{forget})"
            ' else c || \'{"type": ""}\' end) from jsonb_array_elements(columns) c) returning 1'
        )
        (view,) = t.history.travel(then).views
        assert view.text == text
        assert t.rows("bemi_travel.t") == ['{"m": "sad", "id": 1}']
        kinds = dict(t.types("bemi_travel.t"))
        assert kinds == {"id": "integer", "m": "text" if text else "bemi_travel.mood"}


def test_types_of_extensions_are_found_in_their_schemas(travels: Travels) -> None:
    t = travels(
        "create schema app",
        "create schema ext",
        "create extension citext",
        "create extension hstore schema ext",
        "create domain app.mail as citext",
        "create table app.c (id int primary key, n citext, ns citext[], h ext.hstore, m app.mail)",
    )
    for statement in (
        "create schema ext",
        "create extension citext",
        "create extension hstore schema ext",
    ):
        t.at.destination.execute(statement.encode())
    t.at.source.execute("insert into app.c values (1, 'x', '{a,B}', 'a=>1', 'x@y')")
    made = t.history.travel(t.now())
    assert (made.schemas, made.views[0].text) == (["bemi_travel"], {})
    assert t.rows("bemi_travel.c") == t.rows("app.c", source=True)
    found = t.at.query("select id from bemi_travel.c where n = 'X' and m = 'X@y'")
    assert found == [{"id": 1}], "without regard to case"


def test_a_type_that_the_destination_lacks_is_text(travels: Travels) -> None:
    t = travels(
        "create type span as range (subtype = int)",
        "create table t (id int primary key, s span, ss span[])",
    )
    t.at.source.execute("insert into t values (1, '[1,5)', '{\"[1,2)\"}')")
    made = t.history.travel(t.now())
    assert sorted(made.views[0].text) == ["s", "ss"]
    (row,) = t.at.query("select s, ss from bemi_travel.t")
    assert row["s"] == "[1,5)"
    (comment,) = t.at.query("select obj_description('bemi_travel.t'::regclass) as told")
    assert "s is text" in comment["told"]


def test_a_type_of_a_newer_server_is_text(travels: Travels) -> None:
    """As `numeric(3,-2)`, which PostgreSQL takes since 15."""
    t = travels("create table t (id int primary key, n numeric(3,1))")
    t.at.source.execute("insert into t values (1, 1.5)")
    then = t.now()
    t.at.query(
        "update bemi.table_versions set columns = replace(columns::text, 'numeric(3,1)',"
        " 'numeric(3,9999)')::jsonb returning 1"
    )
    t.at.query("delete from bemi.definitions_seen where kind = 'table' returning 1")
    (view,) = t.history.travel(then).views
    assert view.text == {"n": "numeric(3,9999)"}
    assert t.at.query("select * from bemi_travel.t") == [{"id": 1, "n": "1.5"}]


def test_partitions_are_views_and_the_table_above_has_all(travels: Travels) -> None:
    t = travels(
        "create table p (id int, region text, n int, primary key (id, region))"
        " partition by list (region)",
        "create table p_eu partition of p for values in ('eu')",
        "create table p_us partition of p for values in ('us')",
    )
    t.at.source.execute("insert into p values (1, 'eu', 1), (2, 'us', 2), (3, 'eu', 3)")
    t.at.source.execute("update p set region = 'us' where id = 1")
    then = t.now()
    expected = {each: t.rows(each, source=True) for each in ("p", "p_eu", "p_us")}
    t.at.source.execute("delete from p")
    t.at.catch_up()
    made = t.history.travel(then)
    assert {each.table: each.partition_of for each in made.views} == {
        "public.p": None,
        "public.p_eu": "public.p",
        "public.p_us": "public.p",
    }
    for each, rows in expected.items():
        assert t.rows(f"bemi_travel.{each}") == rows


def test_schemas_of_others_are_left_alone(travels: Travels) -> None:
    t = travels(*TWO)
    then = t.now()
    t.at.destination.execute("create schema mine")
    with pytest.raises(UsageError, match=r'a schema "mine" that .* did not make'):
        t.history.travel(then, into="mine")
    for into in ("", "pg_mine", "x" * 64):
        with pytest.raises(UsageError, match="can be the name of no schema"):
            t.history.travel(then, into=into)
    assert t.history.drop_travel("mine") == []
    t.history.travel(then)
    t.at.destination.execute("create view mine.of_it as select id from bemi_travel.todo")
    for again in (lambda: t.history.travel(then), t.history.drop_travel):
        with pytest.raises(BemiError, match=r"did not make depends on bemi_travel: .*mine\.of_it"):
            again()
    assert t.at.query("select * from mine.of_it") == []
    t.at.destination.execute("drop schema mine cascade")


@pytest.mark.parametrize(
    "statement", ["create view bemi_travel.mine as select 1 as a", "create domain {} as int"]
)
def test_what_others_made_in_its_schema_is_left_alone(travels: Travels, statement: str) -> None:
    t = travels(*TWO)
    then = t.now()
    t.history.travel(then)
    t.at.destination.execute(statement.format("bemi_travel.mine").encode())
    for again in (lambda: t.history.travel(then), t.history.drop_travel):
        with pytest.raises(BemiError, match=r"did not make depends on bemi_travel: .*mine"):
            again()
    assert t.rows("bemi_travel.person") == []
    kind = "view" if "view" in statement else "domain"
    t.at.destination.execute(f"drop {kind} bemi_travel.mine".encode())
    assert t.history.drop_travel() == ["bemi_travel"]


def test_a_table_with_brackets_is_chosen_by_its_name(travels: Travels) -> None:
    t = travels('create table "x[1]" (id int primary key)')
    assert len(t.history.travel(t.now(), tables=["x[1]"]).views) == 1


def test_what_can_not_be_told_is_refused_or_marked(travels: Travels) -> None:
    t = travels(*TWO)
    t.at.source.execute("insert into person values (1, 'Ann')")
    then = t.now()
    t.at.query(
        "insert into bemi.gaps (source_id, epoch, from_position, to_position, cause, relation)"
        " select source_id, epoch, %s, %s, 'ignored', relation from bemi.intervals"
        " where \"table\" = 'person' returning 1",
        [int(Lsn.parse(then)) - 1, int(Lsn.parse(then))],
    )
    with pytest.raises(UnknownStateError, match=r"public\.person at .* is not known") as caught:
        t.history.travel(then)
    assert "--allow-gaps" in str(caught.value.fix)
    assert t.at.query("select from pg_namespace where nspname = 'bemi_travel'") == []
    assert len(t.history.travel(then, tables=["todo"]).views) == 1
    made = t.history.travel(then, allow_gaps=True)
    assert [bool(each.uncertain) for each in made.views] == [True, False]
    assert t.rows("bemi_travel.person") == ['{"id": 1, "name": "Ann"}']
    with pytest.raises(UsageError, match=r"had no table public\.nothing"):
        t.history.travel(then, tables=["nothing"])
    for when, message in (("2020-01-01", "begins after"), ("FFFF/0", "not captured yet")):
        with pytest.raises(UnknownStateError, match=message):
            t.history.travel(when)
    with pytest.raises(UsageError, match="'once' is not a time"):
        t.history.travel("once")


@pytest.mark.parametrize(
    "name", ["'; drop schema bemi cascade; --", 'a"b', "%s{}", "$query$", "木"]
)
def test_hostile_names_are_names(travels: Travels, name: str) -> None:
    quoted = sql.Identifier(name)
    t = travels(
        sql.SQL("create type {} as enum ({})")
        .format(sql.Identifier(f"{name} kind"), sql.Literal(name))
        .as_string(),
        sql.SQL("create table {} ({} text primary key, k {})")
        .format(quoted, quoted, sql.Identifier(f"{name} kind"))
        .as_string(),
    )
    insert = sql.SQL("insert into {} values ({}, {})").format(quoted, *[sql.Literal(name)] * 2)
    t.at.source.execute(insert)
    made = t.history.travel(t.now(), into=name)
    assert made.schemas == [name]
    (row,) = t.at.destination.execute(sql.SQL("select * from {}.{}").format(quoted, quoted))
    assert row == {name: name, "k": name}
    assert t.history.drop_travel(name) == [name]


def run(t: Traveller, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bemi", "travel", *arguments],
        env=environment(t.at.settings),
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command(travels: Travels) -> None:
    t = travels(*TWO)
    t.at.source.execute("insert into person values (1, 'Ann')")
    then = t.now()
    told = run(t, "--at", then)
    assert (told.returncode, told.stderr) == (0, "")
    assert "public.person   bemi_travel.person" in told.stdout
    made = json.loads(run(t, "--at", then, "--json").stdout)
    assert made["position"] == then
    assert [view["view"] for view in made["views"]] == ["bemi_travel.person", "bemi_travel.todo"]
    assert run(t, "--drop").stdout == "dropped bemi_travel\n"
    assert json.loads(run(t, "--drop", "--json").stdout) == {"dropped": []}

    def fails(code: int, message: str, arguments: Sequence[str]) -> None:
        told = run(t, *arguments)
        assert (told.returncode, message in told.stderr) == (code, True), told.stderr

    fails(2, "it takes a moment", [])
    fails(2, "--drop takes only --into", ["--drop", "--at", "2h"])
    fails(2, "'once' is not a time", ["--at", "once"])
    fails(1, "begins after", ["--at", "2020-01-01"])
    fails(2, "had no table", ["--at", then, "--table", "x"])
