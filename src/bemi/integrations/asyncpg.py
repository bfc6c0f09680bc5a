"""Sends the current context through asyncpg: before the first write of each transaction, by itself
(`Connection`, `connection_class`, `install`), or when it is told to (`emit`).

asyncpg has no pipeline, so a message is a round trip. In autocommit mode it goes with the BEGIN of
a transaction around the statement, which a COMMIT ends: two round trips.
"""

import contextlib
import functools
import warnings
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any, Final, Unpack

import asyncpg
from asyncpg.cursor import CursorFactory, CursorIterator
from asyncpg.prepared_stmt import PreparedStatement

from bemi.context.sender import CHECK, Due, Options, Sender

# What is sent together with BEGIN can have no parameters, and parameters would go through the
# codecs and the statement cache of the application. Digits can't be anything but data.
_DIGITS: Final = "pg_catalog.convert_from(pg_catalog.decode('{}', 'hex'), 'UTF8')"

_Call = Callable[[], Awaitable[Any]]


async def emit(connection: Any) -> None:
    """Sends what is current, `{}` too, so that an earlier context of the transaction ends.

    Sends nothing into a transaction that has failed, and warns where there is none that it could
    belong to.
    """
    if not connection.is_in_transaction():
        warnings.warn(
            "bemi.emit was called outside of a transaction, where no write can follow in the same"
            " one; call it inside `async with connection.transaction():`",
            RuntimeWarning,
            stacklevel=2,
        )
        return
    sender = sender_of(connection)
    with contextlib.suppress(asyncpg.InFailedSQLTransactionError):
        if await _may_send(connection, sender):
            due = sender.now()
            await asyncpg.Connection.execute(_plain(connection), _statement(due))
            sender.sent(due)


def sender_of(connection: Any) -> Sender:
    """What knows whether a connection may send; of one that was not installed, no more."""
    connection = _plain(connection)
    state = getattr(connection, "bemi_state", None)
    return _others.setdefault(connection, Sender()) if state is None else state.sender


_others: Final[weakref.WeakKeyDictionary[Any, Sender]] = weakref.WeakKeyDictionary()
"""Of connections that only `emit` has been called with."""


# --- by itself -------------------------------------------------------------------------------


def install(
    connection: Any,
    **options: Unpack[Options],
) -> None:
    """Makes an open connection send the context of its transactions.

    Statements that it has prepared before go on without. `options`: see
    `bemi.context.sender.Options`.
    """
    connection = _plain(connection)
    if not isinstance(connection, asyncpg.Connection):
        raise TypeError(
            f"{type(connection).__qualname__} is no connection of asyncpg; for a pool:"
            " create_pool(…, connection_class=Connection)"
        )
    base: Any = type(connection)
    bases = (base,) if issubclass(base, _Tracking) else (_Tracking, base)

    # A class of its own for each: an object's class can change, but not what attributes it has.
    class Installed(*bases):  # type: ignore[misc]
        __slots__ = ()
        bemi_state = _State(Sender(**options))

    Installed.__name__, Installed.__qualname__ = base.__name__, base.__qualname__
    connection.__class__ = Installed


def connection_class(
    **options: Unpack[Options],
) -> Any:
    """A class of connections that send the context, with the options of `install`.

    For `asyncpg.connect` and `asyncpg.create_pool`, as their `connection_class`.
    """

    Sender(**options)  # a misspelt one is told here, and not when a connection is made

    class Connection(_Tracking, asyncpg.Connection):  # type: ignore[misc]
        __slots__ = ("bemi_state",)

        def __init__(self, *args: Any, **more: Any) -> None:
            super().__init__(*args, **more)
            self.bemi_state = _State(Sender(**options))

    return Connection


class _State:
    """What belongs to one connection. `busy`: between a message and its statement."""

    __slots__ = ("busy", "sender")

    def __init__(self, sender: Sender) -> None:
        self.sender = sender
        self.busy = False


class _Tracking:
    """What is added to a class of connections. Blocks of `transaction()` need nothing: they send
    their statements through `execute`, as does a pool that resets a connection."""

    __slots__ = ()

    async def execute(self, query: str, *args: Any, **options: Any) -> Any:
        return await _run(self, query, _call(super(), "execute", query, *args, **options))

    async def executemany(self, command: str, args: Any, **options: Any) -> Any:
        return await _run(self, command, _call(super(), "executemany", command, args, **options))

    async def fetch(self, query: str, *args: Any, **options: Any) -> Any:
        return await _run(self, query, _call(super(), "fetch", query, *args, **options))

    async def fetchval(self, query: str, *args: Any, **options: Any) -> Any:
        return await _run(self, query, _call(super(), "fetchval", query, *args, **options))

    async def fetchrow(self, query: str, *args: Any, **options: Any) -> Any:
        return await _run(self, query, _call(super(), "fetchrow", query, *args, **options))

    async def fetchmany(self, query: str, args: Any, **options: Any) -> Any:
        return await _run(self, query, _call(super(), "fetchmany", query, args, **options))

    async def copy_from_query(self, query: str, *args: Any, **options: Any) -> Any:
        return await _run(self, query, _call(super(), "copy_from_query", query, *args, **options))

    async def copy_to_table(self, table_name: str, **options: Any) -> Any:
        call = _call(super(), "copy_to_table", table_name, **options)
        return await _run(self, _copy(table_name, options), call)

    async def copy_records_to_table(self, table_name: str, **options: Any) -> Any:
        call = _call(super(), "copy_records_to_table", table_name, **options)
        return await _run(self, _copy(table_name, options), call)

    async def prepare(self, query: str, **options: Any) -> Any:
        _not_busy(self)
        prepared = await super().prepare(query, **options)  # type: ignore[misc]
        prepared.__class__ = _Prepared
        return prepared

    def cursor(self, query: str, *args: Any, **options: Any) -> Any:
        factory = super().cursor(query, *args, **options)  # type: ignore[misc]
        factory.__class__ = _Cursor
        return factory


class _Prepared(PreparedStatement):  # type: ignore[misc]
    __slots__ = ()

    async def fetch(self, *args: Any, **options: Any) -> Any:
        return await self._bemi_run("fetch", _call(super(), "fetch", *args, **options))

    async def fetchval(self, *args: Any, **options: Any) -> Any:
        return await self._bemi_run("fetchval", _call(super(), "fetchval", *args, **options))

    async def fetchrow(self, *args: Any, **options: Any) -> Any:
        return await self._bemi_run("fetchrow", _call(super(), "fetchrow", *args, **options))

    async def fetchmany(self, args: Any, **options: Any) -> Any:
        return await self._bemi_run("fetchmany", _call(super(), "fetchmany", args, **options))

    async def executemany(self, args: Any, **options: Any) -> Any:
        return await self._bemi_run("executemany", _call(super(), "executemany", args, **options))

    def cursor(self, *args: Any, **options: Any) -> Any:
        factory = super().cursor(*args, **options)
        factory.__class__ = _Cursor
        return factory

    async def _bemi_run(self, method: str, call: _Call) -> Any:
        # The connection may be in a pool again, and somebody else's.
        self._check_conn_validity(method)
        return await _run(self._connection, self._query, call)


class _Cursor(CursorFactory):  # type: ignore[misc]
    """Where there is no transaction, asyncpg says that a cursor needs one."""

    __slots__ = ()

    def __aiter__(self) -> AsyncIterator[Any]:
        rows: Any = super().__aiter__()
        rows.__class__ = _Rows
        found: AsyncIterator[Any] = rows
        return found

    def __await__(self) -> Generator[Any, None, Any]:
        self._check_conn_validity("__await__")
        if self._connection.is_in_transaction():
            yield from _run(self._connection, self._query, _nothing).__await__()
        return (yield from super().__await__())


class _Rows(CursorIterator):  # type: ignore[misc]
    __slots__ = ()

    async def __anext__(self) -> Any:
        if not self._portal_name and not self._exhausted:
            self._check_conn_validity("__anext__")
            if self._connection.is_in_transaction():
                await _run(self._connection, self._query, _nothing)
        return await super().__anext__()


def _call(library: Any, method: str, *args: Any, **options: Any) -> _Call:
    """A call of the library's own method, which may have to be made twice."""
    return functools.partial(getattr(library, method), *args, **options)


def _copy(table: str, options: dict[str, Any]) -> str:
    """What asyncpg makes of it, or nearly: to know what it does, and for `sql`."""
    names = [name for name in (options.get("schema_name"), table) if name is not None]
    quoted = ('"{}"'.format(name.replace('"', '""')) for name in names)
    return f"copy {'.'.join(quoted)} from stdin"


async def _nothing() -> None:
    """A cursor's statement, which runs when its rows are fetched."""


async def _run(con: Any, query: str, call: _Call) -> Any:
    """Makes a call that runs a statement, with the context in its transaction."""
    _not_busy(con)
    if con.is_closed():
        return await call()  # which says so
    sender: Sender = con.bemi_state.sender
    statement = sender.statement(query)
    due = sender.due(statement, in_transaction=con.is_in_transaction(), autocommit=True, text=query)
    con.bemi_state.busy = due is not None
    try:
        if due is not None and due.wrap:
            result = await _run_alone(con, due, call)
        else:
            if due is not None:
                # Of a transaction that has failed the statement speaks itself, unless it is a
                # COMMIT.
                with contextlib.suppress(asyncpg.InFailedSQLTransactionError):
                    if await _may_send(con, sender):
                        await asyncpg.Connection.execute(con, _statement(due))
                        sender.sent(due)
            result = await call()
    except BaseException:
        sender.failed(statement)
        raise
    finally:
        con.bemi_state.busy = False
    sender.ran(statement)
    return result


async def _may_send(con: Any, sender: Sender) -> bool:
    """Whether the role may; asked once for each connection."""
    if sender.allowed is not None:
        return sender.allowed
    fetchrow = asyncpg.Connection.fetchrow
    return sender.checked(await fetchrow(_plain(con), CHECK, record_class=asyncpg.Record))


def _plain(connection: Any) -> Any:
    """The connection itself, which a pool gives a proxy of."""
    if isinstance(connection, asyncpg.pool.PoolConnectionProxy):
        return connection._con  # noqa: SLF001 - no other way leads to it
    return connection


async def _run_alone(con: Any, due: Due, call: _Call) -> Any:
    """Outside of a transaction: in one of its own."""
    if not await _may_send(con, con.bemi_state.sender):
        return await call()
    try:
        return await _in_transaction(con, due, call)
    except asyncpg.InvalidCachedStatementError:
        # It did not run, since a table was altered. asyncpg has forgotten what it prepared, and
        # would have tried again, but does not in a transaction.
        return await _in_transaction(con, due, call)


async def _in_transaction(con: Any, due: Due, call: _Call) -> Any:
    """As autocommit has it, COMMIT comes after a failure, too: what has failed on the server is
    rolled back by it, and what only failed here, as an answer that can't be decoded, stands."""
    execute = functools.partial(asyncpg.Connection.execute, con)
    begun = False
    try:
        await execute(f"begin; {_statement(due)}")
        begun = True
        try:
            result = await call()
        except BaseException:
            with contextlib.suppress(Exception):
                await execute("commit")
            raise
        await execute("commit")
    except BaseException:
        # One that was cancelled may not have come through.
        if not con.is_closed() and (not begun or con.is_in_transaction()):
            with contextlib.suppress(Exception):
                await execute("rollback")
        raise
    return result


def _not_busy(con: Any) -> None:
    # asyncpg refuses what comes in between, but can't see that we are between two statements.
    if con.bemi_state.busy:
        raise asyncpg.InterfaceError("cannot perform operation: another operation is in progress")


def _statement(due: Due) -> str:
    return due.statement(_DIGITS.format(due.content.encode().hex()))


if TYPE_CHECKING:
    Connection = asyncpg.Connection
else:
    Connection = connection_class()
