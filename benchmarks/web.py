"""How long people wait for the pages of a large history, when twenty of them use it at once.

Each opens one page after the other, as they follow from another, with a second of thought between
two; the server is a process of its own, on the same machine as the history and the people.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final
from urllib.parse import urlencode

import httpx
import psycopg
from benchmarks.history import DAYS, SETTINGS, Answer, fill

from bemi.embedded import Server
from bemi.store import people

PEOPLE: Final = 20
_THOUGHT: Final = 1.0
_GOAL: Final = 300
_SAMPLES: Final = 500


def measure(changes: int, seconds: float) -> Iterator[Answer]:
    """Fills a history of its own up to now, serves it, and lets people look at it."""
    with Server(settings=SETTINGS) as server:
        url = server.create_database("history")
        with psycopg.connect(url, autocommit=True) as conn:
            fill(conn, changes, datetime.now(UTC) - timedelta(days=DAYS))
            addresses = _addresses(conn)
            secrets = [_session(conn, number) for number in range(PEOPLE)]
        with served(url) as base:
            found = asyncio.run(_all(base, secrets, addresses, seconds))
    for name in sorted(found):
        times = sorted(found[name])
        yield Answer(
            name,
            len(times),
            round(statistics.median(times), 1),
            round(times[int(len(times) * 0.95)], 1),
            None,
            _GOAL,
        )


def _addresses(conn: psycopg.Connection[Any]) -> dict[str, list[str]]:
    """Of each kind of page some, in its default range."""
    rows = conn.execute(
        "select id, primary_key, transaction_id, source, context ->> 'request_id',"
        " context ->> 'user_id' from bemi.changes where committed_at > %s"
        " and context ? 'user_id' order by random() limit %s",
        [datetime.now(UTC) - timedelta(days=2), _SAMPLES],
    ).fetchall()

    def each(path: str, name: str, column: int, **more: str) -> list[str]:
        return [f"{path}?{urlencode({name: row[column], **more})}" for row in rows]

    return {
        "activity": ["/"],
        "activity of a table": ["/?table=todo"],
        "activity of a user": [f"/?{urlencode({'context': f'user_id={row[5]}'})}" for row in rows],
        "activity with its chart": ["/?chart=true"],
        "record": each("/record", "key", 1, table="todo"),
        "change": each("/change", "id", 0),
        "transaction": each("/transaction", "number", 2, source="shop"),
        "trace": each("/trace", "id", 4),
        "tables": ["/tables"],
        "table": ["/table?table=todo"],
        "trends": ["/trends"],
        "trends by user": ["/trends?by=user"],
        "sources": ["/sources"],
        "API: changes": ["/api/v1/changes"],
        "API: record/blame": each("/api/v1/record/blame", "key", 1, table="todo"),
        "API: stats": ["/api/v1/stats?by=table&since=7d"],
    }


def _session(conn: psycopg.Connection[Any], number: int) -> str:
    person = people.add_person(conn, "bemi", f"person {number}", "viewer", None)
    secret = people.link(conn, "bemi", person.id)
    signed_in = people.sign_in(conn, "bemi", secret, "")
    assert signed_in is not None
    return signed_in[1]


@contextmanager
def served(url: str, schema: str = "bemi") -> Iterator[str]:
    """The address of a server of its own."""
    environment = {name: value for name, value in os.environ.items() if name[:5] != "BEMI_"}
    environment |= {"BEMI_DESTINATION_URL": url, "BEMI_SCHEMA": schema, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "bemi", "serve", "--port", "0"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            _, found, base = line.partition("listening on ")
            if found:
                yield base.strip()
                return
        raise RuntimeError("bemi serve did not start")
    finally:
        process.terminate()
        process.wait()


async def _all(
    base: str, secrets: list[str], addresses: dict[str, list[str]], seconds: float
) -> dict[str, list[float]]:
    """Milliseconds by page, from the click to the last byte."""
    found: dict[str, list[float]] = {name: [] for name in addresses}
    until = time.monotonic() + seconds
    async with asyncio.TaskGroup() as group:
        for number, secret in enumerate(secrets):
            group.create_task(_person(base, secret, Random(number), addresses, found, until))
    return found


async def _person(
    base: str,
    secret: str,
    dice: Random,
    addresses: dict[str, list[str]],
    found: dict[str, list[float]],
    until: float,
) -> None:
    names = [*addresses]
    async with httpx.AsyncClient(
        base_url=base, cookies={"bemi_session": secret}, timeout=60
    ) as client:
        await asyncio.sleep(dice.random() * _THOUGHT)
        while time.monotonic() < until:
            name = dice.choice(names)
            address = dice.choice(addresses[name])
            began = time.perf_counter()
            answer = await client.get(address)
            found[name].append((time.perf_counter() - began) * 1000)
            if answer.status_code != 200:
                raise RuntimeError(f"{address}: {answer.status_code} {answer.text[:500]}")
            await asyncio.sleep(_THOUGHT)
