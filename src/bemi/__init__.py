"""Who, where and why, for every change of a PostgreSQL database: what an application imports.

    with bemi.context(user_id=42), connection.transaction():
        bemi.emit(connection)
        connection.execute("update todo set done = true where id = 1")

Loads the standard library only; `bemi.History`, which asks the history questions, and
`bemi.stream`, which gives changes as they come, need what `bemi[worker]` installs, and
`bemi.embed_token` what `bemi[embed]` does.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from bemi.context import (
    clear_context,
    command_context,
    context,
    current_context,
    merge_context,
    outgoing_headers,
    set_context,
)
from bemi.errors import BemiError, MissingChangesError

if TYPE_CHECKING:
    from bemi.history.history import History as History
    from bemi.history.stream import stream as stream
    from bemi.integrations.embed import embed_token as embed_token

__version__ = "0.1.0"

__all__ = [
    "BemiError",
    "MissingChangesError",
    "clear_context",
    "command_context",
    "context",
    "current_context",
    "emit",
    "merge_context",
    "outgoing_headers",
    "set_context",
]

_LATER: Final = {
    "History": ("bemi.history.history", "worker"),
    "embed_token": ("bemi.integrations.embed", "embed"),
    "stream": ("bemi.history.stream", "worker"),
}

_LIBRARIES: Final = ("psycopg", "psycopg2", "asyncpg", "sqlalchemy")


def emit(connection: Any) -> Any:
    """Sends the current context into the connection's open transaction.

    It applies to the writes that follow in that transaction, until the next one is sent. For an
    asynchronous connection: `await bemi.emit(connection)`. Knows the connections of psycopg 3,
    psycopg2, asyncpg and SQLAlchemy, and its sessions; raises BemiError for others.
    """
    libraries = {base.__module__.partition(".")[0] for base in type(connection).__mro__}
    for library in _LIBRARIES:
        if library in libraries:
            return import_module(f"bemi.integrations.{library}").emit(connection)
    raise BemiError(
        f"emit does not know connections of the type {type(connection).__qualname__}",
        fix="run this in the transaction, with a JSON object as the parameter: "
        "select pg_logical_emit_message(true, '_bemi', $1::text)",
    )


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, extra = _LATER[name]
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        raise BemiError(
            f"bemi.{name} needs {error.name}", fix=f"pip install 'bemi[{extra}]'"
        ) from error
