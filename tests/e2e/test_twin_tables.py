"""Two tables go through the same, one with REPLICA IDENTITY FULL and one without: what the first
has from the log, the second has from the history."""

import dataclasses
import json
import os
import random
import string
from collections.abc import Callable
from typing import Any, Final

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from bemi.rules import Rules
from tests.conftest import MakeDatabase
from tests.support.tracked import Row, Tracked
from tests.support.tracking import track

STEPS: Final = int(os.environ.get("BEMI_TEST_TWIN_STEPS", "600"))

TABLES: Final = """
create type mood as enum ('calm', 'wild');
create table whole (
    id int, part text, title text, body text, amount numeric, ratio float8, small float4,
    data jsonb, loose json, tags text[], numbers numeric[], at timestamptz, feeling mood,
    bytes bytea, span int4range, ok boolean, primary key (part, id)
);
alter table whole alter body set storage external, alter bytes set storage external;
create table keyed (like whole including all);
alter table whole replica identity full;
"""

COLUMNS: Final[dict[str, Callable[[random.Random], Any]]] = {
    "title": lambda r: r.choice([None, "", "NULL", "null", "ü€\U0001f600", 'a"b\\c', "x\ty\n"]),
    "body": lambda r: "".join(r.choices(string.ascii_letters, k=r.choice([3, 9000]))),
    "amount": lambda r: r.choice(["1", "1.0", "1.00", "-0.50", "NaN", "Infinity", "1e-9", None]),
    "ratio": lambda r: r.choice(["0", "-0", "1e-7", "1e300", "NaN", "-Infinity", "0.1", None]),
    "small": lambda r: r.choice(["0", "-0", "1e-7", "3.4e38", "NaN", "0.1", None]),
    "data": lambda r: r.choice([None, "null", '{"b": 1, "a": [1, 2.50]}', "[]", '"x"', "1e3"]),
    "loose": lambda r: r.choice(
        [None, "null", '{"b":1,  "a":2}', '{"a":1,"a":2}', '"\\u0000"', " 1.50 ", "[1 ,2]"]
    ),
    "tags": lambda r: r.choice(
        [None, "{}", '{a,NULL,"NULL","x,y","q\\"uote"}', "{{a,b},{c,d}}", "[2:3]={a,b}"]
    ),
    "numbers": lambda r: r.choice([None, "{}", "{1.0,2.00,NULL}", "{NaN,-1}", "{{1},{2}}"]),
    "at": lambda r: r.choice([None, "infinity", "2026-05-08 12:00+02", "0044-03-15 BC"]),
    "feeling": lambda r: r.choice([None, "calm", "wild"]),
    "bytes": lambda r: r.choice([None, b"", bytes(range(256)), r.randbytes(5000)]),
    "span": lambda r: r.choice([None, "empty", "[1,5)", "(,3]"]),
    "ok": lambda r: r.choice([None, True, False]),
}
PARTS: Final = ("a", "b", 'c"d', "\U0001f600")


class Twins:
    """Writes to both tables in one transaction, the same each time."""

    def __init__(self, conn: psycopg.Connection[Any], chance: random.Random) -> None:
        self.conn = conn
        self.chance = chance

    def both(self, statement: str, parameters: Any = None) -> None:
        for table in ("whole", "keyed"):
            query = sql.SQL(statement).format(table=sql.Identifier(table))
            self.conn.execute(query, parameters)

    def key(self) -> dict[str, Any]:
        return {"id": self.chance.randrange(12), "part": self.chance.choice(PARTS)}

    def step(self) -> None:
        chance = self.chance
        names = chance.sample(sorted(COLUMNS), chance.randint(1, 6))
        values = {name: COLUMNS[name](chance) for name in names}
        kind = chance.choices(
            ["insert", "update", "move", "delete", "update all", "truncate"],
            [30, 50, 10, 10, 3, 1],
        )[0]
        given = {**values, **self.key()}
        assignments = ", ".join(f"{name} = %({name})s" for name in names)
        if kind == "insert":
            columns = ", ".join(given)
            marks = ", ".join(f"%({name})s" for name in given)
            self.both(
                f"insert into {{table}} ({columns}) values ({marks}) on conflict (part, id) "
                f"do update set {assignments}",
                given,
            )
        elif kind == "update":
            self.both(
                f"update {{table}} set {assignments} where id = %(id)s and part = %(part)s", given
            )
        elif kind == "move":
            to = self.key()
            self.both(
                "update {table} t set id = %(to_id)s, part = %(to_part)s "
                "where id = %(id)s and part = %(part)s and not exists (select from {table} o "
                "where o.id = %(to_id)s and o.part = %(to_part)s)",
                {**given, "to_id": to["id"], "to_part": to["part"]},
            )
        elif kind == "delete":
            self.both("delete from {table} where id = %(id)s and part = %(part)s", given)
        elif kind == "update all":
            self.both(f"update {{table}} set {assignments}", given)
        else:
            self.both("truncate {table}")

    def run(self, steps: int) -> None:
        for _ in range(steps):
            with self.conn.transaction():
                for _ in range(self.chance.choice([1, 1, 1, 2, 5])):
                    with self.conn.transaction():
                        self.step()


def pairs(at: Tracked) -> list[tuple[Row, Row]]:
    """Each change of the one table, with that of the other."""
    rows = at.changes()
    whole = [row for row in rows if row["table"] == "whole"]
    keyed = [row for row in rows if row["table"] == "keyed"]
    assert len(whole) == len(keyed)
    return list(zip(whole, keyed, strict=True))


def _spelled(image: Any) -> Any:
    """But for how a `json` value was spelled, which the history does not keep of natural ones."""
    if not isinstance(image, dict) or not isinstance(image.get("loose"), str):
        return image
    return {**image, "loose": json.loads(image["loose"])}


def test_before_and_after_are_equal_row_by_row(make_database: MakeDatabase, seed: int) -> None:
    chance = random.Random(seed)
    source_url, destination_url = make_database(), make_database()
    with psycopg.connect(source_url, autocommit=True) as conn:
        conn.execute(TABLES.encode())
        at = Tracked(track(source_url, destination_url, schemas=["public"]))
        twins = Twins(conn, chance)
        for part in range(6):
            twins.run(STEPS // 6)
            if part % 2:
                at.catch_up()  # another worker goes on: what it needs is in the store only
    compared = pairs(at)
    differing = [
        (whole[name], keyed[name], keyed["flags"])
        for whole, keyed in compared
        for name in ("operation", "primary_key", "previous_key", "before", "after", "flags")
        if _spelled(whole[name]) != _spelled(keyed[name])
    ]
    unknown = [keyed["flags"] for _, keyed in compared if "unknown" in str(keyed["flags"])]
    at.close()
    print(f"{len(compared)} changes of each table, {len(unknown)} with something unknown")
    assert not differing, differing[:3]
    assert not unknown, unknown[:3]


def test_what_is_stored_of_both_is_as_lean(make_database: MakeDatabase) -> None:
    """An update keeps of the old row what it changed, wherever that was known from."""
    source_url, destination_url = make_database(), make_database()
    with psycopg.connect(source_url, autocommit=True) as conn:
        conn.execute(TABLES.encode())
        at = Tracked(track(source_url, destination_url, schemas=["public"]))
        for table in ("whole", "keyed"):
            conn.execute(
                f"insert into {table} (id, part, title, data) values (1, 'a', 'x', %s)",
                [Jsonb({"a": 1})],
            )
        at.catch_up()
        for table in ("whole", "keyed"):
            conn.execute(f"update {table} set title = 'y'")
        at.catch_up()
    stored = at.query(
        "select \"table\", changed::text, before from bemi.row_changes where operation = 'UPDATE'"
    )
    at.close()
    assert [row["changed"] for row in stored] == ['{"title": "x"}'] * 2
    assert [row["before"] for row in stored] == [None] * 2


def test_rules_leave_the_same_changes_out_of_both(make_database: MakeDatabase) -> None:
    """An update of nothing but ignored and excluded columns is none, wherever the old row is."""
    source_url, destination_url = make_database(), make_database()
    with psycopg.connect(source_url, autocommit=True) as conn:
        conn.execute("create table whole (id int primary key, v int, pw text, card text, at int)")
        conn.execute("create table keyed (like whole including all)")
        conn.execute("alter table whole replica identity full")
        settings = track(source_url, destination_url, schemas=["public"])
        rules = Rules(ignore=("*.at",), exclude=("*.pw",), hash=("*.card",))
        at = Tracked(dataclasses.replace(settings, rules=rules, hash_key="a secret, long enough"))
        for table in ("whole", "keyed"):
            conn.execute(f"insert into {table} values (1, 0, 'a', 'x', 0)")
        at.catch_up()
        for number, values in enumerate(
            ("at = {}", "pw = '{}', at = {}", "pw = '{}'", "v = {}, pw = '{}'", "card = '{}'"), 1
        ):
            for table in ("whole", "keyed"):
                conn.execute(f"update {table} set {values.format(number, number)}".encode())
        at.catch_up()
    # Their ordinals are not looked at: what the rules left out has left holes.
    stored = at.query("select * from bemi.changes order by epoch, commit_position, ordinal")
    at.close()
    whole, keyed = (
        [
            (row["operation"], {**row["before"], "at": None}, row["after"])
            for row in stored
            if row["table"] == table
        ]
        for table in ("whole", "keyed")
    )
    assert [(before.get("v"), after["v"]) for _, before, after in whole] == [
        (None, 0),
        (0, 4),
        (4, 4),
    ]
    assert keyed == whole
    assert "pw" not in str(stored)


def test_columns_that_come_go_and_are_renamed(make_database: MakeDatabase) -> None:
    """The old row is told in the columns of the new one; what DDL wrote into it, never."""
    source_url, destination_url = make_database(), make_database()
    with psycopg.connect(source_url, autocommit=True) as conn:
        conn.execute("create table t (id int primary key, a text, b text)")
        at = Tracked(track(source_url, destination_url, schemas=["public"]))
        steps = (
            "insert into t values (1, 'a', 'b')",
            "alter table t rename a to first",
            "update t set b = 'c'",
            "alter table t add plain text",
            "update t set b = 'd'",
            "alter table t add filled text default 'from nowhere'",
            "update t set b = 'e'",
            "update t set b = 'f'",
            "alter table t drop first",
            "update t set b = 'g'",
            "alter table t alter b type text using b || '!'",
            "update t set plain = 'h'",
            "update t set plain = 'i'",
            "update t set plain = 'j'",
        )
        for step in steps:
            conn.execute(step.encode())
            at.catch_up()  # before the catalog moves on
        found = [(row["before"], row["flags"]) for row in at.changes()]
    at.close()
    filled = "from nowhere"
    assert found == [
        ({}, None),
        ({"id": 1, "first": "a", "b": "b"}, None),
        ({"id": 1, "first": "a", "b": "c", "plain": None}, None),
        ({"id": 1, "first": "a", "b": "d", "plain": None}, ["before_unknown:filled"]),
        # That it is younger than the column, the history learned only later.
        ({"id": 1, "first": "a", "b": "e", "plain": None}, ["before_unknown:filled"]),
        ({"id": 1, "b": "f", "plain": None, "filled": filled}, None),
        # The rewrite that altered `b` took the default into the rows, too: who can tell?
        ({"id": 1, "plain": None}, ["before_unknown:b", "before_unknown:filled"]),
        # The look that saw it came before this row's first change behind it.
        ({"id": 1, "b": "g!", "plain": "h", "filled": filled}, None),
        ({"id": 1, "b": "g!", "plain": "i", "filled": filled}, None),
    ]


BACKLOGS: Final = {
    "dropped and added again": "alter table t drop v; alter table t add v int",
    "rewritten": "alter table t alter v type int using v + 1",
    "added with values": "alter table t add w float default random()",
    "added with a default": "alter table t add w int default 7",
    "names exchanged": "alter table t rename v to x; alter table t rename o to v;"
    " alter table t rename x to o",
}


@pytest.mark.parametrize("ddl", BACKLOGS.values(), ids=BACKLOGS)
def test_ddl_that_the_worker_reads_about_later_makes_no_old_row_up(
    make_database: MakeDatabase, ddl: str
) -> None:
    """The catalog is of now while the stream is of then: what is told of the old row is true."""
    source_url, destination_url = make_database(), make_database()
    with psycopg.connect(source_url, autocommit=True) as conn:
        conn.execute("create table t (id int primary key, v int, o int, title text)")
        at = Tracked(track(source_url, destination_url, schemas=["public"]))
        conn.execute("insert into t values (1, 5, 6, 'a')")
        conn.execute(ddl.encode())
        cursor = conn.execute("select to_jsonb(t) from t")
        (old,) = cursor.fetchone() or ({},)
        conn.execute("update t set title = 'b'")
        change = at.changes()[-1]
    at.close()
    unknown = {flag.partition(":")[2] for flag in change["flags"] or ()}
    assert {name: old[name] for name in change["before"]} == change["before"]
    assert old.keys() - change["before"].keys() == unknown - {""} or change["before"] == {}
    assert unknown
