"""What tables and types were made of when, in `bemi.definitions`."""

from typing import Any

import psycopg
import pytest

from bemi.capture.definitions import read
from bemi.capture.encodings import encoding_of
from bemi.store.definitions import ForeignKey, foreign_keys
from tests.integration.conftest import Track
from tests.support.tracked import Tracked

SCHEMA = (
    "create schema app",
    "create type app.mood as enum ('sad', 'ok', 'Größe; \"x\"')",
    "create domain app.score as int not null default 3 check (value between 0 and 9)",
    "create type app.place as (city text, mood app.mood)",
    "create type app.span as range (subtype = float8, subtype_diff = float8mi)",
    "create table app.users (id int primary key, email text unique, v int)",
    "create unique index on app.users (lower(email)) where v > 0",
    """create table app.notes (id int generated always as identity (start 7) primary key,
    number serial, user_id int references app.users on delete cascade,
    mood app.mood default 'ok', moods app.mood[], score app.score, place app.place, span app.span,
    twice int generated always as (user_id * 2) stored, code varchar(7) collate "C",
    check (user_id > 0))""",
    'create table app."; drop table x; --" (id int primary key, "ä""b" app.mood not null)',
)


def definitions(at: Tracked) -> dict[str, Any]:
    """The last of each."""
    rows = at.query(
        "select distinct on (kind, oid) * from bemi.definitions"
        " order by kind, oid, from_position desc"
    )
    return {f"{row['kind']} {row['name']}": row["definition"] for row in rows}


def test_init_writes_down_what_tables_and_their_types_are_made_of(tracked: Track) -> None:
    found = definitions(tracked(*SCHEMA))
    assert found["enum mood"] == {"extension": None, "labels": ["sad", "ok", 'Größe; "x"']}
    assert found["domain score"]["type"] == "integer"
    assert found["domain score"]["not_null"] is True
    assert found["domain score"]["default"] == "3"
    assert [each["definition"] for each in found["domain score"]["constraints"]] == [
        "CHECK (((VALUE >= 0) AND (VALUE <= 9)))"
    ]
    attributes = found["composite place"]["attributes"]
    assert [(each["name"], each["type"]) for each in attributes] == [
        ("city", "text"),
        ("mood", "app.mood"),
    ]
    assert found["range span"]["subtype"] == "double precision"
    assert found["range span"]["subtype_diff"] == "float8mi"
    notes = found["table notes"]
    columns = {each["name"]: each for each in notes["columns"]}
    assert columns["id"]["identity"] == "a"
    assert columns["id"]["sequence"]["start"] == 7
    assert columns["number"]["default"] == "nextval('app.notes_number_seq'::regclass)"
    assert columns["number"]["sequence"]["name"] == "notes_number_seq"
    assert columns["mood"]["default"] == "'ok'::app.mood"
    assert columns["moods"]["type"] == "app.mood[]"
    assert columns["moods"]["element_oid"] == columns["mood"]["type_oid"]
    assert columns["twice"]["generated"] == "s"
    assert columns["twice"]["default"] == "(user_id * 2)"
    assert columns["code"]["type"] == "character varying(7)"
    assert columns["code"]["collation"] == '"C"'
    assert {each["kind"]: each["definition"] for each in notes["constraints"]} == {
        "p": "PRIMARY KEY (id)",
        "f": "FOREIGN KEY (user_id) REFERENCES app.users(id) ON DELETE CASCADE",
        "c": "CHECK ((user_id > 0))",
    }
    users = found["table users"]
    assert [each["definition"] for each in users["indexes"]] == [
        "CREATE UNIQUE INDEX users_lower_idx ON app.users USING btree (lower(email)) WHERE (v > 0)"
    ]
    (odd,) = [each for name, each in found.items() if "drop table" in name]
    assert [(each["name"], each["not_null"]) for each in odd["columns"]] == [
        ("id", True),
        ('ä"b', True),
    ]


@pytest.mark.parametrize("encoding", ["UTF8", "LATIN1", "SQL_ASCII"])
def test_names_of_any_encoding_are_written_down(tracked: Track, encoding: str) -> None:
    at = tracked(
        "create table t (id int primary key, v text check (v <> 'ö'))",
        encoding=encoding,
        locale="C",
    )
    (constraint,) = [
        each for each in definitions(at)["table t"]["constraints"] if each["kind"] == "c"
    ]
    assert "ö" in constraint["definition"]


def test_a_row_is_added_only_where_something_differs(tracked: Track) -> None:
    at = tracked(*SCHEMA)
    before = at.query("select * from bemi.definitions order by kind, oid")
    at.catch_up()
    at.catch_up()
    assert at.query("select * from bemi.definitions order by kind, oid") == before
    at.source.execute("alter type app.mood add value 'great' before 'ok'")
    at.source.execute("alter table app.notes alter column score set default 5")
    at.source.execute("alter table app.users alter column v type bigint")
    at.catch_up()
    rows = at.query("select * from bemi.definitions where after_position is not null order by kind")
    assert [(row["kind"], row["name"]) for row in rows] == [
        ("enum", "mood"),
        ("table", "notes"),
        ("table", "users"),
    ]
    assert rows[0]["definition"]["labels"][1] == "great"
    assert all(row["after_position"] < row["from_position"] for row in rows)


def test_what_is_gone_is_told(tracked: Track) -> None:
    at = tracked(*SCHEMA)
    at.source.execute("drop table app.notes")
    at.catch_up()
    gone = {name for name, each in definitions(at).items() if each is None}
    assert gone == {"table notes", "domain score", "composite place", "range span"}


def test_a_partitioned_table_is_told_once(tracked: Track) -> None:
    at = tracked(
        "create table p (id int, at date, primary key (id, at)) partition by range (at)",
        "create table p_1 partition of p for values from ('2026-01-01') to ('2027-01-01')",
        "create table p_2 partition of p default",
    )
    found = definitions(at)
    assert list(found) == ["table p"]
    assert found["table p"]["kind"] == "p"


def test_what_held_at_a_position(tracked: Track) -> None:
    at = tracked("create type mood as enum ('a')", "create table t (id int primary key, m mood)")

    def labels(position: int) -> Any:
        rows = at.query(
            "select * from bemi.definitions_at((select source_id from bemi.sources),"
            " (select epoch from bemi.checkpoints), %s) where kind = 'enum'",
            [position],
        )
        return [row["definition"]["labels"] for row in rows]

    at.source.execute("alter type mood add value 'b'")
    at.catch_up()
    (_, second) = at.query(
        "select * from bemi.definitions where kind = 'enum' order by from_position"
    )
    assert labels(0) == [["a"]]
    assert labels(second["after_position"] - 1) == [["a"]]
    # Rows may have either.
    assert labels(second["after_position"]) == [["a", "b"]]
    assert labels(second["from_position"] - 1) == [["a", "b"]]
    assert labels(second["from_position"]) == [["a", "b"]]
    at.source.execute("drop table t")
    at.catch_up()
    (gone,) = at.query("select * from bemi.definitions where kind = 'enum' and definition is null")
    assert labels(gone["from_position"]) == []
    assert labels(gone["from_position"] - 1) == [["a", "b"]]


def test_a_role_that_sees_little_reads_the_definitions(tracked: Track) -> None:
    """What is read are PostgreSQL's own catalogs, open to all."""
    at = tracked(*SCHEMA)
    with psycopg.connect(at.settings.source_url, autocommit=True) as conn:
        conn.execute("set role pg_monitor")
        oid = conn.execute("select 'pg_class'::regclass::oid::int").fetchone()
        assert oid is not None
        assert read(conn, [oid[0]], encoding_of("UTF8")) is not None


def test_foreign_keys_of_a_table_are_told_from_both_sides(tracked: Track) -> None:
    at = tracked(
        "create table places (code text unique, x int, y int, primary key (y, x))",
        "create table visits (id int primary key, x int, y int, place text references"
        " places (code), earlier int references visits,"
        " foreign key (x, y) references places (x, y) match full)",
    )
    with psycopg.connect(at.settings.destination_url, autocommit=True) as conn:
        visits, places = (
            foreign_keys(conn, "bemi", at.settings.source, f"public.{name}")
            for name in ("visits", "places")
        )
    key = ["y", "x"]
    by_place = ForeignKey("public.visits", ["place"], "public.places", ["code"], key)
    by_both = ForeignKey("public.visits", ["x", "y"], "public.places", ["x", "y"], key)
    by_itself = ForeignKey("public.visits", ["earlier"], "public.visits", ["id"], ["id"])
    assert sorted(visits, key=repr) == sorted([by_place, by_both, by_itself], key=repr)
    assert sorted(places, key=repr) == sorted([by_place, by_both], key=repr)


def test_a_column_that_is_referred_to_is_renamed(tracked: Track) -> None:
    at = tracked(
        "create table places (id int primary key)",
        "create table visits (id int primary key, place int references places)",
    )
    at.source.execute("alter table places rename column id to number")
    at.source.execute("insert into places values (1)")
    at.catch_up()
    with psycopg.connect(at.settings.destination_url, autocommit=True) as conn:
        (key,) = foreign_keys(conn, "bemi", at.settings.source, "public.visits")
    assert (key.referenced, key.parent_key) == (["number"], ["number"])
