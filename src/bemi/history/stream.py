"""`bemi.stream`: the changes as they are captured, for an application that acts on them.

with bemi.stream(url, table="todo", start=cursor) as changes:
    for change in changes:
        ...
        save(changes.cursor)
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from types import TracebackType
from typing import Final, Self, Unpack
from uuid import UUID

from bemi.errors import MissingChangesError, UsageError
from bemi.history.asking import Filtering, filters_of, seconds_of
from bemi.history.beginning import beginning_of
from bemi.history.change import Change
from bemi.history.feed import Feed

_MEANINGLESS: Final = {
    "oldest_first": "a stream is in the order of the log",
    "behind": "`start` takes what `cursor` was",
}


class stream:  # noqa: N801 - read as a verb
    """The changes that are captured, one after the other, for as long as the loop goes on.

    `url`: of the destination, for a role that may read it. `start`: where to begin: a cursor that
    was stored, `"now"`, `"beginning"`, a time as in `since`, an LSN, or a change's id. The filters
    are those of `bemi.History`; `limit` is of each loop. Rows of baselines are given only with
    `baseline=True`.

    Every change that is stored is given at least once, whole transactions at a time; those of a
    source in the order of its log, those of several sources in turns. `cursor` is behind the
    change that was given last: who stores it together with what the change leads to, in one
    transaction, acts on each exactly once.

    The loop ends at `close`; with `timeout` also after so many seconds without a change, and with
    `until_caught_up` behind what was captured when it began. Another loop goes on from there.

    Where changes are missing in the history, `MissingChangesError` is raised, or given to
    `on_gap`; the next loop goes on behind them. A destination that restarts is waited for. Raises
    `BemiError` as `bemi.History` does.
    """

    def __init__(
        self,
        url: str,
        *,
        start: str | datetime | UUID | None = None,
        schema: str = "bemi",
        timeout: float | None = None,
        until_caught_up: bool = False,
        baseline: bool = False,
        on_gap: Callable[[MissingChangesError], None] | None = None,
        **filters: Unpack[Filtering],
    ) -> None:
        for name, why in _MEANINGLESS.items():
            if filters.get(name) is not None:
                raise UsageError(f"there is no {name} here: {why}")
        if timeout is not None:
            timeout = seconds_of("timeout", timeout)
        if isinstance(filters.get("after"), str):
            raise UsageError(
                "after: this filter takes columns with their values",
                fix="to go on from a cursor, give it as `start`",
            )
        wanted = filters_of(**filters)
        self._limit = wanted.limit
        self._timeout = timeout
        self._until_caught_up = until_caught_up
        self._on_gap = on_gap
        self._feed = Feed(url, schema, wanted, beginning_of(start), baseline=baseline)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def cursor(self) -> str:
        """Behind the change that was given last, and what the filters kept back before it."""
        return str(self._feed.cursor)

    def close(self) -> None:
        """Ends the loop, also from another thread or a signal's handler, and the connection."""
        self._feed.close()

    def __iter__(self) -> Iterator[Change]:
        given = 0
        with closing(
            self._feed.follow(timeout=self._timeout, until_caught_up=self._until_caught_up)
        ) as found:
            for each in found:
                if not isinstance(each, MissingChangesError):
                    yield Change.of(each)
                    given += 1
                    if given == self._limit:
                        return
                elif self._on_gap is None:
                    raise each
                else:
                    self._on_gap(each)
