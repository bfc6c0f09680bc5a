"""What is complete of a source: stretches of its tables, and what is missing between them. Pure."""

from datetime import datetime
from typing import Any, Final, Literal, TypeAlias

import msgspec

from bemi.lsn import Lsn
from bemi.store.moments import Moment

State: TypeAlias = Literal[
    "known",
    "no_baseline",  # none was taken yet
    "baseline_running",
    "baseline_failed",
    "behind_gap",  # nobody looked yet what happened in a gap
    "begun_anew",  # the key changed, or a baseline was asked for anew
    "outdated",  # changes behind the baseline are missing
    "ended",  # the table is not captured any more
]

CONTINUED: Final = ("begun_anew", "key_changed")
"""Ends of stretches that go on at the same place: nothing is missing between."""

GONE: Final = ("table_dropped",)
"""Ends of stretches behind which nothing is left that could be missing."""

NEW_EPOCH: Final = ("epoch_changed", "restored")
"""Causes of a gap behind which positions are those of another epoch."""


class Stretch(msgspec.Struct, frozen=True):
    """Where every change of a table is in the history; open ones reach to the checkpoint."""

    start: Moment
    end: Moment
    open: bool
    verified: Lsn
    state: Moment | None
    """From here on all rows are known."""
    state_by: str | None
    opened: str
    opened_at: datetime
    closed: str | None
    closed_at: datetime | None


class Missing(msgspec.Struct, frozen=True):
    """Where changes are missing, or, with `columns`, older values of these are outdated."""

    start: Moment
    end: Moment | None
    """None: it goes on."""
    cause: str
    detail: str
    columns: tuple[str, ...] = ()
    changes: int | None = None
    """How many are missing, where that is known."""
    accepted: bool = True


class Baseline(msgspec.Struct, frozen=True):
    """The last one of a table. `failed` says why it was given up."""

    started_at: datetime
    finished_at: datetime | None
    rows: int
    failed: str | None


class TableCoverage(msgspec.Struct, frozen=True):
    """A table by the names it had last; `partition` is the own name of one that is a partition."""

    relation: int
    schema: str
    table: str
    partition: str | None
    stretches: tuple[Stretch, ...]
    missing: tuple[Missing, ...]
    state: State
    baseline: Baseline | None

    @property
    def root(self) -> str:
        return f"{self.schema}.{self.table}"

    @property
    def name(self) -> str:
        return self.partition or self.root

    @property
    def last(self) -> Stretch:
        return self.stretches[-1]


class Span(msgspec.Struct, frozen=True):
    """The part of an epoch's log that the history is about."""

    epoch: int
    start: Lsn
    end: Lsn


class SourceCoverage(msgspec.Struct, frozen=True):
    """What the history of one source has. `missing` concerns all of its tables."""

    source: str
    spans: tuple[Span, ...]
    start: Moment | None
    end: Moment | None
    missing: tuple[Missing, ...]
    tables: tuple[TableCoverage, ...]


def as_json(found: SourceCoverage) -> Any:
    """For programs: positions in PostgreSQL's form, everything else as it is."""
    return _exact(found)


def _exact(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return {name: _exact(each) for name, each in msgspec.structs.asdict(value).items()}
    if isinstance(value, tuple):
        return [_exact(each) for each in value]
    return str(value) if isinstance(value, Lsn) else value
