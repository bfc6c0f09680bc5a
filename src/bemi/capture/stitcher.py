"""Turns the stream's messages into changes that carry their table, transaction and context.

A change belongs to a stretch: the part of its transaction that has one context. Rows before
the first context take the first, so a stretch's context may come after its rows; nothing is
held back for it. Knows no database: how a relation is described is asked of `describe`.
"""

from collections.abc import Callable
from typing import Final

from bemi.capture import ddl
from bemi.capture.contexts import NO_CONTEXT, Context, read_context
from bemi.capture.messages import (
    Begin,
    Commit,
    Delete,
    Insert,
    LogicalMessage,
    Message,
    Relation,
    Truncate,
    Update,
)
from bemi.change import (
    UNCHANGED,
    Change,
    Committed,
    Ddl,
    Event,
    Operation,
    Row,
    Stretch,
    Table,
    Transaction,
    Version,
)
from bemi.errors import ProtocolError

CONTEXT_PREFIX: Final = "_bemi"
MARK_PREFIX: Final = "_bemi_mark"
BASELINE_PREFIX: Final = "_bemi_baseline"
"""Transactional messages that ask the worker to move its checkpoint without delay."""

_NOTHING: Final[tuple[Event, ...]] = ()
_BEFORE_UNKNOWN: Final = ("before_unknown",)
_INFERRED: Final = ("inferred",)
_MOVED: Final = ("moved",)
_XID_RANGE: Final = 1 << 32


class Stitcher:
    """Takes the messages of one replication connection, in order.

    `describe` gives the table of a RELATION message; `clock` the time in microseconds since
    2000-01-01 UTC; `encoding` is the server's, as Python names it; `next_xid` is a recent
    64-bit transaction id of the source, to which the stream's 32-bit ids are widened.
    """

    def __init__(
        self,
        describe: Callable[[Relation], Table],
        *,
        clock: Callable[[], int],
        encoding: str,
        next_xid: int,
    ) -> None:
        self._describe = describe
        self._clock = clock
        self._encoding = encoding
        self._next_xid = next_xid
        self._tables: dict[int, Table] = {}
        self._left: Table | None = None
        """The table whose row the transaction's last change deleted."""
        self._transaction: Transaction | None = None
        self._take: dict[type[Message], Callable[..., tuple[Event, ...]]] = {
            Insert: self._insert,
            Update: self._update,
            Delete: self._delete,
            Truncate: self._truncate,
            LogicalMessage: self._message,
            Begin: self._begin,
            Commit: self._commit,
            Relation: self._relation,
        }

    def take(self, message: Message, lsn: int) -> tuple[Event, ...]:
        """The events that `message`, sent at `lsn`, gives; most rows give one.

        Raises `ProtocolError` for a message out of place, such as a row outside a
        transaction or of a relation that was not announced.
        """
        take = self._take.get(type(message))
        return _NOTHING if take is None else take(message, lsn)

    def _begin(self, message: Begin, _lsn: int) -> tuple[Event, ...]:
        if self._transaction is not None:
            raise ProtocolError("a transaction begins inside another one")
        self._next_xid = xid = widen_xid(message.xid, self._next_xid)
        self._transaction = Transaction(message.final_lsn, message.committed_at, self._clock(), xid)
        self._ordinal = 0
        self._last_lsn = self._index = -1
        self._stretch = 0
        self._left = None
        self._stretch_used = self._stretch_told = False
        self._context: Context | None = None  # no message seen yet
        self._context_flags: tuple[str, ...] = ()
        self._marked = False
        return _NOTHING

    def _commit(self, message: Commit, _lsn: int) -> tuple[Event, ...]:
        transaction = self._current()
        told = self._tell_stretch() if self._stretch_used and not self._stretch_told else _NOTHING
        self._transaction = None
        return (*told, Committed(transaction, message.end_lsn, self._ordinal, self._marked))

    def _relation(self, message: Relation, _lsn: int) -> tuple[Event, ...]:
        table = self._tables[message.oid] = self._describe(message)
        if self._transaction is None:
            return _NOTHING
        return (Version(self._transaction, table, self._ordinal + 1),)

    def _insert(self, message: Insert, lsn: int) -> tuple[Event, ...]:
        table = self._table(message.relation, message.new)
        left = self._left
        flags = _MOVED if left is not None and _are_siblings(left, table) else ()
        return self._change(table, Operation.CREATE, lsn, None, message.new, flags=flags)

    def _update(self, message: Update, lsn: int) -> tuple[Event, ...]:
        table = self._table(message.relation, message.new)
        new = message.new
        if message.old is not None and len(message.old) != len(new):
            self._table(message.relation, message.old)  # refuses it
        before_known = message.old_kind == "O"
        before = message.old if before_known else _identity(table, message.old)
        flags: tuple[str, ...] = () if before_known else _BEFORE_UNKNOWN
        if UNCHANGED in new:
            if before is not None:
                new = tuple(
                    was if value is UNCHANGED else value
                    for value, was in zip(new, before, strict=True)
                )
            flags += tuple(
                f"unchanged:{column.name}"
                for column, value in zip(table.columns, new, strict=True)
                if value is UNCHANGED
            )
        return self._change(table, Operation.UPDATE, lsn, before, new, before_known, flags)

    def _delete(self, message: Delete, lsn: int) -> tuple[Event, ...]:
        table = self._table(message.relation, message.old)
        if message.old_kind == "O":
            return self._change(table, Operation.DELETE, lsn, message.old, None)
        known = _identity(table, message.old)
        return self._change(table, Operation.DELETE, lsn, known, None, False, _BEFORE_UNKNOWN)

    def _truncate(self, message: Truncate, lsn: int) -> tuple[Event, ...]:
        events: list[Event] = []
        for oid in message.relations:
            table = self._tables.get(oid)
            if table is None:
                raise ProtocolError(f"TRUNCATE of relation {oid}, which was not announced")
            # Else it would read as the whole table's, by whose name a partition goes.
            flags = () if table.partition is None else (f"partition:{table.partition}",)
            events += self._change(table, Operation.TRUNCATE, lsn, None, None, flags=flags)
        return tuple(events)

    def _message(self, message: LogicalMessage, _lsn: int) -> tuple[Event, ...]:
        if not message.transactional:
            return _NOTHING
        if message.prefix in (MARK_PREFIX, BASELINE_PREFIX):
            self._current()
            self._marked = True
            return _NOTHING
        if message.prefix == ddl.PREFIX:
            return self._ddl(message)
        if message.prefix != CONTEXT_PREFIX:
            return _NOTHING
        self._current()
        first = self._context is None
        context = read_context(message.content, self._encoding)
        if context == self._context:
            return _NOTHING
        if not self._stretch_used:
            self._context = context
            told = _NOTHING
        elif first and context.dropped is None:
            self._context = context
            return self._tell_stretch()
        else:
            # What comes before an unreadable first context has none.
            told = _NOTHING if self._stretch_told else self._tell_stretch()
            self._context = context
            self._stretch += 1
            self._stretch_used = self._stretch_told = False
        self._context_flags = () if context.dropped is None else ("context_dropped",)
        return told

    def _ddl(self, message: LogicalMessage) -> tuple[Event, ...]:
        """A statement has a context as a change has, and no ordinal."""
        told = self._use_stretch()
        read = ddl.read_ddl(message.content, self._encoding)
        return (
            *told,
            Ddl(
                self._current(),
                message.lsn,
                self._stretch,
                self._ordinal,
                read.tag,
                read.object_type,
                read.identity,
                read.relation,
                read.statement,
                read.detail,
                read.tables,
                read.parted,
                read.dropped,
            ),
        )

    def _use_stretch(self) -> tuple[Event, ...]:
        """The stretch, where its context is known and was not told yet."""
        if self._stretch_used:
            return _NOTHING
        self._stretch_used = True
        self._current()
        return _NOTHING if self._context is None else self._tell_stretch()

    def _tell_stretch(self) -> tuple[Event, ...]:
        self._stretch_told = True
        context = self._context or NO_CONTEXT
        return (
            Stretch(self._current(), self._stretch, context.content, context.dropped, context.raw),
        )

    def _change(
        self,
        table: Table,
        operation: Operation,
        lsn: int,
        before: Row | None,
        after: Row | None,
        before_known: bool = True,
        flags: tuple[str, ...] = (),
    ) -> tuple[Event, ...]:
        transaction = self._current()
        if table.inferred or transaction.commit_lsn < table.placed_since:
            flags += _INFERRED
        self._ordinal += 1
        self._left = table if operation is Operation.DELETE else None
        if lsn == self._last_lsn:
            self._index += 1
        else:
            self._last_lsn, self._index = lsn, 0
        change = Change(
            transaction,
            table,
            operation,
            lsn,
            self._index,
            self._ordinal,
            self._stretch,
            before,
            after,
            before_known,
            flags + self._context_flags,
        )
        if self._stretch_used:
            return (change,)
        return (*self._use_stretch(), change)

    def _current(self) -> Transaction:
        if self._transaction is None:
            raise ProtocolError("a message that belongs to a transaction came outside of one")
        return self._transaction

    def _table(self, oid: int, row: Row) -> Table:
        table = self._tables.get(oid)
        if table is None:
            raise ProtocolError(f"a row of relation {oid}, which was not announced")
        if len(row) != len(table.columns):
            raise ProtocolError(
                f"a row of {len(row)} values for {table.schema}.{table.name}, "
                f"which was announced with {len(table.columns)} columns"
            )
        return table


def widen_xid(xid: int, near: int) -> int:
    """The 64-bit transaction id that ends in the 32 bits of `xid` and is nearest to `near`."""
    wide = near - near % _XID_RANGE + xid
    if wide - near > _XID_RANGE // 2:
        wide -= _XID_RANGE
    elif near - wide > _XID_RANGE // 2:
        wide += _XID_RANGE
    return wide if wide > 0 else xid


def _are_siblings(table: Table, other: Table) -> bool:
    """Two partitions of one table: a DELETE here and an INSERT there is how a row moves."""
    return (
        table.oid != other.oid
        and table.partition is not None
        and other.partition is not None
        and (table.schema, table.name) == (other.schema, other.name)
    )


def _identity(table: Table, old: Row | None) -> Row | None:
    """Of a tuple with the identity's columns only, the others: not NULL, but not sent."""
    if old is None:
        return None
    return tuple(
        value if column.in_identity else UNCHANGED
        for column, value in zip(table.columns, old, strict=True)
    )
