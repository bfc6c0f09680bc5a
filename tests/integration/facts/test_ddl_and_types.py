"""What PostgreSQL sends of types and of tables that are altered, and what Bemi makes of that."""

import json
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg import sql

from bemi.capture import event_triggers
from bemi.capture.messages import Insert, LogicalMessage, Relation, Type
from bemi.capture.source import Source
from bemi.errors import SetupError
from tests.conftest import MakeDatabase
from tests.integration.conftest import Track
from tests.integration.facts.command import bemi
from tests.integration.facts.peek import columns_sent, kinds_sent, peek, rows_sent, sent
from tests.support.tracked import Row, Tracked

TABLE = "create table t (id int primary key, title text, v int)"


def told(rows: list[Row], *names: str) -> list[Any]:
    """Of each row the members called `names`; one name gives bare values."""
    if len(names) == 1:
        return [row[names[0]] for row in rows]
    return [tuple(row[name] for name in names) for row in rows]


def run(at: Tracked, *statements: str) -> None:
    for statement in statements:
        at.source.execute(statement.encode())


def versions(at: Tracked) -> list[Row]:
    """The versions of the tables that the history knows, the oldest first."""
    return at.query("select * from bemi.schema_history order by from_position, from_ordinal")


def names_of(version: Row) -> list[str]:
    return [column["name"] for column in version["columns"]]


# --- the catalog


def test_the_catalog_is_read_now_and_the_stream_is_the_past(tracked: Track) -> None:
    """RELATION has names, types and the identity, but neither numbers nor the key: where the
    catalog has moved on, the version is inferred, and so are its changes."""
    at = tracked("create table t (id int, title text, v int, primary key (v, id))")
    run(at, "insert into t values (1, 'a', 5)", "alter table t rename title to label")
    run(at, "insert into t values (2, 'b', 6)")
    past, present = sent(at, Relation)
    assert [column.name for column in past.columns] == ["id", "title", "v"]
    assert [column.name for column in present.columns] == ["id", "label", "v"]
    for column in past.columns:
        assert (column.number, column.type) == (0, "")
    key = at.source.execute(
        "select a.attname::text from pg_attribute a where a.attrelid = 't'::regclass "
        "and a.attnum > 0 order by a.attnum"
    ).fetchall()
    assert key == [("id",), ("label",), ("v",)]

    rows = at.changes()
    assert told(rows, "primary_key", "flags") == [
        ('["5","1"]', ["inferred"]),
        ('["6","2"]', None),
    ]
    assert told(rows, "after") == [
        {"id": 1, "title": "a", "v": 5},
        {"id": 2, "label": "b", "v": 6},
    ]
    of_rows = [each for each in versions(at) if each["from_ordinal"]]
    assert [(names_of(each), each["inferred"]) for each in of_rows] == [
        (["id", "title", "v"], True),
        (["id", "label", "v"], False),
    ]


def test_a_last_column_dropped_and_added_again_looks_like_the_same(tracked: Track) -> None:
    """By name and type nothing happened. A worker that is there tells them apart by number;
    recorded DDL tells it exactly."""
    at = tracked(TABLE)
    event_triggers.install(at.source)
    run(at, "insert into t values (1, 'a', 5)")
    at.catch_up()
    run(at, "alter table t drop v", "alter table t add v int", "insert into t values (2, 'b', 6)")
    first = versions(at)[0]
    (again,) = sent(at, Relation)
    assert [(column.name, column.type_oid) for column in again.columns] == [
        (column["name"], column["type_oid"]) for column in first["columns"]
    ]
    run(at, "update t set title = 'c' where id = 1")

    rows = at.changes()
    assert rows[2]["before"].get("v") is None
    assert (rows[2]["before"]["title"], rows[2]["after"]["v"]) == ("a", None)
    was, between, now = ({c["name"]: c["number"] for c in each["columns"]} for each in versions(at))
    assert between == {name: number for name, number in was.items() if name != "v"}
    assert (was["v"], now["v"]) == (3, 4)
    assert was.items() - {("v", 3)} == now.items() - {("v", 4)}
    statements = at.query(
        "select distinct on (commit_position) statement, commit_position from bemi.ddl "
        "order by commit_position"
    )
    assert told(statements, "statement") == ["alter table t drop v", "alter table t add v int"]
    commits = told(statements, "commit_position")
    assert rows[0]["commit_position"] < commits[0] < commits[1] < rows[1]["commit_position"]


@pytest.mark.parametrize(
    "ddl",
    [
        ["alter table t drop v", "alter table t add v int"],
        ["alter table t alter v type int using v + 1"],
        ["alter table t add w int default 7"],
        ["alter table t add w float default random()"],
    ],
    ids=["added again", "values rewritten", "added", "added with values of its own"],
)
def test_an_old_row_is_not_filled_with_values_that_were_rewritten(
    tracked: Track, ddl: list[str]
) -> None:
    """Not even where the worker read the catalog after all of it, when both versions look alike."""
    at = tracked(TABLE)
    run(at, "insert into t values (1, 'a', 5)", *ddl)
    column = "w" if "add w" in ddl[0] else "v"
    row = at.source.execute(f"select {column} from t".encode()).fetchone()
    assert row is not None
    run(at, "update t set title = 'b'")
    change = at.changes()[1]
    if column in change["before"]:
        assert float(change["before"][column] or 0) == float(row[0] or 0)
    else:
        assert f"before_unknown:{column}" in change["flags"]


# --- the order of things


def test_a_relation_is_announced_again_before_the_next_row(tracked: Track) -> None:
    """After DDL, in the middle of a transaction too, after TRUNCATE, and on each connection; a
    table is its OID, and is shown by the name that it had."""
    at = tracked(TABLE, "create schema archive")
    with at.source.transaction():
        run(at, "insert into t values (1, 'a', 1)", "insert into t values (2, 'a', 1)")
        run(at, "alter table t add due date", "insert into t values (3, 'a', 1, '2024-01-01')")
        run(at, "alter table t drop v", "insert into t values (4, 'a')")
        run(at, "alter table t rename title to label", "insert into t values (5, 'a')")
        run(at, "alter table t alter label type int using 7", "insert into t values (6, 7)")
        run(at, "alter table t rename to u", "insert into u values (7, 7)")
        run(at, "alter table u set schema archive", "insert into archive.u values (8, 7)")
    run(at, "truncate archive.u", "insert into archive.u values (9, 7)")
    run(at, "insert into archive.u values (10, 7)")
    announced = ["Relation", "Insert"]
    emptied = ["Relation", "Truncate"]
    expected = [*announced, "Insert", *announced * 6, *emptied, *announced, "Insert"]
    assert kinds_sent(at) == expected
    assert columns_sent(at) == [
        ["id", "title", "v"],
        ["id", "title", "v", "due"],
        ["id", "title", "due"],
        *[["id", "label", "due"]] * 6,
    ]
    names = [(message.schema, message.name) for message in sent(at, Relation)]
    assert names == [("public", "t")] * 5 + [("public", "u")] + [("archive", "u")] * 3
    assert len({message.oid for message in sent(at, Relation)}) == 1
    assert kinds_sent(at) == expected, "another connection is told all of it again"

    rows = at.changes()
    assert told(rows, "schema", "table") == (
        [("public", "t")] * 6 + [("public", "u")] + [("archive", "u")] * 4
    )
    assert [set(row["after"]) for row in rows] == [
        {"id", "title", "v"},
        {"id", "title", "v"},
        {"id", "title", "v", "due"},
        {"id", "title", "due"},
        *[{"id", "label", "due"}] * 4,
        set(),
        *[{"id", "label", "due"}] * 2,
    ]
    assert told(rows[5:6], "after") == [{"id": 6, "label": 7, "due": None}]
    assert len({version["relation"] for version in versions(at)}) == 1
    begin = {(each["table"], each["from_ordinal"]) for each in versions(at)}
    assert begin >= {("t", 3), ("t", 4), ("t", 5), ("t", 6), ("u", 7)}
    run(at, "insert into archive.u values (11, 7)")
    assert kinds_sent(at) == announced
    assert told(at.changes()[-1:], "primary_key", "flags") == [("11", None)]


def test_what_rewrites_or_drops_rows_without_sending_any(tracked: Track) -> None:
    """Event triggers tell it, where there are some; what was stored before is not taken for what
    is there now, and `bemi verify` does not take the difference for a change that is missing."""
    at = tracked(
        TABLE,
        "create table full_t (like t including all)",
        "create table gone (id int primary key)",
        full=["public.full_t"],
    )
    run(at, "insert into t values (1, 'a', 5)", "insert into gone values (1)")
    run(at, "insert into full_t values (1, 'a', 5)")
    at.catch_up()
    event_triggers.install(at.source)
    at.catch_up()
    quiet = (
        "alter table t alter v type bigint using v + 1",
        "alter table t add w int default 7",
        "alter table t add r float default random()",
        "vacuum full t",
        "cluster t using t_pkey",
        "drop table gone",
    )
    before = at.source.execute("select * from t").fetchone()
    run(at, *quiet)
    assert at.source.execute("select * from t").fetchone() != before
    assert rows_sent(at) == []
    messages = [
        json.loads(message.content)
        for message in sent(at, LogicalMessage)
        if message.prefix == "_bemi_ddl"
    ]
    assert {message["statement"] for message in messages} == {
        each for each in quiet if not each.startswith(("vacuum", "cluster"))
    }

    run(at, *(each.replace("table t", "table full_t") for each in quiet[:3]))
    run(at, "update full_t set title = 'b'", "update t set title = 'b'")
    of_full, change = at.changes()[-2:]
    assert of_full["flags"] is None
    assert (of_full["before"]["v"], of_full["before"]["w"]) == (6, 7)
    assert of_full["before"] == {**of_full["after"], "title": "a"}
    assert change["before"] == {"id": 1, "title": "a"}
    assert sorted(change["flags"]) == [f"before_unknown:{name}" for name in ("r", "v", "w")]
    assert (change["after"]["v"], change["after"]["w"]) == (6, 7)
    found = at.query("select tag, identity, statement from bemi.ddl order by position")
    assert {(row["tag"], row["statement"]) for row in found} == {
        ("DROP TABLE" if each.startswith("drop") else "ALTER TABLE", each)
        for each in (*quiet, *(each.replace("table t", "table full_t") for each in quiet[:3]))
        if not each.startswith(("vacuum", "cluster"))
    }
    gaps = at.query("select columns from bemi.missing where cause = 'rewrite'")
    assert {name for gap in gaps for name in gap["columns"]} == {"v", "w", "r"}
    assert [found["found"] for found in json.loads(bemi(at.settings, "verify", "--json"))] == [0]


# --- types


def test_generated_columns_are_not_sent_before_18(tracked: Track) -> None:
    """From 18 on they are, because Bemi's publication asks for it."""
    at = tracked(
        "create table boxes (id int primary key, w int, "
        "area int generated always as (w * w) stored, note text)",
        full=["*.*"],
    )
    sends = at.source.info.server_version >= 180000
    run(at, "insert into boxes values (1, 2, default, 'a')", "update boxes set w = 3")
    assert columns_sent(at) == [["id", "w", *(["area"] if sends else []), "note"]]
    if sends:
        (row,) = at.source.execute(
            "select pubgencols::text from pg_publication where pubname = 'bemi'"
        ).fetchall()
        assert row == ("s",)

    created, updated = at.changes()
    area = {"area": 4} if sends else {}
    assert created["after"] == {"id": 1, "w": 2, "note": "a", **area}
    assert updated["after"]["w"] == 3
    assert updated["after"].get("area") == (9 if sends else None)
    assert updated["flags"] is None
    (version,) = versions(at)
    derived = {each["name"] for each in version["columns"] if each["generated"]}
    assert derived == set(area)


def test_a_domain_is_announced_with_the_name_of_its_base_type(tracked: Track) -> None:
    """The column has the domain's OID, the TYPE message the name of what it is made of: the
    history keeps both."""
    at = tracked(
        "create type mood as enum ('sad', 'happy')",
        "create domain feeling as mood",
        "create domain positive as int check (value > 0)",
        "create table t (id positive primary key, feel feeling)",
    )
    run(at, "insert into t values (1, 'happy')")
    named = {message.oid: (message.schema, message.name) for message in sent(at, Type)}
    oids = dict(
        at.source.execute(
            "select typname::text, oid::bigint from pg_type "
            "where typname in ('mood', 'feeling', 'positive')"
        ).fetchall()
    )
    assert named == {
        oids["positive"]: ("pg_catalog", "int4"),
        oids["feeling"]: ("public", "mood"),
    }

    (row,) = at.changes()
    assert row["after"] == {"id": 1, "feel": "happy"}
    (version,) = versions(at)
    assert [(each["type"], each["type_oid"]) for each in version["columns"]] == [
        ("positive", 23),
        ("feeling", oids["mood"]),
    ]


STYLED = (
    "insert into t values (1, '2024-02-01 12:00+00', '2024-02-01', '1 day', '\\x00ff', "
    "0.1::float8 * 3)"
)


@pytest.fixture
def in_odd_settings(tracked: Track) -> Iterator[Tracked]:
    """A source whose role prefers other forms of values than Bemi does."""
    at = tracked(
        "create table t (id int primary key, at timestamptz, day date, span interval, "
        "data bytea, f float8)"
    )
    prefers = sql.SQL("alter role current_user in database {}").format(
        sql.Identifier(at.source.info.dbname)
    )
    for setting in (
        "datestyle = 'SQL, DMY'",
        "intervalstyle = iso_8601",
        "bytea_output = escape",
        "timezone = 'Asia/Kolkata'",
        "extra_float_digits = -10",
    ):
        at.source.execute(prefers + sql.SQL(" set " + setting))
    yield at
    at.source.execute(prefers + sql.SQL(" reset all"))


def test_session_settings_of_the_role_change_the_stream(in_odd_settings: Tracked) -> None:
    """Bemi's own are among its connection's startup options, which go before."""
    at = in_odd_settings
    run(at, STYLED)
    with at.connect() as odd:
        (message,) = (each for each in peek(at, odd) if isinstance(each, Insert))
    assert message.new == (
        b"1",
        b"01/02/2024 17:30:00 IST",
        b"01/02/2024",
        b"P1D",
        b"\\000\\377",
        b"0.3",
    )

    (row,) = at.changes()
    assert row["after"] == {
        "id": 1,
        "at": "2024-02-01 12:00:00+00",
        "day": "2024-02-01",
        "span": "1 day",
        "data": "\\x00ff",
        "f": Decimal("0.30000000000000004"),
    }


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("datestyle", "'German'"),
        ("intervalstyle", "sql_standard"),
        ("timezone", "'Asia/Kolkata'"),
        ("bytea_output", "escape"),
        ("extra_float_digits", "0"),
        ("xmloption", "document"),
        ("lc_monetary", "'POSIX'"),
        ("search_path", "public"),
    ],
)
def test_a_setting_that_did_not_take_is_refused(tracked: Track, name: str, other: str) -> None:
    """As behind a pooler that strips startup options: read back, before anything is stored."""
    at = tracked(TABLE)
    with closing(Source(at.settings.source_url)) as source:
        source.check_settings()
        source._conn.execute(f"set {name} to {other}".encode())
        with pytest.raises(SetupError, match=name):
            source.check_settings()


# Type, value as SQL, the text that PostgreSQL sends, and what is stored.
SPECIAL: tuple[tuple[str, str, str, Any], ...] = (
    ("float8", "'NaN'", "NaN", "NaN"),
    ("float8", "'Infinity'", "Infinity", "Infinity"),
    ("real", "'-Infinity'", "-Infinity", "-Infinity"),
    ("numeric", "'NaN'", "NaN", "NaN"),
    ("numeric", "'Infinity'", "Infinity", "Infinity"),
    ("numeric", "'-Infinity'", "-Infinity", "-Infinity"),
    ("date", "'infinity'", "infinity", "infinity"),
    ("timestamp", "'-infinity'", "-infinity", "-infinity"),
    ("timestamptz", "'infinity'", "infinity", "infinity"),
    ("date", "'4713-01-01 BC'", "4713-01-01 BC", "4713-01-01 BC"),
    ("timestamptz", "'0001-01-01 00:00+00 BC'", "0001-01-01 00:00:00+00 BC", None),
    ("time", "'24:00'", "24:00:00", "24:00:00"),
    ("timetz", "'24:00+00'", "24:00:00+00", "24:00:00+00"),
    ("int", "-2147483648", "-2147483648", -2147483648),
    ("numeric", f"'{'9' * 1000}.{'1' * 500}'", f"{'9' * 1000}.{'1' * 500}", None),
    ("numeric", "'1.50'", "1.50", None),
)


def test_special_values_are_sent_as_exact_text(tracked: Track) -> None:
    """They are kept as JSON strings of it; finite numbers as JSON numbers, to the last digit."""
    columns = ", ".join(f"c{at} {each[0]}" for at, each in enumerate(SPECIAL))
    at = tracked(f"create table t (id int primary key, {columns})")
    at.source.execute("set timezone to 'UTC'")
    at.source.execute("set extra_float_digits to 3")
    run(at, f"insert into t values (1, {', '.join(each[1] for each in SPECIAL)})")
    (message,) = sent(at, Insert)
    assert message.new[1:] == tuple(each[2].encode() for each in SPECIAL)

    (row,) = at.changes()
    assert row["flags"] is None
    kept = at.query(
        "select key, value #>> '{}' as text, jsonb_typeof(value) as kind "
        "from bemi.changes, jsonb_each(after)"
    )
    stored = {each["key"]: (each["text"], each["kind"]) for each in kept}
    for number, (type_name, _, text, natural) in enumerate(SPECIAL):
        is_number = type_name in ("int", "numeric") and text[-1].isdigit()
        assert stored[f"c{number}"] == (text, "number" if is_number else "string"), type_name
        if natural is not None:
            assert row["after"][f"c{number}"] == natural


def test_a_bigint_beyond_2_to_the_53(tracked: Track) -> None:
    """A double can't hold it; nothing on its way out of the store makes it one."""
    at = tracked("create table t (id bigint primary key, many bigint[])")
    odd = 2**53 + 1
    assert int(float(odd)) != odd
    run(at, f"insert into t values ({odd}, '{{{odd},{-(2**63)}}}')")
    (message,) = sent(at, Insert)
    assert message.new == (b"%d" % odd, b"{%d,%d}" % (odd, -(2**63)))

    (row,) = at.changes()
    assert (row["primary_key"], row["after"]) == (str(odd), {"id": odd, "many": [odd, -(2**63)]})
    (text,) = at.query(
        "select after ->> 'id' as id, (after ->> 'id')::bigint as n from bemi.changes"
    )
    assert text == {"id": str(odd), "n": odd}
    for form in ("--json", "--ndjson"):
        printed = bemi(at.settings, "changes", form)
        found = json.loads(printed)
        change = found[0] if isinstance(found, list) else found
        assert change["after"] == {"id": odd, "many": [odd, -(2**63)]}
        assert f'"primary_key": "{odd}"' in printed.replace('":"', '": "')


def test_a_nul_in_json_is_refused_by_jsonb(tracked: Track) -> None:
    """It is kept as a string, with a flag, and never stops the stream."""
    at = tracked("create table t (id int primary key, doc json)")
    texts = ['{"a": "\\u0000"}', '["\\ud83d"]', '{"a": 1, "a": 2}', '{"a": "\\\\u0000"}']
    for text in texts[:2]:
        with pytest.raises(psycopg.DataError):
            at.destination.execute("select %s::jsonb", [text])
    for number, text in enumerate(texts):
        at.source.execute("insert into t values (%s, %s::json)", [number, text])
    assert [message.new[1] for message in sent(at, Insert)] == [text.encode() for text in texts]

    nul, half, twice, natural = at.changes()
    for row, text in ((nul, texts[0]), (half, texts[1]), (twice, texts[2])):
        assert (row["after"]["doc"], row["flags"]) == (text, ["text:doc"])
    assert (natural["after"]["doc"], natural["flags"]) == ({"a": "\\u0000"}, None)


FLOATS = ("0.1", "1e15", "1e-5", "1e23", "5e-324", "1.7976931348623157e308", "123456789.125", "-0")


def test_a_float_is_sent_as_its_shortest_text(tracked: Track) -> None:
    """The same value comes back, to the bit, though its spelling may be another."""
    at = tracked("create table t (id int primary key, d float8, r real)")
    for number, text in enumerate(FLOATS):
        real = {"5e-324": "1e-45", "1.7976931348623157e308": "3.4028235e38"}.get(text, text)
        run(at, f"insert into t values ({number}, '{text}', '{real}')")
    expected = at.source.execute(
        "select id::text, d::text, float8send(d), float4send(r) from t order by id"
    ).fetchall()
    assert [message.new[1] for message in sent(at, Insert)] == [
        text.encode() for _, text, _, _ in expected
    ]

    flagged = [row["flags"] for row in at.changes()]
    assert flagged == [None] * (len(FLOATS) - 1) + [["text:d", "text:r"]], "-0 has no JSON number"
    found = at.query(
        "select primary_key, after ->> 'd' as spelled, float8send((after ->> 'd')::float8) as d, "
        "float4send((after ->> 'r')::real) as r from bemi.changes order by commit_position"
    )
    assert [(row["primary_key"], row["d"], row["r"]) for row in found] == [
        (key, d, r) for key, _, d, r in expected
    ]
    spelled = {text: row["spelled"] for (_, text, _, _), row in zip(expected, found, strict=True)}
    assert spelled["1e+15"] == "1000000000000000"


# Type and values as SQL; each column comes back equal in text and in type.
ODD_TYPES: tuple[tuple[str, str], ...] = (
    ("int[]", "'[0:1]={1,2}'"),
    ("int[]", "'{{1,2},{3,NULL}}'"),
    ("int[]", "'{}'"),
    ("text[]", "array['NULL', null, '', 'a,b', '\"', E'\\\\', '{', 'é🐘']"),
    ("jsonb[]", "array['1'::jsonb, '\"1\"', 'null', null, '{\"a\": [1]}']"),
    ("json[]", "array['{\"a\" :1}'::json, null]"),
    ("float8[]", "'{-0,NaN,Infinity,0.1}'"),
    ("bytea[]", "array['\\x00'::bytea, '\\x22']"),
    ("hstore", '\'a=>1, b=>NULL, "c d"=>"\\""\''),
    ("citext", "'MiXed'"),
    ("citext[]", "array['MiXed'::citext]"),
    ("int4range", "'(1,5]'"),
    ("tstzrange", "'[2024-01-01 00:00+00,infinity)'"),
    ("numrange[]", "array['empty'::numrange, '(,1.50]']"),
    ("int4multirange", "'{[1,3),[5,8)}'"),
    ("char(5)", "'ab'"),
    ("char(3)[]", "array['a'::char(3)]"),
    ("bit(4)", "B'0101'"),
    ("bit varying(9)[]", "array[B'01'::bit varying]"),
    ("money", "'-1234.56'"),
    ("point3", "row(1, '-0', 'a \"b\", \\')"),
    ("point3[]", "array[row(1, 'NaN', null)::point3, null]"),
    ("mood", "'so, so'"),
    ("mood[]", "array['so, so'::mood, 'sad']"),
    ("small", "7"),
    ("jsonb", "'null'"),
    ("jsonb", "null"),
    ("json", "'null'"),
    ("jsonb", '\'{"b": 1.50, "a": null}\''),
    ("float8", "'-0'"),
    ("interval", "'1 year -2 days 03:04:05.678'"),
    ("tsvector", "'a:1A b:2'"),
    ("path", "'((0,0),(1,1.5))'"),
    ("inet", "'10.0.0.1/8'"),
    ("macaddr8", "'08:00:2b:01:02:03:04:05'"),
    ("box[]", "array['(1,1),(0,0)'::box, '(2,2),(0,0)'::box]"),
    ("oidvector", "'1 2 3'"),
    ("xml", "'<a b=\"c\">é</a>'"),
)
TYPES_OF_ITS_OWN = (
    "create extension if not exists hstore",
    "create extension if not exists citext",
    "create type mood as enum ('sad', 'so, so', 'happy')",
    "create type point3 as (x int, y float8, label text)",
    "create domain small as int check (value < 100)",
)


def test_types_that_are_sent_as_text_come_back_equal(
    tracked: Track, make_database: MakeDatabase
) -> None:
    """What JSON can't say by itself (bounds of arrays, JSON in arrays, -0, JSON's null) is kept
    as text, or flagged, and `populate` reads it again."""
    shown = "select array_to_json('[0:1]={1,2}'::int[])::text, to_json('-0'::float8)::jsonb::text"
    with psycopg.connect(make_database()) as conn:
        assert conn.execute(shown.encode()).fetchone() == ("[1,2]", "0")
        both = conn.execute(
            "select to_jsonb(r) = to_jsonb(s) from (select null::jsonb as d) r, "
            "(select 'null'::jsonb as d) s"
        ).fetchone()
        assert both == (True,)
        with_xml = _has_xml(conn)
    types = [each for each in ODD_TYPES if each[0] != "xml" or with_xml]
    columns = ", ".join(f"c{number} {each[0]}" for number, each in enumerate(types))
    table = f"create table t (id int primary key, {columns})"
    at = tracked(*TYPES_OF_ITS_OWN, table, full=["*.*"])
    values = ", ".join(f"{value}::{name}" for name, value in types)
    run(at, f"insert into t values (1, {values})", "update t set id = 2", "delete from t")
    insert, *_ = rows_sent(at)
    assert isinstance(insert, Insert)
    assert all(value is None or isinstance(value, bytes) for value in insert.new)

    created, updated, deleted = at.changes()
    for statement in (*TYPES_OF_ITS_OWN, table):
        at.destination.execute(statement.encode())
    at.destination.execute(
        "set timezone to 'UTC'; set lc_monetary to 'C'; set extra_float_digits to 3"
    )
    for change, image in (
        (created, "after"),
        (updated, "before"),
        (updated, "after"),
        (deleted, "before"),
    ):
        (back,) = at.query(
            f"select {', '.join(f'r.c{n}::text as c{n}' for n in range(len(types)))} "
            f"from bemi.changes c, bemi.populate(null::t, c.{image}, c.flags) r where c.id = %s",
            [change["id"]],
        )
        for number, ((name, value), raw) in enumerate(zip(types, insert.new[1:], strict=True)):
            text = raw.decode() if isinstance(raw, bytes) else None
            assert _alike(name, back[f"c{number}"], text), (name, value)
    flags = {flag for flag in created["flags"] if flag.startswith("text:")}
    kept_as_text = {f"text:c{n}" for n in (0, 4, 5, 6, types.index(("float8", "'-0'")))}
    assert kept_as_text <= flags
    nulls = {flag for flag in created["flags"] if flag.startswith("json_null:")}
    assert nulls == {
        f"json_null:c{types.index((name, chr(39) + 'null' + chr(39)))}"
        for name in ("jsonb", "json")
    }


def _alike(type_name: str, back: str | None, text: str | None) -> bool:
    if type_name.startswith("char("):
        return (back or "").rstrip() == (text or "").rstrip()  # ::text takes the blanks away
    return back == text


def _has_xml(conn: psycopg.Connection[Any]) -> bool:
    try:
        with conn.transaction():
            conn.execute("select '<a/>'::xml")
    except psycopg.errors.FeatureNotSupported:
        return False
    return True


def test_bytes_of_a_sql_ascii_source_stop_a_stream_in_utf8(tracked: Track) -> None:
    """It is read as it is; what is no text is written as `\\xNN` and said to be so."""
    at = tracked("create table t (id int primary key, v text)", encoding="SQL_ASCII", locale="C")
    with at.connect() as odd:
        odd.execute("set client_encoding to 'SQL_ASCII'")
        odd.execute(b"insert into t values (1, E'caf\\xe9'), (2, E'caf\\xc3\\xa9')")
        (first, *_) = (each for each in peek(at, odd) if isinstance(each, Insert))
        assert first.new == (b"1", b"caf\xe9")
        odd.execute("set client_encoding to 'UTF8'")
        with pytest.raises(psycopg.errors.CharacterNotInRepertoire):
            peek(at, odd)

    assert told(at.changes(), "after", "flags") == [
        ({"id": 1, "v": "caf\\xe9"}, ["text:v", "undecodable:v"]),
        ({"id": 2, "v": "café"}, None),
    ]
