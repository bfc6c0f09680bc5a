"""What goes around one statement of a connection, so that the context is in its transaction."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import pq, sql
from psycopg.rows import tuple_row

from bemi.context.sender import CHECK, Due, Sender
from bemi.context.statements import Statement

if TYPE_CHECKING:
    from psycopg.abc import Query

IDLE: Final = pq.TransactionStatus.IDLE
INTRANS: Final = pq.TransactionStatus.INTRANS
INERROR: Final = pq.TransactionStatus.INERROR


@contextlib.contextmanager
def sent(conn: Any, query: "Query | Statement", *, alone: bool = False) -> Iterator[None]:
    """Around a statement, so that the context is in its transaction; `alone`: the statement can't
    be sent in a pipeline."""
    statement, due = _due(conn, query)
    sender: Sender = conn.bemi_sender
    if due is not None and not may_send(conn, sender):
        due = None
    with contextlib.ExitStack() as stack:
        if due is not None:
            if not alone and _pipelines(conn, statement):
                stack.enter_context(_pipeline(conn, due))
            elif due.wrap:
                stack.enter_context(psycopg.Connection.transaction(conn))
            send(conn, due)
        yield
    if due is not None:
        sender.sent(due)
    sender.ran(statement)


def may_send(conn: Any, sender: Sender) -> bool:
    """Whether the role may; asked once for each connection."""
    if sender.allowed is not None:
        return sender.allowed
    cursor = psycopg.Cursor(conn, row_factory=tuple_row)
    return sender.checked(cursor.execute(CHECK, prepare=False).fetchone())


def send(conn: Any, due: Due) -> None:
    psycopg.Cursor(conn).execute(due.statement("%s").encode(), (due.content,), prepare=False)


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
        if conn.pgconn.transaction_status in (INTRANS, INERROR):
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
        if conn.pgconn.transaction_status in (INTRANS, INERROR):
            await psycopg.AsyncCursor(conn).execute(b"rollback", prepare=False)
        raise


@contextlib.asynccontextmanager
async def async_sent(
    conn: Any, query: "Query | Statement", *, alone: bool = False
) -> AsyncIterator[None]:
    """The same of asynchronous connections."""
    statement, due = _due(conn, query)
    sender: Sender = conn.bemi_sender
    if due is not None and not await async_may_send(conn, sender):
        due = None
    async with contextlib.AsyncExitStack() as stack:
        if due is not None:
            if not alone and _pipelines(conn, statement):
                await stack.enter_async_context(_async_pipeline(conn, due))
            elif due.wrap:
                await stack.enter_async_context(psycopg.AsyncConnection.transaction(conn))
            await async_send(conn, due)
        yield
    if due is not None:
        sender.sent(due)
    sender.ran(statement)


async def async_may_send(conn: Any, sender: Sender) -> bool:
    """The same of asynchronous connections."""
    if sender.allowed is not None:
        return sender.allowed
    cursor = psycopg.AsyncCursor(conn, row_factory=tuple_row)
    return sender.checked(await (await cursor.execute(CHECK, prepare=False)).fetchone())


async def async_send(conn: Any, due: Due) -> None:
    statement = due.statement("%s").encode()
    await psycopg.AsyncCursor(conn).execute(statement, (due.content,), prepare=False)


def _due(conn: Any, query: "Query | Statement") -> tuple[Statement, Due | None]:
    """What a statement does, and what is to be sent before it."""
    sender: Sender = conn.bemi_sender
    text: str | bytes = ""
    if isinstance(query, Statement):
        statement = query
    else:
        text = _text(query, conn)
        statement = sender.statement(text)
    pgconn = conn.pgconn
    status = pgconn.transaction_status
    if status == INERROR:
        return statement, None
    in_transaction = status != IDLE
    autocommit = conn.autocommit
    if pgconn.pipeline_status != pq.PipelineStatus.OFF:
        # The status is that of the last round trip. A pipeline in autocommit mode has
        # transactions that end where it is synchronised: each write brings its own message.
        if autocommit and status != INTRANS:
            sender.ended()
        in_transaction = True
    return statement, sender.due(
        statement, in_transaction=in_transaction, autocommit=autocommit, text=text
    )


def _pipelines(conn: Any, statement: Statement) -> bool:
    """Whether message and statement can share a round trip."""
    return (
        not statement.several
        and conn.pgconn.pipeline_status == pq.PipelineStatus.OFF
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
