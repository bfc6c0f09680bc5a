"""SQLAlchemy 2, with each of its drivers."""

import contextlib
import io
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, CursorResult, Engine, create_engine, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from bemi.integrations.sqlalchemy import install
from tests.conformance.clients.client import Client, Loop, Session


def _named(statement: str, parameters: Sequence[Any]) -> tuple[Any, dict[str, Any]]:
    """As `text()` takes it."""
    names = [f"p{at}" for at in range(len(parameters))]
    query = text(statement.format(*[f":{name}" for name in names]))
    return query, dict(zip(names, parameters, strict=True))


class _Sync:
    def __init__(self, conn: Connection, autocommit: bool) -> None:
        self.conn = conn
        self.autocommit = autocommit

    def _execute(self, statement: str, parameters: Sequence[Any]) -> CursorResult[Any]:
        return self.conn.execute(*_named(statement, parameters))

    def run(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        result = self._execute(statement, parameters)
        return [tuple(row) for row in result] if result.returns_rows else []

    def count(self, statement: str, parameters: Sequence[Any] = ()) -> int:
        return self._execute(statement, parameters).rowcount

    def many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        query, _ = _named(statement, rows[0])
        self.conn.execute(query, [_named(statement, row)[1] for row in rows])

    def copy(self, table: str, rows: Sequence[Sequence[Any]]) -> None:
        self.run("select 1")  # COPY is the driver's: SQLAlchemy is to know of the transaction
        raw: Any = self.conn.connection.dbapi_connection
        statement = f"copy {table} from stdin"
        if self.conn.dialect.driver == "psycopg2":
            lines = "".join("\t".join(row) + "\n" for row in rows)
            raw.cursor().copy_expert(statement, io.StringIO(lines))
            return
        with raw.cursor().copy(statement) as copy:
            for row in rows:
                copy.write_row(row)

    def commit(self) -> None:
        self.conn.commit()

    def rollback(self) -> None:
        self.conn.rollback()

    @contextlib.contextmanager
    def block(self) -> Iterator[None]:
        outermost = self.autocommit or not self.conn.in_transaction()
        before, self.autocommit = self.autocommit, False
        if before:  # where AUTOCOMMIT is the level, a transaction needs another one
            self.conn.commit()
            self.conn.execution_options(isolation_level="READ COMMITTED")
        try:
            with self.conn.begin() if outermost else self.conn.begin_nested():
                yield
        finally:
            self.autocommit = before
            if before:
                self.conn.execution_options(isolation_level="AUTOCOMMIT")


class _Async:
    def __init__(self, conn: AsyncConnection, autocommit: bool, loop: Loop) -> None:
        self.conn = conn
        self.autocommit = autocommit
        self.loop = loop

    def _execute(self, statement: str, parameters: Sequence[Any]) -> CursorResult[Any]:
        return self.loop(self.conn.execute(*_named(statement, parameters)))

    def run(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        result = self._execute(statement, parameters)
        return [tuple(row) for row in result] if result.returns_rows else []

    def count(self, statement: str, parameters: Sequence[Any] = ()) -> int:
        return self._execute(statement, parameters).rowcount

    def many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        query, _ = _named(statement, rows[0])
        self.loop(self.conn.execute(query, [_named(statement, row)[1] for row in rows]))

    def copy(self, table: str, rows: Sequence[Sequence[Any]]) -> None:
        async def run() -> None:
            raw: Any = (await self.conn.get_raw_connection()).driver_connection
            if self.conn.dialect.driver == "asyncpg":
                name, _, columns = table.rstrip(")").partition(" (")
                await raw.copy_records_to_table(name, columns=columns.split(", "), records=rows)
                return
            async with raw.cursor().copy(f"copy {table} from stdin") as copy:
                for row in rows:
                    await copy.write_row(row)

        self.run("select 1")
        self.loop(run())

    def commit(self) -> None:
        self.loop(self.conn.commit())

    def rollback(self) -> None:
        self.loop(self.conn.rollback())

    @contextlib.contextmanager
    def block(self) -> Iterator[None]:
        outermost = self.autocommit or not self.conn.in_transaction()
        before, self.autocommit = self.autocommit, False
        if before:
            self.loop(self.conn.commit())
            self.loop(self.conn.execution_options(isolation_level="READ COMMITTED"))
        inner = self.conn.begin() if outermost else self.conn.begin_nested()
        self.loop(inner.start())
        try:
            yield
        except BaseException:
            self.loop(inner.rollback())
            raise
        else:
            self.loop(inner.commit())
        finally:
            self.autocommit = before
            if before:
                self.loop(self.conn.execution_options(isolation_level="AUTOCOMMIT"))


def _address(url: str, driver: str) -> str:
    return f"postgresql+{driver}://{url.partition('://')[2]}"


_UNPREPARED: dict[str, dict[str, Any]] = {
    "psycopg": {"prepare_threshold": None},
    "psycopg2": {},
    "asyncpg": {
        "statement_cache_size": 0,
        "prepared_statement_cache_size": 0,
        "prepared_statement_name_func": lambda: "",
    },
}


def _engine(url: str, driver: str, autocommit: bool, unprepared: bool) -> Engine:
    return create_engine(_address(url, driver), **_options(driver, autocommit, unprepared))


def _async_engine(url: str, driver: str, autocommit: bool, unprepared: bool) -> AsyncEngine:
    return create_async_engine(_address(url, driver), **_options(driver, autocommit, unprepared))


def _options(driver: str, autocommit: bool, unprepared: bool) -> dict[str, Any]:
    level = {"isolation_level": "AUTOCOMMIT"} if autocommit else {}
    return {**level, "connect_args": _UNPREPARED[driver] if unprepared else {}}


@contextlib.contextmanager
def _connected(engine: Engine, autocommit: bool) -> Iterator[Session]:
    try:
        with engine.connect() as conn:
            yield _Sync(conn, autocommit)
    finally:
        engine.dispose()


@contextlib.contextmanager
def _async_connected(engine: AsyncEngine, autocommit: bool) -> Iterator[Session]:
    loop = Loop()
    conn = loop(engine.connect().start())
    try:
        yield _Async(conn, autocommit, loop)
    finally:
        loop(conn.close())
        loop(engine.dispose())
        loop.close()


def _client(name: str, driver: str, make: Any, connected: Any) -> Client:
    def opens(unprepared: bool) -> Any:
        def opened(
            url: str, *, autocommit: bool = False, **options: Any
        ) -> contextlib.AbstractContextManager[Session]:
            engine = make(url, driver, autocommit, unprepared)
            install(engine, **options)
            session: contextlib.AbstractContextManager[Session] = connected(engine, autocommit)
            return session

        return opened

    def plain(url: str, *, autocommit: bool = False) -> contextlib.AbstractContextManager[Session]:
        engine = make(url, driver, autocommit, False)
        session: contextlib.AbstractContextManager[Session] = connected(engine, autocommit)
        return session

    return Client(f"SQLAlchemy, {name}", opens(False), plain, open_unprepared=opens(True))


PSYCOPG = _client("psycopg", "psycopg", _engine, _connected)
ASYNC_PSYCOPG = _client("psycopg, async", "psycopg", _async_engine, _async_connected)
PSYCOPG2 = _client("psycopg2", "psycopg2", _engine, _connected)
ASYNCPG = _client("asyncpg", "asyncpg", _async_engine, _async_connected)
