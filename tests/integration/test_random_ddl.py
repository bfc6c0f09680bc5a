"""Columns come, go and change at random between changes that are read late: no state is wrong.

A value that a state has is the table's, or has a flag that says it may be another by now; a state
that is not known is refused. The worker and the look at the catalog come when they like, with and
without others who write between two readings. BEMI_TEST_DDL says how many tables, of
BEMI_TEST_SEED; else they are always the same.
"""

import json
import os
import random
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import psycopg
import pytest

from bemi.capture.sight import Memory
from bemi.errors import UnknownStateError
from bemi.history.state import state
from bemi.lsn import Lsn
from tests.support.covered import Cover, Covered

TABLES: Final = int(os.environ.get("BEMI_TEST_DDL", "0"))
ALWAYS: Final = 3
STEPS: Final = 16

_VALUES: Final = {
    "text": "'x'",
    "varchar": "'y'",
    "int": "7",
    "bigint": "8",
    "float": "0.5",
    "numeric": "1.5",
}
_NUMBERS: Final = ("int", "bigint", "float", "numeric")


class Moment(NamedTuple):
    position: Lsn
    rows: dict[int, dict[str, Any]]
    done: int
    """How many statements came before."""


class Work:
    """Statements about one table, written down, and what it held behind each."""

    def __init__(self, at: Covered, chance: random.Random) -> None:
        self.at, self.chance = at, chance
        self.columns = {"v": "text", "a": "int"}
        self.statements: list[str] = []
        self.moments: list[Moment] = []
        self._unseen: set[str] = set()
        """Columns that came, or got their names, and that nobody could see yet. Of one that goes
        before somebody does, nothing but an event trigger could tell."""
        self._names = self._last = 0
        self._memory = Memory()

    def insert(self) -> None:
        self._last += 1
        names = "".join(f", {name}" for name in self.columns)
        values = "".join(f", {_VALUES[kind]}" for kind in self.columns.values())
        self._do(f"insert into t (id{names}) values ({self._last}{values})")
        self._unseen.clear()

    def step(self) -> None:
        getattr(self, self.chance.choice(_STEPS))()
        rows = self.at.source.execute("select to_jsonb(t) from t").fetchall()
        self.moments.append(
            Moment(self.at.position(), {row["id"]: row for (row,) in rows}, len(self.statements))
        )

    def catch_up(self) -> None:
        self.at.catch_up()
        self.statements.append("-- caught up")

    def look(self) -> None:
        self.at.keep(memory=self._memory)
        self.statements.append("-- looked")
        self._unseen.clear()

    def update(self) -> None:
        name = self.chance.choice([*self.columns])
        least = self.chance.randrange(4)
        done = self._do(
            f"update t set {name} = {_VALUES[self.columns[name]]}"
            f" where id = (select min(id) from t where id > {least})"
        )
        if done:
            self._unseen.clear()

    def delete(self) -> None:
        self._do(f"delete from t where id = {self.chance.randint(1, self._last)}")

    def add(self) -> None:
        """A value for all rows, or one for each."""
        name = self._name()
        kind, value = self.chance.choice([("int", "3"), ("float", "random()")])
        self._do(f"alter table t add {name} {kind} default {value}")
        self.columns[name] = kind
        self._unseen.add(name)

    def retype(self) -> str:
        name = self.chance.choice([*self.columns])
        if self.columns[name] in _NUMBERS:
            kind = self.chance.choice(_NUMBERS)
            using = f"({name} + 1)::{kind}"
        else:
            kind = self.chance.choice(["text", "varchar"])
            using = f"{name} || '!'"
        self._do(f"alter table t alter {name} drop default, alter {name} type {kind} using {using}")
        self.columns[name] = kind
        return name

    def rename(self, name: str | None = None) -> None:
        name = name or self.chance.choice([*self.columns])
        called = self._name()
        self._do(f"alter table t rename {name} to {called}")
        self.columns[called] = self.columns.pop(name)
        self._unseen.add(called)

    def retype_and_rename(self) -> None:
        self.rename(self.retype())

    def drop(self) -> None:
        seen = [name for name in self.columns if name not in self._unseen]
        if seen and len(self.columns) > 1:
            name = self.chance.choice(seen)
            self._do(f"alter table t drop {name}")
            del self.columns[name]

    def _name(self) -> str:
        self._names += 1
        return f"c{self._names}"

    def _do(self, statement: str) -> int:
        self.statements.append(statement)
        return self.at.source.execute(statement.encode()).rowcount


_STEPS: Final = (
    *("insert", "update") * 2,
    *("delete", "add", "add", "retype", "rename", "retype_and_rename", "drop"),
    *("catch_up", "catch_up", "look"),
)


@pytest.mark.parametrize("nth", range(TABLES or ALWAYS))
def test_no_state_is_wrong(
    cover: Cover, others_write: Callable[[], None], seed: int, nth: int
) -> None:
    chance = random.Random(f"{seed if TABLES else 1}/{nth}")
    at = cover("create table t (id int primary key, v text, a int)")
    if chance.random() < 0.6:
        others_write()
    work = Work(at, chance)
    for _ in range(3):
        work.insert()
    for _ in range(chance.randint(STEPS // 2, STEPS)):
        work.step()
    for _ in range(2):
        work.insert()
        work.catch_up()
        work.look()
    wrong: list[str] = []
    known = 0
    with psycopg.connect(at.settings.destination_url, autocommit=True) as conn:
        for moment in work.moments:
            try:
                found = {
                    int(str(row.key)): (json.loads(bytes(row.image)), {*(row.flags or ())})
                    for row in state(conn, "bemi", at.settings.source, "public.t", moment.position)
                }
            except UnknownStateError:
                continue
            known += 1
            wrong += [f"{moment.done}: {each}" for each in differences(found, moment.rows)]
    print(f"{known} of {len(work.moments)} states are known")
    statements = "\n".join(f"{n}: {each}" for n, each in enumerate(work.statements, 1))
    assert not wrong, "\n".join([*wrong, statements])


def differences(
    found: dict[int, tuple[dict[str, Any], set[str]]], rows: dict[int, dict[str, Any]]
) -> list[str]:
    """What a state says of rows that is not so, and not said to be uncertain."""
    if found.keys() != rows.keys():
        return [f"rows {sorted(found)} for {sorted(rows)}"]
    return [
        f"row {key}: {name} {image.get(name)!r} for {row.get(name)!r}, {sorted(flags)}"
        for key, row in rows.items()
        for image, flags in [found[key]]
        for name in image.keys() | row.keys()
        if f"stale:{name}" not in flags and image.get(name) != row.get(name)
    ]
