"""The context goes with jobs of RQ, through a real Redis and a worker of its own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import rq

import bemi
from bemi.integrations.rq import Job
from tests.support.attributions import attributions
from tests.support.queues import rq_jobs as jobs
from tests.support.wal import Log

ROOT = Path(__file__).parents[2]
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.fixture
def connection(broker: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(broker) as made:
        made.flushdb()
        yield made


def work(broker: str) -> None:
    """A worker that ends when nothing is left to do."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "rq.cli", "worker", "--burst", "--url", broker),
            *("--job-class", "bemi.integrations.rq.Job", "--name", "worker-1", "--path", str(ROOT)),
        ],
        cwd=ROOT,
        env=dict(os.environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()


def test_the_context_goes_with_the_job(broker: str, connection: redis.Redis, log: Log) -> None:
    """Through retries and to those that depend on it; what had none has none of another's."""
    queue = rq.Queue(connection=connection, job_class=Job)
    with bemi.context(user_id=42, plan=lambda: "free", password="p"):
        first = queue.enqueue(jobs.write, "a", meta={"mine": 1})
        queue.enqueue(jobs.write, "b", depends_on=first)
        queue.enqueue(jobs.write_and_fail_once, "r", retry=rq.Retry(max=1))
    queue.enqueue(jobs.write, "none")
    work(broker)
    assert queue.fetch_job(first.id).meta["mine"] == 1  # type: ignore[union-attr]
    common = {"user_id": 42, "plan": "free", "password": "***", "_bemi": {"redacted": ["password"]}}
    write = {"job": "tests.support.queues.rq_jobs.write", "worker": "worker-1"}
    retried = {**common, **write, "job": f"{write['job']}_and_fail_once"}
    seen = {task: context for context, task in attributions(log)}
    assert seen == {
        "a": {**common, **write},
        "b": {**common, **write},
        "r-first": retried,
        "r-again": retried,
        "none": write,
    }


def test_jobs_that_were_made_without_it_still_run(
    broker: str, connection: redis.Redis, log: Log
) -> None:
    with bemi.context(user_id=42):
        rq.Queue(connection=connection).enqueue(jobs.write, "a")
    work(broker)
    ((context, _),) = attributions(log)
    assert context == {"job": "tests.support.queues.rq_jobs.write", "worker": "worker-1"}


def test_in_place_a_job_is_in_the_context_of_its_caller(connection: redis.Redis, log: Log) -> None:
    queue = rq.Queue(connection=connection, job_class=Job, is_async=False)
    with bemi.context(user_id=42):
        queue.enqueue(jobs.write, "a")
        assert bemi.current_context() == {"user_id": 42}
    ((context, _),) = attributions(log)
    assert context["user_id"] == 42
    assert context["job"] == "tests.support.queues.rq_jobs.write"


def test_a_trace_goes_on_as_it_came(connection: redis.Redis) -> None:
    from bemi.context import tracing

    queue = rq.Queue(connection=connection, job_class=Job)
    with bemi.context(trace_id=tracing.read_traceparent(PARENT)):
        job = queue.enqueue(jobs.write, "a")
    assert job.meta["traceparent"] == PARENT
    with bemi.context(tracing.job_context(job.meta["bemi-context"], job.meta["traceparent"])):
        assert bemi.outgoing_headers()["traceparent"] == PARENT
