"""Peewee, over psycopg2 and over psycopg 3. Without a block of a transaction it is in autocommit
mode; what begins by itself here is a session of it."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import peewee

from bemi.integrations import peewee as integration
from tests.conformance.clients.client import Client, Opens, OpensPlain, Session


class _Session:
    def __init__(self, database: Any, autocommit: bool) -> None:
        self.database = database
        self.autocommit = autocommit

    def _execute(self, statement: str, parameters: Sequence[Any]) -> Any:
        if not self.autocommit and not self.database.in_transaction():
            self.database.session_start()
        text = statement.format(*["%s"] * len(parameters))
        return self.database.execute_sql(text, parameters or None)

    def run(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        cursor = self._execute(statement, parameters)
        return [] if cursor.description is None else cursor.fetchall()

    def count(self, statement: str, parameters: Sequence[Any] = ()) -> int:
        count: int = self._execute(statement, parameters).rowcount
        return count

    def many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        row = "(" + ", ".join(["{}"] * len(rows[0])) + ")"
        start = statement.partition("values")[0]
        values = [value for each in rows for value in each]
        self._execute(f"{start}values " + ", ".join([row] * len(rows)), values)

    def copy(self, table: str, rows: Sequence[Sequence[Any]]) -> None:
        raise NotImplementedError

    def commit(self) -> None:
        self.database.session_commit()

    def rollback(self) -> None:
        self.database.session_rollback()

    @contextlib.contextmanager
    def block(self) -> Iterator[None]:
        with self.database.atomic():
            yield


@contextlib.contextmanager
def _opened(
    url: str, autocommit: bool, options: dict[str, Any] | None, **parameters: Any
) -> Iterator[Session]:
    database = peewee.PostgresqlDatabase(url, **parameters)
    if options is not None:
        integration.install(database, **options)
    database.connect()
    try:
        yield _Session(database, autocommit)
    finally:
        database.session_rollback()
        database.close()


def _opens(**parameters: Any) -> Opens:
    def opens(
        url: str, *, autocommit: bool = False, **options: Any
    ) -> contextlib.AbstractContextManager[Session]:
        return _opened(url, autocommit, options, **parameters)

    return opens


def _opens_plain(**parameters: Any) -> OpensPlain:
    def opens(url: str, *, autocommit: bool = False) -> contextlib.AbstractContextManager[Session]:
        return _opened(url, autocommit, None, **parameters)

    return opens


PSYCOPG2 = Client("Peewee, psycopg2", _opens(), _opens_plain(), copies=False)
PSYCOPG = Client(
    "Peewee, psycopg 3",
    _opens(prefer_psycopg3=True),
    _opens_plain(prefer_psycopg3=True),
    copies=False,
    open_unprepared=_opens(prefer_psycopg3=True, prepare_threshold=None),
)
