"""Sends the current context through Piccolo: its connections to PostgreSQL are asyncpg's, and
`install` makes them such as send it, of which the tables and transactions need not know."""

from typing import Unpack

from piccolo.engine.postgres import PostgresEngine

from bemi.context.sender import Options
from bemi.errors import BemiError
from bemi.integrations.asyncpg import connection_class


def install(
    engine: PostgresEngine,
    **options: Unpack[Options],
) -> None:
    """Makes an engine send the context of its transactions, in its pool and without one.

    To be called before its pool is started, as in `piccolo_conf.py`. `options`: see
    `bemi.context.sender.Options`. Raises BemiError when the pool is there already.
    """
    if not isinstance(engine, PostgresEngine):
        raise TypeError(f"{type(engine).__qualname__} is no engine of Piccolo on PostgreSQL")
    if engine.pool is not None:
        raise BemiError(
            "the pool of this engine has connections already, which would send no context",
            fix="call install before start_connection_pool",
        )
    engine.config = {**engine.config, "connection_class": connection_class(**options)}
