"""The context goes with tasks of Celery, through a real broker and a worker of its own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bemi
from bemi.integrations import celery as integration
from tests.support.attributions import attributions
from tests.support.queues import celery_tasks as tasks
from tests.support.wal import Log

ROOT = Path(__file__).parents[2]
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture(params=["solo", "prefork", "threads"])
def worker(request: pytest.FixtureRequest, broker: str, log: Log, tmp_path: Path) -> Iterator[str]:
    """Its name; it works in one process, or in processes or threads of its own."""
    name = f"worker-{request.param}@test"
    tasks.app.conf.update(broker_url=broker, result_backend=broker)
    environ = {**os.environ, "DATABASE_URL": log.url, "BROKER_URL": broker}
    command = [
        *(sys.executable, "-m", "celery", "-A", "tests.support.queues.celery_tasks", "worker"),
        *("--pool", request.param, "--concurrency", "2", "--hostname", name),
        *("--without-gossip", "--without-mingle", "--loglevel", "WARNING"),
    ]
    with (tmp_path / "worker.log").open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environ, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        yield name
    finally:
        process.terminate()
        process.wait(30)
        tasks.app.close()
        tasks.app.backend.client.close()


def test_the_context_goes_with_the_task(worker: str, log: Log) -> None:
    """Through chains and retries, too; what had none before has none of another task."""
    with bemi.context(user_id=42, plan=lambda: "free", password="p", endpoint="/buy"):
        tasks.write.delay("a").get(30)
        (tasks.write.s("b") | tasks.append.s("c")).apply_async().get(30)
        tasks.retry.delay("r").get(30)
        with pytest.raises(ZeroDivisionError):
            tasks.fail.delay("f").get(30)
        tasks.alter.delay().get(30)
        tasks.outer.delay("o").get(30)
    for _ in range(4):  # each process or thread
        tasks.write.delay("none").get(30)
    common = {"user_id": 42, "plan": "free", "password": "***", "endpoint": "/buy"}
    seen = []
    for context, task in attributions(log):
        assert context.pop("worker") == worker
        context.pop("_bemi", None)
        seen.append((context, task))
    assert seen == [
        ({**common, "job": "write"}, "a"),
        ({**common, "job": "write"}, "b"),
        ({**common, "job": "append"}, "bc"),
        *[({**common, "job": "retry"}, f"r-{number}") for number in range(3)],
        ({**common, "job": "fail"}, "f"),
        ({**common, "job": "outer"}, "o-before"),
        ({**common, "job": "write"}, "o-inside"),
        ({**common, "job": "outer"}, "o-after"),
        *[({"job": "write"}, "none")] * 4,
    ]


@pytest.mark.parametrize("worker", ["threads"], indirect=True)
def test_concurrent_tasks_never_mix(worker: str, log: Log) -> None:
    results = []
    for number in range(200):
        with bemi.context(user_id=f"u{number}"):
            results.append(tasks.write.delay(f"u{number}"))
    for result in results:
        result.get(60)
    seen = attributions(log)
    assert len(seen) == 200
    assert [(each, task) for each, task in seen if each.get("user_id") != task] == []


@pytest.mark.parametrize("worker", ["solo"], indirect=True)
def test_the_headers_of_others_are_as_they_were(worker: str, log: Log) -> None:
    mine = {"mine": "1", "traceparent": "of somebody else's tracing"}
    with bemi.context(user_id=1, trace_id=TRACE):
        seen = tasks.headers.apply_async(headers=dict(mine)).get(30)
        assert {name: seen[name] for name in mine} == mine
        assert "bemi-context" in seen
    assert "bemi-context" not in tasks.headers.apply_async(headers=dict(mine)).get(30)


@pytest.mark.parametrize("worker", ["solo"], indirect=True)
def test_a_header_that_can_not_be_read_is_as_good_as_absent(worker: str, log: Log) -> None:
    """So is one that is missing, as in messages from before."""
    unreadable: list[Any] = ["not JSON", "[1]", 7, "[" * 100_000, None]
    for header in unreadable:
        tasks.write.apply_async(args=["a"], headers={"bemi-context": header}).get(30)
    assert attributions(log) == [({"job": "write", "worker": worker}, "a")] * len(unreadable)


@pytest.mark.parametrize("worker", ["solo"], indirect=True)
def test_a_context_of_a_megabyte_is_cut_for_the_message(worker: str, log: Log) -> None:
    """A broker refuses messages whose headers are large."""
    with bemi.context(user_id=42, body="x" * 2_000_000, **{f"k{n}": "y" * 999 for n in range(500)}):
        seen = tasks.headers.delay().get(30)
    assert len(seen["bemi-context"]) <= 64 << 10


@pytest.fixture
def in_place() -> Iterator[None]:
    tasks.app.conf.task_always_eager = True
    yield
    tasks.app.conf.task_always_eager = False


@pytest.mark.usefixtures("in_place")
def test_in_place_a_task_is_in_the_context_of_its_caller(log: Log) -> None:
    with bemi.context(user_id=42):
        tasks.write.delay("a")
        assert bemi.current_context() == {"user_id": 42}
        tasks.alter.delay()
        assert bemi.current_context() == {"user_id": 42}
    ((context, _),) = attributions(log)
    assert context == {"user_id": 42, "job": "write"}


def test_installing_it_again_changes_nothing(log: Log) -> None:
    from celery import signals

    before = [len(each.receivers) for each in (signals.task_prerun, signals.before_task_publish)]
    integration.install(tasks.app)
    assert before == [
        len(each.receivers) for each in (signals.task_prerun, signals.before_task_publish)
    ]
