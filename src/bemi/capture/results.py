"""What becomes of baselines, and who hears of it."""

from typing import Protocol

import msgspec


class StoppedError(Exception):
    """Somebody asked to stop. All that is stored stays, and is gone on from."""


class Result(msgspec.Struct, frozen=True):
    """What became of one table's baseline."""

    table: str
    rows: int = 0
    created: int = 0
    updated: int = 0
    deleted: int = 0
    compared: bool = False
    """With what the history knew of it before."""
    itemised: bool = True
    """False for a table without a key: what differs is stored, but not what it was before."""
    incomplete: int = 0
    """Rows with a value that stays unknown until it changes."""
    error: str | None = None
    fix: str | None = None


class Reports(Protocol):
    """Hears how it goes."""

    def table(self, name: str, done: int, estimate: int) -> None: ...
    def rows(self, done: int) -> None: ...
    def waiting(self, reason: str) -> None: ...
    def finished(self, result: Result) -> None: ...
