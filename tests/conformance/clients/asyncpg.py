"""asyncpg, which has no transaction that begins by itself: the session begins it."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import asyncpg

from bemi.integrations import asyncpg as integration
from tests.conformance.clients.client import Client, Loop, Session


class _Session:
    def __init__(self, conn: Any, loop: Loop, autocommit: bool) -> None:
        self.conn = conn
        self.loop = loop
        self.autocommit = autocommit
        self.transaction: Any = None

    def _began(self) -> None:
        if not self.autocommit and not self.conn.is_in_transaction():
            self.transaction = self.conn.transaction()
            self.loop(self.transaction.start())

    def run(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        self._began()
        rows = self.loop(self.conn.fetch(numbered(statement, len(parameters)), *parameters))
        return [tuple(row) for row in rows]

    def count(self, statement: str, parameters: Sequence[Any] = ()) -> int:
        self._began()
        text = numbered(statement, len(parameters))
        return int(self.loop(self.conn.execute(text, *parameters)).split()[-1])

    def many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        self._began()
        self.loop(self.conn.executemany(numbered(statement, len(rows[0])), rows))

    def copy(self, table: str, rows: Sequence[Sequence[Any]]) -> None:
        self._began()
        name, columns = table.rstrip(")").split(" (")
        self.loop(self.conn.copy_records_to_table(name, columns=columns.split(", "), records=rows))

    def commit(self) -> None:
        self.loop(self.transaction.commit())

    def rollback(self) -> None:
        self.loop(self.transaction.rollback())

    def block(self) -> contextlib.AbstractContextManager[None]:
        return self.loop.entered(self.conn.transaction())


def numbered(statement: str, parameters: int) -> str:
    return statement.format(*(f"${number}" for number in range(1, parameters + 1)))


@contextlib.contextmanager
def _opened(
    url: str, autocommit: bool, kind: Any, prepare: Callable[[Any], None], statements: int = 100
) -> Iterator[Session]:
    loop = Loop()
    conn = loop(asyncpg.connect(url, connection_class=kind, statement_cache_size=statements))
    try:
        prepare(conn)
        yield _Session(conn, loop, autocommit)
    finally:
        loop(conn.close())
        loop.close()


@contextlib.contextmanager
def _open(
    url: str, *, autocommit: bool = False, statements: int = 100, **options: Any
) -> Iterator[Session]:
    kind = integration.connection_class(**options)
    with _opened(url, autocommit, kind, lambda conn: None, statements) as session:
        yield session


@contextlib.contextmanager
def _open_installed(
    url: str, *, autocommit: bool = False, statements: int = 100, **options: Any
) -> Iterator[Session]:
    def prepare(conn: Any) -> None:
        integration.install(conn, **options)

    with _opened(url, autocommit, asyncpg.Connection, prepare, statements) as session:
        yield session


@contextlib.contextmanager
def _open_plain(url: str, *, autocommit: bool = False) -> Iterator[Session]:
    with _opened(url, autocommit, asyncpg.Connection, lambda conn: None) as session:
        yield session


CLASS = Client(
    "asyncpg", _open, _open_plain, open_unprepared=functools.partial(_open, statements=0)
)
INSTALLED = Client(
    "asyncpg, installed",
    _open_installed,
    _open_plain,
    open_unprepared=functools.partial(_open_installed, statements=0),
)
