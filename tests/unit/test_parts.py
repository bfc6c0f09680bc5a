"""Where two values differ inside."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bemi.history.parts import MISSING, Part, parts, pieces


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        (1, 1, []),
        (1, True, [("", 1, True)]),
        ("a", "b", [("", "a", "b")]),
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1, "b": 2}, {"b": 3, "c": 4}, [
            (".a", 1, MISSING), (".b", 2, 3), (".c", MISSING, 4),
        ]),
        ({"a": {"b": {"c": 1}}}, {"a": {"b": {"c": None}}}, [(".a.b.c", 1, None)]),
        ({"a.b": {'"': 1}}, {"a.b": {'"': 2}}, [('."a.b"."\\""', 1, 2)]),
        ([1, 2, 3], [1, 3], [("[1]", 2, MISSING)]),
        ([1, 3], [1, 2, 3], [("[1]", MISSING, 2)]),
        ([1, {"a": 1}], [1, {"a": 2}], [("[1].a", 1, 2)]),
        ([], [], []),
        ({"a": 1}, [1], [("", {"a": 1}, [1])]),
    ],
)  # fmt: skip
def test_json_differs_at_paths(before: Any, after: Any, found: list[tuple[str, Any, Any]]) -> None:
    assert [*parts(before, after)] == [Part(*each) for each in found]


@given(st.text(), st.text())
def test_pieces_are_both_texts(before: str, after: str) -> None:
    found = pieces(before, after)
    assert "".join(text for mark, text in found if mark != "+") == before
    assert "".join(text for mark, text in found if mark != "-") == after


def test_a_hostile_text_does_not_take_for_ever() -> None:
    """Two that share nothing but single letters, for which an exact answer takes minutes."""
    dice = random.Random(1)
    before, after = ("".join(dice.choices("ab", k=50_000)) for _ in range(2))
    found = pieces(before, after)
    assert "".join(text for mark, text in found if mark != "+") == before
