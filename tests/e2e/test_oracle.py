"""The oracle must see each way to break exactly once: it is tried on workers that do."""

import random
from pathlib import Path

import psycopg
import pytest

from bemi.config import Settings
from tests.support import workload
from tests.support.oracle import Findings, Oracle, SlotMonitor
from tests.support.tracking import confirmed, position
from tests.support.waiting import until
from tests.support.workers import Worker, catch_up


@pytest.fixture
def tracked(source_url: str, destination_url: str) -> tuple[Settings, Oracle]:
    return workload.prepare(source_url, destination_url)


def change_everything(settings: Settings) -> None:
    """Each kind of change that some broken worker gets wrong, surely."""
    with psycopg.connect(settings.source_url, autocommit=True) as conn:
        with conn.transaction():
            conn.execute("insert into app.accounts (owner) values ('before the first context')")
            conn.execute("""select oracle.set_context('{"user_id": 1}')""")
            conn.execute(
                "insert into app.accounts (owner, note) "
                "select 'many', repeat('long ', 1000) from generate_series(1, 50)"
            )
            conn.execute("""select oracle.set_context('{"user_id": 2}')""")
            conn.execute("update app.accounts set balance = 1 where owner = 'many'")
        with conn.transaction(), conn.cursor() as cursor:
            with cursor.copy("copy app.visits (place, n) from stdin") as copy:
                for number in range(100):
                    copy.write_row(("copied", number))
        conn.execute("update app.accounts set id = id + 1000000 where owner = 'many'")
        conn.execute("delete from app.accounts where owner = 'many'")
        conn.execute("truncate app.notes, app.visits")
    with workload.Workload(
        settings.source_url, seed=random.randrange(10**6), transactions=30, clients=2
    ) as load:
        load.join()


def test_a_sound_worker_passes(tracked: tuple[Settings, Oracle], tmp_path: Path) -> None:
    settings, oracle = tracked
    change_everything(settings)
    assert judge("none", settings, oracle, tmp_path).faults == {}


@pytest.mark.parametrize(
    ("broken", "fault"),
    [
        ("drops_rows_that_share_an_lsn", "lost"),
        ("drops_the_last_row_of_a_piece", "lost"),
        ("drops_truncates", "lost"),
        ("stores_rows_twice", "extra"),
        ("swaps_neighbours", "out_of_order"),
        ("takes_unchanged_for_null", "wrong_images"),
        ("keeps_the_first_context", "wrong_contexts"),
        ("keeps_the_context_of_the_transaction_before", "wrong_contexts"),
        ("forgets_rows_before_the_first_context", "wrong_contexts"),
        ("orders_by_time_received", "commit_disorder"),
    ],
)
def test_a_broken_worker_is_caught(
    broken: str, fault: str, tracked: tuple[Settings, Oracle], tmp_path: Path
) -> None:
    settings, oracle = tracked
    change_everything(settings)
    findings = judge(broken, settings, oracle, tmp_path)
    assert findings.faults.get(fault, 0) > 0, findings


@pytest.mark.parametrize(
    "broken", ["acknowledges_before_the_commit", "moves_the_checkpoint_before_the_rows"]
)
def test_a_kill_shows_what_was_promised_too_early(
    broken: str, tracked: tuple[Settings, Oracle], tmp_path: Path
) -> None:
    """Both work well until they are killed between the promise and the rows."""
    settings, oracle = tracked
    catch_up(settings, tmp_path)
    began = position(settings)
    with (
        SlotMonitor(settings) as monitor,
        psycopg.connect(settings.destination_url) as lock,
        Worker(settings, tmp_path, broken=broken).start().ready() as worker,
    ):
        lock.execute("lock table bemi.row_changes in access exclusive mode")
        with workload.Workload(settings.source_url, seed=1, transactions=10) as load:
            load.join()
        until(
            lambda: max(confirmed(settings), position(settings)) > began,
            30,
            "the worker promises what it has not stored",
        )
        worker.kill()
    catch_up(settings, tmp_path, "--accept-gap")
    findings = oracle.compare(settings)
    assert findings.lost > 0, findings
    if broken == "acknowledges_before_the_commit":
        assert monitor.ahead > 0


def judge(broken: str, settings: Settings, oracle: Oracle, folder: Path) -> Findings:
    worker = Worker(settings, folder, "--until-caught-up", broken=broken).start()
    assert worker.wait() == 0, worker.log
    return oracle.compare(settings)
