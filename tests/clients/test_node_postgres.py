"""The corners of node-postgres, as packages/js/conformance/pg-corners.mjs plays them: each row that
it wrote says in its context of which of them it is."""

import json
import os

from tests.support import javascript
from tests.support.wal import Log


def test_the_corners(log: Log) -> None:
    log.conn.execute(
        "create table child (parent int references todo (id) deferrable initially deferred)"
    )
    package = javascript.built()
    corners = ["node", "--no-deprecation", "conformance/pg-corners.mjs"]
    said = json.loads(javascript.run(corners, cwd=package, env={**os.environ, "URL": log.url}))
    assert said == {
        "a prepared statement that fails is prepared again": [
            'relation "late" does not exist',
            1,
        ],
        "a constraint that is deferred fails the statement": [True, True, True],
        "a stream of what was written, in its caller's context": [
            "a stream of what was written, in its caller's context"
        ],
        "a cursor that is closed early": 1,
        "several statements in one text": ["INSERT 1", "INSERT 1", "SELECT 1"],
        "a callback is called in its caller's context": [
            "a callback is called in its caller's context"
        ]
        * 3,
        "statements that are not awaited": ["BEGIN", "INSERT", "INSERT", "COMMIT", "INSERT"],
        "a query of its own class, and one with events": True,
        "what is no query is refused as ever": [
            "TypeError",
            "TypeError",
            "A query must have either text or a name. Supplying neither is unsupported.",
            "Query values must be an array",
        ],
        "by hand, where nothing is installed": None,
        "in pipeline mode": [
            "BEGIN",
            "INSERT",
            "division by zero",
            "current transaction is aborted, commands ignored until end of transaction block",
            "ROLLBACK",
            "INSERT",
            "SELECT",
            "INSERT",
        ],
        "both kinds of modules": {"a": 1},
    }
    attributed = log.attributed()
    assert len(attributed) == 5 + 2 + 2 + 2 + 3 + 1 + 1 + 2
    for context, task in attributed:
        assert task in context["user_id"] or task in ("by hand", "queued"), (context, task)
    assert {task for _, task in attributed} >= {"by hand", "queued", "pipeline", "cursor"}


def test_all_is_as_ever(log: Log) -> None:
    package = javascript.built()
    played = ["node", "--no-deprecation", "conformance/pg-as-ever.mjs"]
    said = json.loads(javascript.run(played, cwd=package, env={**os.environ, "URL": log.url}))
    for name, (plain, installed) in said.items():
        assert installed == plain, name
        assert "hangs" not in str(plain), name


def test_who_calls_back(log: Log) -> None:
    """sockets of clients are in no context, and callbacks in that of who has asked"""
    package = javascript.built()
    said = javascript.run(["node", "conformance/pg-scopes.mjs"], cwd=package, env={"URL": log.url})
    assert json.loads(said) == {"notification": {}, "callbacks": ["caller", "caller", "caller"]}
