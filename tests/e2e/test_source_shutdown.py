"""The server that holds source and history is shut down while a worker is idle.

Before a walsender ends, it waits to hear that all it sent is durable: a worker that kept
silent would hold up the shutdown for ever.
"""

import os
import signal
from pathlib import Path

import psycopg
import pytest

from bemi.embedded import Server
from tests.conftest import SETTINGS
from tests.support.tracking import track
from tests.support.waiting import until
from tests.support.workers import Worker


@pytest.mark.timeout(180)
def test_an_idle_worker_does_not_hold_up_the_shutdown(
    postgres_bin: Path | None, tmp_path: Path
) -> None:
    with Server(settings=SETTINGS, bin=postgres_bin) as server:
        url = server.create_database("shop")
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("create schema app; create table app.todo (id int primary key)")
            settings = track(url)
            with Worker(settings, tmp_path).start().ready() as worker:
                conn.execute("insert into app.todo values (1)")
                until(lambda: conn.execute("select 1 from bemi.changes").fetchone(), 30, "captured")
                conn.execute("create table untracked as select generate_series(1, 10000)")
                assert server.pid is not None
                os.kill(server.pid, signal.SIGINT)
                # Not `server.stop`, which becomes harder after a while.
                until(lambda: not server.running, 30, "the server is down by itself")
                assert worker.running
                server.start()
                worker.says("waiting")
                with psycopg.connect(url, autocommit=True) as again:
                    again.execute("insert into app.todo values (2)")
                    until(
                        lambda: (
                            again.execute("select count(*) from bemi.changes").fetchone() == (2,)
                        ),
                        60,
                        "the worker goes on",
                    )
