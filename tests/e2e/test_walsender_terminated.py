"""The source ends the replication connection under load, as a failover or an operator does."""

from pathlib import Path
from typing import Any

import psycopg
import pytest

from bemi.config import Settings
from tests.support import workload
from tests.support.oracle import SlotMonitor
from tests.support.waiting import until
from tests.support.workers import Worker, catch_up

TIMES = 10


@pytest.mark.timeout(180)
def test_walsender_terminated_under_load(
    source_url: str, destination_url: str, tmp_path: Path, seed: int
) -> None:
    settings, oracle = workload.prepare(source_url, destination_url)
    with (
        psycopg.connect(source_url, autocommit=True) as operator,
        SlotMonitor(settings) as monitor,
        Worker(settings, tmp_path) as worker,
        workload.Workload(source_url, seed=seed, rate=3000),
    ):
        ended: set[int] = set()
        for _ in range(TIMES):
            pid = until(
                lambda: new_walsender(operator, settings, ended), 30, "the worker is connected"
            )
            assert worker.running, worker.log
            operator.execute("select pg_terminate_backend(%s)", [pid])
            ended.add(pid or 0)
    catch_up(settings, tmp_path)
    findings = oracle.compare(settings)
    print(f"{TIMES} times; {monitor.samples} looks, {monitor.ahead} times ahead")
    print(findings)
    assert findings.faults == {}, oracle.examples(settings)
    assert monitor.ahead == 0


def new_walsender(conn: psycopg.Connection[Any], settings: Settings, known: set[int]) -> int | None:
    row = conn.execute(
        "select active_pid from pg_replication_slots where slot_name = %s", [settings.slot]
    ).fetchone()
    return row[0] if row is not None and row[0] not in known else None
