"""One transaction of very many rows: in the history whole, at once, in little memory.

With BEMI_TEST_FULL=1 a million of them.
"""

import os
import threading
from pathlib import Path

import psycopg
import pytest

from tests.support.oracle import Oracle, Tracked
from tests.support.tracking import position, track
from tests.support.waiting import until
from tests.support.workers import Worker, catch_up

# A worker that held them all would need far more.
ROWS = 1_000_000 if os.environ.get("BEMI_TEST_FULL") else 300_000
MEMORY = 100 << 20


@pytest.mark.timeout(400)
def test_a_transaction_of_very_many_rows(
    source_url: str, destination_url: str, tmp_path: Path
) -> None:
    with psycopg.connect(source_url, autocommit=True) as conn:
        conn.execute("create schema app")
        conn.execute("create table app.numbers (n int primary key, square bigint)")
        oracle = Oracle(source_url, [Tracked("app.numbers", key=("n",), full=False)])
        oracle.install(conn)
        settings = track(source_url, destination_url)
        began = position(settings)
        with conn.transaction():
            conn.execute("""select oracle.set_context('{"user_id": 1}')""")
            conn.execute(
                "insert into app.numbers select g, g::bigint * g from generate_series(1, %s) g",
                [ROWS],
            )
    seen: set[int] = set()
    done = threading.Event()
    reader = threading.Thread(target=read, args=(destination_url, seen, done), daemon=True)
    with Worker(settings, tmp_path) as worker:
        reader.start()
        until(lambda: position(settings) > began or not worker.running, 200, "it is stored")
        until(lambda: ROWS in seen or not worker.running, 30, "the reader sees it")
        memory = worker.peak_memory()
        done.set()
        reader.join()
        assert worker.stop() == 0, worker.log
    catch_up(settings, tmp_path)
    findings = oracle.compare(settings)
    print(f"peak memory of the worker: {memory / 2**20:.0f} MB; a reader saw {sorted(seen)} rows")
    print(findings)
    assert findings.faults == {}, oracle.examples(settings)
    assert findings.changes == ROWS
    assert seen == {0, ROWS}
    assert memory < MEMORY


def read(url: str, seen: set[int], done: threading.Event) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        while not done.wait(0.5):
            row = conn.execute("select count(*) from bemi.row_changes").fetchone()
            assert row is not None
            seen.add(row[0])
