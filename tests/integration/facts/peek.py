"""The messages that PostgreSQL sends from here on, read with SQL before a worker takes them.

Peeking at Bemi's own slot leaves it where it is. The values come as the peeking session's
settings have them.
"""

from typing import Any, TypeAlias, TypeVar

import psycopg

from bemi.capture.decoder import decode
from bemi.capture.messages import Begin, Commit, Delete, Insert, Message, Relation, Update
from tests.integration.facts import stream
from tests.support.tracked import Tracked

Kind = TypeVar("Kind")
RowMessage: TypeAlias = Insert | Update | Delete


def peek(
    at: Tracked, conn: psycopg.Connection[Any] | None = None, *, encoding: str = "utf-8"
) -> list[Message]:
    """The messages to come, as pgoutput writes them in the session of `conn`."""
    conn = conn or at.source
    stream.free(conn, at.settings.slot)
    frames = stream.peek(conn, at.settings.slot, publication=at.settings.publication)
    return [decode(frame.data, encoding) for frame in frames]


def sent(at: Tracked, kind: type[Kind]) -> list[Kind]:
    """Those of one kind."""
    return [message for message in peek(at) if isinstance(message, kind)]


def rows_sent(at: Tracked) -> list[RowMessage]:
    return [message for message in peek(at) if isinstance(message, RowMessage)]


def kinds_sent(at: Tracked) -> list[str]:
    """Their names in order, but for those that begin and end transactions."""
    return [
        type(message).__name__ for message in peek(at) if not isinstance(message, Begin | Commit)
    ]


def columns_sent(at: Tracked) -> list[list[str]]:
    """The columns that each RELATION message announces."""
    return [[column.name for column in message.columns] for message in sent(at, Relation)]
