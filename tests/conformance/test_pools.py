"""Requests at once that share the connections of one pool, as they do in a server of one thread."""

from typing import Any

import pytest

from tests.conformance.clients import CLIENTS
from tests.conformance.clients.client import Client
from tests.support.wal import Log

WRITES = 10_000
REQUESTS = 50
POOLED = [client for client in CLIENTS if client.pools]


@pytest.mark.parametrize("client", POOLED, indirect=True, ids=str)
def test_requests_at_once(client: Client, log: Log) -> None:
    """requests at once over one pool: 10,000 writes, nobody's is another one's"""
    with client.open(log.url, autocommit=True) as session:
        concurrent: Any = session.concurrent  # type: ignore[attr-defined]
        concurrent(WRITES, REQUESTS)
    attributed = log.attributed()
    assert len(attributed) == WRITES
    assert [each for each in attributed if each[0] != {"user_id": each[1]}] == []
