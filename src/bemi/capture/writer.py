"""Stores one piece after the other in the destination, on the sink's thread.

What is incomplete is completed here, since the history it is completed from is read in the same
transaction. Rows and the checkpoint become durable together.
"""

from datetime import datetime
from typing import Any, Protocol

import msgspec
import psycopg

from bemi.change import Change, Ddl, Skipped, Stretch
from bemi.lsn import Lsn
from bemi.store import checkpoint as checkpoints
from bemi.store import ddl as ddl_messages
from bemi.store import gaps, names, versions
from bemi.store.checkpoint import Checkpoint
from bemi.store.copy import copy_rows
from bemi.store.partitions import Partitions
from bemi.store.rows import CHANGE_COLUMNS, STRETCH_COLUMNS
from bemi.store.versions import StoredVersion


class Encodes(Protocol):
    """Turns events into rows of COPY's binary format."""

    def context_id(self, committed_at: int, counter: int) -> int: ...
    def change(self, change: Change, context_id: int) -> bytes: ...
    def stretch(self, stretch: Stretch, context_id: int) -> bytes: ...


class Completes(Protocol):
    """Fills in what changes lack, from the history; see `bemi.capture.completer`."""

    def needs(self, change: Change) -> bool: ...
    def follows(self, table: Any) -> bool: ...
    def described(self, relation: int, versions: list[StoredVersion]) -> None: ...
    def complete(
        self, cursor: psycopg.Cursor[Any], events: list[Change | Skipped]
    ) -> list[Change | None]: ...


class Deferred(msgspec.Struct, frozen=True):
    """A change that completes others or wants to be completed; `row` once it is encoded."""

    event: Change | Skipped
    context_id: int
    row: bytes | None = None


class Piece(msgspec.Struct):
    """Rows in their order. `position` is set when they end with a transaction: commit."""

    stretches: list[tuple[int, bytes]] = []
    rows: list[bytes | Deferred] = []
    used: set[int] = set()
    """The contexts of changes that are sure to be stored."""
    versions: list[StoredVersion] = []
    skipped: list[Skipped] = []
    ddl: list[tuple[Ddl, int]] = []
    incomplete: bool = False
    """Whether some row is not encoded yet, or is none at all."""
    size: int = 0
    days: set[int] = set()
    position: Lsn | None = None
    committed_at: int | None = None
    earliest_at: int | None = None
    captured_at: datetime | None = None
    next_context: int = 0
    going_on: int = 0
    """The context that the next piece's changes may have, too, where it does not commit."""

    def __bool__(self) -> bool:
        return bool(self.rows or self.skipped or self.ddl)


class Writer:
    """Owns the transaction in progress on `conn`. For the sink's thread only."""

    def __init__(
        self,
        conn: psycopg.Connection[Any],
        schema: str,
        encoder: Encodes,
        completer: Completes,
        held: Checkpoint,
        *,
        same_server: bool,
    ) -> None:
        self._conn = conn
        self._schema = schema
        self._encoder = encoder
        self._completer = completer
        self._held = held
        self._same_server = same_server
        self._partitions = Partitions(schema)
        self._untold: dict[int, bytes] = {}  # contexts of this transaction that nothing has yet
        self._used: set[int] = set()
        self.stored = held.position
        """Everything that ends at or before this is durable in the destination."""
        self.own_wal = Lsn(0)
        """Where the last checkpoint without rows ended in the WAL, on the source's server."""

    def store(self, piece: Piece) -> None:
        """Write a piece; with a position, commit it and all before it with the checkpoint.

        Guarantees that rows and checkpoint become visible and durable together: `stored`
        moves only after the commit came back.
        """
        conn = self._conn
        self._partitions.ensure(conn, piece.days)
        with conn.cursor() as cursor:
            self._describe(cursor, piece)
            rows = self._complete(cursor, piece)
            stretches = self._told(piece)
            if stretches:
                copy_rows(cursor, self._schema, "contexts", STRETCH_COLUMNS, stretches)
            if rows:
                copy_rows(cursor, self._schema, "row_changes", CHANGE_COLUMNS, rows)
            for statement, context_id in piece.ddl:
                ddl_messages.insert(cursor, self._schema, self._held, statement, context_id)
                names.place(cursor, self._schema, self._held, statement)
            if piece.skipped:
                gaps.record_skipped(cursor, self._schema, self._held, piece.skipped)
            if piece.position is None:
                return
            self._held = checkpoints.advance(
                cursor,
                self._schema,
                self._held,
                position=piece.position,
                next_context=piece.next_context,
                committed_at=piece.committed_at,
                earliest_at=piece.earliest_at,
                captured_at=piece.captured_at,
            )
        conn.commit()
        if self._same_server and not rows:
            row = conn.execute("select pg_current_wal_insert_lsn()::text").fetchone()
            conn.commit()
            if row is not None:
                self.own_wal = Lsn.parse(row[0])
        self.stored = piece.position

    def _describe(self, cursor: psycopg.Cursor[Any], piece: Piece) -> None:
        for version in piece.versions:
            source_id, relation = self._held.source_id, version.relation
            known = versions.read(cursor, self._schema, source_id, relation).get(relation, [])
            before = versions.at_place(known, version.place)
            if versions.differs(before, version):
                versions.insert(cursor, self._schema, source_id, version)
                # A look at the catalog may have told already what the stream comes to now.
                if known and versions.differs(known[-1], version):
                    since = version.place[1] if before and before.told and version.told else 0
                    gaps.record_rewrite(
                        cursor, self._schema, source_id, known, version, since=since
                    )
                known = versions.read(cursor, self._schema, source_id, relation)[relation]
            self._completer.described(relation, known)

    def _complete(self, cursor: psycopg.Cursor[Any], piece: Piece) -> list[bytes]:
        if not piece.incomplete:
            encoded = (row if isinstance(row, bytes) else row.row for row in piece.rows)
            return [row for row in encoded if row is not None]
        events = [row.event for row in piece.rows if isinstance(row, Deferred)]
        completed = iter(self._completer.complete(cursor, events))
        rows: list[bytes] = []
        for row in piece.rows:
            if isinstance(row, bytes):
                rows.append(row)
                continue
            change = next(completed)
            if change is None:
                continue
            if row.row is not None:
                rows.append(row.row)
            else:
                rows.append(self._encoder.change(change, row.context_id))
            piece.used.add(row.context_id)
        return rows

    def _told(self, piece: Piece) -> list[bytes]:
        """The contexts to be stored: those that some change has."""
        self._untold.update(piece.stretches)
        self._used |= piece.used
        told = [self._untold.pop(each) for each in sorted(self._used & self._untold.keys())]
        if piece.position is not None:
            self._untold.clear()
            self._used.clear()
        else:
            # Those before are over, in a transaction of any number of them.
            self._used &= {piece.going_on}
            for each in self._untold.keys() - {piece.going_on}:
                del self._untold[each]
        return told
