"""A baseline of ten million rows, killed on its way: time, memory, what the source feels.

Run as `python -m benchmarks.baseline` (some 30 GB of disk). `bemi snapshot` runs beside a worker,
while an application updates single rows; at two fifths of the rows it is killed with SIGKILL and
started again. In the end each row must be in the history once.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

import psycopg
from benchmarks import orders, worker_process
from psycopg import sql

from bemi.capture.setup import init
from bemi.config import Settings
from bemi.embedded import Server

_SERVER: Final = {"shared_buffers": "512MB", "max_wal_size": "8GB", "checkpoint_timeout": "15min"}
_FILL: Final = 100_000
"""Rows of one insert, so that filling the table needs little memory."""


@dataclasses.dataclass(slots=True)
class Figures:
    rows: int
    seconds: float = 0.0
    rows_per_second: float = 0.0
    bare_copy_seconds: float = 0.0
    """Of `copy orders to` nowhere, by the source alone."""
    killed_at: int = 0
    went_on_at: int = 0
    snapshot_peak: float = 0.0
    worker_peak: float = 0.0
    """Megabytes."""
    longest_transaction: float = 0.0
    """Seconds, of Bemi's sessions on the source."""
    updates: int = 0
    update_median: float = 0.0
    update_p99: float = 0.0
    """Milliseconds of an application's update of one row meanwhile."""
    idle_median: float = 0.0
    idle_p99: float = 0.0
    """And before."""
    in_history: int = 0
    distinct_keys: int = 0


class Application:
    """Updates single rows, one after the other, and keeps how long each took."""

    def __init__(self, url: str, rows: int) -> None:
        self._url = url
        self._rows = rows
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.taken: list[float] = []

    def __enter__(self) -> "Application":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def percentile(self, share: float) -> float:
        ordered = sorted(self.taken)
        return round(1000 * ordered[int(share * (len(ordered) - 1))], 2)

    def _run(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as conn:
            number = 0
            while not self._stop.wait(0.01):
                number = (number * 7919 + 104_729) % self._rows
                began = time.monotonic()
                conn.execute("update orders set items = items + 1 where id = %s", [number + 1])
                self.taken.append(time.monotonic() - began)


class Watch:
    """The longest of Bemi's transactions on the source, and the most memory of a process."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.pid = 0
        self.longest = self.peak = 0.0

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as conn:
            while not self._stop.wait(0.05):
                row = conn.execute(
                    "select coalesce(max(extract(epoch from clock_timestamp() - xact_start)), 0)"
                    " from pg_stat_activity where application_name = 'bemi'"
                    " and backend_type = 'client backend'"
                ).fetchone()
                assert row is not None
                self.longest = max(self.longest, float(row[0]))
                if self.pid:
                    self.peak = max(self.peak, worker_process.peak_memory(self.pid))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.baseline", description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    rows = parser.parse_args().rows
    with Server(settings=_SERVER) as source, Server(settings=_SERVER) as destination:
        settings = Settings(
            source_url=source.create_database("shop"),
            destination_url=destination.create_database("history"),
            source="shop",
        )
        print(json.dumps(dataclasses.asdict(measure(settings, rows)), indent=2))


def measure(settings: Settings, rows: int) -> Figures:
    figures = Figures(rows)
    with psycopg.connect(settings.source_url, autocommit=True) as conn:
        _fill(conn, rows)
        began = time.monotonic()
        with conn.cursor() as cursor, cursor.copy("copy orders to stdout (format binary)") as copy:
            for _ in copy:
                pass
        figures.bare_copy_seconds = round(time.monotonic() - began, 1)
    init(settings, report=lambda _done: None)
    with worker_process.running(settings) as worker, Watch(settings.source_url) as watch:
        with Application(settings.source_url, rows) as idle:
            time.sleep(10)
        figures.idle_median, figures.idle_p99 = idle.percentile(0.5), idle.percentile(0.99)
        with Application(settings.source_url, rows) as busy:
            began = time.monotonic()
            killed = _snapshot(settings, watch, kill_at=rows * 2 // 5)
            figures.killed_at = killed
            told = _snapshot_to_the_end(settings, watch)
            figures.seconds = round(time.monotonic() - began, 1)
        figures.went_on_at = told
        figures.rows_per_second = round(rows / figures.seconds)
        figures.updates = len(busy.taken)
        figures.update_median, figures.update_p99 = busy.percentile(0.5), busy.percentile(0.99)
        figures.snapshot_peak = round(watch.peak)
        figures.worker_peak = round(worker_process.peak_memory(worker))
        figures.longest_transaction = round(watch.longest, 2)
    with psycopg.connect(settings.destination_url) as conn:
        row = conn.execute(
            "select count(*) filter (where operation = 'SNAPSHOT'), count(distinct primary_key)"
            " from bemi.row_changes"
        ).fetchone()
    assert row is not None
    figures.in_history, figures.distinct_keys = row
    return figures


def _fill(conn: psycopg.Connection[Any], rows: int) -> None:
    conn.execute(orders.TABLE)
    for first in range(1, rows + 1, _FILL):
        conn.execute(
            sql.SQL(
                "insert into orders select g, g % 9973, 'new', g % 10000 + 0.5, 'EUR',"
                " 'Street ' || g % 997 || ', 10115 Berlin', g % 9,"
                " 'leave at the door ' || md5(g::text), now(), null"
                " from generate_series({}, {}) g"
            ).format(sql.Literal(first), sql.Literal(min(first + _FILL - 1, rows)))
        )
    conn.execute("vacuum analyze orders")
    conn.execute("checkpoint")


def _start(settings: Settings) -> "subprocess.Popen[str]":
    environment = {
        **os.environ,
        "BEMI_SOURCE_URL": settings.source_url,
        "BEMI_DESTINATION_URL": settings.destination_url,
        "BEMI_SOURCE": settings.source,
        "PYTHONPATH": str(Path(__file__).parents[1] / "src"),
    }
    command = [sys.executable, "-m", "bemi", "snapshot"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def _snapshot(settings: Settings, watch: Watch, *, kill_at: int) -> int:
    """Until so many rows are stored; then it is killed. How many were stored by then."""
    process = _start(settings)
    watch.pid = process.pid
    with psycopg.connect(settings.destination_url, autocommit=True) as conn:
        while _stored(conn) < kill_at and process.poll() is None:
            time.sleep(0.1)
        process.kill()
        process.wait()
        return _stored(conn)


def _snapshot_to_the_end(settings: Settings, watch: Watch) -> int:
    """Where it said that it goes on."""
    process = _start(settings)
    watch.pid = process.pid
    told, _ = process.communicate()
    print(told, file=sys.stderr)
    if process.returncode:
        raise RuntimeError(told)
    first = told.splitlines()[0]
    return int("".join(filter(str.isdigit, first.partition("behind")[2].partition(" rows")[0])))


def _stored(conn: psycopg.Connection[Any]) -> int:
    row = conn.execute("select coalesce(sum(rows), 0)::bigint from bemi.baselines").fetchone()
    assert row is not None
    return int(row[0])


if __name__ == "__main__":
    main()
