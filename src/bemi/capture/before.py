"""What a change is once the row that it found is known: its old values, and those left unsent.

The row may be known in part; what stays unknown of the old values is flagged. Pure.
"""

import msgspec

from bemi.capture.values import JSON, same_json
from bemi.change import UNCHANGED, Change, Row, Table, Value
from bemi.rules import TableRules


def completed(change: Change, last: Row | None, rules: TableRules) -> Change | None:
    """The change with what `last`, the row that it found, has of what is missing in it.

    As it is where nothing is known of the row, or what was sent of it is something else. None for
    an UPDATE that changed ignored and excluded columns only. `rules` are the table's present ones.
    """
    table, after = change.table, change.after
    if last is None:
        return change
    if (
        change.before is None
        and after is not None
        and UNCHANGED not in after
        and UNCHANGED not in last
        and not rules.ignore
        and not _has_json(table)
    ):
        return _with_before(change, last, rules, ())
    if not _agrees(change, last):
        return change
    known = change.before or (UNCHANGED,) * len(last)
    if after is None:
        before = _first_known(known, last)
        unknown = _unknown(change.table, rules, before, None)
        return _with_before(change, before, rules, unknown)
    after = _first_known(after, last)
    before = tuple(
        value if was is not UNCHANGED and _same(column.type_oid, was, value) else was
        for column, was, value in zip(
            change.table.columns, _first_known(known, last), after, strict=True
        )
    )
    filled = {
        f"unchanged:{column.name}"
        for column, sent, value in zip(change.table.columns, change.after or (), after, strict=True)
        if sent is UNCHANGED and value is not UNCHANGED
    }
    flags = tuple(flag for flag in change.flags if flag not in filled)
    whole = msgspec.structs.replace(change, after=after, flags=flags)
    silent = rules.silent
    # All masked values look alike: where there is one, nobody can tell.
    if silent and rules.mask <= silent and _differs_only(before, after, silent):
        return None
    return _with_before(whole, before, rules, _unknown(change.table, rules, before, after))


def _has_json(table: Table) -> bool:
    return any(column.type_oid == JSON for column in table.columns)


def _agrees(change: Change, row: Row) -> bool:
    """Whether what was sent of the old row is what the image says."""
    return change.before is None or all(
        sent is UNCHANGED or was is UNCHANGED or sent == was
        for sent, was in zip(change.before, row, strict=True)
    )


def _first_known(row: Row, other: Row) -> Row:
    return tuple(
        was if value is UNCHANGED else value for value, was in zip(row, other, strict=True)
    )


def _same(type_oid: int, was: Value, value: Value) -> bool:
    """Equal; of `json`, the history does not keep the spelling."""
    if type_oid == JSON and isinstance(was, bytes) and isinstance(value, bytes):
        return same_json(was, value)
    return was == value


def _differs_only(before: Row, after: Row, silent: frozenset[int]) -> bool:
    """Whether nothing differs but these columns, whose old values the history can't vouch for."""
    return all(
        at in silent or was == value
        for at, (was, value) in enumerate(zip(before, after, strict=True))
    )


def _unknown(table: Table, rules: TableRules, before: Row, after: Row | None) -> tuple[str, ...]:
    """Flags of the columns whose old value is not known, though it should be."""
    return tuple(
        f"before_unknown:{column.name}"
        for at, (column, was) in enumerate(zip(table.columns, before, strict=True))
        if was is UNCHANGED
        and at not in rules.exclude
        and (after is None or after[at] is not UNCHANGED)
    )


def _with_before(
    change: Change, before: Row, rules: TableRules, unknown: tuple[str, ...]
) -> Change:
    flags = tuple(flag for flag in change.flags if flag != "before_unknown") + unknown
    for at in sorted(rules.mask | rules.hash):
        # What is filled in was replaced when it was stored.
        flag = f"{'masked' if at in rules.mask else 'hashed'}:{change.table.columns[at].name}"
        if isinstance(before[at], bytes) and flag not in flags:
            flags += (flag,)
    return msgspec.structs.replace(change, before=before, before_known=not unknown, flags=flags)
