"""A worker killed at random moments under load: what it left behind is exactly the history.

BEMI_TEST_SEED repeats a run's choices; BEMI_TEST_KILLS makes it longer.
"""

import os
import random
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from bemi.config import Settings
from tests.support import workload
from tests.support.oracle import SlotMonitor
from tests.support.tracking import flushed, position
from tests.support.waiting import until
from tests.support.workers import Worker, catch_up

KILLS = int(os.environ.get("BEMI_TEST_KILLS", "50"))
ROWS_PER_KILL = 2200
ROWS = KILLS * 2000


@dataclass(frozen=True)
class Kill:
    stored: int
    """The checkpoint's position."""
    committed: int
    """Where the source's log ended."""
    writing: bool
    """Whether the worker had a transaction open in the destination that had written."""
    streaming: bool
    """Whether it had come so far as to stream."""


@pytest.mark.timeout(120 + 6 * KILLS)
def test_sigkill_at_random_moments_loses_and_repeats_nothing(
    source_url: str, destination_url: str, tmp_path: Path, seed: int
) -> None:
    settings, oracle = workload.prepare(source_url, destination_url)
    chance = random.Random(seed)
    worker = Worker(settings, tmp_path)
    kills: list[Kill] = []
    began = time.monotonic()
    with (
        SlotMonitor(settings, interval=0.1) as monitor,
        workload.Workload(source_url, seed=seed, clients=3, rate=10_000, large=0.03) as load,
    ):
        for number in range(1, KILLS + 1):
            # However slow the machine is: what a worker has to do between two kills is bounded.
            load.allow(number * ROWS_PER_KILL - ROWS_PER_KILL // 2)
            worker.start()
            # The moment of the kill is the one thing here that a clock decides.
            moment = chance.uniform(0.0, 0.5)
            how = chance.random()
            if how < 0.85:
                worker.ready()
            if how < 0.4:  # or it would mostly have caught up, where the machine is quick
                fall_behind(worker, load, number)
                moment /= 10
            load.allow(number * ROWS_PER_KILL)
            threading.Event().wait(moment)
            kills.append(stop_and_look(worker, settings))
            worker.kill()
            if load.stopped.is_set():
                load.join()
        load.allow(ROWS + ROWS_PER_KILL)
        until(lambda: load.rows >= ROWS or load.stopped.is_set(), 300, f"{ROWS} rows were changed")
    killing = time.monotonic() - began
    catch_up(settings, tmp_path)
    findings = oracle.compare(settings)

    in_flight = count_in_flight(settings, kills)
    print(f"{len(kills)} kills in {killing:.0f} s; in flight at each: {in_flight}")
    print(
        f"{sum(map(bool, in_flight))} of them hit rows in flight, "
        f"{sum(kill.writing for kill in kills)} an open transaction in the destination, "
        f"{sum(kill.streaming for kill in kills)} came while it streamed"
    )
    print(f"{monitor.samples} looks at slot and checkpoint: {monitor.ahead} times ahead")
    print(findings)
    assert findings.faults == {}, oracle.examples(settings)
    assert findings.changes >= ROWS
    assert monitor.ahead == 0
    assert monitor.samples > len(kills)
    assert sum(map(bool, in_flight)) >= len(kills) // 3


def fall_behind(worker: Worker, load: workload.Workload, number: int) -> None:
    """Let it wake to what three clients did in the meantime."""
    worker.signal(signal.SIGSTOP)
    load.allow(number * ROWS_PER_KILL)
    enough = number * ROWS_PER_KILL - ROWS_PER_KILL // 4
    until(lambda: load.rows >= enough or load.stopped.is_set(), 60, "the load went on")
    worker.signal(signal.SIGCONT)


def stop_and_look(worker: Worker, settings: Settings) -> Kill:
    """Freeze the worker, so that what is seen is what the kill hits."""
    worker.signal(signal.SIGSTOP)
    with psycopg.connect(settings.destination_url, autocommit=True) as conn:
        row = conn.execute(
            "select count(*) from pg_stat_activity where datname = current_database() "
            "and backend_xid is not null and pid <> pg_backend_pid()"
        ).fetchone()
    assert row is not None
    return Kill(
        stored=position(settings),
        committed=flushed(settings.source_url),
        writing=row[0] > 0,
        streaming=worker.is_ready,
    )


def count_in_flight(settings: Settings, kills: list[Kill]) -> list[int]:
    """For each kill, the rows that were committed on the source and not yet in the history."""
    with psycopg.connect(settings.destination_url) as conn:
        return [
            row[0]
            for kill in kills
            for row in conn.execute(
                "select count(*) from bemi.row_changes "
                "where commit_position >= %s and commit_position < %s",
                [kill.stored, kill.committed],
            )
        ]
