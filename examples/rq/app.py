"""A todo list that a worker of RQ writes: for whom, and in which job, is in each change.

Needs the program redis-server, which it starts for itself.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import jobs  # type: ignore[import-not-found]  # beside this file
import psycopg
from redis import Redis
from rq import Queue

import bemi
from bemi.integrations.rq import Job


def make_tables(url: str) -> None:
    with psycopg.connect(url) as conn:
        conn.execute("create table todo (id serial primary key, task text, done bool)")


def take_requests(address: str) -> None:
    queue = Queue(connection=Redis.from_url(address), job_class=Job)
    with bemi.context(user_id=42, endpoint="/todo", method="POST"):
        queue.enqueue(jobs.add, "Buy milk")
    with bemi.context(user_id=7, endpoint="/todo/done", method="PUT"):
        queue.enqueue(jobs.complete_all)
    subprocess.run(
        [
            *(sys.executable, "-m", "rq.cli", "worker", "--burst", "--url", address),
            *("--job-class", "bemi.integrations.rq.Job", "--name", "worker-1"),
            *("--path", str(Path(__file__).parent)),
        ],
        check=True,
    )


def with_redis(folder: Path) -> None:
    """On a socket in a folder of its own, so that no port is taken."""
    socket = folder / "redis.sock"
    server = subprocess.Popen(
        ["redis-server", "--port", "0", "--unixsocket", str(socket), "--save", ""],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        for line in server.stdout:
            if "ready to accept connections" in line.lower():
                break
        take_requests(f"unix://{socket}")
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    if sys.argv[1:] == ["tables"]:
        make_tables(os.environ["DATABASE_URL"])
    else:
        with tempfile.TemporaryDirectory() as made:
            with_redis(Path(made))
