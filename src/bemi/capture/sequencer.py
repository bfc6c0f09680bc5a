"""Puts logical messages where they were written, among the changes of their transaction.

A message is sent with the place where its record ends, which is where the record behind it begins.
Where the two are of different subtransactions (a savepoint was released in between), PostgreSQL
merges these by place, and may send the change first: it would have the context of before. So a
change is held back until something of another place comes.
https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
"""

from collections.abc import Sequence
from typing import Final, TypeAlias

from bemi.capture.messages import (
    Begin,
    Commit,
    Delete,
    Insert,
    LogicalMessage,
    Message,
    Truncate,
    Update,
)

Placed: TypeAlias = tuple[Message, int]
"""A message of the stream, and the position that it was sent with."""

_CHANGES: Final = frozenset({Insert, Update, Delete, Truncate})
_NOWHERE: Final = -1


class Sequencer:
    """Takes the stream's messages, and gives them in the order in which they were written."""

    def __init__(self) -> None:
        self._held: list[Placed] = []
        """Changes of one place, behind what announces their tables."""
        self._place = _NOWHERE
        """That of the changes that are held, if there are any."""

    def take(self, message: Message, lsn: int) -> Sequence[Placed]:
        """What may go on now, once `message` came, too. Nothing stays behind a commit."""
        kind = type(message)
        held, place = self._held, self._place
        if kind in _CHANGES:
            self._place = lsn
            if lsn == place or place == _NOWHERE:
                held.append((message, lsn))
                return ()
            self._held = [(message, lsn)]
            return held
        if isinstance(message, LogicalMessage) and message.lsn == place:
            return ((message, lsn),)
        if kind in (Begin, Commit, LogicalMessage):
            held.append((message, lsn))
            self._held, self._place = [], _NOWHERE
            return held
        # A table or a type is announced to the change behind it.
        if place == _NOWHERE:
            held.append((message, lsn))
            return ()
        self._held, self._place = [(message, lsn)], _NOWHERE
        return held
