"""What the rules leave out, and what is stored in the place of what they hide."""

import hashlib
import hmac
from typing import Any

import msgspec
import pytest

from bemi.capture.filter import Filter
from bemi.capture.masker import Masker
from bemi.change import (
    UNCHANGED,
    Change,
    Column,
    Committed,
    Ddl,
    Event,
    Operation,
    Row,
    Skipped,
    Stretch,
    Table,
    Transaction,
)
from bemi.lsn import Lsn
from bemi.rules import Rules, Skip

TABLE = Table(
    9,
    "public",
    "users",
    (Column("id", 23, True), Column("email", 25), Column("seen_at", 1184), Column("age", 23)),
    (0,),
)
TRANSACTION = Transaction(Lsn(100), 0, 0, 700)
OLD: Row = (b"1", b"a@x", b"noon", b"40")


def change(operation: Operation, before: Row | None, after: Row | None, **more: Any) -> Change:
    return Change(TRANSACTION, TABLE, operation, 1, 0, 1, 0, before, after, **more)


def update(**values: bytes | None) -> Change:
    names = [column.name for column in TABLE.columns]
    after = tuple(values.get(name, was) for name, was in zip(names, OLD, strict=True))
    return change(Operation.UPDATE, OLD, after)


def taken(rules: Rules, *events: Event) -> list[Event]:
    stage = Filter(rules)
    return [kept for event in events if (kept := stage.take(event)) is not None]


def stretch(context: bytes) -> Stretch:
    return Stretch(TRANSACTION, 0, context)


COMMITTED = Committed(TRANSACTION, Lsn(120), 1)


# --- the filter


def test_an_update_of_ignored_columns_alone_is_no_change() -> None:
    rules = Rules(ignore=("*.seen_at",))
    assert taken(rules, update(seen_at=b"later")) == []
    with_others = update(seen_at=b"later", age=b"41")
    assert taken(rules, with_others) == [with_others]


def test_an_update_without_a_difference_is_ignored_where_some_column_is() -> None:
    same = update()
    assert taken(Rules(ignore=("users.seen_at",)), same) == []
    assert taken(Rules(ignore=("other.seen_at",)), same) == [same]


def test_an_excluded_column_is_as_good_as_ignored() -> None:
    rules = Rules(ignore=("*.seen_at",), exclude=("*.email",))
    assert taken(rules, update(email=b"b@x"), update(email=b"b@x", seen_at=b"later")) == []
    assert taken(Rules(exclude=("*.email",)), update(email=b"b@x")) == []
    with_others = update(email=b"b@x", age=b"41")
    assert taken(rules, with_others) == [with_others]


@pytest.mark.parametrize("rules", [Rules(ignore=("*",)), Rules(exclude=("*",))])
def test_creates_and_deletes_are_never_ignored_by_column(rules: Rules) -> None:
    for kept in (change(Operation.CREATE, None, OLD), change(Operation.DELETE, OLD, None)):
        assert taken(rules, kept) == [kept]


def test_an_update_whose_old_row_is_not_known_is_left_to_the_completer() -> None:
    unknown = change(Operation.UPDATE, None, OLD, before_known=False)
    assert taken(Rules(ignore=("*.seen_at",)), unknown) == [unknown]


def test_what_is_skipped_is_told() -> None:
    rules = Rules(skip=(Skip(tables=("users",), operations=("delete",)),))
    deleted, updated = change(Operation.DELETE, OLD, None), update(age=b"41")
    told, kept = taken(rules, deleted, updated)
    assert isinstance(told, Skipped)
    assert told.table is TABLE
    assert kept is updated


def test_changes_are_skipped_by_the_context_that_was_sent_before_them() -> None:
    rules = Rules(skip=(Skip(context={"job": "backfill", "run": "7"}),))
    matching = stretch(b'{"job": "backfill", "run": 7, "user": 1}')
    first, second = update(age=b"41"), update(age=b"42")
    found = taken(rules, first, matching, second, COMMITTED, first)
    assert [type(event) for event in found] == [Change, Stretch, Skipped, Committed, Change]
    other = taken(rules, stretch(b'{"job": "backfill"}'), first)
    assert [type(event) for event in other] == [Stretch, Change]


def test_a_transaction_counts_what_is_kept() -> None:
    rules = Rules(ignore=("*.seen_at",), skip=(Skip(operations=("delete",)),))
    events = taken(
        rules,
        update(seen_at=b"x"),
        change(Operation.DELETE, OLD, None),
        update(age=b"1"),
        msgspec.structs.replace(COMMITTED, changes=3),
    )
    assert isinstance(events[-1], Committed)
    assert events[-1].changes == 1
    (again,) = taken(rules, COMMITTED)
    assert isinstance(again, Committed)
    assert again.changes == 1


# --- the masker


def masked(rules: Rules, given: Change, key: str = "k" * 16) -> Change:
    found = Masker(rules, key).take(given)
    assert isinstance(found, Change)
    return found


def test_without_rules_the_change_is_the_same_object() -> None:
    given = update(age=b"41")
    assert Masker(Rules()).take(given) is given
    assert masked(Rules(mask=("other.*",)), given) is given


def test_a_masked_value_is_replaced_in_both_images_and_null_is_not() -> None:
    found = masked(Rules(mask=("*.email", "*.age")), update(age=None))
    assert found.before == (b"1", b"***", b"noon", b"***")
    assert found.after == (b"1", b"***", b"noon", None)
    assert found.flags == ("masked:email", "masked:age")
    assert [column.type_oid for column in found.table.columns] == [23, 25, 1184, 25]


def test_a_hashed_value_is_the_hmac_of_its_text() -> None:
    found = masked(Rules(hash=("*.email",)), update(email=b"b@x"), key="s" * 20)
    digest = hmac.new(b"s" * 20, b"b@x", hashlib.sha256).hexdigest().encode()
    assert found.after is not None
    assert found.before is not None
    assert found.after[1] == digest != found.before[1]
    assert found.flags == ("hashed:email",)
    assert masked(Rules(hash=("*.email",)), update(email=b"b@x"), key="t" * 20).after != found.after


def test_an_excluded_column_is_as_if_it_were_not_sent_and_no_flag_names_it() -> None:
    given = change(
        Operation.UPDATE,
        None,
        (b"1", UNCHANGED, b"noon", b"1"),
        before_known=False,
        flags=("before_unknown", "unchanged:email"),
    )
    found = masked(Rules(exclude=("*.email",)), given)
    assert found.after == (b"1", UNCHANGED, b"noon", b"1")
    assert found.flags == ("before_unknown",)


def test_a_key_that_can_not_be_stored_is_no_key_and_a_hashed_one_is_one() -> None:
    assert masked(Rules(mask=("*.id",)), update()).table.key == ()
    assert masked(Rules(exclude=("*.id",)), update()).table.key == ()
    assert masked(Rules(hash=("*.id",)), update()).table.key == (0,)


def test_values_that_were_not_sent_stay_so() -> None:
    given = change(Operation.UPDATE, None, (b"1", UNCHANGED, b"noon", b"1"), before_known=False)
    found = masked(Rules(mask=("*.email",)), given)
    assert found.after is not None
    assert found.after[1] is UNCHANGED
    assert found.flags == ()


def test_a_statement_loses_its_text_where_values_are_hidden() -> None:
    statement = Ddl(TRANSACTION, 5, 0, 0, "ALTER TABLE", "table", "t", 9, "default 'secret'", b"{}")
    hidden = Masker(Rules(mask=("*.email",))).take(statement)
    assert isinstance(hidden, Ddl)
    assert hidden.statement is None
    assert Masker(Rules(ignore=("*.email",))).take(statement) is statement
