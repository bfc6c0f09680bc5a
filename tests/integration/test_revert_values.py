"""A value of any type that is undone is the value that it was."""

from itertools import cycle, islice

import psycopg
import pytest

from tests.integration.conftest import Track
from tests.support.kinds import APPLICATION_TYPES, NOT_READ_BACK, Kind, kinds
from tests.support.shop import Shop

ROWS = 12


def test_values_of_all_types_come_back(tracked: Track, server_version: int) -> None:
    types = [
        kind
        for kind in kinds(server_version, xml=False)
        if kind.sql not in NOT_READ_BACK and kind.limits
    ]
    columns = [f"c{n} {kind.sql}" for n, kind in enumerate(types)]
    shop = Shop(
        tracked(
            APPLICATION_TYPES,
            f"create table wide (number int primary key, {', '.join(columns)})",
            f"create table plain (number int, {', '.join(columns)})",
            "alter table plain replica identity full",
        )
    )
    try:
        kept = [n for n, kind in enumerate(types) if not _spelled(shop.at.source, kind)]
        for table in ("wide", "plain"):
            for number in range(ROWS):
                values = [next(islice(cycle(kind.limits), number, None)) for kind in types]
                places = ", ".join(f"cast(%s as {kind.sql})" for kind in types).replace("%s", "%s")
                shop.at.source.execute(
                    f"insert into {table} values ({number}, {places})".encode(), values
                )
        before = _rows(shop, kept)
        sets = ", ".join(f"c{n} = x.c{n}" for n in range(len(types)))
        number = shop.write(
            *(
                f"update {table} t set {sets} from {table} x"
                f" where x.number = (t.number + 1) % {ROWS}"
                for table in ("wide", "plain")
            ),
            "update wide set c0 = null",
            "delete from wide where number < 4",
            "delete from plain where number < 4",
        )
        after = _rows(shop, kept)
        plan = shop.plan(transaction=number)
        assert [conflict.message for conflict in plan.conflicts] == []
        done = plan.apply()
        assert done.altered == ()
        assert _rows(shop, kept) == before
        shop.plan(transaction=done.transaction_id).apply()
        assert _rows(shop, kept) == after
    finally:
        shop.close()


def _rows(shop: Shop, kept: list[int]) -> list[tuple[str, ...]]:
    names = ", ".join(f"c{n}::text" for n in kept)
    return [
        row
        for table in ("wide", "plain")
        for row in shop.at.source.execute(
            f"select number, {names} from {table} order by number".encode()
        ).fetchall()
    ]


def _spelled(conn: "psycopg.Connection[tuple[str, ...]]", kind: Kind) -> bool:
    """Whether JSON is in it as it was written."""
    row = conn.execute(
        "with recursive inside (oid) as (select to_regtype(%s)::oid union"
        " select x.oid from inside i join pg_type t on t.oid = i.oid cross join lateral"
        " (select t.typbasetype as oid union all select t.typelem union all"
        " select a.atttypid from pg_attribute a where a.attrelid = t.typrelid and a.attnum > 0) x"
        " where x.oid <> 0) select exists (select from inside where oid = 'json'::regtype)",
        [kind.sql],
    ).fetchone()
    assert row is not None
    return bool(row[0])


@pytest.fixture
def server_version(source_url: str) -> int:
    with psycopg.connect(source_url) as conn:
        return conn.info.server_version // 10_000
