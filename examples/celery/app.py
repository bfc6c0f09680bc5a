"""A todo list that a worker of Celery writes: for whom, and in which task, is in each change."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import psycopg

import bemi


def make_tables(url: str) -> None:
    with psycopg.connect(url) as conn:
        conn.execute("create table todo (id serial primary key, task text, done bool)")


def take_requests(folder: Path) -> None:
    for name in ("results", "messages", "control"):
        (folder / name).mkdir()
    os.environ["EXAMPLE_FOLDER"] = str(folder)
    import tasks  # type: ignore[import-not-found]  # beside this file; it finds that folder

    worker = subprocess.Popen(
        [
            *(sys.executable, "-m", "celery", "--workdir", str(Path(__file__).parent)),
            *("-A", "tasks", "worker", "--pool", "solo", "--hostname", "worker-1@example"),
            *("--without-gossip", "--without-mingle", "--without-heartbeat"),
        ]
    )
    try:
        with bemi.context(user_id=42, endpoint="/todo", method="POST"):
            tasks.add.delay("Buy milk").get(60)
        with bemi.context(user_id=7, endpoint="/todo/done", method="PUT"):
            tasks.complete_all.delay().get(60)
    finally:
        worker.terminate()
        worker.wait()


if __name__ == "__main__":
    if sys.argv[1:] == ["tables"]:
        make_tables(os.environ["DATABASE_URL"])
    else:
        with tempfile.TemporaryDirectory() as made:
            take_requests(Path(made))
