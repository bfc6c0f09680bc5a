"""Contexts through pgbouncer: two users whose transactions share one connection to the server."""

import itertools
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import bemi
from tests.conformance.clients.client import Client, Opens
from tests.support.pgbouncer import pooled
from tests.support.wal import Log

# 10,000 take some ten seconds with each library and mode.
WRITES = 10_000 if os.environ.get("BEMI_TEST_FULL") else 1_000
# The usual deadline is too near on a machine that is busy with other tests.
pytestmark = pytest.mark.timeout(300)
ROUND = 5
"""Writes between two looks at the other one: two in autocommit mode, three in a block."""


def test_transaction_mode(client: Client, log: Log) -> None:
    """pgbouncer, transaction mode: nobody's change is another one's"""
    opens = client.open_unprepared or client.open
    with pooled(log.url, "transaction") as url:
        _write_by_turns(opens, url, rounds_a_session=WRITES)
    _assert_attributed(log)


def test_session_mode(client: Client, log: Log) -> None:
    """pgbouncer, session mode: nobody's change is another one's"""
    with pooled(log.url, "session") as url:
        _write_by_turns(client.open, url, rounds_a_session=2)
    _assert_attributed(log)


def _write_by_turns(opens: Opens, url: str, rounds_a_session: int) -> None:
    """Both users at once: in session mode one waits until the other one's session has ended."""
    rounds = WRITES // ROUND // 2
    in_turns = rounds_a_session < rounds
    together = threading.Barrier(2, timeout=60)

    def write(user: str) -> None:
        done = 0
        while done < rounds:
            # Else one might be through before the other one begins. Of two sessions that share a
            # connection the second one waits until the first one has ended.
            if in_turns:
                together.wait()
            with opens(url, autocommit=True) as session, bemi.context(user_id=user):
                if not in_turns:
                    together.wait()
                for _ in range(min(rounds_a_session, rounds - done)):
                    for _ in range(2):
                        session.run("insert into todo (task) values ({})", [user])
                    with session.block():
                        for _ in range(3):
                            session.run("insert into todo (task) values ({})", [user])
                    done += 1

    with ThreadPoolExecutor(2) as threads:
        for each in [threads.submit(write, user) for user in ("ann", "bob")]:
            each.result()


def _assert_attributed(log: Log) -> None:
    attributed = log.attributed()
    assert len(attributed) == WRITES
    wrong = [(context, task) for context, task in attributed if context != {"user_id": task}]
    assert wrong == []
    users = [task for _, task in attributed]
    turns = sum(1 for before, after in itertools.pairwise(users) if before != after)
    assert turns >= 20, "they were not interleaved"
