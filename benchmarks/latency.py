"""How soon a commit on an idle source is seen in `changes`, by a reader who never sleeps, and
given by `bemi.stream` and the events of `bemi serve`, which do."""

import contextlib
import json
import queue
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import psycopg
from benchmarks import web
from benchmarks.figures import Latency
from benchmarks.servers import Servers
from psycopg import sql

import bemi
from bemi.store import people

_INSERT = """
insert into orders values (%s, 1, 'new', 1.5, 'EUR', 'Street 1, 10115 Berlin', 1, null, now(), null)
"""
_DEADLINE = 60.0


def polled(servers: Servers, commits: int) -> Latency:
    source = servers.source_conn
    source.execute("truncate orders")
    source.execute("set synchronous_commit to on")
    waits, polls = [], []
    with (
        servers.worker("latency") as (settings, _pid),
        psycopg.connect(settings.destination_url, autocommit=True) as reader,
    ):
        query = sql.SQL(
            """select 1 from {} where "table" = 'orders' and primary_key = %s limit 1"""
        ).format(sql.Identifier(settings.schema, "changes"))
        for key in range(-20, commits):  # the first ones warm up
            source.execute(_INSERT, [key])
            began = polled = time.perf_counter()
            seen = False
            while not seen:
                seen = reader.execute(query, [str(key)], prepare=True).fetchone() is not None
                now = time.perf_counter()
                polls.append(now - polled)
                polled = now
                if now - began > _DEADLINE:
                    raise TimeoutError("the change was not captured")
            if key >= 0:
                waits.append(polled - began)
            # Idle again, and not in step with anything.
            time.sleep(random.uniform(0.005, 0.025))
    source.execute("set synchronous_commit to off")
    return _figure("commit to visible", waits, statistics.median(polls))


def streamed(servers: Servers, commits: int) -> Latency:
    with servers.worker("latency") as (settings, _pid):
        changes = bemi.stream(
            settings.destination_url, schema=settings.schema, table="orders", operation="create"
        )
        given = (change.primary_key for change in changes)
        return _given("commit to a stream's change", servers, commits, given, changes.close)


def served(servers: Servers, commits: int) -> Latency:
    """Of `bemi serve`, which a page that is open listens to."""
    with servers.worker("latency") as (settings, _pid):
        with psycopg.connect(settings.destination_url, autocommit=True) as conn:
            _, token = people.add_token(
                conn, settings.schema, "feed", "viewer", None, created_by="bench", lasts=None
            )
        with (
            web.served(settings.destination_url, settings.schema) as base,
            httpx.stream(
                "GET",
                f"{base}/api/v1/stream",
                params={"table": "orders", "operation": "create"},
                headers={"Authorization": f"Bearer {token}"},
                timeout=_DEADLINE,
            ) as answer,
        ):
            given = (
                json.loads(line.removeprefix("data:"))["primary_key"]
                for line in answer.iter_lines()
                if line.startswith("data:")
            )
            return _given("commit to the server's event", servers, commits, given, answer.close)


def _given(
    name: str,
    servers: Servers,
    commits: int,
    keys: Iterator[str | None],
    close: Callable[[], None],
) -> Latency:
    """Until the key of each comes, in a thread of its own."""
    source = servers.source_conn
    source.execute("truncate orders")
    source.execute("set synchronous_commit to on")
    given: queue.SimpleQueue[tuple[str | None, float]] = queue.SimpleQueue()
    waits = []

    def consume() -> None:
        with contextlib.suppress(httpx.StreamError, httpx.TransportError):
            for key in keys:
                given.put((key, time.perf_counter()))

    consumer = threading.Thread(target=consume)
    consumer.start()
    for number in range(-20, commits):
        source.execute(_INSERT, [number])
        began = time.perf_counter()
        seen, at = given.get(timeout=_DEADLINE)
        assert seen == str(number)
        if number >= 0:
            waits.append(max(at - began, 0.0))
        # Idle again, and not in step with anything.
        time.sleep(random.uniform(0.005, 0.025))
    close()
    source.execute(_INSERT, [commits])  # who waits for one sees that it is closed
    consumer.join()
    source.execute("set synchronous_commit to off")
    return _figure(name, waits)


def _figure(name: str, waits: list[float], poll: float | None = None) -> Latency:
    cuts = statistics.quantiles(waits, n=100, method="inclusive")
    median, p95, p99 = (round(x * 1000, 2) for x in (cuts[49], cuts[94], cuts[98]))
    return Latency(
        name, len(waits), median, p95, p99, None if poll is None else round(poll * 1000, 2)
    )
