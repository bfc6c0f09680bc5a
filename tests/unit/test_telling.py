"""Changes as sentences and differences, and values that can't pass for anything else."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from bemi.errors import UsageError
from bemi.store.reader import StoredChange
from bemi.ui import links
from bemi.ui.commands import revert
from bemi.ui.rendering import ago
from bemi.ui.telling import Told, tell
from bemi.ui.values import cut, pair, shown, visible

WHEN = datetime(2026, 5, 3, 14, 2, 7, tzinfo=UTC)


def change(operation: str = "UPDATE", **given: Any) -> StoredChange:
    values: dict[str, Any] = {"before": {}, "after": {}, "context": {"user_id": 42}, **given}
    for name in ("before", "after", "context"):
        if not isinstance(values[name], msgspec.Raw):
            values[name] = msgspec.Raw(msgspec.json.encode(values[name]))
    plain: dict[str, Any] = {
        "id": UUID("00003d09-0000-8000-8000-5a1f3b7c9d2e"),
        "database": "shop",
        "schema": "public",
        "table": "orders",
        "primary_key": "1042",
        "operation": operation,
        "committed_at": WHEN,
        "queued_at": WHEN,
        "created_at": WHEN,
        "transaction_id": 7,
        "position": 1,
        "commit_position": 2,
        "ordinal": 1,
        "epoch": 1,
        "source": "shop",
        "previous_key": None,
        "flags": None,
        "rules": None,
    }
    return StoredChange(**{**plain, **values})


def said(stored: StoredChange) -> str:
    return "".join(bit.text for bit in tell(stored).sentence)


def sides(told: Told) -> dict[str, tuple[str | None, str | None]]:
    return {
        line.name: (
            None if line.before is None else line.before.text,
            None if line.after is None else line.after.text,
        )
        for line in told.lines
    }


@pytest.mark.parametrize(
    ("stored", "sentence"),
    [
        (
            change(before={"id": 1, "status": "open"}, after={"id": 1, "status": "paid"}),
            "user 42 changed status of orders 1042 from open to paid",
        ),
        (
            change(before={"a": 1, "b": 2}, after={"a": 2, "b": None}, schema="app", context={}),
            "somebody changed a and b of app.orders 1042",
        ),
        (
            change(before=dict.fromkeys("abcd", 1), after=dict.fromkeys("abcd", 2)),
            "user 42 changed 4 columns of orders 1042",
        ),
        (change(before={"a": None}, after={"a": ""}), "user 42 changed a of orders 1042 from null"),
        (change(before={"a": {}}, after={"a": {"b": 1}}), "user 42 changed a of orders 1042"),
        (change(before={"a": 1}, after={"a": 1}), "user 42 wrote orders 1042 without a difference"),
        (
            change(after={"a": 1}, flags=["before_unknown"]),
            "user 42 wrote orders 1042; what it was before is not known",
        ),
        (change("CREATE", after={"a": 1}), "user 42 created orders 1042"),
        (
            change("CREATE", after={"a": 1}, flags=["moved"]),
            "user 42 moved orders 1042 to another partition",
        ),
        (change("DELETE", before={"a": 1}, context={"job": "x"}), "the job x deleted orders 1042"),
        (
            change("TRUNCATE", primary_key=None, flags=["partition:public.p"]),
            "user 42 emptied orders, its partition public.p",
        ),
        (change("SNAPSHOT", after={"a": 1}, context={}), "a baseline read orders 1042"),
        (change("DELETE", context={"user_id": None, "user": "ada"}), "user ada deleted"),
    ],
)
def test_a_change_is_a_sentence(stored: StoredChange, sentence: str) -> None:
    assert said(stored).startswith(sentence)


def test_a_difference_has_what_changed_and_counts_the_rest() -> None:
    told = tell(
        change(
            before={"id": 1, "a": "x", "t": "old", "n": 1},
            after={"id": 1, "a": "y", "n": 1},
            flags=["unchanged:t"],
        )
    )
    assert sides(told) == {"a": ("x", "y")}
    assert told.same == 3
    many = tell(
        change(before=dict.fromkeys("abcdef", 1), after=dict.fromkeys("abcdef", 2)), columns=4
    )
    assert (len(many.lines), many.more) == (4, 2)


@pytest.mark.parametrize(
    ("stored", "whole"),
    [
        (change(before={"a": "x"}, after={"a": "y"}), True),
        (change(before={"a": None}, after={"a": ""}), True),
        (change(before={"a": 1, "b": 1}, after={"a": 2, "b": 2}), False),
        (change(before={"a": "x"}, after={"a": "y" * 41}), False),
        (change(before={"a": "x"}, after={"a": "two\nlines"}), False),
        (change(before={"a": {"b": 1}}, after={"a": {"b": 2}}), False),
        (change(before={"a": "x"}, after={"a": "***"}, flags=["masked:a"]), False),
        (change(before={"a": "x"}, after={"a": "y"}, flags=["inferred"]), False),
        (change("CREATE", after={"a": 1}), False),
    ],
)
def test_a_sentence_says_all_or_there_is_more_to_unfold(stored: StoredChange, whole: bool) -> None:
    assert tell(stored).is_said is whole


def test_a_job_is_told_once() -> None:
    """As who did it, or as where somebody did it."""
    told = [
        tell(change("DELETE", context=context)).actor
        for context in ({"job": "x"}, {"job": "x", "user_id": 7}, {"job": "x", "endpoint": "/"})
    ]
    assert [(each.text, each.where) for each in told] == [
        ("the job x", ""),
        ("user 7", "job x"),
        ("the job x", "/"),
    ]


def test_an_undo_is_told_as_one() -> None:
    told = tell(change(context={"user_id": 7, "revert": {"trace": "req-4"}})).actor
    assert (told.text, told.where) == ("user 7", "an undo")


def test_what_is_not_known_or_not_the_value_says_so() -> None:
    told = tell(change(before={}, after={"a": 1}, flags=["before_unknown:a"]))
    assert sides(told) == {"a": ("not known", "1")}
    assert told.notes == ("What a was before is not known.",)
    masked = tell(change("CREATE", after={"pin": "***"}, flags=["masked:pin"]))
    assert masked.lines[0].after is not None
    assert (masked.lines[0].after.kind, masked.lines[0].after.text) == ("note", "*** (masked)")


def test_numbers_have_all_of_their_digits() -> None:
    price = "12345678901234567890.12345678901234567890"
    told = tell(change("CREATE", after=msgspec.Raw(b'{"price": %s}' % price.encode())))
    assert sides(told) == {"price": (None, price)}


def test_json_differs_inside() -> None:
    told = tell(
        change(before={"j": {"a": [1, 2], "b": 1}}, after={"j": {"a": [1, 3], "b": 1, "c": "n"}})
    )
    inside = [(each.name, each.before and each.before.text) for each in told.lines[0].inside]
    assert inside == [(".a[1]", "2"), (".c", None)]


def test_a_value_that_is_nested_too_deeply_hides_nothing_else() -> None:
    lists = [b"[" * 450 + b"%d" % number + b"]" * 450 for number in (1, 2)]
    before, after = (msgspec.Raw(b'{"a": 1, "j": %s}' % each) for each in lists)
    (line,) = tell(change(before=before, after=after)).lines
    assert line.name == "j"
    assert line.inside or line.before
    deep = b"[" * 100_000 + b"]" * 100_000
    told = tell(change(before={}, after=msgspec.Raw(b'{"a": %s}' % deep)))
    assert "".join(bit.text for bit in told.sentence) == "user 42 wrote orders 1042"
    assert told.notes == ("A value is nested too deeply to be shown.",)


def test_what_would_not_be_seen_is_spelled() -> None:
    hidden = "a\u202eb\u200b\x1b[31m\x00\ufeff\U000e0041\r\n\tc"
    assert visible(hidden) == "a\\u202eb\\u200b\\x1b[31m\\x00\\ufeff\\U000e0041\\r\n\tc"
    assert "\u202e" not in said(change(context={"user_id": hidden}, table=hidden))


def test_long_values_are_cut_where_they_are_alike() -> None:
    assert cut("x" * 10, 5) == "xx…xx"
    old, new = pair("a" * 1000 + "open" + "b" * 1000, "a" * 1000 + "paid" + "b" * 1000, 100)
    assert [piece.text for piece in old.pieces] == [f"…{'a' * 24}", "open", f"{'b' * 24}…"]
    assert [piece.differs for piece in new.pieces] == [False, True, False]
    old, new = pair("paint", "paint it", 100)
    assert [piece.text for piece in new.pieces] == ["paint", " it"]
    assert [piece.text for piece in old.pieces] == ["paint"] or old.text == "paint"
    # No number is nearly another one.
    assert [len(each.pieces) for each in pair(1000, 1001, 100)] == [1, 1]
    assert len(shown("x" * 10_000, 50).text) == 50


def test_a_way_back_leads_to_a_page_of_this_server_only() -> None:
    assert links.local("/record?table=a&key=") == ("/record", [("table", "a"), ("key", "")])
    for address in (
        "",
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example/",
        "/\tx",
        "javascript:alert(1)",
        "/\n//evil.example",
    ):
        with pytest.raises(UsageError):
            links.local(address)


def test_commands_are_quoted_for_the_shell() -> None:
    assert revert("--trace", "req-4", None) == "bemi revert --trace req-4"
    assert revert("--trace", "'; rm -rf /", "a b") == (
        "bemi revert --trace ''\"'\"'; rm -rf /' --source 'a b'"
    )
    assert revert("--trace", "--apply", None) == "bemi revert --trace=--apply"
    assert revert("--trace", "x\ny", None) == ""
    assert revert("--trace", "x\u202ey", None) == ""


def test_times_are_told_as_people_do() -> None:
    for seconds, text in (
        (-5, "just now"),
        (0.5, "just now"),
        (59, "59 s ago"),
        (60, "1 min ago"),
        (7200, "2 h ago"),
        (3 * 86_400, "3 days ago"),
    ):
        assert ago(WHEN, WHEN + timedelta(seconds=seconds)) == text
