"""Sends the current context through Piccolo: its connections to PostgreSQL are asyncpg's, and
`install` makes them such as send it, of which the tables and transactions need not know."""

from collections.abc import Collection

from piccolo.engine.postgres import PostgresEngine

from bemi.errors import BemiError
from bemi.integrations.asyncpg import connection_class


def install(
    engine: PostgresEngine,
    *,
    functions: Collection[str] = (),
    check_at_commit: bool = False,
    sql: bool = False,
    redact: bool = True,
) -> None:
    """Makes an engine send the context of its transactions, in its pool and without one.

    To be called before its pool is started, as in `piccolo_conf.py`. `functions`: names of
    functions whose calls count as writes. `check_at_commit`: also what nobody saw write, asked at
    COMMIT. `sql`: each statement that writes has its text in its changes' context, as `SQL`,
    never with parameters. `redact=False` keeps members that look like secrets. Raises BemiError
    when the pool is there already.
    """
    if engine.pool is not None:
        raise BemiError(
            "the pool of this engine has connections already, which would send no context",
            fix="call install before start_connection_pool",
        )
    kind = connection_class(
        functions=functions, check_at_commit=check_at_commit, sql=sql, redact=redact
    )
    engine.config = {**engine.config, "connection_class": kind}
