"""What goes around one statement of a connection, so that the context is in its transaction.

Synchronous and asynchronous connections each have their own copy of what waits, since psycopg
itself is of two colours; what is decided stands here once.
"""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import pq, sql
from psycopg.rows import tuple_row
from psycopg.types.string import StrDumper

from bemi.context.sender import CHECK, Due, Sender
from bemi.context.statements import Statement

if TYPE_CHECKING:
    from psycopg.abc import Query

IDLE: Final = pq.TransactionStatus.IDLE
INTRANS: Final = pq.TransactionStatus.INTRANS
INERROR: Final = pq.TransactionStatus.INERROR


class _Content(str):
    """Goes as it is, whatever dumper the application has for its own texts."""


def attach(conn: Any, sender: Sender) -> None:
    """Give a connection what is kept of it here: its sender, and the lock around statements."""
    asynchronous = isinstance(conn, psycopg.AsyncConnection)
    conn.bemi_sender, conn.bemi_lock = sender, TaskLock() if asynchronous else threading.RLock()
    conn.adapters.register_dumper(_Content, StrDumper)


def sender_of(conn: Any) -> Sender:
    """What knows whether a connection may send; where there is none yet, one that does no more."""
    if "bemi_sender" not in vars(conn):
        attach(conn, Sender())
    sender: Sender = conn.bemi_sender
    return sender


class TaskLock:
    """What an RLock is among threads: it keeps other tasks out, and who has it may enter again."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._owner: asyncio.Task[Any] | None = None
        self._depth = 0

    async def acquire(self) -> None:
        task = asyncio.current_task()
        if self._owner is not task:
            await self._lock.acquire()
            self._owner = task
        self._depth += 1

    def release(self) -> None:
        self._depth -= 1
        if not self._depth:
            self._owner = None
            self._lock.release()


@contextlib.contextmanager
def sent(conn: Any, query: "Query | Statement", *, alone: bool = False) -> Iterator[None]:
    """Around a statement, so that the context is in its transaction.

    `alone`: it can't be sent in a pipeline, and others may get to the connection while it runs.
    """
    sender: Sender = conn.bemi_sender
    lock, held = conn.bemi_lock, True
    lock.acquire()  # whatever came in between would be in a transaction that is not its own
    try:
        statement, due = _due(conn, query)
        try:
            if due is None or not may_send(conn, sender):
                if alone:
                    lock.release()
                    held = False
                yield
            else:
                with _together(conn, due, pipelined=not alone and _pipelines(conn, statement)):
                    send(conn, due)
                    sender.sent(due)
                    if alone:
                        lock.release()
                        held = False
                    yield
        except BaseException:
            sender.failed(statement)
            raise
        sender.ran(statement)
    finally:
        if held:
            lock.release()


def may_send(conn: Any, sender: Sender) -> bool:
    """Whether the role may; asked once for each connection."""
    if sender.allowed is not None:
        return sender.allowed
    return sender.checked(_own(conn).execute(CHECK, prepare=False).fetchone())


def send(conn: Any, due: Due) -> None:
    _own(conn).execute(due.statement("%s").encode(), (_Content(due.content),), prepare=False)


def _own(conn: Any) -> psycopg.Cursor[Any]:
    """For statements of ours: without what the application has its own cursors do."""
    return psycopg.Cursor(conn, row_factory=tuple_row)


@contextlib.contextmanager
def _together(conn: Any, due: Due, *, pipelined: bool) -> Iterator[None]:
    """What makes one of message and statement: a round trip, and in autocommit a transaction.

    The transaction that a pipeline is by itself would not do: psycopg gets stuck where its end
    fails, as it does with a deferred constraint. Neither would a block of psycopg's, which is of
    the connection's isolation level; in autocommit nothing is. COMMIT comes after a failure, too:
    what has failed on the server is rolled back by it, and what only failed here, or was a stream
    that nobody read to its end, stands as it does in autocommit mode. Of a failure the pipeline
    is not told: it would log what comes of it.
    """
    failure: BaseException | None = None
    try:
        with conn.pipeline() if pipelined else contextlib.nullcontext():
            try:
                if due.wrap:
                    _own(conn).execute(b"begin", prepare=False)
                yield
                if due.wrap:
                    _own(conn).execute(b"commit", prepare=False)
            except BaseException as error:  # noqa: BLE001 - is raised below
                failure = error
    except BaseException as error:  # noqa: BLE001 - as well; of the end of a pipeline
        failure = failure or error
    if failure is not None:
        if due.wrap and conn.pgconn.transaction_status in (INTRANS, INERROR):
            _own(conn).execute(b"commit", prepare=False)
        raise failure


@contextlib.asynccontextmanager
async def async_sent(
    conn: Any, query: "Query | Statement", *, alone: bool = False
) -> AsyncIterator[None]:
    """The same of asynchronous connections."""
    sender: Sender = conn.bemi_sender
    lock, held = conn.bemi_lock, True
    await lock.acquire()
    try:
        statement, due = _due(conn, query)
        try:
            if due is None or not await async_may_send(conn, sender):
                if alone:
                    lock.release()
                    held = False
                yield
            else:
                pipelined = not alone and _pipelines(conn, statement)
                async with _async_together(conn, due, pipelined=pipelined):
                    await async_send(conn, due)
                    sender.sent(due)
                    if alone:
                        lock.release()
                        held = False
                    yield
        except BaseException:
            sender.failed(statement)
            raise
        sender.ran(statement)
    finally:
        if held:
            lock.release()


async def async_may_send(conn: Any, sender: Sender) -> bool:
    if sender.allowed is not None:
        return sender.allowed
    return sender.checked(await (await _async_own(conn).execute(CHECK, prepare=False)).fetchone())


async def async_send(conn: Any, due: Due) -> None:
    statement = due.statement("%s").encode()
    await _async_own(conn).execute(statement, (_Content(due.content),), prepare=False)


def _async_own(conn: Any) -> psycopg.AsyncCursor[Any]:
    return psycopg.AsyncCursor(conn, row_factory=tuple_row)


@contextlib.asynccontextmanager
async def _async_together(conn: Any, due: Due, *, pipelined: bool) -> AsyncIterator[None]:
    failure: BaseException | None = None
    try:
        async with conn.pipeline() if pipelined else contextlib.nullcontext():
            try:
                if due.wrap:
                    await _async_own(conn).execute(b"begin", prepare=False)
                yield
                if due.wrap:
                    await _async_own(conn).execute(b"commit", prepare=False)
            except BaseException as error:  # noqa: BLE001 - is raised below
                failure = error
    except BaseException as error:  # noqa: BLE001 - as well; of the end of a pipeline
        failure = failure or error
    if failure is not None:
        if due.wrap and conn.pgconn.transaction_status in (INTRANS, INERROR):
            await _async_own(conn).execute(b"commit", prepare=False)
        raise failure


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
