"""What applications write through a library's own API, and not as SQL: each transaction of theirs
has one message, before its first write."""

from typing import Any

import pytest

import bemi
from tests.conformance.clients import javascript
from tests.conformance.clients.client import Client
from tests.support.wal import Log

LEFT = {
    "Knex": ["three", "four", "five", "six", "seven", "eight"],
    "Kysely": ["three", "four", "five", "seven", "eight"],
    "Drizzle": ["three", "four", "five", "seven", "eight"],
    "Sequelize": ["three", "four", "seven", "eight"],
}
CLIENTS = [client for client in javascript.CLIENTS if client.name in LEFT]


@pytest.mark.parametrize("client", CLIENTS, ids=str)
def test_its_own_api(client: Client, log: Log) -> None:
    with client.open(log.url, autocommit=True) as session, bemi.context(user_id="ann"):
        models: Any = session.models  # type: ignore[attr-defined]
        assert models() == LEFT[client.name]
    seen = log.seen()
    ann = {"user_id": "ann"}
    assert seen
    for transaction in seen:
        assert transaction.count(ann) == 1, transaction
        assert transaction[0] == ann, transaction
    writes = {each for transaction in seen for each in transaction if isinstance(each, str)}
    assert writes == {"insert", "update", "delete"}
