"""Ruby's context is Python's: what it makes of statements and contexts is the same."""

import json
import random
import struct
from collections.abc import Iterable
from pathlib import Path

from bemi.context import wire
from bemi.context.statements import classify
from tests.clients import alike
from tests.support import ruby

DIFFERENTIAL = Path(__file__).parent / "ruby" / "differential.rb"
COUNT = 2000
# Ruby's parser of JSON refuses halves of surrogate pairs, so they come by another way.
HALVES = {"\\ud800": "\\ue000", "\\udc00": "\\ue001"}


def test_statements_are_what_they_are_in_python() -> None:
    texts = list(alike.statements(COUNT))
    here = []
    for text in texts:
        found = classify(text, frozenset(alike.FUNCTIONS))
        controls = [list(control) for control in found.controls]
        here.append([found.writes, found.wrappable, found.several, controls, found.roles])
    there = _answers({"statement": text, "functions": alike.FUNCTIONS} for text in texts)
    assert _different(texts, here, map(json.loads, there)) == []


def test_contexts_are_encoded_as_in_python() -> None:
    asked = list(alike.contexts(COUNT))
    here = [wire.encode(context, limit=limit) for context, limit in asked]
    there = _answers({"context": context, "limit": limit} for context, limit in asked)
    assert _different(asked, here, there) == []
    assert sum('"truncated"' in content for content in here) > COUNT // 10


def test_floats_are_written_as_in_python() -> None:
    chance = random.Random(COUNT)
    floats = [struct.unpack("d", chance.randbytes(8))[0] for _ in range(COUNT)]
    floats += [chance.uniform(-1, 1) * 10.0**exponent for exponent in range(-20, 30)] * 5
    floats = [each for each in floats if abs(each) < float("inf")]
    context = {"floats": floats}
    assert _answers([{"context": context, "limit": wire.LIMIT}]) == [wire.encode(context)]


def _different(asked: Iterable[object], here: Iterable[object], there: Iterable[object]) -> object:
    return [each for each in zip(asked, here, there, strict=True) if each[1] != each[2]][:3]


def _answers(questions: Iterable[dict[str, object]]) -> list[str]:
    lines = "".join(f"{json.dumps(each)}\n" for each in questions)
    for half, stand_in in HALVES.items():
        lines = lines.replace(half, stand_in)
    return ruby.run([ruby.ruby(), str(DIFFERENTIAL)], stdin=lines).splitlines()
