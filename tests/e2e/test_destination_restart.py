"""The destination crashes and comes back under load: nothing is lost, nothing is stored twice."""

from pathlib import Path

import pytest

from bemi.embedded import Server
from tests.e2e.conftest import SETTINGS
from tests.support import workload
from tests.support.oracle import SlotMonitor
from tests.support.tracking import position
from tests.support.waiting import until
from tests.support.workers import Worker, catch_up

RESTARTS = 5


@pytest.mark.timeout(240)
def test_destination_crashes_under_load(
    source_url: str, tmp_path: Path, postgres_bin: Path | None, seed: int
) -> None:
    # `immediate` kills PostgreSQL, not the machine: what it wrote, the kernel still has, so this
    # tests the same with fsync off as with it on.
    with Server(settings=SETTINGS, bin=postgres_bin) as server:
        settings, oracle = workload.prepare(source_url, server.create_database("destination"))
        with (
            SlotMonitor(settings) as monitor,
            Worker(settings, tmp_path) as worker,
            workload.Workload(source_url, seed=seed, rate=3000),
        ):
            for _ in range(RESTARTS):
                stored = position(settings)
                until(lambda at=stored: position(settings) > at, 60, "the worker stores")  # type: ignore[misc]
                server.restart("immediate")
            assert worker.running, worker.log
        catch_up(settings, tmp_path)
        findings = oracle.compare(settings)
        print(f"{RESTARTS} crashes; {monitor.samples} looks, {monitor.ahead} times ahead")
        print(findings)
        assert findings.faults == {}, oracle.examples(settings)
        assert monitor.ahead == 0
