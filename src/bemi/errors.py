"""The error tree. Everything that Bemi raises on purpose is a `BemiError`.

BemiError
├── ConfigError        a setting is missing or wrong
├── UsageError         flags of a command do not go together
├── SetupError         a server is not as it must be; waiting will not help
│   ├── StoreVersionError   the destination's schema is newer or older than this Bemi
│   ├── TableError     the rows of one table can't be read; those of others can
│   ├── RemovedError   an operator has removed the source
│   ├── RefusedError   a server refused a connection, for a reason unknown to Bemi
│   └── GapError       changes can't be had any more; an operator must decide
│       └── RestoredError   the source's log lacks what the history has
├── PassingError       a state that passes by itself: the worker waits
│   ├── SlotBusyError  another process holds the replication slot
│   └── FencedError    another worker took over the checkpoint
├── ConflictError       a plan can't be applied as things are; nothing was written
├── UnknownStateError   what was asked for lies in a gap, or outside of what was tracked
│   └── NotYetError    or beyond what is captured by now
├── MissingChangesError  a stream comes past changes that the history does not have
└── ProtocolError      replication data that does not parse
"""

from typing import Any


class BemiError(Exception):
    """What failed, on which object, and (in `fix`) what to do next."""

    def __init__(self, message: str, *, fix: str | None = None) -> None:
        super().__init__(message)
        self.fix = fix


class ConfigError(BemiError):
    """A setting is missing or wrong; the message names its key and where it was read."""


class UsageError(BemiError):
    """Flags of a command do not go together: nothing was done, and the exit code is 2."""


class SetupError(BemiError):
    """A server is not as it must be. Waiting will not help; `fix` says what will."""


class StoreVersionError(SetupError):
    """The destination's schema does not fit this version of Bemi."""


class TableError(SetupError):
    """The rows of one table can't be read; those of others can."""


class RemovedError(SetupError):
    """An operator has removed the source: it is not captured any more, its history stays."""


class RefusedError(SetupError):
    """A server refused a connection for a reason that its words do not tell Bemi.

    Messages are in the server's language: at a worker's start this is wrong settings, later
    it is taken for a server that starts up or is full.
    """


class GapError(SetupError):
    """Changes between the checkpoint and what the source still has are lost."""


class RestoredError(GapError):
    """The source's log lacks a transaction that the history has: it is that of an older copy."""


class PassingError(BemiError):
    """A state that is expected to pass by itself, such as a server that is starting up."""


class SlotBusyError(PassingError):
    """Another process holds the replication slot; the message names it."""


class FencedError(PassingError):
    """The checkpoint was moved by another worker: what this one holds must not be committed."""


class UnknownStateError(BemiError):
    """The history can't tell the state that was asked for; the message says why."""


class ConflictError(BemiError):
    """A plan can't be applied as things are, and nothing was written; `conflicts` says why."""

    def __init__(
        self, message: str, *, conflicts: tuple[Any, ...] = (), fix: str | None = None
    ) -> None:
        super().__init__(message, fix=fix)
        self.conflicts = conflicts


class NotYetError(UnknownStateError):
    """What was asked for lies beyond what is captured by now: it can be waited for."""


class MissingChangesError(BemiError):
    """A stream comes past changes that the history does not have; going on is behind them.

    Of `table`, or of all tables of `source` where that is None; of a partition `root` is the table
    above it. `cause` is a word of `bemi status --coverage`. The positions are those of commits in
    the source's log: from the first one on, and before the other one, or on and on where that is
    None.
    """

    def __init__(
        self,
        message: str,
        *,
        fix: str,
        source: str,
        table: str | None,
        cause: str,
        from_position: str,
        to_position: str | None,
        root: str | None = None,
    ) -> None:
        super().__init__(message, fix=fix)
        self.source = source
        self.table = table
        self.root = table if root is None else root
        self.cause = cause
        self.from_position = from_position
        self.to_position = to_position


class ProtocolError(BemiError):
    """Replication data that does not parse; nothing of it was stored."""


class UncertainWarning(UserWarning):
    """A state was asked for that is not surely known, and is told as far as it is."""
