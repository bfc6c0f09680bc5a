"""The destination takes longer than the source waits for a client: the worker is not cut off.

It goes on telling the source that it is there, and never that more was stored than was.
"""

from pathlib import Path
from typing import Any

import psycopg
import pytest

from bemi.config import Settings
from tests.support import workload
from tests.support.oracle import SlotMonitor
from tests.support.tracking import confirmed, position
from tests.support.waiting import until
from tests.support.workers import Worker, catch_up

TIMEOUT = 2


@pytest.mark.timeout(180)
@pytest.mark.parametrize("rows", [10, 100_000], ids=["little_waits", "more_than_fits_waits"])
def test_a_lock_longer_than_wal_sender_timeout(
    rows: int, source_url: str, destination_url: str, tmp_path: Path, seed: int
) -> None:
    impatient = f"{source_url}?options=-c%20wal_sender_timeout%3D{TIMEOUT}s"
    settings, oracle = workload.prepare(impatient, destination_url)
    with (
        SlotMonitor(settings) as monitor,
        psycopg.connect(source_url, autocommit=True) as source,
        psycopg.connect(destination_url) as lock,
        Worker(settings, tmp_path).start().ready() as worker,
    ):
        until(lambda: walsender(source, settings), 30, "the worker is connected")
        began = walsender(source, settings)
        lock.execute("lock table bemi.row_changes in access exclusive mode")
        stored = position(settings)
        source.execute(
            "insert into app.notes select 'wait', g from generate_series(1, %s) g", [rows]
        )
        until(
            lambda: since_lock(source, lock, settings) > 4 * TIMEOUT,
            60,
            "the worker answers for long",
        )
        assert walsender(source, settings) == began, worker.log
        assert position(settings) == stored
        assert confirmed(settings) <= stored
        lock.rollback()
        until(lambda: position(settings) > stored, 60, "the worker stores again")
        with workload.Workload(source_url, seed=seed, transactions=50) as load:
            load.join()
        assert walsender(source, settings) == began, worker.log
    catch_up(settings, tmp_path)
    findings = oracle.compare(settings)
    print(findings)
    assert findings.faults == {}, oracle.examples(settings)
    assert monitor.ahead == 0


def walsender(conn: psycopg.Connection[Any], settings: Settings) -> int | None:
    row = conn.execute(
        "select active_pid from pg_replication_slots where slot_name = %s", [settings.slot]
    ).fetchone()
    assert row is not None
    return None if row[0] is None else int(row[0])


def since_lock(
    source: psycopg.Connection[Any], lock: psycopg.Connection[Any], settings: Settings
) -> float:
    """Seconds from the lock to the walsender's last reply; both are on one server's clock."""
    began = lock.execute("select now()").fetchone()
    row = source.execute(
        "select extract(epoch from r.reply_time - %s) from pg_stat_replication r "
        "join pg_replication_slots s on s.active_pid = r.pid where s.slot_name = %s",
        [began[0] if began else None, settings.slot],
    ).fetchone()
    assert row is not None, "the worker was cut off"
    return float(row[0])
