"""Turns a row into the jsonb objects that the store keeps of it: after, changed, before.

The quick path takes every value in its natural form. A row in which some value has none, or
that jsonb would refuse for its size, takes the careful one: text forms, and flags that say so.
"""

import hashlib
import struct
from typing import Final

import msgspec

from bemi.capture.values import (
    JSON,
    JSONB,
    MAX_JSONB,
    Natural,
    NotNaturalError,
    boolean,
    integer,
    natural_form,
    number,
    quote,
)
from bemi.change import UNCHANGED, Change, Row, Table, Value

NULL: Final = b"\xff\xff\xff\xff"
_OBJECT: Final = struct.Struct("!i2s")
_UTF8: Final = "utf-8"

_GROWTH: Final = 6
"""So many times its text, at most, a value takes in jsonb: `1,` in an array becomes 4 bytes
of an entry and 8 of a number. (A string never takes more than its text.)"""

_LEAN: Final = frozenset({quote, boolean, integer, number})
"""The forms that do not grow, but for some bytes that each column has room for."""

_COLUMN_ROOM: Final = 24
"""Bytes that a member of a jsonb object takes at most beside its name and its content."""


class Plan(msgspec.Struct, frozen=True):
    """What a table's images have in common, prepared once."""

    table: Table
    keys: tuple[bytes, ...]
    encoders: tuple[Natural, ...]
    most: int
    """Bytes of an image's text that jsonb is sure to take."""


def plan_of(table: Table) -> Plan:
    return Plan(
        table=table,
        keys=tuple(quote(column.name.encode()) + b":" for column in table.columns),
        encoders=tuple(
            natural_form(column.type_oid, table.array_elements) for column in table.columns
        ),
        most=MAX_JSONB // _GROWTH,
    )


def quick_images(plan: Plan, change: Change) -> tuple[bytes, ...]:
    """The fields `after`, `changed`, `before`, in pieces. Raises `NotNaturalError`.

    In pieces, because every joining of them holds a wide row once more in memory.
    """
    old, new, most = change.before, change.after, plan.most
    if new is None:
        if old is None:
            return (NULL, NULL, NULL)
        return (NULL, NULL, *_object(_members(plan, old), most))
    if old is None:
        return (*_object(_members(plan, new), most), NULL, NULL)
    if not change.before_known:
        return (
            *_object(_members(plan, new), most),
            NULL,
            *_object(_members(plan, old), most),
        )
    after: list[bytes] = []
    changed: list[bytes] = []
    for key, encode, was, value in zip(plan.keys, plan.encoders, old, new, strict=True):
        if value is None:
            member = key + b"null"
            after.append(member)
        elif value is not UNCHANGED:
            member = key + encode(value)
            after.append(member)
        if was != value:
            changed.append(_member(key, encode, was))
    images = (*_object(after, most), *_object(changed, most), NULL)
    if len(images[1]) + len(images[4]) > most:
        # The view puts the old row together from both: it has to fit as well.
        _object(_members(plan, old), most)
    return images


def _members(plan: Plan, row: Row) -> list[bytes]:
    members = []
    for key, encode, value in zip(plan.keys, plan.encoders, row, strict=True):
        if value is None:
            members.append(key + b"null")
        elif value is not UNCHANGED:
            members.append(key + encode(value))
    return members


def _member(key: bytes, encode: Natural, value: Value) -> bytes:
    if value is None:
        return key + b"null"
    assert value is not UNCHANGED
    return key + encode(value)


def _object(members: list[bytes], most: int) -> tuple[bytes, bytes, bytes]:
    """A jsonb field. Raises `NotNaturalError` when jsonb might refuse its size."""
    content = b",".join(members)
    size = len(content) + 3
    if size > most:
        raise NotNaturalError
    return _OBJECT.pack(size, b"\x01{"), content, b"}"


def in_utf8(change: Change, encoding: str) -> tuple[Change, frozenset[int]]:
    """The change with its values in UTF-8, and the columns in which some value did not decode.

    Bytes that do not decode are written as `\\xNN`.
    """
    undecodable: set[int] = set()

    def decoded(row: Row | None) -> Row | None:
        if row is None:
            return None
        found = list(row)
        for at, value in enumerate(row):
            if isinstance(value, bytes) and not value.isascii():
                try:
                    text = value.decode(encoding)
                except UnicodeDecodeError:
                    text = value.decode(encoding, "backslashreplace")
                    undecodable.add(at)
                else:
                    if encoding == _UTF8:
                        continue
                found[at] = text.encode()
        return tuple(found)

    before, after = decoded(change.before), decoded(change.after)
    changed = msgspec.structs.replace(change, before=before, after=after)
    return changed, frozenset(undecodable)


def careful_images(
    plan: Plan, change: Change, undecodable: frozenset[int]
) -> tuple[tuple[bytes, ...], tuple[str, ...]]:
    """The images of a row in which some value can't have its natural form, and the flags.

    A column has one form in both images, so that one flag tells how to read it.
    """
    forms: dict[int, str] = {}
    rows = [row for row in (change.before, change.after) if row is not None]
    encoders = list(plan.encoders)
    for at, column in enumerate(plan.table.columns):
        values = [row[at] for row in rows]
        try:
            if at in undecodable:
                raise NotNaturalError
            for value in values:
                if isinstance(value, bytes) and encoders[at] is not quote:
                    encoders[at](value)
        except NotNaturalError:
            if (
                column.type_oid in (JSON, JSONB)
                and at not in undecodable
                and _only_json_nulls(encoders[at], values)
            ):
                encoders[at] = _natural_or_null(encoders[at])
                forms[at] = "json_null"
            else:
                encoders[at] = quote
                forms[at] = "text"
    too_large = _fit(plan, encoders, forms, rows)
    flags: list[str] = []
    for at, column in enumerate(plan.table.columns):
        if at in too_large:
            flags.append(f"too_large:{column.name}")
            flags.append(f"sha256:{_digest(change, at)}:{column.name}")
            continue
        if at in forms:
            flags.append(f"{forms[at]}:{column.name}")
        if at in undecodable:
            flags.append(f"undecodable:{column.name}")
    kept = msgspec.structs.replace(plan, encoders=tuple(encoders), most=MAX_JSONB)
    reduced = msgspec.structs.replace(
        change,
        before=_without(change.before, too_large),
        after=_without(change.after, too_large),
    )
    return quick_images(kept, reduced), tuple(flags)


def _digest(change: Change, at: int) -> str:
    """Of what is left out: the new value's, or, where the row is gone, the old one's."""
    rows = (change.after, change.before)
    values = [row[at] for row in rows if row is not None and isinstance(row[at], bytes)]
    value = values[0] if values else b""
    assert isinstance(value, bytes)
    return hashlib.sha256(value).hexdigest()


def _fit(plan: Plan, encoders: list[Natural], forms: dict[int, str], rows: list[Row]) -> set[int]:
    """Make each image fit jsonb: the columns to leave out.

    What might take most comes first: it becomes text, if it is an array or JSON, whose text
    takes less; else it is left out.
    """
    left_out: set[int] = set()
    for row in rows:
        present = {at: value for at, value in enumerate(row) if isinstance(value, bytes)}
        room = MAX_JSONB - sum(len(key) + _COLUMN_ROOM for key in plan.keys)
        if sum(map(len, present.values())) * _GROWTH <= room:
            continue
        sizes = {
            at: _most_in_jsonb(encoders[at], value)
            for at, value in present.items()
            if at not in left_out
        }
        while sum(sizes.values()) > room:
            largest = max(sizes, key=lambda at: sizes[at])
            if encoders[largest] in _LEAN:
                left_out.add(largest)
                del sizes[largest]
            else:
                encoders[largest] = quote
                forms[largest] = "text"
                sizes[largest] = _most_in_jsonb(quote, present[largest])
    return left_out


def _most_in_jsonb(encode: Natural, value: bytes) -> int:
    size = len(encode(value))
    return size if encode in _LEAN else size * _GROWTH


def _without(row: Row | None, columns: set[int]) -> Row | None:
    if row is None or not columns:
        return row
    return tuple(UNCHANGED if at in columns else value for at, value in enumerate(row))


def _only_json_nulls(encode: Natural, values: list[Value]) -> bool:
    """Whether JSON's null is all that stands in the way, and no SQL NULL is beside it."""
    for value in values:
        if value is None:
            return False
        if value is not UNCHANGED and value.strip() != b"null":
            try:
                encode(value)
            except NotNaturalError:
                return False
    return True


def _natural_or_null(encode: Natural) -> Natural:
    return lambda value: b"null" if value.strip() == b"null" else encode(value)
