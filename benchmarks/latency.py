"""How soon a commit on an idle source is seen in `changes`, by a reader who never sleeps."""

import random
import statistics
import time

import psycopg
from benchmarks.figures import Latency
from benchmarks.servers import Servers
from psycopg import sql

_INSERT = """
insert into orders values (%s, 1, 'new', 1.5, 'EUR', 'Street 1, 10115 Berlin', 1, null, now(), null)
"""
_DEADLINE = 60.0


def measure(servers: Servers, commits: int) -> Latency:
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
    cuts = statistics.quantiles(waits, n=100, method="inclusive")
    poll = statistics.median(polls)
    median, p95, p99, poll = (round(x * 1000, 2) for x in (cuts[49], cuts[94], cuts[98], poll))
    return Latency(commits, median, p95, p99, poll)
