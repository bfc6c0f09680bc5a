"""The destination is away for a while under load: the source does not notice, nothing is lost.

BEMI_TEST_DOWN_SECONDS makes the while longer.
"""

import os
import time
from pathlib import Path

import pytest

from bemi.embedded import Server
from tests.e2e.conftest import SETTINGS
from tests.support import workload
from tests.support.oracle import SlotMonitor
from tests.support.tracking import position
from tests.support.waiting import until
from tests.support.workers import Worker, catch_up

SECONDS = float(os.environ.get("BEMI_TEST_DOWN_SECONDS", "10"))


@pytest.mark.timeout(200 + 2 * SECONDS)
def test_destination_down_under_load(
    source_url: str, tmp_path: Path, postgres_bin: Path | None, seed: int
) -> None:
    with Server(settings=SETTINGS, bin=postgres_bin) as server:
        settings, oracle = workload.prepare(source_url, server.create_database("destination"))
        with (
            SlotMonitor(settings) as monitor,
            Worker(settings, tmp_path) as worker,
            workload.Workload(source_url, seed=seed, rate=2000) as load,
        ):
            stored = position(settings)
            until(lambda: position(settings) > stored, 60, "the worker stores")
            before, began = load.transactions, time.monotonic()
            until(lambda: load.transactions >= before + 100, 60, "the application works")
            pace = 100 / (time.monotonic() - began)

            server.stop("immediate")
            down, began = load.transactions, time.monotonic()
            worker.says("can't connect to the destination")
            load.longest_commit = 0.0
            until(
                lambda: time.monotonic() - began >= SECONDS and load.transactions >= down + 100,
                SECONDS + 60,
                "the application goes on working meanwhile",
            )
            meanwhile = load.transactions - down
            was_down = time.monotonic() - began
            longest = load.longest_commit
            stored_before = stored
            assert worker.running, worker.log
            server.start()
            stored = position(settings)
            assert stored > stored_before
            until(lambda: position(settings) > stored, 60, "the worker goes on by itself")
        catch_up(settings, tmp_path)
        findings = oracle.compare(settings)
        print(
            f"{pace:.0f} transactions/s before, {meanwhile / was_down:.0f} while it was down for "
            f"{was_down:.0f} s; longest commit {longest * 1000:.0f} ms"
        )
        print(findings)
        # An application that waits for the destination would commit nothing until it is back.
        assert longest < SECONDS / 2
        assert findings.faults == {}, oracle.examples(settings)
        assert monitor.ahead == 0
