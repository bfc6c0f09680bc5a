"""A chunk of a baseline on its way into the history, in one transaction of the destination."""

import time
from collections.abc import Sequence
from typing import Any

import msgspec
import psycopg

from bemi.capture.encoder import Encoder
from bemi.capture.look import Moment
from bemi.capture.protocol import postgres_time
from bemi.change import Change, Operation, Row, Stretch, Table, Transaction
from bemi.store import baselines
from bemi.store.baselines import Baseline, Counts


class Chunk:
    """A chunk that is being written. Without `end` it is rolled back."""

    def __init__(
        self,
        conn: psycopg.Connection[Any],
        schema: str,
        encoder: Encoder,
        baseline: Baseline,
        moment: Moment,
        context_id: int,
    ) -> None:
        self._conn = conn
        self._schema = schema
        self._encoder = encoder
        self._baseline = baseline
        self._moment = moment
        self._context_id = context_id
        self.written = 0
        self._inferred = dict.fromkeys((Operation.CREATE, Operation.UPDATE, Operation.DELETE), 0)

    def write(self, changes: Sequence[Change]) -> None:
        """Copy changes, which are numbered here."""
        if not changes:
            return
        stretch = None
        if not self.written:
            told = Stretch(transaction_of(self._moment), 0, b"{}")
            stretch = self._encoder.stretch(told, self._context_id)
        rows = [
            self._encoder.change(
                msgspec.structs.replace(change, ordinal=at, index=at - 1), self._context_id
            )
            for at, change in enumerate(changes, start=self.written + 1)
        ]
        baselines.copy_changes(self._conn, self._schema, rows, stretch=stretch)
        self.written += len(rows)
        for change in changes:
            if change.operation in self._inferred:
                self._inferred[change.operation] += 1

    def end(self, *, rows: int, last_key: tuple[bytes, ...] | None) -> Baseline:
        """The place to go on from: what was written will be committed with it."""
        inferred = self._inferred
        return baselines.advance(
            self._conn,
            self._schema,
            self._baseline,
            counts=Counts(
                rows=rows,
                created=inferred[Operation.CREATE],
                updated=inferred[Operation.UPDATE],
                deleted=inferred[Operation.DELETE],
            ),
            position=self._moment.position,
            last_key=last_key,
        )


def transaction_of(moment: Moment) -> Transaction:
    """What stands for the transaction that rows of a look would have come in."""
    return Transaction(
        moment.position, moment.committed_at, postgres_time(time.time()), moment.next_xid
    )


def snapshot(transaction: Transaction, table: Table, row: Row | None = None) -> Change:
    """A row as a look saw it, not numbered yet."""
    return Change(
        transaction=transaction,
        table=table,
        operation=Operation.SNAPSHOT,
        lsn=transaction.commit_lsn,
        index=0,
        ordinal=0,
        stretch=0,
        after=row,
    )
