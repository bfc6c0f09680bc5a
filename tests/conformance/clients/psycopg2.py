"""psycopg2: a connection made by the factory, and an open one that it was installed into."""

import contextlib
import io
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg2

from bemi.integrations import psycopg2 as integration
from tests.conformance.clients.client import Client, Session


class _Session:
    def __init__(self, conn: Any) -> None:
        self.conn = conn
        self.depth = 0

    def _execute(self, statement: str, parameters: Sequence[Any]) -> Any:
        cursor = self.conn.cursor()
        cursor.execute(statement.format(*["%s"] * len(parameters)), parameters or None)
        return cursor

    def run(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        cursor = self._execute(statement, parameters)
        return [] if cursor.description is None else cursor.fetchall()

    def count(self, statement: str, parameters: Sequence[Any] = ()) -> int:
        count: int = self._execute(statement, parameters).rowcount
        return count

    def many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        self.conn.cursor().executemany(statement.format(*["%s"] * len(rows[0])), rows)

    def copy(self, table: str, rows: Sequence[Sequence[Any]]) -> None:
        lines = "".join("\t".join(map(str, row)) + "\n" for row in rows)
        self.conn.cursor().copy_expert(f"copy {table} from stdin", io.StringIO(lines))

    def commit(self) -> None:
        self.conn.commit()

    def rollback(self) -> None:
        self.conn.rollback()

    @contextlib.contextmanager
    def block(self) -> Iterator[None]:
        """`with connection:`, which is no block in autocommit mode and has no savepoints: there
        an application writes them as text."""
        if not self.conn.autocommit:
            with self.conn:
                yield
            return
        mark = f"block_{self.depth}"
        begin, commit, rollback = (
            (f"savepoint {mark}", f"release {mark}", f"rollback to {mark}")
            if self.depth
            else ("begin", "commit", "rollback")
        )
        self.run(begin)
        self.depth += 1
        try:
            yield
        except BaseException:
            self.run(rollback)
            raise
        else:
            self.run(commit)
        finally:
            self.depth -= 1


@contextlib.contextmanager
def _opened(url: str, autocommit: bool, **options: Any) -> Iterator[Any]:
    with contextlib.closing(psycopg2.connect(url, **options)) as conn:
        conn.autocommit = autocommit
        yield conn


@contextlib.contextmanager
def _open(url: str, *, autocommit: bool = False, **options: Any) -> Iterator[Session]:
    with _opened(url, autocommit, connection_factory=integration.Connection) as conn:
        if options:
            integration.install(conn, **options)
        yield _Session(conn)


@contextlib.contextmanager
def _open_installed(url: str, *, autocommit: bool = False, **options: Any) -> Iterator[Session]:
    with _opened(url, autocommit) as conn:
        integration.install(conn, **options)
        yield _Session(conn)


@contextlib.contextmanager
def _open_plain(url: str, *, autocommit: bool = False) -> Iterator[Session]:
    with _opened(url, autocommit) as conn:
        yield _Session(conn)


FACTORY = Client("psycopg2", _open, _open_plain)
# Its method `commit()` is not ours, so that nothing can be asked there.
INSTALLED = Client(
    "psycopg2, installed", _open_installed, _open_plain, options=frozenset(("functions", "sql"))
)
