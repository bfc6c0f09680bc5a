"""What somebody may see, written in lines: nothing is lost on the way there and back."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bemi.errors import UsageError
from bemi.ui.settings.scopes import brief_words, idle, read, spelled, words

_NAMES = st.text(alphabet=' a:,*.\n\u2028\u202e"', min_size=1, max_size=6)


@given(
    st.none()
    | st.lists(
        st.fixed_dictionaries(
            {"table": _NAMES, "columns": st.none() | st.lists(_NAMES, max_size=2)}
        ),
        max_size=3,
    )
)
def test_what_is_saved_unchanged_stays_as_it_was(scopes: list[Any] | None) -> None:
    typed = spelled(scopes)
    assert typed.sees == "same" or read(*typed) == scopes


def test_a_table_in_a_line_with_its_columns() -> None:
    text = " public.orders \n\nbilling.*:id, amount ,\n"
    assert read("some", text) == [
        {"table": "public.orders", "columns": None},
        {"table": "billing.*", "columns": ["id", "amount"]},
    ]
    assert read("all", " \n") is None
    assert read("none", "") == []


@pytest.mark.parametrize(
    ("sees", "tables"),
    [("some", " \n"), ("some", "orders:"), ("all", "orders"), ("none", "orders"), ("any", "")],
)
def test_what_is_not_surely_meant_is_refused(sees: str, tables: str) -> None:
    with pytest.raises(UsageError):
        read(sees, tables)


def test_many_tables_are_told_in_short() -> None:
    many = [{"table": f"t{number}", "columns": None} for number in range(9)]
    assert brief_words(many) == ["t0", "t1", "and 7 more"]
    assert brief_words(many[:3]) == ["t0", "t1", "t2"]
    assert words(None) == ["the whole history"]
    assert words([]) == ["nothing of the history"]


def test_what_no_table_is_meant_by_is_told() -> None:
    scopes = read("some", "ordres\npublic.orders\nbilling.*: id\nbiling.*")
    assert idle(scopes, ["public.orders", "billing.invoice"]) == ["ordres", "biling.*"]
    assert idle(None, []) == []
