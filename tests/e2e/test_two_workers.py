"""Two workers for one source: one works, the other waits, and neither stores what the other did."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from bemi.capture import session, sink, worker
from bemi.capture.source import Source
from bemi.config import Settings
from tests.support import workload
from tests.support.oracle import Oracle, SlotMonitor
from tests.support.tracking import position
from tests.support.waiting import until
from tests.support.workers import Worker, catch_up


@pytest.fixture
def tracked(source_url: str, destination_url: str) -> tuple[Settings, Oracle]:
    return workload.prepare(source_url, destination_url)


@pytest.mark.timeout(180)
def test_the_second_waits_and_takes_over(
    tracked: tuple[Settings, Oracle], tmp_path: Path, seed: int
) -> None:
    settings, oracle = tracked
    with (
        SlotMonitor(settings) as monitor,
        Worker(settings, tmp_path).start().ready() as first,
        Worker(settings, tmp_path).start() as second,
        workload.Workload(settings.source_url, seed=seed, rate=3000) as load,
    ):
        for works, waits in [(first, second), (second, first)] * 2:
            waits.says("is in use by process")
            assert not waits.is_ready
            stored = position(settings)
            until(lambda: position(settings) > stored, 60, "the one that works stores")  # noqa: B023
            works.kill()
            waits.ready()
            works.start()
        load.stop()
    judge(settings, oracle, monitor, tmp_path)


@pytest.mark.timeout(120)
def test_a_worker_that_lost_its_slot_is_fenced(
    tracked: tuple[Settings, Oracle], tmp_path: Path
) -> None:
    """Its rows are in the destination, not committed, when another one takes the slot over."""
    settings, oracle = tracked
    catch_up(settings, tmp_path)
    with (
        SlotMonitor(settings) as monitor,
        psycopg.connect(settings.source_url, autocommit=True) as source,
        Worker(settings, tmp_path).start().ready() as old,
        contextlib.ExitStack() as stack,
    ):
        with locked(settings, "lock table bemi.row_changes in access exclusive mode"):
            # As many pieces as the old worker takes in while it waits: it does not listen to the
            # source then, and will not notice at once that it hung up.
            for _ in range(sink._MOST_PIECES):
                source.execute(
                    "insert into app.accounts (owner, note) "
                    "select 'much', repeat('x', 1000) from generate_series(1, 1200)"
                )
            until(lambda: is_locked_out(old), 30, "the old worker waits for the lock")
            until(lambda: rests(old), 30, "it has taken in all of them")
            old.signal(signal.SIGSTOP)
            hang_up(source, settings)
            new = stack.enter_context(Worker(settings, tmp_path)).ready()
            until(lambda: is_locked_out(new), 30, "the new one waits too")
        stored = position(settings)
        old.signal(signal.SIGCONT)
        old.says("taken over")
        until(lambda: position(settings) > stored, 30, "the new one stores")
        with workload.Workload(settings.source_url, seed=2, transactions=50) as load:
            load.join()
        assert old.running, old.log
        assert new.running, new.log
    judge(settings, oracle, monitor, tmp_path)


@pytest.mark.timeout(120)
def test_the_new_worker_sees_what_the_old_one_is_just_committing(
    tracked: tuple[Settings, Oracle], tmp_path: Path
) -> None:
    """The old worker's commit is under way when the new one claims the checkpoint."""
    settings, oracle = tracked
    with (
        SlotMonitor(settings) as monitor,
        psycopg.connect(settings.source_url, autocommit=True) as source,
        Worker(settings, tmp_path).start().ready() as old,
        contextlib.ExitStack() as stack,
    ):
        with locked(settings, "select from bemi.checkpoints for update"):
            source.execute("insert into app.notes select 'here', g from generate_series(1, 100) g")
            until(lambda: is_locked_out(old), 30, "the old worker is about to commit")
            old.signal(signal.SIGSTOP)
            hang_up(source, settings)
            new = stack.enter_context(Worker(settings, tmp_path))
            until(lambda: is_locked_out(new), 30, "the new one waits too")
        old.signal(signal.SIGCONT)
        new.ready()
        with workload.Workload(settings.source_url, seed=3, transactions=50) as load:
            load.join()
    judge(settings, oracle, monitor, tmp_path)


def test_what_another_worker_stored_while_this_one_started_is_no_gap(
    tracked: tuple[Settings, Oracle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The history may end behind where the log ended when this worker looked at it."""
    settings, oracle = tracked
    interrupted = False

    class SlowToStart(Source):
        def start(self, slot: str, publication: str) -> None:
            nonlocal interrupted
            if not interrupted:
                interrupted = True
                with psycopg.connect(settings.source_url, autocommit=True) as source:
                    source.execute("insert into app.notes values ('meanwhile', 1)")
                catch_up(settings, tmp_path)
            super().start(slot, publication)

    monkeypatch.setattr(session, "Source", SlowToStart)
    worker.run(settings, stop=threading.Event(), until_caught_up=True)
    assert interrupted
    assert oracle.compare(settings).faults == {}


def judge(settings: Settings, oracle: Oracle, monitor: SlotMonitor, folder: Path) -> None:
    catch_up(settings, folder)
    findings = oracle.compare(settings)
    print(f"{monitor.samples} looks, {monitor.ahead} times ahead")
    print(findings)
    assert findings.faults == {}, oracle.examples(settings)
    assert monitor.ahead == 0


@contextlib.contextmanager
def locked(settings: Settings, statement: str) -> Iterator[None]:
    """A lock in the destination that somebody else holds."""
    with psycopg.connect(settings.destination_url) as conn:
        conn.execute(statement.encode())
        yield
        conn.rollback()


def is_locked_out(process: Worker) -> bool:
    """Whether a session of this very worker waits for a lock in the destination.

    Watches of other workers may wait too, and give up meanwhile: counting sessions won't do.
    """
    ports = [each.laddr.port for each in psutil.Process(process.pid).net_connections("tcp")]
    with psycopg.connect(process.settings.destination_url, autocommit=True) as conn:
        row = conn.execute(
            "select exists (select from pg_stat_activity where datname = current_database() "
            "and wait_event_type = 'Lock' and client_port = any (%s))",
            [ports],
        ).fetchone()
    return row == (True,)


def rests(process: Worker) -> bool:
    return psutil.Process(process.pid).cpu_percent(interval=0.2) == 0.0


def hang_up(source: psycopg.Connection[Any], settings: Settings) -> None:
    """End the replication connection that holds the slot, and wait until the slot is free."""
    query = "select active_pid from pg_replication_slots where slot_name = %s"
    row = source.execute(query, [settings.slot]).fetchone()
    assert row is not None
    source.execute("select pg_terminate_backend(%s)", [row[0]])
    until(
        lambda: source.execute(query, [settings.slot]).fetchone() == (None,),
        30,
        "the slot is free",
    )
