"""Turns changes and stretches into rows of COPY's binary format, as the store keeps them.

Lean: an UPDATE whose old row is known carries the old values of what it changed, not the
whole old row. https://www.postgresql.org/docs/current/sql-copy.html (binary format)
"""

import hashlib
import struct
from typing import Final

from bemi.capture.images import NULL, Plan, careful_images, in_utf8, plan_of, quick_images
from bemi.capture.keys import stored_key
from bemi.capture.values import NotNaturalError
from bemi.change import Change, Operation, Stretch, Table
from bemi.store.rows import CHANGE_COLUMNS, STRETCH_COLUMNS, TAIL_BITS, context_id

_FIXED: Final = struct.Struct("!h iq iq iq iq iQQ ii ii".replace(" ", ""))
_STRETCH: Final = struct.Struct("!h iq iq iq".replace(" ", ""))
_INT: Final = struct.Struct("!ii")
_LENGTH: Final = struct.Struct("!i")
_JSONB_VERSION: Final = b"\x01"
_TEXT_OID: Final = 25
_UTF8: Final = "utf-8"

_TAIL_MASK: Final = (1 << TAIL_BITS) - 1
_INDEX_BITS: Final = 12  # more rows than fit a heap page of 32 kB never share a record

_OPERATIONS: Final = {
    operation: _LENGTH.pack(len(operation.value)) + operation.value for operation in Operation
}


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
        self._rules = NULL if rules_id is None else _INT.pack(4, rules_id)
        self._encoding = encoding
        self._transcodes = encoding != _UTF8
        self._plans: dict[int, tuple[Plan, bytes]] = {}  # of each table the last version

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
        known = self._plans.get(table.oid)
        if known is None or known[0].table is not table:
            known = self._plans[table.oid] = (plan_of(table), _names(table))
        plan, names = known
        transaction = change.transaction
        flags = change.flags
        undecodable: frozenset[int] | None = None
        if self._transcodes:
            change, undecodable = in_utf8(change, self._encoding)
        try:
            images = None if undecodable else quick_images(plan, change)
        except NotNaturalError:
            images = None
        # Not in the handler: the error would keep alive what was encoded in vain.
        if images is None:
            if undecodable is None:
                change, undecodable = in_utf8(change, _UTF8)
            images, found = careful_images(plan, change, undecodable)
            flags += found
        old, new = change.before, change.after
        key = previous = None
        digest = previous_digest = False
        if table.key:
            if new is not None:
                key, digest = stored_key(table, new)
                if old is not None:
                    previous, previous_digest = stored_key(table, old)
                    if previous == key:
                        previous, previous_digest = None, False
            elif old is not None:
                key, digest = stored_key(table, old)
            if digest:
                flags += ("key_digest",)
            if previous_digest:
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
                names,
                _field(key),
                _field(previous),
                _text_array(flags) if flags else NULL,
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


def _names(table: Table) -> bytes:
    return (
        struct.pack("!iI", 4, table.oid)
        + _field(table.schema.encode())
        + _field(table.name.encode())
    )


def _field(value: bytes | None) -> bytes:
    return NULL if value is None else _LENGTH.pack(len(value)) + value


def _text_array(texts: tuple[str, ...]) -> bytes:
    """A text[] field in its binary form: dimensions, has-nulls, element type, bounds, values."""
    elements = b"".join(_field(text.encode()) for text in texts)
    return _field(struct.pack("!iiIii", 1, 0, _TEXT_OID, len(texts), 1) + elements)
