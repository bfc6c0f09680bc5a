"""What classes of changes have alike. Against a history: `test_sqlalchemy_changes`."""

import datetime as dt
import uuid
from decimal import Decimal

import pytest

from bemi.errors import BemiError
from bemi.integrations.reading import difference, key_text, stored_key
from bemi.keys import MAX_KEY

_MOMENT = dt.datetime.fromisoformat("2026-05-03T14:02:07.12")  # of no zone
_ID = uuid.UUID("0af76519-16cd-43dd-8448-eb211c80319c")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (7, "7"),
        (True, "t"),
        ("a b", "a b"),
        (_ID, str(_ID)),
        (Decimal("1E+3"), "1000"),
        (b"\x00\xff", "\\x00ff"),
        (dt.date(2026, 5, 3), "2026-05-03"),
        (_MOMENT, "2026-05-03 14:02:07.12"),
        (_MOMENT.replace(tzinfo=dt.timezone(dt.timedelta(hours=2))), "2026-05-03 12:02:07.12+00"),
    ],
)
def test_a_key_has_the_text_that_postgresql_gives_it(value: object, text: str) -> None:
    assert key_text(value) == text


def test_a_key_whose_text_is_not_known_is_refused() -> None:
    with pytest.raises(BemiError, match="timedelta"):
        key_text(dt.timedelta(1))


def test_keys_of_several_columns_and_long_ones() -> None:
    assert stored_key(["7", 'é "x"']) == '["7","é \\"x\\""]'
    assert stored_key(["x" * MAX_KEY]) == "x" * MAX_KEY
    assert stored_key(["x" * (MAX_KEY + 1)]).startswith("sha256:")


def test_a_column_that_was_not_there_differs_from_one_that_is_null() -> None:
    assert difference({}, {"a": None, "b": 1}) == {"a": (None, None), "b": (None, 1)}
    assert difference({"a": 1, "b": 2}, {"a": 1, "b": None}) == {"b": (2, None)}
