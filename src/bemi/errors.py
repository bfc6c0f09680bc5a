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
├── UnknownStateError   what was asked for lies in a gap, or outside of what was tracked
└── ProtocolError      replication data that does not parse
"""


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


class ProtocolError(BemiError):
    """Replication data that does not parse; nothing of it was stored."""
