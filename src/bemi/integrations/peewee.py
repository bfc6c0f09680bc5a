"""Sends the current context through Peewee's PostgreSQL databases, over psycopg2 or psycopg 3.

Peewee keeps its connections in autocommit mode and says BEGIN, SAVEPOINT and COMMIT as text, so
all that is left to do is what the integration of the driver does, for each connection.
"""

import weakref
from collections.abc import Callable
from typing import Any, Unpack

import peewee

from bemi.context.sender import Options, Sender


def install(
    database: Any,
    **options: Unpack[Options],
) -> None:
    """Makes the connections that a database opens send the context; this thread's open one, too.

    Once for each database, before it is used. `options`: see `bemi.context.sender.Options`.
    Raises TypeError for what is no database of PostgreSQL, or an asynchronous one.
    """
    _refuse_others(database)
    Sender(**options)  # a misspelt one is told here, and not when a connection is made
    connect: Callable[[], Any] = database._connect  # noqa: SLF001 - for subclasses to override
    # A pool gives a connection again, with what it knows.
    known: weakref.WeakSet[Any] = weakref.WeakSet()

    def follow(connection: Any) -> None:
        if connection not in known:
            known.add(connection)
            _driver(connection).install(connection, **options)

    def connect_and_follow() -> Any:
        connection = connect()
        follow(connection)
        return connection

    database._connect = connect_and_follow  # noqa: SLF001
    if not database.is_closed():
        follow(database.connection())


def _refuse_others(database: object) -> None:
    if not isinstance(database, peewee.PostgresqlDatabase) or hasattr(database, "aconnect"):
        raise TypeError(
            f"{type(database).__qualname__} is no synchronous database of Peewee on PostgreSQL"
        )


def _driver(connection: Any) -> Any:
    libraries = {base.__module__.partition(".")[0] for base in type(connection).__mro__}
    if "psycopg2" in libraries:
        from bemi.integrations import psycopg2

        return psycopg2
    from bemi.integrations import psycopg

    return psycopg
