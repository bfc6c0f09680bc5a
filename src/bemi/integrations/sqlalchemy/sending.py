"""Sends the current context through SQLAlchemy 2: before the first write of each transaction, by
itself (`install`), or when it is told to (`emit`).

The connections of an engine's pool become those of the driver's own integration, so whatever runs
through them is seen: Core, the ORM, text, and what the application does with the driver's
connection itself.
"""

import warnings
from collections.abc import Awaitable
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Unpack, overload

from sqlalchemy import event, text
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.orm import Session

from bemi.context.sender import CHECK, Options, Sender
from bemi.errors import BemiError

if TYPE_CHECKING:
    # Not otherwise: it needs greenlet, which synchronous engines do without.
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
    from sqlalchemy.pool import ConnectionPoolEntry

_INTEGRATIONS: Final = {
    "psycopg": "psycopg",
    "psycopg_async": "psycopg",
    "psycopg2": "psycopg2",
    "asyncpg": "asyncpg",
}
"""By the names that SQLAlchemy's dialects have for their drivers."""

_INSTALLED: Final = "bemi"
"""What a connection's `info` has when it sends contexts."""

_FAILED: Final = "25P02"
"""The transaction has failed: nothing but its end can follow."""


def install(
    engine: "Engine | AsyncEngine",
    **options: Unpack[Options],
) -> None:
    """Makes the connections of an engine send the context of their transactions.

    Those that its pool has open already are replaced when they are next taken. Engines that were
    made of this one with other execution options share its pool, and so this. `options`: see
    `bemi.context.sender.Options`. Raises BemiError for drivers other than psycopg, psycopg2 and
    asyncpg.
    """
    engine = getattr(engine, "sync_engine", engine)
    if not isinstance(engine, Engine):
        raise TypeError(f"{type(engine).__qualname__} is no engine of SQLAlchemy")
    name = _integration_of(engine)
    integration = import_module(f"bemi.integrations.{name}")
    Sender(**options)  # a misspelt one is told here, and not when a connection is made

    @event.listens_for(engine, "connect")
    def connect(_: object, record: "ConnectionPoolEntry") -> None:
        integration.install(record.driver_connection, **options)
        record.info[_INSTALLED] = True

    @event.listens_for(engine, "checkout")
    def checkout(_connection: object, record: "ConnectionPoolEntry", _proxy: object) -> None:
        if _INSTALLED not in record.info:
            # What such a connection has prepared would run unseen.
            raise DisconnectionError("it was opened before bemi was installed")

    if name == "psycopg2":  # whose connections don't let themselves be followed in all they do

        @event.listens_for(engine, "do_connect")
        def do_connect(
            _dialect: object, _record: object, _arguments: object, named: dict[str, Any]
        ) -> None:
            named.setdefault("connection_factory", integration.Connection)


def _integration_of(engine: Engine) -> str:
    """The name of the driver's own. Raises BemiError where there is none."""
    name = _INTEGRATIONS.get(engine.dialect.driver)
    if engine.dialect.name != "postgresql" or name is None:
        raise BemiError(
            f"contexts can't be sent through {engine.dialect.name}+{engine.dialect.driver}",
            fix="use postgresql+psycopg, postgresql+psycopg2 or postgresql+asyncpg",
        )
    return name


@overload
def emit(connection: "Connection | Session") -> None: ...
@overload
def emit(connection: "AsyncConnection | AsyncSession") -> Awaitable[None]: ...
def emit(
    connection: "Connection | Session | AsyncConnection | AsyncSession",
) -> Awaitable[None] | None:
    """Sends what is current, `{}` too, so that an earlier context of the transaction ends.

    To be awaited for an asynchronous connection or session. Sends nothing into a transaction that
    has failed, and warns in autocommit, where no write could follow in the same one.
    """
    if hasattr(connection, "run_sync"):
        return connection.run_sync(_emit)
    if not isinstance(connection, Connection | Session):
        raise TypeError(f"{type(connection).__qualname__} is no connection or session")
    _emit(connection)
    return None


def _emit(connection: "Connection | Session") -> None:
    if isinstance(connection, Session):
        connection = connection.connection()
    integration = import_module(f"bemi.integrations.{_integration_of(connection.engine)}")
    raw: Any = connection.connection.dbapi_connection
    if raw.autocommit:
        warnings.warn(
            "bemi.emit was called in autocommit, where no write can follow in the same"
            " transaction; call it on a connection with another isolation level",
            RuntimeWarning,
            stacklevel=4,
        )
        return
    try:
        sender = integration.sender_of(connection.connection.driver_connection)
        if sender.allowed is None:
            answer = connection.execute(text(CHECK)).first()
            sender.checked(None if answer is None else tuple(answer))
        if sender.allowed:
            due = sender.now()
            connection.execute(text(due.statement(":content")), {"content": due.content})
            sender.sent(due)
    except DBAPIError as error:
        state = getattr(error.orig, "pgcode", None) or getattr(error.orig, "sqlstate", None)
        if state != _FAILED:
            raise
