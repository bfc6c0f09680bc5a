"""Turns changes and stretches into rows of COPY's binary format, as the store keeps them.

Lean: an UPDATE whose old row is known carries the old values of what it changed, not the
whole old row. https://www.postgresql.org/docs/current/sql-copy.html (binary format)
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
from bemi.change import UNCHANGED, Change, Operation, Row, Stretch, Table, Value
from bemi.store.rows import CHANGE_COLUMNS, STRETCH_COLUMNS, TAIL_BITS, context_id

MAX_KEY: Final = 2000
"""Bytes of a primary key's text that an index entry is sure to take."""

_FIXED: Final = struct.Struct("!h iq iq iq iq iQQ ii ii".replace(" ", ""))
_STRETCH: Final = struct.Struct("!h iq iq iq".replace(" ", ""))
_INT: Final = struct.Struct("!ii")
_LENGTH: Final = struct.Struct("!i")
_NULL: Final = b"\xff\xff\xff\xff"
_JSONB_VERSION: Final = b"\x01"
_OBJECT: Final = struct.Struct("!i2s")
_TEXT_OID: Final = 25
_UTF8: Final = "utf-8"

_GROWTH: Final = 6
"""So many times its text, at most, a value takes in jsonb: `1,` in an array becomes 4 bytes
of an entry and 8 of a number. (A string never takes more than its text.)"""

_LEAN: Final = frozenset({quote, boolean, integer, number})
"""The forms that do not grow, but for some bytes that each column has room for."""

_COLUMN_ROOM: Final = 24
"""Bytes that a member of a jsonb object takes at most beside its name and its content."""

_TAIL_MASK: Final = (1 << TAIL_BITS) - 1
_INDEX_BITS: Final = 12  # more rows than fit a heap page of 32 kB never share a record

_OPERATIONS: Final = {
    operation: _LENGTH.pack(len(operation.value)) + operation.value for operation in Operation
}


class _Plan(msgspec.Struct, frozen=True):
    """What a table's rows have in common, prepared once."""

    table: Table
    keys: tuple[bytes, ...]
    encoders: tuple[Natural, ...]
    names: bytes
    most: int
    """Bytes of an image's text that jsonb is sure to take."""


class Encoder:
    """Encodes for one epoch of one source.

    `origin` is what identifies the epoch everywhere: it goes into every change's id.
    `encoding` is that of the values, a Python codec's name; every byte below 0x80 is itself
    in it, as in all encodings that a server may have. `rules_id` is the version of the rules
    that the changes went through.
    """

    def __init__(
        self,
        *,
        epoch: int,
        source_id: int,
        system_identifier: str,
        timeline: int,
        database_oid: int,
        encoding: str = _UTF8,
        rules_id: int | None = None,
    ) -> None:
        self._epoch = epoch
        self._source_id = source_id
        origin = f"{system_identifier}/{timeline}/{database_oid}".encode()
        self._salt = int.from_bytes(hashlib.blake2b(origin, digest_size=8).digest())
        self._rules = _NULL if rules_id is None else _INT.pack(4, rules_id)
        self._encoding = encoding
        self._transcodes = encoding != _UTF8
        self._plans: dict[int, _Plan] = {}  # of each table the last version

    def context_id(self, committed_at: int, counter: int) -> int:
        return context_id(committed_at, self._source_id, counter)

    def stretch(self, stretch: Stretch, context_id: int) -> bytes:
        """One row of `contexts`."""
        transaction = stretch.transaction
        return b"".join(
            (
                _STRETCH.pack(
                    len(STRETCH_COLUMNS),
                    8,
                    context_id,
                    8,
                    transaction.transaction_id,
                    8,
                    transaction.queued_at,
                ),
                _field(_JSONB_VERSION + stretch.context),
                _field(None if stretch.dropped is None else stretch.dropped.encode()),
                _field(stretch.raw),
                self._rules,
            )
        )

    def change(self, change: Change, context_id: int) -> bytes:
        """One row of `row_changes`."""
        table = change.table
        plan = self._plans.get(table.oid)
        if plan is None or plan.table is not table:
            plan = self._plans[table.oid] = _prepare(table)
        transaction = change.transaction
        flags = change.flags
        undecodable: frozenset[int] | None = None
        if self._transcodes:
            change, undecodable = _in_utf8(change, self._encoding)
        try:
            images = None if undecodable else _images(plan, change)
        except NotNaturalError:
            images = None
        # Not in the handler: the error would keep alive what was encoded in vain.
        if images is None:
            if undecodable is None:
                change, undecodable = _in_utf8(change, _UTF8)
            images, found = _careful_images(plan, change, undecodable)
            flags += found
        old, new = change.before, change.after
        key = previous = None
        if table.key:
            if new is not None:
                key = key_text(table, new)
                if old is not None:
                    previous = key_text(table, old)
                    if previous == key:
                        previous = None
            elif old is not None:
                key = key_text(table, old)
            if key is not None and len(key) > MAX_KEY:
                key = _digest(key)
                flags += ("key_digest",)
            if previous is not None and len(previous) > MAX_KEY:
                previous = _digest(previous)
                flags += ("previous_key_digest",)
        id_head, id_tail = self._change_id(change)
        return b"".join(
            [
                _FIXED.pack(
                    len(CHANGE_COLUMNS),
                    8,
                    transaction.committed_at,
                    8,
                    transaction.commit_lsn,
                    8,
                    change.lsn,
                    8,
                    context_id,
                    16,
                    id_head,
                    id_tail,
                    4,
                    change.ordinal,
                    4,
                    self._epoch,
                ),
                _OPERATIONS[change.operation],
                plan.names,
                _field(key),
                _field(previous),
                _text_array(flags) if flags else _NULL,
                *images,
            ]
        )

    def _change_id(self, change: Change) -> tuple[int, int]:
        """The halves of a UUID, version 8: the commit LSN, then what tells the rows apart.

        The 58 bits of the tail are (row LSN, index in its record), shifted by a hash of the
        epoch: no two changes of an epoch can share them. Relations truncated together share
        a record and their index depends on the publication, so the OID takes its place.
        """
        commit_lsn = change.transaction.commit_lsn
        distance = commit_lsn - change.lsn
        if change.operation is Operation.TRUNCATE:
            told = f"{self._salt}/{distance}/{change.table.oid}".encode()
            tail = int.from_bytes(hashlib.blake2b(told, digest_size=8).digest())
        else:
            tail = self._salt + (distance << _INDEX_BITS | change.index)
        return (
            commit_lsn >> 16 << 16 | 0x8 << 12 | commit_lsn >> 4 & 0xFFF,
            0b10 << 62 | (commit_lsn & 0xF) << TAIL_BITS | tail & _TAIL_MASK,
        )


def _prepare(table: Table) -> _Plan:
    return _Plan(
        table=table,
        keys=tuple(quote(column.name.encode()) + b":" for column in table.columns),
        encoders=tuple(
            natural_form(column.type_oid, table.array_elements) for column in table.columns
        ),
        names=struct.pack("!iI", 4, table.oid)
        + _field(table.schema.encode())
        + _field(table.name.encode()),
        most=MAX_JSONB // _GROWTH,
    )


def key_text(table: Table, row: Row) -> bytes | None:
    """The primary key's text: the value's own, or a JSON array of texts for several columns.

    `None` where a part of it was not sent.
    """
    if len(table.key) == 1:
        value = row[table.key[0]]
        return None if value is UNCHANGED else value
    texts = []
    for value in (row[at] for at in table.key):
        if value is None or value is UNCHANGED:
            return None
        texts.append(quote(value))
    return b"[" + b",".join(texts) + b"]"


def _images(plan: _Plan, change: Change) -> tuple[bytes, ...]:
    """The fields `after`, `changed`, `before`, in pieces. Raises `NotNaturalError`.

    In pieces, because every joining of them holds a wide row once more in memory.
    """
    old, new, most = change.before, change.after, plan.most
    if new is None:
        if old is None:
            return (_NULL, _NULL, _NULL)
        return (_NULL, _NULL, *_object(_members(plan, old), most))
    if old is None:
        return (*_object(_members(plan, new), most), _NULL, _NULL)
    if not change.before_known:
        return (
            *_object(_members(plan, new), most),
            _NULL,
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
    images = (*_object(after, most), *_object(changed, most), _NULL)
    if len(images[1]) + len(images[4]) > most:
        # The view puts the old row together from both: it has to fit as well.
        _object(_members(plan, old), most)
    return images


def _members(plan: _Plan, row: Row) -> list[bytes]:
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


def _in_utf8(change: Change, encoding: str) -> tuple[Change, frozenset[int]]:
    """The change with its values in UTF-8, and the columns in which some value did not decode.

    Bytes that do not decode are written as `\\xNN`.
    """
    undecodable: set[int] = set()

    def in_utf8(row: Row | None) -> Row | None:
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

    before, after = in_utf8(change.before), in_utf8(change.after)
    changed = msgspec.structs.replace(change, before=before, after=after)
    return changed, frozenset(undecodable)


def _careful_images(
    plan: _Plan, change: Change, undecodable: frozenset[int]
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
    return _images(kept, reduced), tuple(flags)


def _fit(plan: _Plan, encoders: list[Natural], forms: dict[int, str], rows: list[Row]) -> set[int]:
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


def _field(value: bytes | None) -> bytes:
    return _NULL if value is None else _LENGTH.pack(len(value)) + value


def _text_array(texts: tuple[str, ...]) -> bytes:
    """A text[] field in its binary form: dimensions, has-nulls, element type, bounds, values."""
    elements = b"".join(_field(text.encode()) for text in texts)
    return _field(struct.pack("!iiIii", 1, 0, _TEXT_OID, len(texts), 1) + elements)


def _digest(key: bytes) -> bytes:
    return b"sha256:" + hashlib.sha256(key).hexdigest().encode()
