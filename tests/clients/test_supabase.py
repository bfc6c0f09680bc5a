"""Supabase's client, whose requests are done as PostgREST does them: neither can be run here."""

import json
from typing import Any

from bemi.capture import postgrest
from tests.support import javascript
from tests.support.gateway import gateway
from tests.support.wal import Log


def test_what_it_sends_is_the_context_of_its_writes(log: Log) -> None:
    package = javascript.built()
    asked: list[dict[str, Any]] = json.loads(
        javascript.run(["node", "conformance/supabase.mjs"], cwd=package)
    )
    assert [each["method"] for each in asked] == ["POST", "POST", "POST", "POST", "PATCH"]
    chosen = postgrest.options(trusted=["page", "note"])
    postgrest.install(log.conn, chosen)
    with gateway(log.conn, chosen.function) as web:
        for each in asked:
            path = each["path"].removeprefix("/rest/v1").partition("?")[0]
            write = "insert into todo (task) values ('a')"
            web.request(each["method"], path, write, headers=each["headers"], role="anon")
    contexts = [transaction[0] for transaction in log.seen()]
    ids = [context.pop("request_id") for context in contexts]
    assert sorted(ids[1:3]) == ["req-ann", "req-bob"]
    assert ids[0] not in ids[1:]
    plain = {"method": "POST", "endpoint": "/todo", "role": "anon"}
    said = {"note": "Zoë */ '", **plain}
    assert contexts[0] == plain
    assert sorted(contexts[1:3], key=str) == sorted(
        [{"page": "ann", **said}, {"page": "bob", **said}], key=str
    )
    assert contexts[3] == {"page": "rpc", **plain, "endpoint": "/rpc/add_one"}
    assert contexts[4] == {"page": "edge", **plain, "method": "PATCH"}
    own = json.loads(asked[4]["headers"]["bemi-context"])
    assert own == {"page": "edge", "password": "***", "_bemi": {"redacted": ["password"]}}
