"""Sends the current context through psycopg 3: before the first write of each transaction, by
itself (`Connection`, `AsyncConnection`, `install`), or when it is told to (`emit`).

The message travels with the write that it belongs to, in one round trip. In autocommit mode a
transaction around the two is in it as well.
"""

import contextlib
import functools
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from typing import TYPE_CHECKING, Any, Final, overload

import psycopg
from psycopg import pq, sql
from psycopg.rows import tuple_row

from bemi.context import current_context, wire
from bemi.context.sender import CHECK, COMMIT, EMIT, Due, Sender
from bemi.context.statements import Statement

if TYPE_CHECKING:
    from psycopg.abc import Params, Query

_IDLE: Final = pq.TransactionStatus.IDLE
_INERROR: Final = pq.TransactionStatus.INERROR
_OPEN: Final = (pq.TransactionStatus.INTRANS, _INERROR)


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
        connection.execute(EMIT, _parameters(), prepare=False)
    return None


async def _emit_async(connection: "psycopg.AsyncConnection[Any]") -> None:
    if _takes_message(connection):
        await connection.execute(EMIT, _parameters(), prepare=False)


def _takes_message(
    connection: "psycopg.Connection[Any] | psycopg.AsyncConnection[Any]",
) -> bool:
    status = connection.info.transaction_status
    if status == _IDLE and connection.autocommit:
        warnings.warn(
            "bemi.emit was called in autocommit mode outside of a transaction, where no write can"
            " follow in the same one; call it inside `with connection.transaction():`",
            RuntimeWarning,
            stacklevel=4,
        )
        return False
    return status != _INERROR


def _parameters() -> tuple[str, str]:
    return wire.PREFIX, wire.encode(current_context())


# --- by itself -------------------------------------------------------------------------------


def install(
    connection: "psycopg.Connection[Any] | psycopg.AsyncConnection[Any]",
    *,
    functions: Collection[str] = (),
    check_at_commit: bool = False,
    sql: bool = False,
    redact: bool = True,
) -> None:
    """Makes an open connection send the context of its transactions.

    Cursors that it has made before go on without. `functions`: names of functions whose calls
    count as writes. `check_at_commit`: also what nobody saw write, asked at COMMIT. `sql`: each
    statement that writes has its text in its changes' context, as `SQL`, never with parameters.
    `redact=False` keeps members that look like secrets.
    """
    base: type = type(connection)
    connection.__class__ = _tracking(base)
    state = connection.__dict__
    if "cursor_factory" in state:  # else it was one already, and gets other options
        state["bemi_cursor_factory"] = state.pop("cursor_factory")
    state["bemi_sender"] = Sender(
        functions=functions, check_at_commit=check_at_commit, sql=sql, redact=redact
    )


class _Shared:
    """What synchronous and asynchronous connections have alike: the sender, and their cursors."""

    bemi_cursor_factory: type

    @functools.cached_property
    def bemi_sender(self) -> Sender:
        return Sender()

    @property
    def cursor_factory(self) -> type:
        tracking: type = _tracking(self.bemi_cursor_factory)
        return tracking

    @cursor_factory.setter
    def cursor_factory(self, factory: type) -> None:
        self.bemi_cursor_factory = factory

    def bemi_due(self, query: "Query | Statement") -> tuple[Statement, Due | None]:
        """What a statement does, and what is to be sent before it."""
        sender = self.bemi_sender
        text: str | bytes = ""
        if isinstance(query, Statement):
            statement = query
        else:
            text = _text(query, self)
            statement = sender.statement(text)
        pgconn = self.pgconn  # type: ignore[attr-defined]
        status = pgconn.transaction_status
        if status == _INERROR:
            return statement, None
        in_transaction = status != _IDLE
        autocommit = self.autocommit  # type: ignore[attr-defined]
        if pgconn.pipeline_status != pq.PipelineStatus.OFF:
            # The status is that of the last round trip. A pipeline in autocommit mode has
            # transactions that end where it is synchronised: each write brings its own message.
            if autocommit and status != pq.TransactionStatus.INTRANS:
                sender.ended()
            in_transaction = True
        return statement, sender.due(
            statement, in_transaction=in_transaction, autocommit=autocommit, text=text
        )

    def bemi_pipelines(self, statement: Statement) -> bool:
        """Whether message and statement can share a round trip."""
        pgconn = self.pgconn  # type: ignore[attr-defined]
        return (
            not statement.several
            and pgconn.pipeline_status == pq.PipelineStatus.OFF
            and psycopg.Pipeline.is_supported()
        )


def _text(query: "Query", connection: Any) -> str | bytes:
    if isinstance(query, str | bytes):
        return query
    if isinstance(query, sql.Composable):
        return _without_values(query).as_string(connection)
    return " $ ".join(query.strings)  # a template string


def _without_values(part: sql.Composable) -> sql.Composable:
    """A statement that was put together, as if its values were parameters."""
    if isinstance(part, sql.Literal):
        return sql.Placeholder()
    if isinstance(part, sql.Composed):
        return sql.Composed([_without_values(each) for each in part])
    return part


def _sync_connection(base: Any) -> type:
    """A class of synchronous connections that send contexts, made of one that does not."""

    class Tracking(base, _Shared):  # type: ignore[misc]
        def commit(self) -> None:
            with _sent(self, COMMIT):
                super().commit()

        def rollback(self) -> None:
            super().rollback()
            self.bemi_sender.ended()

        def tpc_begin(self, xid: "psycopg.Xid | str") -> None:
            super().tpc_begin(xid)
            self.bemi_sender.ended()

        def tpc_prepare(self) -> None:
            with _sent(self, COMMIT, alone=True):
                super().tpc_prepare()

        @contextlib.contextmanager
        def transaction(
            self, savepoint_name: str | None = None, force_rollback: bool = False
        ) -> Iterator[psycopg.Transaction]:
            with (
                _followed(self, self.bemi_sender, force_rollback) as block,
                super().transaction(savepoint_name, force_rollback) as transaction,
            ):
                with block:
                    yield transaction
                    if block.outermost:
                        with _sent(self, COMMIT, alone=True):
                            pass

    return Tracking


def _async_connection(base: Any) -> type:
    """The same of asynchronous ones."""

    class Tracking(base, _Shared):  # type: ignore[misc]
        async def commit(self) -> None:
            async with _async_sent(self, COMMIT):
                await super().commit()

        async def rollback(self) -> None:
            await super().rollback()
            self.bemi_sender.ended()

        async def tpc_begin(self, xid: "psycopg.Xid | str") -> None:
            await super().tpc_begin(xid)
            self.bemi_sender.ended()

        async def tpc_prepare(self) -> None:
            async with _async_sent(self, COMMIT, alone=True):
                await super().tpc_prepare()

        @contextlib.asynccontextmanager
        async def transaction(
            self, savepoint_name: str | None = None, force_rollback: bool = False
        ) -> AsyncIterator[psycopg.AsyncTransaction]:
            with _followed(self, self.bemi_sender, force_rollback) as block:
                async with super().transaction(savepoint_name, force_rollback) as transaction:
                    with block:
                        yield transaction
                        if block.outermost:
                            async with _async_sent(self, COMMIT, alone=True):
                                pass

    return Tracking


class _Block:
    """What the body of a block of `transaction()` runs in, which sees whether it failed: the
    block itself may swallow that. `outermost`: it is no savepoint."""

    def __init__(self, outermost: bool, lost: bool) -> None:
        self.outermost = outermost
        self.lost = lost

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.lost = self.lost or kind is not None


@contextlib.contextmanager
def _followed(connection: Any, sender: Sender, lost: bool) -> Iterator[_Block]:
    """Follows a block of `transaction()`: a savepoint, where one is open already."""
    outermost = connection.pgconn.transaction_status == _IDLE
    if connection.pgconn.pipeline_status != pq.PipelineStatus.OFF:
        outermost = (
            connection.autocommit
            and connection.pgconn.transaction_status != pq.TransactionStatus.INTRANS
        )
    block = _Block(outermost, lost)
    mark = f" {sender.depth}"  # no name that SQL has
    if outermost:
        sender.ended()
    else:
        sender.set_savepoint(mark)
    try:
        yield block
    finally:
        if outermost:
            sender.ended()
        elif block.lost:
            sender.rolled_back_to(mark)
        sender.released(mark)


def _sync_cursor(base: Any) -> type:
    """A class of cursors that send what is due before each statement."""

    class Tracking(base):  # type: ignore[misc]
        __slots__ = ()
        bemi_tracks = True

        def execute(self, query: "Query", params: "Params | None" = None, **options: Any) -> Any:
            with _sent(self.connection, query):
                return super().execute(query, params, **options)

        def executemany(self, query: "Query", params_seq: Any, **options: Any) -> None:
            with _sent(self.connection, query):
                super().executemany(query, params_seq, **options)

        def stream(self, query: "Query", params: "Params | None" = None, **options: Any) -> Any:
            with _sent(self.connection, query, alone=True):
                yield from super().stream(query, params, **options)

        @contextlib.contextmanager
        def copy(self, statement: "Query", params: "Params | None" = None, **options: Any) -> Any:
            with (
                _sent(self.connection, statement, alone=True),
                super().copy(statement, params, **options) as copy,
            ):
                yield copy

    return Tracking


def _async_cursor(base: Any) -> type:
    """The same of asynchronous ones."""

    class Tracking(base):  # type: ignore[misc]
        __slots__ = ()
        bemi_tracks = True

        async def execute(
            self, query: "Query", params: "Params | None" = None, **options: Any
        ) -> Any:
            async with _async_sent(self.connection, query):
                return await super().execute(query, params, **options)

        async def executemany(self, query: "Query", params_seq: Any, **options: Any) -> None:
            async with _async_sent(self.connection, query):
                await super().executemany(query, params_seq, **options)

        async def stream(
            self, query: "Query", params: "Params | None" = None, **options: Any
        ) -> Any:
            async with _async_sent(self.connection, query, alone=True):
                async for row in super().stream(query, params, **options):
                    yield row

        @contextlib.asynccontextmanager
        async def copy(
            self, statement: "Query", params: "Params | None" = None, **options: Any
        ) -> AsyncIterator[Any]:
            async with (
                _async_sent(self.connection, statement, alone=True),
                super().copy(statement, params, **options) as copy,
            ):
                yield copy

    return Tracking


@contextlib.contextmanager
def _sent(conn: Any, query: "Query | Statement", *, alone: bool = False) -> Iterator[None]:
    """Around a statement, so that the context is in its transaction; `alone`: the statement can't
    be sent in a pipeline."""
    statement, due = conn.bemi_due(query)
    sender: Sender = conn.bemi_sender
    if due is not None and not sender.allowed:
        cursor = psycopg.Cursor(conn, row_factory=tuple_row)
        due = due if sender.checked(cursor.execute(CHECK, prepare=False).fetchone()) else None
    with contextlib.ExitStack() as stack:
        if due is not None:
            if not alone and conn.bemi_pipelines(statement):
                stack.enter_context(_pipeline(conn, due))
            elif due.wrap:
                stack.enter_context(psycopg.Connection.transaction(conn))
            send = due.statement("%s").encode()
            psycopg.Cursor(conn).execute(send, (due.content,), prepare=False)
        yield
    if due is not None:
        sender.sent(due)
    sender.ran(statement)


@contextlib.contextmanager
def _pipeline(conn: Any, due: Due) -> Iterator[None]:
    """A round trip; in autocommit with a transaction of its own.

    The one that a pipeline is by itself would not do: psycopg gets stuck where its end fails, as
    it does with a deferred constraint.
    """
    if not due.wrap:
        with conn.pipeline():
            yield
        return
    try:
        with conn.pipeline():
            psycopg.Cursor(conn).execute(b"begin", prepare=False)
            yield
            psycopg.Cursor(conn).execute(b"commit", prepare=False)
    except BaseException:
        if conn.pgconn.transaction_status in _OPEN:
            psycopg.Cursor(conn).execute(b"rollback", prepare=False)
        raise


@contextlib.asynccontextmanager
async def _async_pipeline(conn: Any, due: Due) -> AsyncIterator[None]:
    """The same of asynchronous connections."""
    if not due.wrap:
        async with conn.pipeline():
            yield
        return
    try:
        async with conn.pipeline():
            await psycopg.AsyncCursor(conn).execute(b"begin", prepare=False)
            yield
            await psycopg.AsyncCursor(conn).execute(b"commit", prepare=False)
    except BaseException:
        if conn.pgconn.transaction_status in _OPEN:
            await psycopg.AsyncCursor(conn).execute(b"rollback", prepare=False)
        raise


@contextlib.asynccontextmanager
async def _async_sent(
    conn: Any, query: "Query | Statement", *, alone: bool = False
) -> AsyncIterator[None]:
    """The same of asynchronous connections."""
    statement, due = conn.bemi_due(query)
    sender: Sender = conn.bemi_sender
    if due is not None and not sender.allowed:
        cursor = psycopg.AsyncCursor(conn, row_factory=tuple_row)
        answer = await (await cursor.execute(CHECK, prepare=False)).fetchone()
        due = due if sender.checked(answer) else None
    async with contextlib.AsyncExitStack() as stack:
        if due is not None:
            if not alone and conn.bemi_pipelines(statement):
                await stack.enter_async_context(_async_pipeline(conn, due))
            elif due.wrap:
                await stack.enter_async_context(psycopg.AsyncConnection.transaction(conn))
            send = due.statement("%s").encode()
            await psycopg.AsyncCursor(conn).execute(send, (due.content,), prepare=False)
        yield
    if due is not None:
        sender.sent(due)
    sender.ran(statement)


@functools.cache
def _tracking(base: type) -> Any:
    """A connection or cursor class that sends contexts, made of one that does not."""
    if hasattr(base, "bemi_tracks") or issubclass(base, _Shared):
        return base
    makers: dict[type, Callable[[Any], type]] = {
        psycopg.Connection: _sync_connection,
        psycopg.AsyncConnection: _async_connection,
        psycopg.Cursor: _sync_cursor,
        psycopg.AsyncCursor: _async_cursor,
    }
    for library, make in makers.items():
        if issubclass(base, library):
            made = make(base)
            made.__name__, made.__qualname__ = base.__name__, base.__qualname__
            return made
    raise TypeError(f"{base.__qualname__} is no connection or cursor of psycopg")


if TYPE_CHECKING:
    Connection = psycopg.Connection
    AsyncConnection = psycopg.AsyncConnection
else:
    Connection = _tracking(psycopg.Connection)
    AsyncConnection = _tracking(psycopg.AsyncConnection)
