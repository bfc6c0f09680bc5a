"""A small application of Rails, over HTTP: who and where, of each change it makes."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from tests.support import ruby
from tests.support.parts import require
from tests.support.redis_server import redis_server
from tests.support.waiting import until
from tests.support.wal import Log

APPLICATION = Path(__file__).parent / "ruby" / "rails_app.rb"
WRITES = 10_000 if os.environ.get("BEMI_TEST_FULL") else 1_000
AT_ONCE = 10


@contextlib.contextmanager
def served(log: Log, **env: str) -> Iterator[int]:
    """The port of the application."""
    process = subprocess.Popen(
        [ruby.ruby(), str(APPLICATION)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "DATABASE_URL": log.url, "RAILS_ENV": "production", **env},
    )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.communicate(timeout=30)


def post(port: int, path: str, **headers: str) -> int:
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("POST", path, headers=named)
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


def contexts(log: Log) -> dict[str, dict[str, Any]]:
    """Each task's, without the ids of requests that were made up."""
    return {task: context for context, task in log.attributed()}


def test_who_and_where(log: Log) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    with served(log) as port:
        first = {"X_User": "ann", "X_Request_ID": "req-1", "traceparent": trace}
        assert post(port, "/create?task=a&shop=7", **first) == 201
        assert post(port, "/stream?task=b", X_User="bob", X_Request_ID="req-2") == 200
        assert post(port, "/refuse?task=c", X_Request_ID="req-3") == 500
        assert post(port, "/rescued", X_User="ann", X_Request_ID="req-5") == 200
        assert post(port, "/late?task=e", X_User="ann", X_Request_ID="req-6") == 200
        assert post(port, "/rack", X_Request_ID="req-4") == 200
        assert post(port, "/create?task=d", X_User="ann") == 201
    seen = contexts(log)
    made = seen["d"].pop("request_id")
    assert len(made) == 36
    own = {"method": "POST", "user_id": "ann", "endpoint": "todos#create"}
    assert seen == {
        "a": {**own, "request_id": "req-1", "shop": "7", "trace_id": trace.split("-")[1]},
        "b": {**own, "request_id": "req-2", "user_id": "bob", "endpoint": "streams#create"},
        "c": {"method": "POST", "request_id": "req-3", "endpoint": "todos#refuse"},
        "rescued": {**own, "request_id": "req-5", "endpoint": "todos#rescued"},
        "e": {**own, "request_id": "req-6", "endpoint": "todos#late", "plan": "pro"},
        "rack": {"method": "POST", "request_id": "req-4", "endpoint": "/rack"},
        "d": own,
    }


def test_requests_at_once(log: Log) -> None:
    with served(log) as port, ThreadPoolExecutor(AT_ONCE) as threads:

        def write(user: int) -> None:
            connection = HTTPConnection("127.0.0.1", port, timeout=60)
            for n in range(WRITES // AT_ONCE):
                path = f"/create?task=user%20{user}&n={n}"
                connection.request("POST", path, headers={"X-User": f"user {user}"})
                response = connection.getresponse()
                response.read()
                assert response.status == 201
            connection.close()

        list(threads.map(write, range(AT_ONCE)))
    attributed = log.attributed()
    assert len(attributed) == WRITES
    assert [each for each in attributed if each[0].get("user_id") != each[1]] == []


def test_jobs_of_active_job(log: Log) -> None:
    with served(log) as port:
        assert post(port, "/later?task=a", X_User="ann", X_Request_ID="req-1") == 200
        until(lambda: len(log.tasks()) == 2, 30, "both jobs have run")
    seen = contexts(log)
    assert seen["a"].pop("worker")
    assert seen["a too"].pop("worker")
    assert seen["a"] == seen["a too"] == {
        "user_id": "ann", "method": "POST", "endpoint": "todos#later", "request_id": "req-1",
        "job": "TellJob",
    }  # fmt: skip


def test_jobs_of_sidekiq(log: Log, tmp_path: Path) -> None:
    program = require("sidekiq")
    with redis_server(tmp_path) as url:
        with served(log, REDIS_URL=url) as port:
            assert post(port, "/later?task=a", X_User="ann", X_Request_ID="req-1") == 200
        command = [program, "--require", str(APPLICATION), "--concurrency", "2", "--timeout", "1"]
        env = {"DATABASE_URL": log.url, "REDIS_URL": url, "RAILS_ENV": "production"}
        worker = subprocess.Popen(
            command, env={**os.environ, **env}, stdout=sys.stderr, stdin=subprocess.DEVNULL
        )
        try:
            until(lambda: len(log.tasks()) == 3, 60, "all jobs have run")
        finally:
            worker.terminate()
            worker.wait(30)
    seen = contexts(log)
    workers = {each.pop("worker") for each in seen.values()}
    assert len(workers) == 1
    asked = {
        "user_id": "ann", "method": "POST", "endpoint": "todos#later", "request_id": "req-1",
    }  # fmt: skip
    assert seen == {
        "a": {**asked, "job": "TellJob"},
        "a too": {**asked, "job": "TellJob"},
        "a counted": {**asked, "job": "CountJob"},
    }
