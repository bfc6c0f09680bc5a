"""Sends the current context through psycopg 3: before the first write of each transaction, by
itself (`Connection`, `AsyncConnection`, `install`), or when it is told to (`emit`).

The message travels with the write that it belongs to, in one round trip. In autocommit mode a
transaction around the two is in it as well.
"""

import warnings
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Unpack, overload

import psycopg

from bemi.context.sender import Options, Sender
from bemi.integrations.psycopg.around import (
    IDLE,
    INERROR,
    async_may_send,
    async_send,
    attach,
    may_send,
    send,
    sender_of,
)
from bemi.integrations.psycopg.classes import tracking


@overload
def emit(connection: "psycopg.Connection[Any]") -> None: ...
@overload
def emit(connection: "psycopg.AsyncConnection[Any]") -> Awaitable[None]: ...
def emit(
    connection: "psycopg.Connection[Any] | psycopg.AsyncConnection[Any]",
) -> Awaitable[None] | None:
    """Sends what is current, `{}` too, so that an earlier context of the transaction ends.

    To be awaited for an AsyncConnection. Sends nothing into a transaction that has failed, and
    warns where there is none that it could belong to: in autocommit mode outside of a block.
    """
    if isinstance(connection, psycopg.AsyncConnection):
        return _emit_async(connection)
    if _takes_message(connection):
        sender = sender_of(connection)
        if may_send(connection, sender):
            due = sender.now()
            send(connection, due)
            sender.sent(due)
    return None


async def _emit_async(connection: "psycopg.AsyncConnection[Any]") -> None:
    if _takes_message(connection):
        sender = sender_of(connection)
        if await async_may_send(connection, sender):
            due = sender.now()
            await async_send(connection, due)
            sender.sent(due)


def _takes_message(
    connection: "psycopg.Connection[Any] | psycopg.AsyncConnection[Any]",
) -> bool:
    status = connection.info.transaction_status
    if status == IDLE and connection.autocommit:
        warnings.warn(
            "bemi.emit was called in autocommit mode outside of a transaction, where no write can"
            " follow in the same one; call it inside `with connection.transaction():`",
            RuntimeWarning,
            stacklevel=4,
        )
        return False
    return status != INERROR


# --- by itself -------------------------------------------------------------------------------


def install(
    connection: "psycopg.Connection[Any] | psycopg.AsyncConnection[Any]",
    **options: Unpack[Options],
) -> None:
    """Makes an open connection send the context of its transactions.

    Cursors that it has made before go on without. `options`: see `bemi.context.sender.Options`.
    """
    base: type = type(connection)
    connection.__class__ = tracking(base)
    state = connection.__dict__
    if "cursor_factory" in state:  # else it was one already, and gets other options
        state["bemi_cursor_factory"] = state.pop("cursor_factory")
    attach(connection, Sender(**options))


if TYPE_CHECKING:
    Connection = psycopg.Connection
    AsyncConnection = psycopg.AsyncConnection
else:
    Connection = tracking(psycopg.Connection)
    AsyncConnection = tracking(psycopg.AsyncConnection)
