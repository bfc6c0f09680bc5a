"""Each example runs, and each of its changes says who or what made it."""

import json
import subprocess
import sys

import pytest
from examples.__main__ import FOLDER, NAMES

from tests.support import javascript, ruby
from tests.support.parts import require

NEEDS = {
    "rq": "redis-server",
    "javascript/bullmq": "redis-server",
    "ruby/sidekiq": "redis-server",
    "javascript": "node",
}


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_and_its_changes_have_their_context(name: str) -> None:
    language = name.partition("/")[0]
    for program in (NEEDS.get(name), NEEDS.get(language)):
        if program is not None:
            require(program)
    if language == "javascript":
        javascript.built()
    if language == "ruby":
        ruby.ruby()
    done = subprocess.run(
        [sys.executable, "-m", "examples", name, "--json"],
        cwd=FOLDER.parent,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    changes = json.loads(done.stdout)
    operations = {change["operation"] for change in changes}
    assert {"CREATE", "UPDATE"} <= operations, "it shows more than one kind"
    assert [change for change in changes if not change["context"]] == []
