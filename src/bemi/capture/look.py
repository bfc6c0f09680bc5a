"""The rows of one table as one look sees them: in pages, by keys, or all of them.

How many come with a statement is measured by those before it, so that none takes long.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec
import psycopg

from bemi.capture.layout import Layout, RawSession, ReadRow
from bemi.capture.source import STREAM_SETTINGS
from bemi.change import Table
from bemi.errors import TableError
from bemi.lsn import Lsn

_PATIENCE: Final = 2500
"""Milliseconds for one statement that reads rows; with the lock and a second of reading before
it, no look takes 5 s."""

_MOST_PATIENCE: Final = 600_000
"""Where a statement was given up, the next try gets twice its time, up to this: behind a million
dead rows even one row takes long."""

_FIRST_STEP: Final = 8
_LARGEST_STEP: Final = 2000
_STEP_BYTES: Final = 1 << 20
"""Rows of one statement: as many as fit, going by the rows before them."""

_STREAM_PATH: Final = b"set local search_path to " + STREAM_SETTINGS["search_path"].encode()


class AlteredError(TableError):
    """The table has other columns, types or another key than when its rows were begun with.

    Or one of its types has other values.
    """


class Limits(msgspec.Struct, frozen=True):
    """How much one look reads at most; what is reached first ends it."""

    rows: int = 10_000
    bytes: int = 8 << 20
    seconds: float = 1.0


class Moment(msgspec.Struct, frozen=True):
    """What a look saw, and its place: `position` lies inside of the message's own record.

    So no commit begins there, and it can't be taken for a transaction's. A transaction that
    the look does not see has an id in `in_progress` or from `xmax` on; one that committed
    before `position` has an id below `next_xid`. `committed_at`: microseconds since 2000-01-01.
    """

    position: Lsn
    xmax: int
    in_progress: tuple[int, ...]
    next_xid: int
    committed_at: int


class Page(msgspec.Struct, frozen=True):
    """Rows in the order of their key; `exhausted`: there were none behind them."""

    rows: list[ReadRow]
    last_key: tuple[bytes, ...] | None
    exhausted: bool


class Tempo:
    """What reading has taken so far, by which the next statement is measured."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.patience = _PATIENCE
        """Milliseconds."""
        self.steps: dict[int, int] = {}
        """Rows of one statement, by table."""


class Look:
    """One look at a table. What it gives is as it was at `moment`."""

    def __init__(self, session: RawSession, layout: Layout, moment: Moment, tempo: Tempo) -> None:
        self._session = session
        self._layout = layout
        self._tempo = tempo
        self.moment = moment
        self.table = layout.table

    def page(self, after: tuple[bytes, ...] | None, limits: Limits) -> Page:
        """The rows that come next in the order of the paging columns.

        Raises `AlteredError` where `after` is no value of theirs any more.
        """
        layout, tempo, relation = self._layout, self._tempo, self.table.oid
        if after is not None:
            self._require_place(after)
        found: list[ReadRow] = []
        size = 0
        step = tempo.steps.get(relation, _FIRST_STEP)
        ends_at = tempo.clock() + limits.seconds
        exhausted = False
        while len(found) < limits.rows and size < limits.bytes and tempo.clock() < ends_at:
            step = min(step, limits.rows - len(found))
            try:
                rows = self._ordered(layout.page(step, onward=after is not None), *(after or ()))
            except psycopg.errors.QueryCanceled:
                tempo.steps[relation] = max(1, step // 16)
                if not found:
                    tempo.patience = min(2 * tempo.patience, _MOST_PATIENCE)
                    raise
                return Page(found, after, False)
            found += rows
            if rows:
                after = tuple([rows[-1][at] or b"" for at in layout.paging])
            if len(rows) < step:
                exhausted = True
                break
            size += (came := _size(rows))
            step = tempo.steps[relation] = _next_step(step, came)
        tempo.patience = _PATIENCE
        return Page(found, after, exhausted)

    def _require_place(self, after: tuple[bytes, ...]) -> None:
        """A label of an enum may have been renamed, what a regclass names dropped."""
        try:
            self._session.rows(self._layout.place(), *after)
        except (psycopg.DataError, psycopg.ProgrammingError) as error:
            raise AlteredError(
                f"the type of a key of {shown(self.table)} was altered: the key that its"
                " baseline got to is no value of it any more",
                fix="run `bemi snapshot` again: its baseline begins anew",
            ) from error

    def everything(self) -> Iterator[list[ReadRow]]:
        """All rows, a few at a time."""
        self._session.run(b"declare bemi_rows no scroll cursor for " + self._layout.everything())
        step = 1
        while True:
            rows = self._session.rows(b"fetch %d from bemi_rows" % step)
            if not self._layout.columns:
                rows = [()] * len(rows)
            if rows:
                yield rows
            if len(rows) < step:
                return
            step = _next_step(step, _size(rows))

    def rows(self, keys: Sequence[tuple[bytes, ...]]) -> list[ReadRow]:
        """The rows with these values of the paging columns."""
        values = [value for key in keys for value in key]
        return self._ordered(self._layout.by_keys(len(keys)), *values)

    def _ordered(self, statement: bytes, *values: bytes) -> list[ReadRow]:
        """The rows of a statement that compares keys.

        The operators of an extension's type are found by a search path that their values must not
        be spelled by: a cursor keeps the ones that it was declared with.
        """
        session, path = self._session, self._layout.search_path
        if path is None:
            return session.rows(statement, *values)
        session.run(b"set local search_path to " + path)
        session.rows(b"declare bemi_page no scroll cursor for " + statement, *values)
        session.run(_STREAM_PATH)
        rows = session.rows(b"fetch all from bemi_page")
        session.run(b"close bemi_page")
        return rows


def _next_step(step: int, size: int) -> int:
    """How many rows to ask for after `step` of them, which had `size` bytes."""
    return max(1, min(2 * step, _STEP_BYTES * step // max(size, 1), _LARGEST_STEP))


def _size(rows: Sequence[ReadRow]) -> int:
    return sum(len(value) for row in rows for value in row if value is not None)


def shown(table: Table) -> str:
    return table.partition or f"{table.schema}.{table.name}"
