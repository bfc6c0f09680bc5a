"""Piccolo on asyncpg, by its own way of running statements that it did not write."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from piccolo.columns import Integer, Serial, Text
from piccolo.engine.postgres import PostgresEngine
from piccolo.table import create_table_class

from bemi.integrations.piccolo import install
from tests.conformance.clients.client import Client, Session, Task


class _Session:
    def __init__(self, engine: PostgresEngine, task: Task, autocommit: bool) -> None:
        self.engine = engine
        self.task = task
        self.autocommit = autocommit
        self.transaction: Any = None
        columns = {"id": Serial(primary_key=True), "task": Text(), "n": Integer()}
        self.table: Any = create_table_class(
            "Todo", class_kwargs={"db": engine}, class_members=columns
        )

    def _begun(self) -> None:
        async def begin() -> None:
            if not self.autocommit and not self.engine.transaction_exists():
                self.transaction = self.engine.transaction()
                await self.transaction.__aenter__()

        self.task(begin())

    def run(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        self._begun()
        rows = self.task(self.table.raw(statement, *parameters).run())
        return [tuple(row.values()) for row in rows]

    def count(self, statement: str, parameters: Sequence[Any] = ()) -> int:
        return len(self.run(statement, parameters))

    def many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        self._begun()
        self.task(self.table.insert(*(self.table(task=task) for (task,) in rows)).run())

    def copy(self, table: str, rows: Sequence[Sequence[Any]]) -> None:
        raise NotImplementedError

    def commit(self) -> None:
        self.task(self.transaction.__aexit__(None, None, None))

    def rollback(self) -> None:
        self.task(self.transaction.rollback())
        self.commit()

    def end(self) -> None:
        """A transaction that is still open would keep the pool from being closed."""

        async def is_open() -> bool:
            return self.engine.transaction_exists()

        if self.task(is_open()):
            self.rollback()

    @contextlib.contextmanager
    def block(self) -> Iterator[None]:
        async def begin() -> Any:
            open_already = self.engine.current_transaction.get()
            if open_already is not None:
                return await open_already.savepoint()
            block = self.engine.transaction()
            await block.__aenter__()
            return block

        block = self.task(begin())
        savepoint = not hasattr(block, "__aexit__")
        try:
            yield
        except BaseException as error:
            if savepoint:
                self.task(block.rollback_to())
            else:
                self.task(block.__aexit__(type(error), error, error.__traceback__))
            raise
        else:
            self.task(block.release() if savepoint else block.__aexit__(None, None, None))


@contextlib.contextmanager
def _opened(engine: PostgresEngine, autocommit: bool) -> Iterator[Session]:
    task = Task()
    task(engine.start_connection_pool(min_size=1, max_size=1))
    try:
        session = _Session(engine, task, autocommit)
        yield session
        session.end()
    finally:
        task(engine.close_connection_pool())
        task.close()


@contextlib.contextmanager
def _open(url: str, *, autocommit: bool = False, **options: Any) -> Iterator[Session]:
    engine = PostgresEngine({"dsn": url})
    install(engine, **options)
    with _opened(engine, autocommit) as session:
        yield session


@contextlib.contextmanager
def _open_plain(url: str, *, autocommit: bool = False) -> Iterator[Session]:
    with _opened(PostgresEngine({"dsn": url}), autocommit) as session:
        yield session


CLIENT = Client("Piccolo", _open, _open_plain, copies=False)
