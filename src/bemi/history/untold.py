"""Which changes are missing in the history that a stream has not told yet.

Each is told once, before the stream goes past its beginning; what becomes known later, when it
does. A cursor only has how many were told: by then, those that begin before its place.
"""

from collections.abc import Iterator
from typing import Any, TypeAlias

import psycopg

from bemi.errors import MissingChangesError
from bemi.history.cursor import LogPlace
from bemi.lsn import Lsn
from bemi.store import log as logs
from bemi.store.log import Head, Missing

_Id: TypeAlias = tuple[str, int]


class Untold:
    """Of one stream, for all sources. `table`: only its gaps, and those of all, are told."""

    def __init__(self, schema: str, table: str | None) -> None:
        self._schema = schema
        self._table = table if table is None or "." in table else f"public.{table}"
        self._known: dict[str, list[Missing]] = {}
        self._told: dict[str, set[_Id]] = {}

    def due(
        self, conn: psycopg.Connection[Any], head: Head, place: LogPlace
    ) -> Iterator[tuple[int, MissingChangesError | None]]:
        """What has to be told at this place of a source's log; each with how many were told then.

        To be asked before `ahead` and `end_of_epoch`. None: it is not of the table.
        """
        source = head.source
        known = self._known.get(source)
        if known is None or len(known) != head.missing:
            known = self._known[source] = logs.missing(conn, self._schema, head.source_id)
        if source not in self._told:
            self._told[source] = _told_before(known, place)
        told = self._told[source]
        # Where the log ends it is not known yet whether it goes on behind what is missing.
        goes_on = place.epoch != head.epoch or place.commit < head.end
        for each in known:
            if each.id in told:
                continue
            if each.place < place.position or (each.place == place.position and goes_on):
                told.add(each.id)
                yield len(told), _error(source, each) if self._concerns(each) else None

    def ahead(self, source: str, epoch: int) -> list[int]:
        """Where the others begin that are known already."""
        told = self._told[source]
        return [
            each.from_position
            for each in self._known[source]
            if each.id not in told and each.epoch == epoch
        ]

    def end_of_epoch(self, source: str, epoch: int) -> int | None:
        """Where the log of an epoch that is over ends, if that is known."""
        ends = [
            each.from_position
            for each in self._known[source]
            if each.epoch == epoch and each.ends_epoch
        ]
        return max(ends, default=None)

    def _concerns(self, missing: Missing) -> bool:
        return None in (self._table, missing.table) or self._table in (
            missing.table,
            missing.partition,
        )


def _told_before(known: list[Missing], place: LogPlace) -> set[_Id]:
    """Which of them were told to who stands there: those that were known first."""
    before = [each for each in known if each.place < place.position]
    here = [each for each in known if each.place == place.position]
    return {each.id for each in [*before, *here][: place.told]}


def _error(source: str, missing: Missing) -> MissingChangesError:
    table = missing.partition or missing.table
    start = str(Lsn(missing.from_position))
    end = None if missing.to_position is None else str(Lsn(missing.to_position))
    until = "on" if end is None else f"to {end}"
    return MissingChangesError(
        f"changes of {source if table is None else f'{table} of {source}'} are missing from"
        f" {start} {until} ({missing.cause})",
        fix="`bemi status --coverage` says more; a stream that goes on does so behind them",
        source=source,
        table=table,
        cause=missing.cause,
        from_position=start,
        to_position=end,
        root=missing.table,
    )
