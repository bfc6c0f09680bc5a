"""`bemi.History`: the questions that people ask of a history, in Python.

    with bemi.History(url) as history:
        for change in history.changes(table="todo", since="2h", context={"user_id": 42}):
            print(change.operation, change.diff())

Each question has a connection to itself while it is being answered.
"""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Literal, Self, Unpack
from uuid import UUID

import psycopg

from bemi.connections import connect, explained
from bemi.errors import UncertainWarning, UnknownStateError, UsageError
from bemi.history import moments, trends
from bemi.history.asking import (
    Choosing,
    Filtering,
    change_of,
    chosen,
    dimension_of,
    dimensions_of,
    filters_of,
    id_of,
    key_of,
    moment_of,
    name_of,
    schema_of,
    seconds_of,
    source_name_of,
    table_of,
    tables_of,
)
from bemi.history.blame import Blame, blame
from bemi.history.change import Change, Row
from bemi.history.comparing import between_times
from bemi.history.difference import Difference
from bemi.history.grouping import Group, groups
from bemi.history.lending import Connections
from bemi.history.lineage import steps
from bemi.history.planning import Narrowing, Plan, plan_of
from bemi.history.restore import Follows, Restored, is_url, restore
from bemi.history.state import asked, rows
from bemi.history.travel import Travel, build
from bemi.history.travel_schemas import drop
from bemi.lsn import Lsn
from bemi.store import reader
from bemi.store.dimensions import Dimension
from bemi.store.filters import Filters
from bemi.store.refusals import told
from bemi.store.trends import Count, Every

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
        self._connections = Connections(url, schema)

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
        self._connections.close()

    def changes(self, **filters: Unpack[Filtering]) -> Iterator[Change]:
        """The changes that the filters let through, the newest first, read as they are taken.

        As of one moment, and in constant memory however many they are.
        """
        return self._changes(filters_of(**filters))

    def groups(self, by: str, /, **filters: Unpack[Filtering]) -> Iterator[Group]:
        """The changes in groups: those that follow each other and have the same.

        `by`: `transaction`, `table`, `operation`, `source`, `user`, or `context.KEY`, which may be
        dotted. A value may come again, but a transaction does not.
        """
        return self._groups(filters_of(**filters), dimension_of(by))

    def stats(
        self,
        *,
        by: str | Sequence[str] = (),
        every: Every | None = None,
        top: int | None = None,
        **filters: Unpack[Filtering],
    ) -> Iterator[Count]:
        """How many changes there were when: a count for each bucket of time, 0 too.

        `by`: one or two of what `groups` takes; then there is a count for each value in each
        bucket, the largest first; with `top`, for the largest so many and for all others
        together. `every`: minute, hour, day, week (from Monday) or month, in UTC; else what fits
        the range. That is from `since`, or the first change, until `until`, or now.
        """
        dimensions = dimensions_of(by)
        asked = filters_of(**filters)
        trends.check(asked, dimensions, every, top)
        return self._stats(asked, dimensions, every, top)

    def change(self, id: UUID | str, /, *, source: str | None = None) -> Change:
        """The one that has this id. Raises `UnknownStateError` where there is none, and
        `UsageError` where several sources have it."""
        which, source = id_of(id), source_name_of(source)
        with self._connected() as conn:
            return Change.of(reader.change(conn, self._schema, which, source))

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
        text, qualified, source = key_of(key), table_of(table), source_name_of(source)
        with self._connected() as conn:
            source = source or reader.source_of(conn, self._schema, qualified)
        found = blame(
            steps(self._changes, Filters(table=table, key=text, source=source, by_log=True))
        )
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
        wait: bool | float = False,
        allow_gaps: bool = False,
    ) -> Iterator[Row]:
        """The rows of a table as they were, or the one with this key, read as they are taken.

        `when`: a time, an LSN such as `0/1A2B3C4D`, or a change's id: after all transactions that
        were committed by then, so that none is split. A column that was renamed since has the name
        that it had. Raises `UnknownStateError` where the history can't tell: before its
        baseline, in a gap, or, as `NotYetError`, beyond what is captured. With `wait`, for ever or
        for so many seconds, that is waited for. With `allow_gaps` it tells what it has: rows that
        are not surely known have the flag `uncertain`, others may be missing, and an
        `UncertainWarning` says why.
        """
        text, source = None if key is _ALL else key_of(key), source_name_of(source)
        patience = seconds_of("wait", wait)
        return self._at(moment_of(when), table_of(table), text, source, patience, allow_gaps)

    def travel(
        self,
        when: datetime | str | UUID,
        /,
        *,
        into: str = "bemi_travel",
        tables: Iterable[str] = (),
        source: str | None = None,
        allow_gaps: bool = False,
    ) -> Travel:
        """Builds a schema in the destination with the tables as they were, as read-only views.

        All at one position, under their own names and with the columns and types of then; see
        `bemi travel`. Where tables are of several schemas of the source, each gets one of its own,
        `INTO_SCHEMA`. What an earlier travel made there is replaced. `tables`: only these, `*`
        stands for anything. Takes a role that may create schemas. Raises `UnknownStateError` where
        not all are surely known, unless `allow_gaps`, and `UsageError` where `into` is a schema
        that no travel made.
        """
        moment, source, names = moment_of(when), source_name_of(source), tables_of(tables)
        if is_url(name_of("into", into)):
            raise UsageError(
                "a travel is built in the destination", fix="give the name of a schema, no URL"
            )
        schema_of(into)
        with self._connected() as conn:
            return build(
                conn,
                self._schema,
                moment,
                into=into,
                tables=names,
                source=source,
                allow_gaps=allow_gaps,
            )

    def drop_travel(self, into: str = "bemi_travel") -> list[str]:
        """Drops what `travel` built there; the schemas. Nothing else goes with them."""
        into = name_of("into", into)
        with self._connected() as conn:
            return drop(conn, into)

    def plan_revert(
        self,
        onto: str,
        /,
        *,
        only: Iterable[str] = (),
        without: Iterable[str] = (),
        **filters: Unpack[Choosing],
    ) -> Plan:
        """What undoing the changes that the filters let through would do to the source.

        `onto`: the source's URL, for a role that may write there. `only`, `without`: tables or
        rows, as `TABLE` or `TABLE:KEY`, that the plan is of, or not. At least one filter has to
        be given; there is no limit but one that is given. Nothing is written before
        `Plan.apply`.
        """
        return self._plan("revert", onto, Narrowing(tuple(only), tuple(without)), filters)

    def plan_replay(
        self,
        onto: str,
        /,
        *,
        only: Iterable[str] = (),
        without: Iterable[str] = (),
        **filters: Unpack[Choosing],
    ) -> Plan:
        """What doing the changes again would do to another database, such as a test copy."""
        return self._plan("replay", onto, Narrowing(tuple(only), tuple(without)), filters)

    def _plan(
        self,
        what: Literal["revert", "replay"],
        onto: str,
        narrowed: Narrowing,
        filters: Choosing,
    ) -> Plan:
        with self._connected() as conn:
            return plan_of(conn, self._schema, what, onto, chosen(filters), narrowed)

    def diff(
        self,
        what: UUID | str,
        key: object = _ALL,
        /,
        *,
        start: datetime | str | UUID | None = None,
        end: datetime | str | UUID | None = None,
        source: str | None = None,
    ) -> Iterator[Difference]:
        """What a change did; or what rows of a table differ in between two times.

        `what`: a change's id, or a table, of which there may be a `key`. `start` and `end` are
        times, positions or changes as `at` takes them; without `end` it is what was captured last.
        The rows come in the order of their keys' texts. A row whose key changed in between is one
        that changed. Raises `UnknownStateError` where the history can't tell, as `at` does.
        """
        id = change_of(what)
        if id is not None:
            if key is not _ALL or start is not None or end is not None:
                raise UsageError(
                    "the difference that a change made is between no times",
                    fix="give a table, or the change's id only",
                )
            return self._diff_of(id, source)
        if start is None:
            raise UsageError(
                f"the difference of {what} is one between two times", fix="say from when on: start="
            )
        return self._diff(
            table_of(str(what)),
            None if key is _ALL else key_of(key),
            moment_of(start),
            None if end is None else moment_of(end),
            source_name_of(source),
        )

    def restore(
        self,
        when: datetime | str | UUID,
        into: str,
        /,
        *,
        tables: Iterable[str] = (),
        wait: bool | float = False,
        allow_gaps: bool = False,
        source: str | None = None,
        follow: Follows | None = None,
    ) -> Restored:
        """Makes tables as they were, with types, keys and constraints, in one transaction.

        `into`: a schema of the destination, empty or not there yet; or the URL of another database,
        where the tables keep their schemas. `tables`: globs; by default all. `follow` is told the
        table and the number of rows while they come. `wait` as in `at`. Raises
        `UnknownStateError` where the history can't tell the rows of one, unless `allow_gaps`, and
        `UsageError` where something is in the way.
        """
        moment = moment_of(when)
        patience = seconds_of("wait", wait)
        source, names = source_name_of(source), tables_of(tables)
        is_other = is_url(name_of("into", into))
        url, schema = (into, None) if is_other else (self._url, schema_of(into))
        with self._connected() as conn:
            place = moments.find(conn, self._schema, moment, source=source, patience=patience)
            with (
                explained("target"),
                closing(connect(url, what="target")) as target,
                target.transaction(),
            ):
                return restore(
                    conn,
                    self._schema,
                    place,
                    target,
                    into=schema,
                    tables=names,
                    allow_gaps=allow_gaps,
                    follow=follow,
                )

    def _changes(self, filters: Filters) -> Iterator[Change]:
        with (
            self._connected() as conn,
            closing(reader.changes(conn, self._schema, filters)) as rows,
        ):
            for row in rows:
                yield Change.of(row)

    def _groups(self, filters: Filters, by: Dimension) -> Iterator[Group]:
        with (
            self._connected() as conn,
            closing(reader.changes(conn, self._schema, filters)) as rows,
        ):
            yield from groups(rows, by)

    def _stats(
        self, filters: Filters, by: Sequence[Dimension], every: Every | None, top: int | None
    ) -> Iterator[Count]:
        with self._connected() as conn:
            yield from trends.stats(conn, self._schema, filters, by, every, top)

    def _at(
        self,
        when: datetime | Lsn | UUID,
        table: str,
        key: str | None,
        source: str | None,
        patience: float,
        allow_gaps: bool,
    ) -> Iterator[Row]:
        with self._connected() as conn:
            place = moments.find(conn, self._schema, when, table, source, patience=patience)
            with told(), conn.transaction():
                question = asked(
                    conn,
                    self._schema,
                    place.source,
                    table,
                    place.position,
                    epoch=place.epoch,
                    key=key,
                    allow_gaps=allow_gaps,
                )
                if question.uncertain is not None:
                    warnings.warn(question.uncertain, UncertainWarning, stacklevel=2)
                with closing(rows(conn, question)) as found:
                    for row in found:
                        yield Row.of(row)

    def _diff_of(self, id: UUID, source: str | None) -> Iterator[Difference]:
        yield Difference.of_change(self.change(id, source=source))

    def _diff(
        self,
        table: str,
        key: str | None,
        start: datetime | Lsn | UUID,
        end: datetime | Lsn | UUID | None,
        source: str | None,
    ) -> Iterator[Difference]:
        with self._connected() as conn:
            yield from between_times(conn, self._schema, table, key, start, end, source)

    def _connected(self) -> AbstractContextManager[psycopg.Connection[Any]]:
        return self._connections.lent()
