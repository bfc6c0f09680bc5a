"""The JavaScript package: its own tests pass, and it makes of things what Python's client does."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from bemi.context import wire
from bemi.context.statements import Statement, classify
from tests.clients import alike
from tests.support import javascript
from tests.support.parts import require
from tests.support.redis_server import redis_server

COUNT = 2000

# The first one may be the one that installs and builds all.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def package() -> Path:
    return javascript.built()


def test_it_is_in_order(package: Path) -> None:
    """Types, lint and format."""
    javascript.run(javascript.npm_command("run", "check"), cwd=package)


def test_its_own_tests_pass(package: Path, tmp_path: Path) -> None:
    """Checks the types of all of it, too. Those of the queue are not run without a Redis."""
    command = javascript.npm_command("test")
    if shutil.which("redis-server"):
        with redis_server(tmp_path) as url:
            javascript.run(command, env={"REDIS_URL": url})
    else:
        javascript.run(command)
        require("redis-server")


def answers(package: Path, questions: Iterable[list[Any]]) -> list[Any]:
    asked = "".join(f"{json.dumps(question)}\n" for question in questions)
    said = javascript.run([javascript.node(), "test/answer.mjs"], cwd=package, stdin=asked)
    return [json.loads(line) for line in said.splitlines()]


def test_statements_are_what_they_are_in_python(package: Path) -> None:
    texts = list(alike.statements(COUNT))
    functions = [list(alike.FUNCTIONS) if at % 2 else [] for at in range(len(texts))]
    found = answers(package, (["classify", *asked] for asked in zip(texts, functions, strict=True)))
    here = [classify(text, frozenset(names)) for text, names in zip(texts, functions, strict=True)]
    there = [
        Statement(**{**each, "controls": tuple((kind, name) for kind, name in each["controls"])})
        for each in found
    ]
    different = [each for each in zip(texts, here, there, strict=True) if each[1] != each[2]]
    assert different == []


def test_contexts_are_encoded_as_in_python(package: Path) -> None:
    asked = list(alike.contexts(COUNT))
    found = answers(package, (["encode", *each] for each in asked))
    here = [wire.encode(context, limit=limit) for context, limit in asked]
    different = [each for each in zip(here, found, strict=True) if each[0] != each[1]]
    assert different == []
    assert sum('"truncated"' in content for content in here) > COUNT // 10
