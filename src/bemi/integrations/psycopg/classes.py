"""psycopg's own classes of connections and cursors, with the sending of contexts added."""

import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import pq

from bemi.context.sender import COMMIT, Sender
from bemi.integrations.psycopg.around import IDLE, INTRANS, async_sent, attach, sent

if TYPE_CHECKING:
    from psycopg.abc import Params, Query


@functools.cache
def tracking(base: type) -> Any:
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


class _Shared:
    """What synchronous and asynchronous connections have alike: the sender, and their cursors."""

    bemi_cursor_factory: type
    bemi_sender: Sender

    @property
    def cursor_factory(self) -> type:
        found: type = tracking(self.bemi_cursor_factory)
        return found

    @cursor_factory.setter
    def cursor_factory(self, factory: type) -> None:
        self.bemi_cursor_factory = factory


def _itself(cls: type, _: object) -> type:
    """`Connection[Row]`, which only type checkers make something of."""
    return cls


def _sync_connection(base: Any) -> type:
    """A class of synchronous connections that send contexts, made of one that does not."""

    class Tracking(base, _Shared):  # type: ignore[misc]
        __class_getitem__: Any = classmethod(_itself)

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            attach(self, Sender())

        def commit(self) -> None:
            with sent(self, COMMIT):
                super().commit()

        def rollback(self) -> None:
            super().rollback()
            self.bemi_sender.ended()

        def tpc_begin(self, xid: "psycopg.Xid | str") -> None:
            super().tpc_begin(xid)
            self.bemi_sender.ended()

        def tpc_prepare(self) -> None:
            with sent(self, COMMIT, alone=True):
                super().tpc_prepare()

        def tpc_commit(self, xid: "psycopg.Xid | str | None" = None) -> None:
            # Without having been prepared, it is a COMMIT in one phase.
            with sent(self, COMMIT, alone=True):
                super().tpc_commit(xid)

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
                        with sent(self, COMMIT, alone=True):
                            pass

    return Tracking


def _async_connection(base: Any) -> type:
    """The same of asynchronous ones."""

    class Tracking(base, _Shared):  # type: ignore[misc]
        __class_getitem__: Any = classmethod(_itself)

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            attach(self, Sender())

        async def commit(self) -> None:
            async with async_sent(self, COMMIT):
                await super().commit()

        async def rollback(self) -> None:
            await super().rollback()
            self.bemi_sender.ended()

        async def tpc_begin(self, xid: "psycopg.Xid | str") -> None:
            await super().tpc_begin(xid)
            self.bemi_sender.ended()

        async def tpc_prepare(self) -> None:
            async with async_sent(self, COMMIT, alone=True):
                await super().tpc_prepare()

        async def tpc_commit(self, xid: "psycopg.Xid | str | None" = None) -> None:
            async with async_sent(self, COMMIT, alone=True):
                await super().tpc_commit(xid)

        @contextlib.asynccontextmanager
        async def transaction(
            self, savepoint_name: str | None = None, force_rollback: bool = False
        ) -> AsyncIterator[psycopg.AsyncTransaction]:
            with _followed(self, self.bemi_sender, force_rollback) as block:
                async with super().transaction(savepoint_name, force_rollback) as transaction:
                    with block:
                        yield transaction
                        if block.outermost:
                            async with async_sent(self, COMMIT, alone=True):
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
    outermost = connection.pgconn.transaction_status == IDLE
    if connection.pgconn.pipeline_status != pq.PipelineStatus.OFF:
        outermost = connection.autocommit and connection.pgconn.transaction_status != INTRANS
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
            with sent(self.connection, query):
                return super().execute(query, params, **options)

        def executemany(self, query: "Query", params_seq: Any, **options: Any) -> None:
            with sent(self.connection, query):
                super().executemany(query, params_seq, **options)

        def stream(self, query: "Query", params: "Params | None" = None, **options: Any) -> Any:
            with sent(self.connection, query, alone=True):
                yield from super().stream(query, params, **options)

        @contextlib.contextmanager
        def copy(self, statement: "Query", params: "Params | None" = None, **options: Any) -> Any:
            with (
                sent(self.connection, statement, alone=True),
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
            async with async_sent(self.connection, query):
                return await super().execute(query, params, **options)

        async def executemany(self, query: "Query", params_seq: Any, **options: Any) -> None:
            async with async_sent(self.connection, query):
                await super().executemany(query, params_seq, **options)

        async def stream(
            self, query: "Query", params: "Params | None" = None, **options: Any
        ) -> Any:
            async with (
                async_sent(self.connection, query, alone=True),
                contextlib.aclosing(super().stream(query, params, **options)) as rows,
            ):
                async for row in rows:
                    yield row

        @contextlib.asynccontextmanager
        async def copy(
            self, statement: "Query", params: "Params | None" = None, **options: Any
        ) -> AsyncIterator[Any]:
            async with (
                async_sent(self.connection, statement, alone=True),
                super().copy(statement, params, **options) as copy,
            ):
                yield copy

    return Tracking
