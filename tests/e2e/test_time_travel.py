"""A database at random moments of its past, as the history tells it and as it was.

Random transactions on tables that refer to each other, and DDL between and within them. Now and
then everything that the tables hold is written down, with the place in the log that it holds for,
while another session is in the middle of a transaction. BEMI_TEST_MOMENTS says how often.
"""

import os
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import tuple_row

import bemi
from bemi.capture.setup import init
from bemi.errors import UnknownStateError
from tests.conftest import MakeDatabase
from tests.support import company
from tests.support.baselines import take
from tests.support.random_work import RandomWork
from tests.support.tracked import Tracked
from tests.support.tracking import track
from tests.support.truth import Comparison, Truth, record, texts_of

MOMENTS: Final = int(os.environ.get("BEMI_TEST_MOMENTS", "10"))


class Past:
    """A source with a past, what was written down of it, and the history that has to know it.

    Of a `kind`: with REPLICA IDENTITY FULL or DEFAULT, and event triggers; or with the worker's
    looks at the catalog alone.
    """

    def __init__(self, source_url: str, destination_url: str, chance: random.Random, kind: str):
        self.chance = chance
        self.source = psycopg.connect(source_url, autocommit=True)
        self.source.execute((company.TYPES + company.TABLES + company.FIRST_ROWS).encode())
        if kind == "full":
            self.source.execute(company.full_identity().encode())
        self.other = psycopg.connect(source_url, autocommit=True)
        settings = track(source_url, destination_url, schemas=["app"])
        init(settings, ddl=kind != "looks", report=lambda _: None)
        take(settings)
        self.at = Tracked(settings)
        self.work = RandomWork(self.source, chance)
        self.truths: list[Truth] = []

    def close(self) -> None:
        self.source.close()
        self.other.close()
        self.at.close()

    def go_on(self, moments: int) -> None:
        """To so many further moments. The worker is there most of the time, and sometimes late."""
        chance = self.chance
        for _ in range(moments):
            for _ in range(chance.choice([1, 3, 8])):
                done = len(self.work.altered)
                self.work.transaction(ddl=chance.random() < 0.12)
                # Tables may be altered several times before the worker has a look at them.
                if self.work.altered[done:] and chance.random() < 0.5:
                    self.at.catch_up()
            if chance.random() < 0.5:
                self.record()
                if chance.random() < 0.6:
                    self.at.catch_up()
            else:
                # Its rows are in the log already, and its commit comes right behind the place.
                with self.source.transaction():
                    self.source.execute(
                        "insert into app.pulse values (%s)", [chance.randrange(10**9)]
                    )
                    self.record()
        self.source.execute("insert into app.pulse values (0)")
        self.at.catch_up()

    def record(self) -> None:
        self.truths.append(record(self.other))


def compare(past: Past, truths: Sequence[Truth], positions: Sequence[Truth]) -> Comparison:
    """What was true at `truths`, with what the history says of `positions`."""
    found, source = Comparison(), past.at.settings.source
    with bemi.History(past.at.settings.destination_url) as history:
        for number, (truth, place) in enumerate(zip(truths, positions, strict=True)):
            when: Any = str(place.position) if number % 2 else place.time
            found.moment = f"moment {number} ({place.position})"
            told: set[str] = set()
            for table in truth.tables.values():
                try:
                    rows = [*history.at(when, f"app.{table.name}", source=source)]
                except UnknownStateError as error:
                    found.refuse(str(error))
                else:
                    if found.add(table, [(dict(row.values), row.flags) for row in rows]):
                        told.add(table.name)
            made = history.travel(when, into="back_then", source=source, allow_gaps=True)
            compare_views(past, truth, told, {view.view: view.text for view in made.views}, found)
    return found


def compare_views(
    past: Past,
    truth: Truth,
    told: set[str],
    as_text: Mapping[str, Mapping[str, str]],
    found: Comparison,
) -> None:
    """Of the tables of which all values are known. `as_text`: columns that lack their type."""
    schema, conn = sql.Identifier("back_then"), past.at.destination
    with conn.cursor(row_factory=tuple_row) as cursor, conn.transaction():
        cursor.execute("set local search_path = pg_catalog")
        cursor.execute("set local timezone = 'UTC'")
        types: dict[str, dict[str, str]] = {}
        for name, column, kind in cursor.execute(
            "select c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod)"
            " from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0"
            " where c.relnamespace = 'back_then'::regnamespace and c.relkind = 'v'"
        ):
            types.setdefault(name, {})[column] = kind.replace("back_then.", "app.")
        for name in sorted(told):
            table = truth.tables[name]
            for reason in as_text.get(name, {}).values():
                found.unknown[f"type as text: {reason}"] += 1
            bare = {column for column, kind in types.get(name, {}).items() if kind == "text"}
            if bare - as_text.get(name, {}).keys() and types[name] == table.types | dict.fromkeys(
                bare, "text"
            ):
                if types[name] != table.types:
                    found.differences.append(f"{found.moment}: view {name}: {sorted(bare)} as text")
            elif types.get(name) != table.types | dict.fromkeys(as_text.get(name, ()), "text"):
                found.differences.append(
                    f"{found.moment}: view {name}: {types.get(name)} for {table.types}"
                )
                told.discard(name)
                continue
            query = sql.SQL("select {} from {}.{} t").format(
                texts_of("t", table.types), schema, sql.Identifier(name)
            )
            found.add_texts(f"view {name}", table.texts, Counter(cursor.execute(query)))
        for join in truth.joins:
            if told.issuperset(join.tables):
                rows = Counter(cursor.execute(join.query.format(schema)))
                found.add_texts(f"join of {join.tables}", join.rows, rows)


@pytest.fixture(params=["full", "default", "looks"])
def past(request: pytest.FixtureRequest, make_database: MakeDatabase, seed: int) -> Iterator[Past]:
    made = Past(
        make_database(),
        make_database(),
        random.Random(f"{seed}/{request.param}"),
        request.param == "full",
    )
    yield made
    made.close()


def test_every_table_is_as_it_was(past: Past) -> None:
    past.go_on(MOMENTS)
    found = compare(past, past.truths, past.truths)
    print(len(past.truths), "moments:", found)
    print(*past.work.altered, sep="\n")
    assert not found.differences, "\n".join(found.differences[:20])
    assert found.tables > 3 * found.refused.total()
    # Who judges sees the difference between a moment and the next.
    assert compare(past, past.truths[-1:], past.truths[:1]).differences
