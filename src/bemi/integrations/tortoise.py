"""Sends the current context through Tortoise ORM: its connections to PostgreSQL are asyncpg's, and
`tracked` makes them such as send it, of which the models and transactions need not know."""

from collections.abc import Mapping
from typing import Any, Unpack

from tortoise.backends.base.config_generator import expand_db_url

from bemi.context.sender import Options
from bemi.errors import BemiError
from bemi.integrations.asyncpg import connection_class


def tracked(
    connection: str | Mapping[str, Any],
    **options: Unpack[Options],
) -> dict[str, Any]:
    """A connection of Tortoise's `config`, as a URL or a mapping, that sends the context.

        await Tortoise.init(config={"connections": {"default": tracked(url)}, "apps": …})

    `options`: see `bemi.context.sender.Options`. Raises BemiError for connections that are not
    asyncpg's.
    """
    given = expand_db_url(connection) if isinstance(connection, str) else connection
    if given.get("engine") != "tortoise.backends.asyncpg":
        raise BemiError(
            f"contexts can't be sent through the engine {given.get('engine')} of Tortoise",
            fix='use a URL that begins with "asyncpg:", or the engine "tortoise.backends.asyncpg"',
        )
    kind = connection_class(**options)
    return {**given, "credentials": {**given["credentials"], "connection_class": kind}}
