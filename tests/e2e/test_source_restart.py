"""The source crashes and comes back under load.

Its slot goes back to where it was last written to disk, and what was acknowledged comes again:
the checkpoint decides, not the slot.
"""

from pathlib import Path

import pytest

from bemi.embedded import Server
from tests.e2e.conftest import SETTINGS
from tests.support import workload
from tests.support.oracle import SlotMonitor
from tests.support.tracking import confirmed, position
from tests.support.waiting import until
from tests.support.workers import Worker, catch_up

RESTARTS = 5


@pytest.mark.timeout(240)
def test_source_crashes_under_load(
    destination_url: str, tmp_path: Path, postgres_bin: Path | None, seed: int
) -> None:
    # `immediate` kills PostgreSQL, not the machine: what it wrote, the kernel still has, so this
    # tests the same with fsync off as with it on.
    with Server(settings=SETTINGS, bin=postgres_bin) as server:
        settings, oracle = workload.prepare(server.create_database("source"), destination_url)
        went_back = 0
        with (
            SlotMonitor(settings) as monitor,
            Worker(settings, tmp_path) as worker,
            workload.Workload(settings.source_url, seed=seed, rate=3000),
        ):
            for _ in range(RESTARTS):
                stored = position(settings)
                until(lambda at=stored: position(settings) > at, 60, "the worker stores")  # type: ignore[misc]
                acknowledged = confirmed(settings)
                # Not by a running worker, which would move it again at once.
                worker.kill()
                server.restart("immediate")
                went_back += confirmed(settings) < acknowledged
                worker.start()
            for _ in range(RESTARTS):
                stored = position(settings)
                until(lambda at=stored: position(settings) > at, 60, "the worker stores")  # type: ignore[misc]
                server.restart("immediate")
            until(lambda: worker.is_ready, 30, "the worker streams")
            assert worker.running, worker.log
        catch_up(settings, tmp_path)
        findings = oracle.compare(settings)
        print(f"{2 * RESTARTS} crashes, after {went_back} of {RESTARTS} the slot had gone back")
        print(f"{monitor.samples} looks, {monitor.ahead} times ahead")
        print(findings)
        assert findings.faults == {}, oracle.examples(settings)
        assert monitor.ahead == 0
        assert went_back > 0
