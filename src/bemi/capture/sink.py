"""Stores events in the destination: whole transactions, with the checkpoint, exactly once.

Events are encoded as they come and handed over in pieces to a writer thread, which copies
while the next piece is read. A piece that ends with a transaction is committed together with
the checkpoint; a transaction larger than a piece takes several, in one transaction of the
destination, so its size costs no memory. `stored` is what may be acknowledged.
"""

import contextlib
import logging
import os
import queue
import select
import threading
import time
from typing import Any, Final, Protocol

import msgspec
import psycopg

from bemi.change import Change, Committed, Ddl, Event, Skipped, Stretch, Transaction, Version
from bemi.connections import explain
from bemi.lsn import Lsn
from bemi.store import checkpoint as checkpoints
from bemi.store.checkpoint import Checkpoint
from bemi.store.copy import copy_rows
from bemi.store.partitions import Partitions
from bemi.store.rows import CHANGE_COLUMNS, DAY, STRETCH_COLUMNS

log = logging.getLogger("bemi.sink")

PIECE_ROWS: Final = 1000
"""Changes after which a piece is handed over at the end of a transaction; more gain little."""

PIECE_BYTES: Final = 2 << 20
"""Bytes after which a piece is handed over, in the middle of a transaction too."""

IDLE_INTERVAL: Final = 10.0
"""Seconds between checkpoints that store nothing: each is a write in the destination."""

_MOST_PIECES: Final = 3
"""Pieces handed over and not stored: one at work, two waiting. Bounds the memory."""

_SLOW: Final = 10.0
_SAY_AGAIN: Final = 30.0
"""Seconds after which a destination that stores nothing is told of, and again."""

_OWN_WAL: Final = 1024
"""Bytes of WAL that PostgreSQL writes by itself after our commit (a snapshot of the running
transactions, a checkpoint record). Less than this past our own commit is no news."""


class Encodes(Protocol):
    """Turns events into rows of COPY's binary format."""

    def context_id(self, committed_at: int, counter: int) -> int: ...
    def change(self, change: Change, context_id: int) -> bytes: ...
    def stretch(self, stretch: Stretch, context_id: int) -> bytes: ...


class _Piece(msgspec.Struct):
    """Encoded rows. `position` is set when they end with a transaction: commit."""

    stretches: list[bytes] = []
    changes: list[bytes] = []
    size: int = 0
    days: set[int] = set()
    position: Lsn | None = None
    committed_at: int | None = None
    next_context: int = 0


class Sink:
    """The one writer of an epoch's changes. All methods are for the reading thread.

    Owns `conn` until `close`. An error of the writer thread is raised by the next `full` or
    `flush`. `same_server`: the destination's WAL is the source's.
    """

    def __init__(
        self,
        conn: psycopg.Connection[Any],
        schema: str,
        encoder: Encodes,
        held: Checkpoint,
        *,
        same_server: bool,
    ) -> None:
        self._conn = conn
        self._schema = schema
        self._encoder = encoder
        self._held = held
        self._same_server = same_server
        self._partitions = Partitions(schema)
        self._start = held.position
        self._next_context = held.next_context
        self._context = (-1, 0)  # the current stretch's number and its context's id
        self._piece = _Piece()
        self._split = False  # the current transaction's beginning was handed over
        self._between_transactions = True
        self._reached = self._handed_over = held.position
        self._committed_at: int | None = None
        self._checkpoint_at = time.monotonic()
        self._checkpoint_asked = False
        self._own_wal = Lsn(0)
        self._pieces: queue.Queue[_Piece | None] = queue.Queue()
        self._stored = held.position
        self._moved_at = time.monotonic()
        self._said_at = -_SAY_AGAIN
        self._failure: BaseException | None = None
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._thread = threading.Thread(target=self._write, name="bemi-sink", daemon=True)
        self._thread.start()

    @property
    def stored(self) -> Lsn:
        """Everything that ends at or before this is durable in the destination."""
        return self._stored

    @property
    def wake(self) -> int:
        """A file descriptor that becomes readable when a piece was stored, or failed."""
        return self._wake_read

    def full(self) -> bool:
        """Whether the writer lags: `put` nothing then, but go on giving the source feedback."""
        if self._failure is not None:
            raise self._failure
        return self._pieces.unfinished_tasks >= _MOST_PIECES

    def put(self, event: Event) -> None:
        """Take the next event in order. Skips what the checkpoint says is stored."""
        if event.transaction.commit_lsn < self._start:
            return
        if isinstance(event, Version | Skipped | Ddl):
            return
        if isinstance(event, Committed):
            self._end_transaction(event)
            return
        if self._between_transactions:
            self._between_transactions = False
            self._piece.days.add(event.transaction.committed_at // DAY)
        piece = self._piece
        if isinstance(event, Change):
            row = self._encoder.change(event, self._context_id(event.stretch, event.transaction))
            piece.changes.append(row)
        else:
            row = self._encoder.stretch(event, self._context_id(event.number, event.transaction))
            piece.stretches.append(row)
        piece.size += len(row)
        if piece.size >= PIECE_BYTES:
            self._hand_over()

    def reached(self, position: Lsn, *, urgent: bool = False) -> None:
        """The source has nothing before `position` that was not put: an idle source's progress.

        `urgent`: it waits to hear that this is durable, as it does before it shuts down.
        """
        if self._between_transactions and position > self._reached:
            self._reached = position
        if urgent and self._reached > self._handed_over:
            self._checkpoint_asked = True

    def flush(self) -> None:
        """Store what there is, since the source has nothing to send just now.

        Only at the end of a transaction, and not while the writer is at work: what comes
        meanwhile goes with the next piece.
        """
        self._quiet()
        self._say_if_slow()
        if self._failure is not None:
            raise self._failure
        if (
            self._between_transactions
            and not self._pieces.unfinished_tasks
            and (self._piece.changes or self._checkpoint_asked or self._checkpoint_due())
        ):
            self._hand_over(ends=True)

    def wait(self, seconds: float) -> None:
        """Wait until the writer has stored a piece, or failed, or time is up."""
        select.select([self._wake_read], [], [], seconds)
        self._quiet()
        self._say_if_slow()

    def finish(self, seconds: float) -> None:
        """Wait, for so many seconds at most, until the whole transactions taken are stored."""
        deadline = time.monotonic() + seconds
        if self._between_transactions and self._piece.changes:
            self._hand_over(ends=True)
        while self._pieces.unfinished_tasks and time.monotonic() < deadline:
            if self._failure is not None:
                raise self._failure
            self.wait(0.1)

    def close(self) -> None:
        """End the writer thread and its connection; what was not committed is rolled back."""
        self._pieces.put(None)
        self._thread.join(0.2)
        if self._thread.is_alive():
            # In the middle of a COPY, or waiting for a server that does not answer.
            with contextlib.suppress(psycopg.Error, OSError):
                self._conn.cancel_safe(timeout=2.0)
            self._thread.join(2.0)
        if not self._thread.is_alive():
            self._conn.close()
            os.close(self._wake_read)
            os.close(self._wake_write)

    def _say_if_slow(self) -> None:
        now = time.monotonic()
        waited = now - self._moved_at
        if self._pieces.unfinished_tasks and waited > _SLOW and now - self._said_at > _SAY_AGAIN:
            self._said_at = now
            log.warning(
                "waiting",
                extra={"reason": f"the destination has stored nothing for {waited:.0f} s"},
            )

    def _quiet(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)

    def _context_id(self, stretch: int, transaction: Transaction) -> int:
        if self._context[0] != stretch:
            found = self._encoder.context_id(transaction.committed_at, self._next_context)
            self._context = (stretch, found)
            self._next_context += 1
        return self._context[1]

    def _end_transaction(self, committed: Committed) -> None:
        self._between_transactions = True
        self._context = (-1, 0)
        self._reached = max(self._reached, committed.end_lsn)
        self._checkpoint_asked |= committed.marked
        if committed.changes:
            self._committed_at = committed.transaction.committed_at
            piece = self._piece
            if len(piece.changes) >= PIECE_ROWS or piece.size >= PIECE_BYTES // 2 or self._split:
                self._hand_over(ends=True)

    def _checkpoint_due(self) -> bool:
        if self._reached <= self._handed_over:
            return False
        if time.monotonic() - self._checkpoint_at < IDLE_INTERVAL:
            return False
        # On one server our own checkpoint makes WAL, which must not ask for the next one.
        return not self._same_server or self._reached > self._own_wal + _OWN_WAL

    def _hand_over(self, *, ends: bool = False) -> None:
        piece, self._piece = self._piece, _Piece()
        self._split = not ends
        if ends:
            piece.position = self._handed_over = self._reached
            piece.committed_at = self._committed_at
            piece.next_context = self._next_context
            self._checkpoint_at = time.monotonic()
            self._checkpoint_asked = False
        if not self._pieces.unfinished_tasks:
            self._moved_at = time.monotonic()
        self._pieces.put(piece)

    # What follows runs in the writer thread.

    def _write(self) -> None:
        try:
            while (piece := self._pieces.get()) is not None:
                self._store(piece)
                self._pieces.task_done()
                self._moved_at = time.monotonic()
                self._signal()
        except psycopg.Error as error:
            self._failure = explain(error, "destination")
            self._failure.__cause__ = error
        except BaseException as error:  # noqa: BLE001 - the reading thread raises it again
            self._failure = error
        finally:
            self._signal()

    def _signal(self) -> None:
        with contextlib.suppress(OSError):  # full: then it is readable all the same
            os.write(self._wake_write, b"\0")

    def _store(self, piece: _Piece) -> None:
        """Copy a piece; with a position, commit it and all before it with the checkpoint.

        Guarantees that rows and checkpoint become visible and durable together: `stored`
        moves only after the commit came back.
        """
        conn = self._conn
        self._partitions.ensure(conn, piece.days)
        with conn.cursor() as cursor:
            if piece.stretches:
                copy_rows(cursor, self._schema, "contexts", STRETCH_COLUMNS, piece.stretches)
            if piece.changes:
                copy_rows(cursor, self._schema, "row_changes", CHANGE_COLUMNS, piece.changes)
            if piece.position is None:
                return
            self._held = checkpoints.advance(
                cursor,
                self._schema,
                self._held,
                position=piece.position,
                next_context=piece.next_context,
                committed_at=piece.committed_at,
            )
        conn.commit()
        if self._same_server and not piece.changes:
            row = conn.execute("select pg_current_wal_insert_lsn()::text").fetchone()
            conn.commit()
            if row is not None:
                self._own_wal = Lsn.parse(row[0])
        self._stored = piece.position
