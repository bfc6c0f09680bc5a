"""`populate` of the destination: a stored image becomes a row again, as far as it is known."""

from collections.abc import Iterator, Mapping
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from bemi.store import migrate

Connection = psycopg.Connection[Any]

TABLE = """
create schema app;
create domain app.email as text check (value like '%@%') not null;
create domain app.document as json not null;
create table app.t (
    id int primary key, gone int, mail app.email, a jsonb, b json, "D o" app.document,
    twice int generated always as (id * 2) stored, f float8, "é🐘""x" text
);
alter table app.t drop column gone;
create table app.images (
    operation text, before jsonb, after jsonb, flags text[], n int generated always as identity
);
"""
COLUMNS = """p.id, p.mail, p.a::text, p.b::text, p."D o"::text, p.twice, p.f::text, p."é🐘""x" """
NOTHING = (None,) * 8
NULL = "null::app.t"
BASE = """('1', 'old@x', '{}', '[]', '1', 2, 1.5, 'old')::app.t"""


@pytest.fixture
def conn(destination_url: str) -> Iterator[Connection]:
    with psycopg.connect(destination_url, autocommit=True) as connection:
        migrate.migrate(connection, "bemi")
        connection.execute(TABLE.encode())
        yield connection


def populate(
    conn: Connection, image: Mapping[str, object] | None, *flags: str, base: str = NULL
) -> tuple[Any, ...]:
    """The row's columns; JSON and floats as text."""
    row = conn.execute(
        f"select {COLUMNS} from bemi.populate({base}, %s, %s) p".encode(),
        [None if image is None else Jsonb(image), list(flags) or None],
    ).fetchone()
    assert row is not None
    return tuple(row)


def test_a_whole_image(conn: Connection) -> None:
    image: dict[str, object]
    image = {"id": 7, "mail": "a@b", "a": {"n": None}, "b": [1, None], "D o": "x", "f": 1e300}
    row = (7, "a@b", '{"n": null}', "[1, null]", '"x"', None, "1e+300")
    assert populate(conn, image) == (*row, None)
    assert populate(conn, {**image, 'é🐘"x': ' "'}) == (*row, ' "')
    assert populate(conn, image, base=BASE) == (*row[:5], 2, "1e+300", "old")
    # Columns that the table no longer has are left out.
    assert populate(conn, {**image, "gone": 1}, "text:gone", "masked:gone") == (*row, None)


def test_no_image_is_the_base(conn: Connection) -> None:
    images: tuple[dict[str, object] | None, ...] = (None, {})
    for image in images:
        assert populate(conn, image) == NOTHING
        assert populate(conn, image, "before_unknown") == NOTHING
        assert populate(conn, image, base=BASE)[:2] == (1, "old@x")
    assert conn.execute("select bemi.populate(null::app.t, '{}') is null").fetchone() == (True,)


def test_json_in_text_form(conn: Connection) -> None:
    """What jsonb would refuse or alter is a string of its text; other types take theirs anyway."""
    text = ' {"a": 1, "a": "\\u0000"}'
    image = {"id": 1, "a": "[1]", "b": text, "D o": text, "f": "-0"}
    row = populate(conn, image, "text:a", "text:b", "text:D o", "text:f", "text:id")
    assert row == (1, None, "[1]", text, text, None, "-0", None)
    assert populate(conn, {"id": 1, "b": None}, "text:b") == (1, *NOTHING[1:])


def test_json_null_is_not_null(conn: Connection) -> None:
    image: dict[str, object] = {"id": 1, "a": None, "b": None, "D o": None, "f": None}
    flags = [f"json_null:{name}" for name in ("a", "b", "D o", "f")]
    assert populate(conn, image, *flags) == (1, None, "null", "null", "null", None, None, None)
    # Of the two images of a change only one may have it.
    assert populate(conn, {**image, "a": 1, "b": [None]}, *flags)[2:5] == ("1", "[null]", "null")
    assert populate(conn, {"id": 1}, *flags) == (1, *NOTHING[1:])
    assert populate(conn, {"id": 1, "a": None, "D o": 2})[2:5] == (None, None, "2")


@pytest.mark.parametrize("flag", ["masked", "hashed", "undecodable"])
def test_a_replacement_is_no_value(conn: Connection, flag: str) -> None:
    image = {"id": "***", "mail": "***", "b": "***", "f": "***", "D o": 5}
    flags = [f"{flag}:{name}" for name in ("id", "mail", "b", "f")]
    assert populate(conn, image, *flags, "text:b") == (*NOTHING[:4], "5", *NOTHING[5:])
    row = populate(conn, image, *flags, "text:b", base=BASE)
    assert row == (1, "old@x", "{}", "[]", "5", 2, "1.5", "old")
    assert populate(conn, {"mail": "***"}, f"{flag}:mail") == NOTHING


@pytest.mark.parametrize(
    "flags",
    [
        ["before_unknown"],
        ["before_unknown:mail", "before_unknown:D o"],
        ["unchanged:mail", "too_large:D o"],
        ["unchanged:text:mail", "key_digest", "inferred", "context_dropped"],
    ],
)
def test_what_is_missing_stays_as_it_was(conn: Connection, flags: list[str]) -> None:
    """Also where a domain of the table refuses null."""
    assert populate(conn, {"id": 7}, *flags) == (7, *NOTHING[1:])
    assert populate(conn, {"id": 7, "D o": [1]}, *flags)[:5] == (7, None, None, None, "[1]")
    row = populate(conn, {"id": 7, "f": None}, *flags, base=BASE)
    assert row == (7, "old@x", "{}", "[]", "1", 2, None, "old")


def test_a_null_that_a_domain_refuses_comes_back(conn: Connection) -> None:
    """A table may have it: a value that is of the domain already is not checked again."""
    image = {"id": 7, "mail": None, "D o": None}
    assert populate(conn, image) == (7, *NOTHING[1:])


def test_a_value_that_its_type_refuses_is_an_error(conn: Connection) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        populate(conn, {"id": 1, "mail": "nobody"})
    with pytest.raises(psycopg.errors.InvalidTextRepresentation):
        populate(conn, {"id": "x"})


def test_it_works_in_every_place_and_with_every_search_path(conn: Connection) -> None:
    conn.execute(
        """insert into app.images (operation, before, after, flags) values
        ('CREATE', '{}', '{"id": 1, "mail": "a@b", "b": null}', '{json_null:b}'),
        ('UPDATE', '{"id": 1}', '{"id": 1, "f": 2}', '{before_unknown}'),
        ('DELETE', '{"id": 1}', '{}', null)"""
    )
    # Operators and functions that would be taken for PostgreSQL's.
    conn.execute(
        """create function app.jsonb_populate_record(anyelement, jsonb) returns anyelement
        language sql as 'select $1';
        create function app.minus(jsonb, text[]) returns jsonb language sql as 'select $1';
        create operator app.- (function = app.minus, leftarg = jsonb, rightarg = text[])"""
    )
    lateral = """select c.operation, b.id, a.id, a.b::text, a.f from app.images c,
        lateral bemi.populate(null::app.t, c.before, c.flags) b,
        lateral bemi.populate(null::app.t, c.after, c.flags) a order by c.n"""
    starred = """select c.operation, (bemi.populate(null::app.t, c.before)).id,
        (bemi.populate(null::app.t, c.after, c.flags)).* from app.images c order by c.n"""
    for path in ("''", "bemi", "app, pg_catalog", "pg_temp, app, public", "nowhere"):
        conn.execute(f"set search_path = {path}".encode())
        assert conn.execute(lateral.encode()).fetchall() == [
            ("CREATE", None, 1, "null", None),
            ("UPDATE", 1, 1, None, 2.0),
            ("DELETE", 1, None, None, None),
        ]
        rows = conn.execute(starred.encode()).fetchall()
        assert [row[:4] for row in rows] == [
            ("CREATE", None, 1, "a@b"),
            ("UPDATE", 1, 1, None),
            ("DELETE", 1, None, None),
        ]


def test_the_settings_of_a_session_make_no_difference(conn: Connection) -> None:
    conn.execute(
        """create table app.s (m money, a text[], t timestamptz, i interval, d date, c regclass);
        create table app.pg_class ();
        set search_path = app, pg_catalog; set array_nulls = off; set datestyle = 'SQL, DMY';
        set intervalstyle = sql_standard; set timezone = 'Asia/Kathmandu'"""
    )
    image = {
        "m": "$1,234.56",
        "a": "[0:1]={NULL,a}",
        "t": "2020-02-03 00:00:00+00",
        "i": "-1 days +02:03:00",
        "d": "2020-02-03",
        "c": "pg_class",
    }
    row = conn.execute(
        """select m = 1234.56::numeric::money, a[0] is null, t = '2020-02-03T00:00:00Z',
        extract(epoch from i)::int, d = make_date(2020, 2, 3), c::oid::int
        from bemi.populate(null::app.s, %s, '{text:a}')""",
        [Jsonb(image)],
    ).fetchone()
    assert row == (True, True, True, -86400 + 2 * 3600 + 3 * 60, True, 1259)


def test_xml_is_read_as_content(conn: Connection) -> None:
    try:
        conn.execute("select '<a/>'::xml")
    except psycopg.errors.FeatureNotSupported:
        pytest.skip("this PostgreSQL was built without xml: no table has a value of it")
    conn.execute("create table app.x (x xml); set xmloption = document")
    row = conn.execute(
        """select x::text from bemi.populate(null::app.x, '{"x": "a<b/>"}')"""
    ).fetchone()
    assert row == ("a<b/>",)


def test_a_reader_needs_no_more_than_the_schema(conn: Connection) -> None:
    conn.execute("drop role if exists populate_reader; create role populate_reader")
    try:
        conn.execute("grant usage on schema bemi, app to populate_reader")
        conn.execute("set role populate_reader")
        image = {"id": 1, "mail": "a@b", "a": None, "D o": "1"}
        row = populate(conn, image, "json_null:a", "text:D o")
        assert row == (1, "a@b", "null", None, "1", None, None, None)
    finally:
        conn.execute("reset role; drop owned by populate_reader; drop role populate_reader")


def test_a_table_that_is_altered_in_the_middle_of_a_session(conn: Connection) -> None:
    assert populate(conn, {"id": 1, "mail": None, "a": None}, "json_null:a")[2] == "null"
    statement = "select p::text from bemi.populate(null::app.t, %s, %s) p"
    arguments = [Jsonb({"id": 1, "new": "é", "a": "[1]"}), ["text:a"]]
    for alteration, expected in (
        ("add new text", "(1,,[1],,,,,,é)"),
        ("drop f", "(1,,[1],,,,,é)"),
        ("alter a type text", "(1,,[1],,,,,é)"),
        ("rename new to old", "(1,,[1],,,,,)"),
    ):
        conn.execute(f"alter table app.t {alteration}".encode())
        assert conn.execute(statement.encode(), arguments).fetchone() == (expected,)


def test_rows_of_a_domain_and_of_a_type(conn: Connection) -> None:
    conn.execute(
        "create domain app.some_t as app.t check ((value).id > 0);"
        "create type app.pair as (a int, b json)"
    )
    statement = "select bemi.populate(null::app.some_t, %s, '{json_null:b}')::text"
    image = Jsonb({"id": 1, "b": None})
    assert conn.execute(statement.encode(), [image]).fetchone() == ("(1,,,null,,,,)",)
    with pytest.raises(psycopg.errors.CheckViolation):
        conn.execute(statement.encode(), [Jsonb({"id": 0})])
    statement = "select bemi.populate((1, '2')::app.pair, %s, '{json_null:b}')::text"
    assert conn.execute(statement.encode(), [Jsonb({"b": None})]).fetchone() == ("(1,null)",)
