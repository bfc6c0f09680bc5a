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
    natural_form,
    quote,
)
from bemi.change import UNCHANGED, Change, Operation, Row, Stretch, Table, Value
from bemi.store.rows import CHANGE_COLUMNS, STRETCH_COLUMNS, TAIL_BITS, context_id

MAX_KEY: Final = 2000
"""Bytes of a primary key's text that an index entry is sure to take."""

_FIXED: Final = struct.Struct("!h iq iq iq iq iQQ ii ii".replace(" ", ""))
_STRETCH: Final = struct.Struct("!h iq iq iq".replace(" ", ""))
_LENGTH: Final = struct.Struct("!i")
_NULL: Final = b"\xff\xff\xff\xff"
_JSONB_VERSION: Final = b"\x01"
_TEXT_OID: Final = 25

_TAIL_MASK: Final = (1 << TAIL_BITS) - 1
_INDEX_BITS: Final = 12  # more rows than fit a heap page of 32 kB never share a record

_OPERATIONS: Final = {
    operation: _LENGTH.pack(len(operation.value)) + operation.value for operation in Operation
}


class _Plan(msgspec.Struct, frozen=True):
    """What a table's rows have in common, prepared once."""

    keys: tuple[bytes, ...]
    encoders: tuple[Natural, ...]
    names: bytes


class Encoder:
    """Encodes for one epoch of one source.

    `origin` is what identifies the epoch everywhere: it goes into every change's id.
    `checked_text` is false for a server that does not check its text's encoding.
    """

    def __init__(
        self,
        *,
        epoch: int,
        source_id: int,
        system_identifier: str,
        timeline: int,
        database_oid: int,
        checked_text: bool = True,
    ) -> None:
        self._epoch = epoch
        self._source_id = source_id
        origin = f"{system_identifier}/{timeline}/{database_oid}".encode()
        self._salt = int.from_bytes(hashlib.blake2b(origin, digest_size=8).digest())
        self._checked_text = checked_text
        self._plans: dict[Table, _Plan] = {}

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
            )
        )

    def change(self, change: Change, context_id: int) -> bytes:
        """One row of `row_changes`."""
        table = change.table
        plan = self._plans.get(table)
        if plan is None:
            plan = self._plans[table] = self._prepare(table)
        transaction = change.transaction
        flags = change.flags
        try:
            images = _images(plan, change)
        except NotNaturalError:
            images, found = _careful_images(table, plan, change)
            flags += found
        old, new = change.before, change.after
        key = previous = None
        if table.key:
            if new is not None:
                key = self._key(table, new)
                if old is not None:
                    previous = self._key(table, old)
                    if previous == key:
                        previous = None
            elif old is not None:
                key = self._key(table, old)
            if key is not None and len(key) > MAX_KEY:
                key = _digest(key)
                flags += ("key_digest",)
            if previous is not None and len(previous) > MAX_KEY:
                previous = _digest(previous)
                flags += ("previous_key_digest",)
        id_head, id_tail = self._change_id(change)
        return b"".join(
            (
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
                images,
            )
        )

    def _key(self, table: Table, row: Row) -> bytes | None:
        if not self._checked_text:
            row = tuple(_readable(value) if isinstance(value, bytes) else value for value in row)
        return key_text(table, row)

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

    def _prepare(self, table: Table) -> _Plan:
        return _Plan(
            keys=tuple(quote(column.name.encode()) + b":" for column in table.columns),
            encoders=tuple(
                natural_form(column.type_oid, table.array_elements) for column in table.columns
            ),
            names=struct.pack("!iI", 4, table.oid)
            + _field(table.schema.encode())
            + _field(table.name.encode()),
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


def _images(plan: _Plan, change: Change) -> bytes:
    """The fields `after`, `changed`, `before`. Raises `NotNaturalError`."""
    old, new = change.before, change.after
    if new is None:
        if old is None:
            return _NULL + _NULL + _NULL
        return _NULL + _NULL + _object(_members(plan, old))
    if old is None:
        return _object(_members(plan, new)) + _NULL + _NULL
    if not change.before_known:
        return _object(_members(plan, new)) + _NULL + _object(_members(plan, old))
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
    images = _object(after) + _object(changed) + _NULL
    if len(images) > MAX_JSONB:
        _object(_members(plan, old))  # the view puts it together: it has to fit as well
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


def _object(members: list[bytes]) -> bytes:
    """A jsonb field. Raises `NotNaturalError` when jsonb would refuse its size."""
    content = b"".join((_JSONB_VERSION, b"{", b",".join(members), b"}"))
    if len(content) > MAX_JSONB:
        raise NotNaturalError
    return _LENGTH.pack(len(content)) + content


def _careful_images(table: Table, plan: _Plan, change: Change) -> tuple[bytes, tuple[str, ...]]:
    """The images of a row in which some value can't have its natural form, and the flags.

    A column has one form in both images, so that one flag tells how to read it.
    """
    flags: list[str] = []
    rows = [row for row in (change.before, change.after) if row is not None]
    encoders = list(plan.encoders)
    too_large = _too_large(rows)
    for at, column in enumerate(table.columns):
        values = [row[at] for row in rows]
        present = [value for value in values if isinstance(value, bytes)]
        if at in too_large:
            flags.append(f"too_large:{column.name}")
            continue
        try:
            for value in present:
                encoders[at](value)
        except NotNaturalError:
            if column.type_oid in (JSON, JSONB) and _only_json_nulls(encoders[at], values):
                encoders[at] = _natural_or_null(encoders[at])
                flags.append(f"json_null:{column.name}")
                continue
            encoders[at] = _as_text
            flags.append(f"text:{column.name}")
            if any(not _is_utf8(value) for value in present):
                flags.append(f"undecodable:{column.name}")
    kept = msgspec.structs.replace(plan, encoders=tuple(encoders))
    reduced = msgspec.structs.replace(
        change,
        before=_without(change.before, too_large),
        after=_without(change.after, too_large),
    )
    return _images(kept, reduced), tuple(flags)


def _too_large(rows: list[Row]) -> set[int]:
    """The columns to leave out so that each image fits jsonb: the largest first."""
    found: set[int] = set()
    for row in rows:
        sizes = {at: len(value) for at, value in enumerate(row) if isinstance(value, bytes)}
        # Escaping makes a text longer, at most by six: a control character becomes \u0001.
        while sum(sizes.values()) * 6 > MAX_JSONB and sum(
            len(quote_lossy(row[at])) for at in sizes
        ) > MAX_JSONB - 100 * len(row):
            largest = max(sizes, key=lambda at: sizes[at])
            del sizes[largest]
            found.add(largest)
    return found


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


def quote_lossy(value: Value) -> bytes:
    return _as_text(value) if isinstance(value, bytes) else b""


def _as_text(value: bytes) -> bytes:
    return quote(_readable(value))


def _readable(value: bytes) -> bytes:
    return value.decode(errors="backslashreplace").encode()


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _field(value: bytes | None) -> bytes:
    return _NULL if value is None else _LENGTH.pack(len(value)) + value


def _text_array(texts: tuple[str, ...]) -> bytes:
    """A text[] field in its binary form: dimensions, has-nulls, element type, bounds, values."""
    elements = b"".join(_field(text.encode()) for text in texts)
    return _field(struct.pack("!iiIii", 1, 0, _TEXT_OID, len(texts), 1) + elements)


def _digest(key: bytes) -> bytes:
    return b"sha256:" + hashlib.sha256(key).hexdigest().encode()
