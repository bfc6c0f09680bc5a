"""`bemi.History`: the questions that people ask of a history, in Python.

    with bemi.History(url) as history:
        for change in history.changes(table="todo", since="2h", context={"user_id": 42}):
            print(change.operation, change.diff())

Each question has a connection to itself while it is being answered.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Self, Unpack
from uuid import UUID

import psycopg
from psycopg.pq import TransactionStatus

from bemi.connections import connect, explained
from bemi.errors import UnknownStateError
from bemi.history import moments
from bemi.history.asking import Filtering, filters_of, id_of, key_of, moment_of
from bemi.history.blame import Blame, Step, blame
from bemi.history.change import Change, Row
from bemi.history.state import state
from bemi.lsn import Lsn
from bemi.store import reader
from bemi.store.filters import Filters
from bemi.store.query import stored_keys
from bemi.store.schema_version import require_current

_ALL: Final = object()
"""Not None, which is the key of an object that was not stored yet."""


class History:
    """The history in a destination. Opens a connection when it is first asked.

    `url`: of the destination, for a role that may read it (`bemi init --reader ROLE`). `schema`:
    where the history is in it.

    All methods raise `BemiError`: `PassingError` where the destination can't be reached,
    `SetupError` where it has no history of this version or the role may not read it, `UsageError`
    for values that mean nothing.
    """

    def __init__(self, url: str, *, schema: str = "bemi") -> None:
        self._url = url
        self._schema = schema
        self._idle: list[psycopg.Connection[Any]] = []
        self._busy: set[psycopg.Connection[Any]] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends its connections, and with them what is still being read; the next question opens
        another one."""
        for conn in (*self._idle, *self._busy):
            conn.close()
        self._idle.clear()
        self._busy.clear()

    def changes(self, **filters: Unpack[Filtering]) -> Iterator[Change]:
        """The changes that the filters let through, the newest first, read as they are taken.

        As of one moment, and in constant memory however many they are.
        """
        return self._changes(filters_of(**filters))

    def change(self, id: UUID | str, /, *, source: str | None = None) -> Change:
        """The one that has this id. Raises `UnknownStateError` where there is none, and
        `UsageError` where several sources have it."""
        with self._connected() as conn:
            return Change.of(reader.change(conn, self._schema, id_of(id), source))

    def row(self, table: str, key: object, /, **filters: Unpack[Filtering]) -> Iterator[Change]:
        """All changes of the rows that had this key, one after the other, the newest first.

        A change of the key belongs to the history of both keys. A TRUNCATE, which has no key,
        is not among them.
        """
        asked: Filtering = {**filters, "table": table, "key": key_of(key)}
        return self.changes(**asked)

    def trace(self, id: str, /, **filters: Unpack[Filtering]) -> Iterator[Change]:
        """What one request or trace has done, over all sources, in the order of the commits.

        `id`: a `trace_id` or a `request_id` of the context.
        """
        asked: Filtering = {**filters, "trace": id, "oldest_first": True}
        return self.changes(**asked)

    def blame(self, table: str, key: object, /, *, source: str | None = None) -> list[Blame]:
        """Which change gave each column of a row the value that it has, also under other keys.

        Of a row that is gone, deleted, truncated or moved to another key, as it last was. Raises
        `UnknownStateError` where the history has no change of such a row.
        """
        text = key_of(key)
        with self._connected() as conn:
            source = source or reader.source_of(conn, self._schema, _qualified(table))
        found = blame(self._life(Filters(table=table, key=text, source=source, by_log=True)))
        if not found:
            raise UnknownStateError(
                f"the history has no change of {table} {text}",
                fix="`bemi status --coverage` lists the tables; a composite key is a tuple",
            )
        return found

    def at(
        self,
        when: datetime | str | UUID,
        table: str,
        key: object = _ALL,
        /,
        *,
        source: str | None = None,
    ) -> Iterator[Row]:
        """The rows of a table as they were, or the one with this key, read as they are taken.

        `when`: a time, an LSN such as `0/1A2B3C4D`, or a change's id: after all transactions that
        were committed by then, so that none is split. A column that was renamed since has the name
        that it had. Raises `UnknownStateError` where the history can't tell: before its
        baseline, in a gap, or beyond what is captured.
        """
        text = None if key is _ALL else key_of(key)
        return self._at(moment_of(when), _qualified(table), text, source)

    def _changes(self, filters: Filters) -> Iterator[Change]:
        with (
            self._connected() as conn,
            closing(reader.changes(conn, self._schema, filters)) as rows,
        ):
            for row in rows:
                yield Change.of(row)

    def _at(
        self, when: datetime | Lsn | UUID, table: str, key: str | None, source: str | None
    ) -> Iterator[Row]:
        epoch: int | None = None
        with self._connected() as conn:
            if isinstance(when, UUID):
                change = reader.change(conn, self._schema, when, source)
                source, epoch, when = change.source, change.epoch, Lsn(change.commit_position)
            source = source or reader.source_of(conn, self._schema, table)
            if isinstance(when, datetime):
                moment = moments.resolve(conn, self._schema, source, when)
                epoch, when = moment.epoch, moment.commit
            with closing(
                state(conn, self._schema, source, table, when, epoch=epoch, key=key)
            ) as rows:
                for row in rows:
                    yield Row.of(row)

    def _life(self, asked: Filters) -> Iterator[Step]:
        """The changes of a row, the newest first, under each key and in each partition that it
        was in. `asked`: of its last key, by the log."""
        begun = False
        while asked.key is not None:
            keys = stored_keys(asked.key)
            step: Step | None = None
            for change in self._changes(asked):
                if change.previous_key in keys:
                    # It was moved away from this key: what is older is of another row, unless
                    # there is no row with this key any more.
                    if begun:
                        return
                    continue
                begun = True
                step = Step(change, self._moved_from(change))
                yield step
                if change.previous_key is not None or step.moved_from is not None:
                    break
                step = None
            if step is None:
                return
            earlier = step.moved_from or step.change
            key = earlier.previous_key if earlier is step.change else earlier.primary_key
            asked = dataclasses.replace(asked, key=key, behind=earlier.place)

    def _moved_from(self, change: Change) -> Change | None:
        """The DELETE right before a CREATE with the flag `moved`."""
        if "moved" not in change.flags:
            return None
        before = Filters(
            table=f"{change.schema}.{change.table}",
            source=change.source,
            from_position=change.commit_position,
            to_position=change.commit_position,
            by_log=True,
            behind=change.place,
            limit=1,
        )
        return next((each for each in self._changes(before) if each.operation == "DELETE"), None)

    @contextmanager
    def _connected(self) -> Iterator[psycopg.Connection[Any]]:
        """A connection of its own, since changes are read as they are taken, and in between
        something else may be asked."""
        with explained("destination"):
            conn = self._idle.pop() if self._idle else self._connect()
            self._busy.add(conn)
            try:
                yield conn
            finally:
                self._busy.discard(conn)
                if conn.info.transaction_status == TransactionStatus.IDLE:
                    self._idle.append(conn)
                else:
                    conn.close()

    def _connect(self) -> psycopg.Connection[Any]:
        conn = connect(self._url, what="destination", client_encoding="utf8")
        try:
            require_current(conn, self._schema)
        except BaseException:
            conn.close()
            raise
        return conn


def _qualified(table: str) -> str:
    return table if "." in table else f"public.{table}"
