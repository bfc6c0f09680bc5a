"""The view of changes as Drizzle reads it, over a history that was captured."""

import json
import os

from tests.integration.conftest import Track
from tests.support import javascript


def test_the_questions_that_people_ask(tracked: Track) -> None:
    table = "create table todo (id serial primary key, task text, done bool default false)"
    there = tracked(table, full=["*"])
    package = javascript.built()
    urls = {
        **os.environ,
        "SOURCE_URL": there.settings.source_url,
        "HISTORY_URL": there.settings.destination_url,
    }
    program = ["node", "conformance/drizzle-changes.mjs"]
    javascript.run([*program, "write"], cwd=package, env=urls)
    there.catch_up()
    assert json.loads(javascript.run([*program, "read"], cwd=package, env=urls)) == {
        "created": ["1", "2", "3"],
        "updated": ["1", "3"],
        "deleted": ["2"],
        "before": ["2"],
        "before_not": ["1", "2", "3", "1", "3"],
        "after": ["3"],
        "after_not": ["3"],
        "context": ["1", "2", "3", "3"],
        "context_within": ["1", "2", "3"],
        "context_as_sent": ["1"],
        "context_not": ["1", "2"],
        "fields": [["1"], ["3"], []],
        "diffs": [
            {"id": [None, 1], "task": [None, "a"], "done": [None, False]},
            {"id": [None, 2], "task": [None, "b"], "done": [None, False]},
            {"id": [None, 3], "task": [None, 'it\'s */ % "c"'], "done": [None, False]},
            {"done": [False, True]},
            {"id": [2, None], "task": ["b", None], "done": [False, None]},
            {"task": ['it\'s */ % "c"', None]},
        ],
        "newest": ["UPDATE", "DELETE"],
        "types": ["bigint", "Date", "number"],
    }
