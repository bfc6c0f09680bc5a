"""Sends the current context through a psycopg 3 connection, as a message in its transaction.

Imports psycopg only for the type checker: a connection that is handed in has loaded it already.
"""

import warnings
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Final, LiteralString, overload

from bemi.context import current_context, wire

if TYPE_CHECKING:
    from psycopg import AsyncConnection, Connection

# A standby takes no messages, and a failing statement would end the application's transaction.
# Cast, because the function exists for text and for bytea.
EMIT: Final[LiteralString] = (
    "select case when not pg_is_in_recovery() "
    "then pg_logical_emit_message(true, %s::text, %s::text) end"
)


@overload
def emit(connection: "Connection[Any]") -> None: ...
@overload
def emit(connection: "AsyncConnection[Any]") -> Awaitable[None]: ...
def emit(connection: "Connection[Any] | AsyncConnection[Any]") -> Awaitable[None] | None:
    """Sends what is current, `{}` too, so that an earlier context of the transaction ends.

    To be awaited for an AsyncConnection. Sends nothing into a transaction that has failed, and
    warns where there is none that it could belong to: in autocommit mode outside of a block.
    """
    from psycopg import AsyncConnection

    if isinstance(connection, AsyncConnection):
        return _emit_async(connection)
    if _takes_message(connection):
        connection.execute(EMIT, _parameters(), prepare=False)
    return None


async def _emit_async(connection: "AsyncConnection[Any]") -> None:
    if _takes_message(connection):
        await connection.execute(EMIT, _parameters(), prepare=False)


def _takes_message(connection: "Connection[Any] | AsyncConnection[Any]") -> bool:
    from psycopg.pq import TransactionStatus

    status = connection.info.transaction_status
    if status == TransactionStatus.IDLE and connection.autocommit:
        warnings.warn(
            "bemi.emit was called in autocommit mode outside of a transaction, where no write can"
            " follow in the same one; call it inside `with connection.transaction():`",
            RuntimeWarning,
            stacklevel=4,
        )
        return False
    return status != TransactionStatus.INERROR


def _parameters() -> tuple[str, str]:
    return wire.PREFIX, wire.encode(current_context())
