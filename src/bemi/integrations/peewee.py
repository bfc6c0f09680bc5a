"""Sends the current context through Peewee's PostgreSQL databases, over psycopg2 or psycopg 3.

Peewee keeps its connections in autocommit mode and says BEGIN, SAVEPOINT and COMMIT as text, so
all that is left to do is what the integration of the driver does, for each connection.
"""

import weakref
from collections.abc import Callable, Collection
from typing import Any

import peewee


def install(
    database: Any,
    *,
    functions: Collection[str] = (),
    check_at_commit: bool = False,
    sql: bool = False,
    redact: bool = True,
) -> None:
    """Makes the connections that a database opens send the context; this thread's open one, too.

    Once for each database, before it is used. `functions`: names of functions whose calls count as
    writes. `check_at_commit`: also what nobody saw write, asked at COMMIT. `sql`: each statement
    that writes has its text in its changes' context, as `SQL`, never with parameters.
    `redact=False` keeps members that look like secrets. Raises TypeError for what is no database
    of PostgreSQL, or an asynchronous one.
    """
    _refuse_others(database)
    connect: Callable[[], Any] = database._connect  # noqa: SLF001 - for subclasses to override
    # A pool gives a connection again, with what it knows.
    known: weakref.WeakSet[Any] = weakref.WeakSet()

    def follow(connection: Any) -> None:
        if connection not in known:
            known.add(connection)
            _driver(connection).install(
                connection,
                functions=functions,
                check_at_commit=check_at_commit,
                sql=sql,
                redact=redact,
            )

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
