"""A change has one id, whoever captures it: other slot, other tables, other destination."""

from pathlib import Path
from typing import Any

import psycopg
import pytest

from bemi.config import Settings
from tests.conftest import MakeDatabase
from tests.support import workload
from tests.support.tracking import track
from tests.support.workers import catch_up

FEW = ("app.accounts", "app.visits")


@pytest.mark.timeout(180)
def test_captured_again_a_change_has_the_same_id(
    source_url: str, make_database: MakeDatabase, tmp_path: Path, seed: int
) -> None:
    first, oracle = workload.prepare(source_url, make_database())
    # Made before the load, so that both slots see all of it.
    second = track(
        source_url,
        make_database(),
        tables=FEW,
        slot=f"{first.slot}_again",
        publication="other_rules",
        source="again",
    )
    with workload.Workload(source_url, seed=seed, transactions=150) as load:
        load.join()
    with psycopg.connect(source_url, autocommit=True) as conn:
        conn.execute("truncate app.notes, app.visits, app.accounts")
    catch_up(first, tmp_path)
    catch_up(second, tmp_path)
    assert oracle.compare(first).faults == {}

    all_of_it, few = ids(first), ids(second)
    # What was there before the second slot was made, only the first one has.
    of_few = {id: what for id, what in all_of_it.items() if what[0] in FEW and what[1] in seen(few)}
    print(f"{len(all_of_it)} changes, {len(few)} of them captured twice")
    assert len(few) > 100
    assert few == of_few
    assert set(few) < set(all_of_it)


def ids(settings: Settings) -> dict[Any, tuple[Any, ...]]:
    """Each change by its id; what else tells it apart, but for its place among other tables'."""
    with psycopg.connect(settings.destination_url) as conn:
        rows = conn.execute(
            "select id, schema || '.' || \"table\", transaction_id, operation, primary_key, "
            "position, commit_position, before::text, after::text, context::text "
            "from bemi.changes where source = %s",
            [settings.source],
        ).fetchall()
    found = {row[0]: row[1:] for row in rows}
    assert len(found) == len(rows), "two changes with one id"
    return found


def seen(changes: dict[Any, tuple[Any, ...]]) -> set[int]:
    return {what[1] for what in changes.values()}
