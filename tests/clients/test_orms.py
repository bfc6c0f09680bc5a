"""ORMs of JavaScript: what their own interfaces write has its context, row by row, and the history
can be read through them. packages/js/conformance/libraries/*.mjs do it."""

import os
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.conformance.clients import javascript, process
from tests.conformance.clients.client import Client
from tests.support import javascript as javascript_package
from tests.support.tracked import Tracked
from tests.support.tracking import track
from tests.support.wal import TODO, Log

NOTE = "create table note (id serial primary key, text text unique, todo_id int references todo)"
INSERT, UPDATE, DELETE = "insert", "update", "delete"

WRITES: dict[Client, list[tuple[str, list[str]]]] = {
    javascript.TYPEORM: [
        ("create", [INSERT]),
        ("create with relations", [INSERT] * 3),
        ("create several", [INSERT] * 2),
        ("insert in bulk", [INSERT] * 3),
        ("upsert", [UPDATE]),
        ("update a row", [UPDATE]),
        ("update rows", [UPDATE]),
        ("increment", [UPDATE]),
        ("query builder", [UPDATE]),
        ("query", [UPDATE]),
        ("transaction", [INSERT] * 2),
        ("a runner's transaction", [INSERT, DELETE]),
        ("stream", [INSERT]),
        ("remove", [DELETE]),
        ("delete rows", [DELETE]),
        *[("several at once", [INSERT])] * 2,
        *[("a request, with replicas", [INSERT])] * 2,
    ],
    javascript.MIKRO_ORM: [
        ("flush of several", [INSERT] * 5),
        ("flush of changes", [UPDATE, UPDATE, DELETE]),
        ("insert", [INSERT]),
        ("insert many", [INSERT] * 2),
        ("upsert", [UPDATE]),
        ("native update", [UPDATE]),
        ("native delete", [DELETE]),
        ("query builder", [UPDATE]),
        ("execute", [UPDATE]),
        ("kysely", [UPDATE]),
        ("transactional", [INSERT] * 2),
        ("begin", [UPDATE, INSERT]),
        *[("several at once", [INSERT])] * 2,
        *[("a request, after a reconnect", [INSERT])] * 2,
    ],
    javascript.PRISMA: [
        ("create", [INSERT]),
        ("create with relations", [INSERT] * 3),
        ("create many", [INSERT] * 2),
        ("create many and return", [INSERT] * 2),
        ("an upsert that updates", [UPDATE]),
        ("an upsert that creates", [INSERT]),
        ("update", [UPDATE]),
        ("update of relations", [UPDATE, DELETE, INSERT]),
        ("update many", [UPDATE]),
        ("execute raw", [UPDATE]),
        ("query raw", [UPDATE]),
        ("batch transaction", [INSERT, UPDATE, DELETE]),
        ("interactive transaction", [INSERT] * 2),
        ("delete", [DELETE]),
        *[("several at once", [INSERT])] * 2,
        *[("a request", [INSERT])] * 2,
    ],
}

CREATED_AND_SO_ON = {
    "created": ["1", "2", "3"],
    "updated": ["1", "2", "3"],
    "deleted": ["2"],
    "before": ["1", "2"],
    "after": ["2", "2"],
    "context": ["1", "2", "3", "1"],
}
READING: dict[Client, dict[str, Any]] = {
    javascript.TYPEORM: {
        **CREATED_AND_SO_ON,
        "after, not": ["1", "3"],
        "before, not": ["1", "2", "3", "3", "2"],
        "context, large": ["1", "2", "3"],
        "context, not": ["2", "3", "2"],
        "field changed": ["1", "2"],
        "field changed, by ann": ["1"],
        "hostile": [],
        "newest": "2",
        "diff": {"id": [2, None], "task": ["b", None], "n": [2, None]},
        "refused": 'cannot delete from view "changes"',
    },
    # What was altered of its entities is not written.
    javascript.MIKRO_ORM: {**CREATED_AND_SO_ON, "deleted, after a flush": ["2"]},
    javascript.PRISMA: CREATED_AND_SO_ON,
}


@pytest.mark.parametrize("client", WRITES, ids=str)
def test_models(client: Client, log: Log) -> None:
    """One message in each transaction, of who has asked for it."""
    log.conn.execute(NOTE)
    with client.open(log.url, autocommit=True) as session:
        models: Any = session.models  # type: ignore[attr-defined]
        models()
    assert log.seen() == [[{"step": step}, *writes] for step, writes in WRITES[client]]


def test_requests_in_one_turn_of_prismas(log: Log) -> None:
    """It runs what several of them ask for at once together, for its first one."""
    with javascript.PRISMA.open(log.url, autocommit=True) as session:
        turns: Any = session.turns  # type: ignore[attr-defined]
        turns()
    attributed = log.attributed()
    assert len(attributed) == 5 * (6 + 9 + 2)
    assert [each for each in attributed if each[0] != {"user_id": each[1]}] == []


def _prisma_6() -> list[str]:
    folder = javascript_package.generated_by_prisma_6()
    run = str(javascript_package.built() / "conformance" / "run.mjs")
    return ["env", f"BEMI_TEST_PRISMA={folder}", "node", run, "prisma"]


PRISMA_6 = process.client("Prisma 6", _prisma_6)


@pytest.mark.skipif(
    "BEMI_TEST_FULL" not in os.environ,
    reason="Prisma 6 is installed apart, with BEMI_TEST_FULL only",
)
def test_prisma_6(log: Log) -> None:
    log.conn.execute(NOTE)

    with PRISMA_6.open(log.url, autocommit=True) as session:
        asked: Any = session
        asked.models()
        written = WRITES[javascript.PRISMA]
        assert log.seen() == [[{"step": step}, *writes] for step, writes in written]
        asked.turns()
        asked.concurrent(1000, 50)
    attributed = log.attributed()
    assert len(attributed) == 5 * (6 + 9 + 2) + 1000
    assert [each for each in attributed if each[0] != {"user_id": each[1]}] == []


@pytest.fixture
def history(source_url: str, destination_url: str) -> Iterator[str]:
    """Three rows, made by ann; one altered by her and one by bob, one deleted by nobody."""
    three = "insert into todo (task, n) values ('a', 1), ('b', 1), ('c', 3)"
    with psycopg.connect(source_url, autocommit=True) as conn:
        conn.execute(TODO)
        tracked = Tracked(track(source_url, destination_url, schemas=["*"], full=["*"]))
        for context, statement in (
            ('{"user_id": "ann", "large": 12345678901234567890}', three),
            ('{"user_id": "ann"}', "update todo set n = 2 where task = 'a'"),
            ('{"user_id": "bob"}', "update todo set n = 2 where task = 'b'"),
            ('{"user_id": "bob"}', "update todo set task = 'd' where task = 'c'"),
            (None, "delete from todo where task = 'b'"),
        ):
            with conn.transaction():
                if context:
                    conn.execute("select pg_logical_emit_message(true, '_bemi', %s)", [context])
                conn.execute(statement.encode())
    tracked.catch_up()
    yield destination_url
    tracked.close()


def test_reading_the_history(history: str) -> None:
    for client, answers in READING.items():
        with client.open_plain(history, autocommit=True) as session:
            reading: Any = session.reading  # type: ignore[attr-defined]
            assert reading() == answers, client.name
