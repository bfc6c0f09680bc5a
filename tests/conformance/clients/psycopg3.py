"""psycopg 3, synchronous and asynchronous."""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg

from bemi.integrations import psycopg as integration
from tests.conformance.clients.client import Client, Loop, Session


class _Sync:
    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self.conn = conn

    def _execute(self, statement: str, parameters: Sequence[Any]) -> psycopg.Cursor[Any]:
        text = statement.format(*["%s"] * len(parameters))
        return self.conn.execute(text.encode(), parameters or None)

    def run(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        cursor = self._execute(statement, parameters)
        return [] if cursor.description is None else cursor.fetchall()

    def count(self, statement: str, parameters: Sequence[Any] = ()) -> int:
        return self._execute(statement, parameters).rowcount

    def many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        text = statement.format(*["%s"] * len(rows[0]))
        self.conn.cursor().executemany(text.encode(), rows)

    def copy(self, table: str, rows: Sequence[Sequence[Any]]) -> None:
        with self.conn.cursor().copy(f"copy {table} from stdin".encode()) as copy:
            for row in rows:
                copy.write_row(row)

    def commit(self) -> None:
        self.conn.commit()

    def rollback(self) -> None:
        self.conn.rollback()

    @contextlib.contextmanager
    def block(self) -> Iterator[None]:
        with self.conn.transaction():
            yield


class _Async:
    def __init__(self, conn: psycopg.AsyncConnection[Any], loop: Loop) -> None:
        self.conn = conn
        self.loop = loop

    async def _execute(self, statement: str, parameters: Sequence[Any]) -> psycopg.AsyncCursor[Any]:
        text = statement.format(*["%s"] * len(parameters))
        return await self.conn.execute(text.encode(), parameters or None)

    def run(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        async def run() -> list[tuple[Any, ...]]:
            cursor = await self._execute(statement, parameters)
            return [] if cursor.description is None else await cursor.fetchall()

        return self.loop(run())

    def count(self, statement: str, parameters: Sequence[Any] = ()) -> int:
        return self.loop(self._execute(statement, parameters)).rowcount

    def many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        text = statement.format(*["%s"] * len(rows[0]))
        self.loop(self.conn.cursor().executemany(text.encode(), rows))

    def copy(self, table: str, rows: Sequence[Sequence[Any]]) -> None:
        async def run() -> None:
            async with self.conn.cursor().copy(f"copy {table} from stdin".encode()) as copy:
                for row in rows:
                    await copy.write_row(row)

        self.loop(run())

    def commit(self) -> None:
        self.loop(self.conn.commit())

    def rollback(self) -> None:
        self.loop(self.conn.rollback())

    def block(self) -> contextlib.AbstractContextManager[None]:
        return self.loop.entered(self.conn.transaction())


@contextlib.contextmanager
def _open(
    url: str, *, autocommit: bool = False, prepare_threshold: int | None = 5, **options: Any
) -> Iterator[Session]:
    conn = integration.Connection.connect(
        url, autocommit=autocommit, prepare_threshold=prepare_threshold
    )
    with contextlib.closing(conn):
        if options:
            integration.install(conn, **options)
        yield _Sync(conn)


@contextlib.contextmanager
def _open_plain(url: str, *, autocommit: bool = False) -> Iterator[Session]:
    with contextlib.closing(psycopg.Connection.connect(url, autocommit=autocommit)) as conn:
        yield _Sync(conn)


@contextlib.contextmanager
def _open_async(
    url: str, *, autocommit: bool = False, prepare_threshold: int | None = 5, **options: Any
) -> Iterator[Session]:
    loop = Loop()
    conn = loop(
        integration.AsyncConnection.connect(
            url, autocommit=autocommit, prepare_threshold=prepare_threshold
        )
    )
    try:
        if options:
            integration.install(conn, **options)
        yield _Async(conn, loop)
    finally:
        loop(conn.close())
        loop.close()


@contextlib.contextmanager
def _open_plain_async(url: str, *, autocommit: bool = False) -> Iterator[Session]:
    loop = Loop()
    conn = loop(psycopg.AsyncConnection.connect(url, autocommit=autocommit))
    try:
        yield _Async(conn, loop)
    finally:
        loop(conn.close())
        loop.close()


_UNPREPARED: dict[str, Any] = {"prepare_threshold": None}

SYNC = Client(
    "psycopg 3", _open, _open_plain, open_unprepared=functools.partial(_open, **_UNPREPARED)
)
ASYNC = Client(
    "psycopg 3, async",
    _open_async,
    _open_plain_async,
    open_unprepared=functools.partial(_open_async, **_UNPREPARED),
)
