"""What rules would have made of changes that the history has: by the same filter, masker and
completing as they would have come through. Pure.

Values are the JSON that the store has, strings as their text: equal ones are equal, which is all
that rules look at. What earlier rules have hidden stays hidden.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from bemi.capture.before import completed
from bemi.capture.filter import Filter
from bemi.capture.keys import key_text
from bemi.capture.masker import Masker
from bemi.change import (
    UNCHANGED,
    Change,
    Column,
    Operation,
    Row,
    Skipped,
    Stretch,
    Table,
    Transaction,
    Value,
)
from bemi.lsn import Lsn
from bemi.observed import Fate, KnownTable
from bemi.rules import Rules, TableRules

if TYPE_CHECKING:
    from bemi.store.reader import StoredChange

_TEXT: Final = 25
_FULL: Final = "f"
_NOBODYS: Final = Transaction(Lsn(0), 0, 0, 0)
_BEFORE_UNKNOWN: Final = "before_unknown"
_SPELLINGS: Final = ("text", "json_null", "too_large", "sha256", "undecodable")

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_string = msgspec.json.Decoder(str).decode
_encode = msgspec.json.encode


class Preview:
    """`key` makes the digests: not the one of the settings, which is the worker's alone."""

    def __init__(self, rules: Rules, tables: Iterable[KnownTable], key: str) -> None:
        self._rules = rules
        self._filter = Filter(rules)
        self._masker = Masker(rules, key)
        self._known = {(each.schema, each.name): each for each in tables}
        self._tables: dict[tuple[str, ...], Table] = {}

    def of(self, stored: "StoredChange") -> "tuple[Fate, StoredChange | None]":
        """What became of it, and how it would be stored; None where it would not."""
        before, after = _members(stored.before), _members(stored.after)
        table = self._table(stored, {**before, **after})
        change = _change(stored, table, before, after)
        sent = change
        if change.operation is not Operation.SNAPSHOT:
            sent = _as_sent(change)
            self._filter.take(Stretch(_NOBODYS, 1, bytes(stored.context)))
            kept = self._filter.take(sent)
            if not isinstance(kept, Change):
                return ("skipped" if isinstance(kept, Skipped) else "silent"), None
        masked = self._completed(change, sent)
        if masked is None:
            return "silent", None
        rules = self._rules_of(table)
        hidden = [each.name for at, each in enumerate(table.columns) if at in rules.replaced]
        made = _stored(stored, change, masked, before, after, hidden)
        return ("same" if made is stored else "otherwise"), made

    def _completed(self, change: Change, sent: Change) -> Change | None:
        """As it is stored: with the old row that the history has, where the log does not. None
        where that shows that nothing but ignored and excluded columns differs."""
        whole = self._masker.change(change)
        masked = self._masker.change(sent)
        if sent is change or not masked.table.key or whole.before is None:
            return masked
        rules = self._rules_of(change.table)
        # Of columns whose changes were left out, no old value is sure.
        last = tuple(
            UNCHANGED if at in rules.silent else value for at, value in enumerate(whole.before)
        )
        return completed(masked, last, rules)

    def _rules_of(self, table: Table) -> TableRules:
        names = [each.name for each in table.columns]
        return self._rules.for_table(table.schema, table.name, names, table.key)

    def _table(self, stored: "StoredChange", members: Mapping[str, object]) -> Table:
        known = self._known.get((stored.schema, stored.table))
        names = dict.fromkeys([*(known.columns if known else ()), *members])
        key = (stored.schema, stored.table, *names)
        if key not in self._tables:
            places = {name: at for at, name in enumerate(names)}
            self._tables[key] = Table(
                oid=len(self._tables) + 1,
                schema=stored.schema,
                name=stored.table,
                columns=tuple(Column(name, _TEXT) for name in names),
                key=tuple(places[name] for name in (known.key if known else ())),
                identity=known.identity if known else _FULL,
            )
        return self._tables[key]


def _as_sent(change: Change) -> Change:
    """As the log has it: without the old row, or with its key, where the replica identity is not
    FULL."""
    table, old = change.table, change.before
    if table.identity == _FULL or old is None:
        return change
    key = tuple(value if at in table.key else UNCHANGED for at, value in enumerate(old))
    moved = change.after is None or any(old[at] != change.after[at] for at in table.key)
    flags = [flag for flag in change.flags if not flag.startswith(_BEFORE_UNKNOWN)]
    return msgspec.structs.replace(
        change,
        before=key if moved else None,
        before_known=False,
        flags=(*flags, _BEFORE_UNKNOWN),
    )


def _change(
    stored: "StoredChange",
    table: Table,
    before: Mapping[str, msgspec.Raw],
    after: Mapping[str, msgspec.Raw],
) -> Change:
    flags = stored.flags or []
    return Change(
        transaction=_NOBODYS,
        table=table,
        operation=Operation(stored.operation.encode()),
        lsn=stored.position,
        index=0,
        ordinal=stored.ordinal,
        stretch=1,
        before=_row(table, before, flags) if before else None,
        after=_row(table, after, flags) if after else None,
        before_known=not any(flag.startswith(_BEFORE_UNKNOWN) for flag in flags),
        flags=tuple(flags),
    )


def _row(table: Table, members: Mapping[str, msgspec.Raw], flags: Sequence[str]) -> Row:
    return tuple(
        _text(members[column.name], is_value=f"json_null:{column.name}" in flags)
        if column.name in members
        else UNCHANGED
        for column in table.columns
    )


def _text(member: msgspec.Raw, *, is_value: bool) -> bytes | None:
    """`is_value`: that null is JSON's own, and not NULL."""
    text = bytes(member)
    if text == b"null":
        return text if is_value else None
    return _string(text).encode() if text.startswith(b'"') else text


def _stored(
    stored: "StoredChange",
    change: Change,
    masked: Change,
    before: Mapping[str, msgspec.Raw],
    after: Mapping[str, msgspec.Raw],
    hidden: Sequence[str],
) -> "StoredChange":
    """With values that are as they were in the bytes that they were. Of those that are `hidden`,
    how the store spelled them is not told."""
    row = masked.after or masked.before
    primary, previous = stored.primary_key, stored.previous_key
    if not masked.table.key and change.table.key:
        primary = previous = None
    elif row is not None and primary is not None:
        primary = _key(masked, row, change.after or change.before, primary)
        if previous is not None and masked.before is not None:
            previous = _key(masked, masked.before, change.before, previous)
    made = msgspec.structs.replace(
        stored,
        before=_image(stored.before, change, change.before, masked.before, before),
        after=_image(stored.after, change, change.after, masked.after, after),
        primary_key=primary,
        previous_key=previous,
        flags=[flag for flag in dict.fromkeys(masked.flags) if not _spells(flag, hidden)] or None,
    )
    alike = all(
        getattr(made, name) == getattr(stored, name) for name in ("primary_key", "previous_key")
    )
    alike = alike and made.before is stored.before and made.after is stored.after
    return stored if alike else made


def _spells(flag: str, names: Sequence[str]) -> bool:
    """Whether it says how a value of one of these columns is spelled."""
    kind, _, name = flag.partition(":")
    if kind == "sha256":
        _, _, name = name.partition(":")
    return kind in _SPELLINGS and name in names


def _key(masked: Change, row: Row, was: Row | None, text: str) -> str | None:
    """The key's text, as it was where nothing of it is replaced."""
    if was is not None and all(row[at] == was[at] for at in masked.table.key):
        return text
    found = key_text(masked.table, row)
    return None if found is None else found.decode()


def _image(
    stored: msgspec.Raw,
    change: Change,
    was: Row | None,
    row: Row | None,
    members: Mapping[str, msgspec.Raw],
) -> msgspec.Raw:
    """What is stored already, where nothing of it is replaced."""
    if was is None or was == row:
        return stored
    if row is None:
        return msgspec.Raw(b"{}")
    made = {
        column.name: members[column.name] if value == old else msgspec.Raw(_json(value))
        for column, old, value in zip(change.table.columns, was, row, strict=True)
        if value is not UNCHANGED
    }
    # In the order in which they were.
    ordered = {name: made[name] for name in members if name in made}
    return msgspec.Raw(_encode(ordered | made))


def _json(value: Value) -> bytes:
    assert isinstance(value, bytes)
    return _encode(value.decode())
