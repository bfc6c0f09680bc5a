"""Stores events in the destination: whole transactions, with the checkpoint, exactly once.

Events are encoded as they come and handed over in pieces to a writer thread, which copies
while the next piece is read. A piece that ends with a transaction is committed together with
the checkpoint; a transaction larger than a piece takes several, in one transaction of the
destination, so its size costs no memory. `acknowledgeable` is what the source may forget.
"""

import contextlib
import logging
import os
import queue
import select
import threading
import time
from typing import Any, Final

import msgspec
import psycopg

from bemi.capture.expected import is_it, restored
from bemi.capture.proof import Proofs
from bemi.capture.writer import Completes, Deferred, Encodes, Piece, Writer
from bemi.change import (
    Change,
    Committed,
    Ddl,
    Event,
    Skipped,
    Stretch,
    Table,
    Transaction,
    Version,
)
from bemi.connections import explain
from bemi.lsn import Lsn
from bemi.store.checkpoint import Checkpoint, StoredTransaction
from bemi.store.rows import DAY
from bemi.store.versions import Place, StoredVersion, differs, version_of

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

_ROW_SIZE: Final = 100
"""Bytes that a change takes beside its values."""

_OWN_WAL: Final = 1024
"""Bytes of WAL that PostgreSQL writes by itself after our commit (a snapshot of the running
transactions, a checkpoint record). Less than this past our own commit is no news."""


class Sink:
    """The one writer of an epoch's changes. All methods are for the reading thread.

    Owns `conn` until `close`. An error of the writer thread is raised by the next `full` or
    `flush`. `same_server`: the destination's WAL is the source's. `expected`: what the source
    must send again before it goes on behind the checkpoint; `put` and `reached` raise
    `RestoredError` where it did not.
    """

    def __init__(
        self,
        conn: psycopg.Connection[Any],
        schema: str,
        encoder: Encodes,
        completer: Completes,
        held: Checkpoint,
        *,
        versions: dict[int, StoredVersion],
        same_server: bool,
        expected: StoredTransaction | None = None,
    ) -> None:
        self._expected = expected
        self._conn = conn
        self._encoder = encoder
        self._completer = completer
        self._epoch = held.epoch
        self._same_server = same_server
        self._writer = Writer(conn, schema, encoder, completer, held, same_server=same_server)
        self._versions = versions
        self._memberships: dict[int, int] = {}
        self._start = held.position
        self._next_context = held.next_context
        self._context = (-1, 0)  # the current stretch's number and its context's id
        self._piece = Piece()
        self._split = False  # the current transaction's beginning was handed over
        self._between_transactions = True
        self._reached = self._handed_over = held.position
        self._committed_at: int | None = None
        self._earliest_at: int | None = None
        self._checkpoint_at = time.monotonic()
        self._checkpoint_asked = False
        self.proofs = Proofs()
        """Who looks at the source adds to them, in whatever thread."""
        self._pieces: queue.Queue[Piece | None] = queue.Queue()
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
        return self._writer.stored

    @property
    def acknowledgeable(self) -> Lsn:
        """What the source need not send any more: `stored`, once it sent what was expected.

        Until then nothing, since another source's changes may lie before that position.
        """
        return self.stored if self._expected is None else Lsn(0)

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
            if self._expected is not None and is_it(event.transaction, self._expected):
                self._expected = None
            return
        if self._expected is not None:
            raise restored(self._expected)
        if isinstance(event, Committed):
            self._end_transaction(event)
            return
        if self._between_transactions:
            self._between_transactions = False
            began = event.transaction.committed_at
            self._piece.days.add(began // DAY)
            if self._earliest_at is None or began < self._earliest_at:
                self._earliest_at = began
        if isinstance(event, Change):
            self._put_change(event)
        elif isinstance(event, Stretch):
            context_id = self._context_id(event.number, event.transaction)
            row = self._encoder.stretch(event, context_id)
            self._piece.stretches.append((context_id, row))
            self._piece.size += len(row)
        elif isinstance(event, Version):
            self._put_version(event)
        elif isinstance(event, Skipped):
            self._piece.rows.append(Deferred(event, 0))
            self._piece.incomplete = True
            self._piece.skipped.append(event)
            self._piece.size += _ROW_SIZE
        else:
            self._put_ddl(event)
        if self._piece.size >= PIECE_BYTES:
            self._hand_over()

    def _put_change(self, change: Change) -> None:
        piece = self._piece
        context_id = self._context_id(change.stretch, change.transaction)
        if self._completer.needs(change):
            piece.rows.append(Deferred(change, context_id))
            piece.incomplete = True
            piece.size += _size(change)
            return
        row = self._encoder.change(change, context_id)
        piece.size += len(row)
        piece.used.add(context_id)
        if self._completer.follows(change.table):
            piece.rows.append(Deferred(change, context_id, row))
            piece.size += len(row)
        else:
            piece.rows.append(row)

    def _put_ddl(self, event: Ddl) -> None:
        for table in event.tables:
            known = self._versions.get(table.oid)
            if known is not None:
                self._put_told(event, table, known)
        context_id = self._context_id(event.stretch, event.transaction)
        self._piece.ddl.append((event, context_id))
        self._piece.used.add(context_id)

    def _put_told(self, event: Ddl, table: Table, known: StoredVersion) -> None:
        """Keep what an event trigger says of a table that the history has rows of.

        Columns that are generated are sent or not, which the stream has shown. A transaction's
        rows may be older than what it says, those of later ones are not.
        """
        sent = {column.number for column in known.columns}
        found = version_of(table)
        commit = int(event.transaction.commit_lsn)
        found = msgspec.structs.replace(
            found,
            columns=tuple(
                each for each in found.columns if not each.generated or each.number in sent
            ),
            read_position=commit + 1,
        )
        if differs(known, found):
            self._keep(found, (self._epoch, commit, event.ordinal + 1))

    def _put_version(self, event: Version) -> None:
        table = event.table
        found = version_of(table)
        known = self._versions.get(table.oid)
        if known is not None and known.told and known.outlives(found):
            found = known
        membership = self._memberships.get(table.oid, table.membership)
        self._memberships[table.oid] = table.membership
        if differs(known, found):
            self._keep(found, (self._epoch, int(event.transaction.commit_lsn), event.ordinal))
        elif membership != table.membership and self._piece:
            self._hand_over()

    def _keep(self, version: StoredVersion, place: Place) -> None:
        """A piece has one version of a table only: what was before is stored by then."""
        if self._piece:
            self._hand_over()
        version = self._versions[version.relation] = msgspec.structs.replace(version, place=place)
        self._piece.versions.append(version)

    def reached(self, position: Lsn, *, urgent: bool = False) -> None:
        """The source has nothing before `position` that was not put: an idle source's progress.

        `urgent`: it waits to hear that this is durable, as it does before it shuts down.
        """
        if self._between_transactions and position > self._reached:
            if self._expected is not None:
                raise restored(self._expected)
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
            and (self._piece or self._checkpoint_asked or self._checkpoint_due())
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
        if self._between_transactions and self._piece:
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
        if committed.changes or self._piece:
            self._committed_at = committed.transaction.committed_at
            piece = self._piece
            if len(piece.rows) >= PIECE_ROWS or piece.size >= PIECE_BYTES // 2 or self._split:
                self._hand_over(ends=True)

    def _checkpoint_due(self) -> bool:
        if time.monotonic() - self._checkpoint_at < IDLE_INTERVAL:
            return False
        if self._expected is None and self.proofs.holds(self._reached):
            return True
        if self._reached <= self._handed_over:
            return False
        # On one server our own checkpoint makes WAL, which must not ask for the next one.
        return not self._same_server or self._reached > self._writer.own_wal + _OWN_WAL

    def _hand_over(self, *, ends: bool = False) -> None:
        piece, self._piece = self._piece, Piece()
        self._split = not ends
        piece.going_on = self._context[1]
        if ends:
            piece.position = self._handed_over = self._reached
            piece.committed_at = self._committed_at
            piece.earliest_at, self._earliest_at = self._earliest_at, None
            # Another source's, until this one sent what was expected.
            if self._expected is None and (proof := self.proofs.take(self._reached)) is not None:
                piece.captured_at = proof.time
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
                self._writer.store(piece)
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


def _size(change: Change) -> int:
    rows = (change.before or (), change.after or ())
    return _ROW_SIZE + sum(len(value) for row in rows for value in row if isinstance(value, bytes))
