"""`Bemi::Change` over a history that was captured, of what Active Record wrote."""

import json
from pathlib import Path

from tests.integration.conftest import Track
from tests.support import ruby

PROGRAM = Path(__file__).parent / "ruby" / "changes.rb"


def test_the_questions_that_people_ask(tracked: Track) -> None:
    program = [ruby.ruby(), str(PROGRAM)]
    there = tracked(
        "create table todo (id serial primary key, task text, done bool)",
        "create schema shop",
        "create table shop.price (amount numeric(10, 2) primary key)",
        "create table moment (at timestamp primary key)",
        "create table blob (raw bytea primary key)",
        full=["*"],
    )
    urls = {
        "SOURCE_URL": there.settings.source_url,
        "HISTORY_URL": there.settings.destination_url,
    }
    ruby.run([*program, "write"], env=urls)
    there.catch_up()
    found = json.loads(ruby.run([*program, "read"], env=urls))
    assert found.pop("diffs") == [
        {"id": [None, 1], "task": [None, "a"], "done": [None, False]},
        {"id": [None, 2], "task": [None, "b"], "done": [None, False]},
        {"id": [None, 3], "task": [None, "c"], "done": [None, False]},
        {"done": [False, True]},
        {"id": [2, None], "task": ["b", None], "done": [False, None]},
        {"id": [3, 30]},
    ]
    assert found == {
        "created": ["1", "2", "3"],
        "updated": ["1", "30"],
        "deleted": ["2"],
        "after": ["1"],
        "after_named": ["3", "30"],
        "after_not": ["2", "3"],
        "before_not": ["1", "2", "3"],
        "context": ["1", "2", "3", "30"],
        "context_within": ["1", "2", "3"],
        "context_not": ["1", "2"],
        "fields": [["1"], ["30"], []],
        "hostile": [[0, 0, 0]] * 6,
        "desc": ["UPDATE", "DELETE", "UPDATE", "CREATE", "CREATE", "CREATE"],
        "of": [["CREATE", "UPDATE"], ["UPDATE"]],
        "of_updates": [{"user_id": 7}],
        "keys": [["1.50"], ["2026-01-02 03:04:05.25"], ["\\x00ff"]],
        "refused": [
            "Bemi::Error",
            "ActiveRecord::ReadOnlyRecord",
            "ActiveRecord::ReadOnlyRecord",
        ],
    }
