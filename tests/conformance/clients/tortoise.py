"""Tortoise ORM on asyncpg, by its own way of running statements that it did not write."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tortoise import Model, Tortoise, connections, fields
from tortoise.backends.base.client import TransactionalDBClient
from tortoise.backends.base.config_generator import expand_db_url
from tortoise.transactions import in_transaction

from bemi.integrations.tortoise import tracked
from tests.conformance.clients.asyncpg import numbered
from tests.conformance.clients.client import Client, Session, Task


class Todo(Model):
    id = fields.IntField(primary_key=True)
    task = fields.TextField(null=True)
    n = fields.IntField(null=True)


class _Session:
    def __init__(self, task: Task, autocommit: bool) -> None:
        self.task = task
        self.autocommit = autocommit
        self.transaction: Any = None

    def _client(self) -> Any:
        async def client() -> Any:
            found = connections.get("default")
            if not self.autocommit and not isinstance(found, TransactionalDBClient):
                self.transaction = in_transaction()
                return await self.transaction.__aenter__()
            return found

        return self.task(client())

    def run(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        text = numbered(statement, len(parameters))
        rows = self.task(self._client().execute_query_dict(text, [*parameters]))
        return [tuple(row.values()) for row in rows]

    def count(self, statement: str, parameters: Sequence[Any] = ()) -> int:
        text = numbered(statement, len(parameters))
        count: int = self.task(self._client().execute_query(text, [*parameters]))[0]
        return count

    def many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        self.task(self._client().execute_many(numbered(statement, len(rows[0])), rows))

    def copy(self, table: str, rows: Sequence[Sequence[Any]]) -> None:
        raise NotImplementedError

    def commit(self) -> None:
        self.task(self.transaction.__aexit__(None, None, None))

    def rollback(self) -> None:
        self.task(self._client().rollback())
        self.task(self.transaction.__aexit__(None, None, None))

    def end(self) -> None:
        """A transaction that is still open would keep the connection from being closed."""
        if isinstance(self.task(_present()), TransactionalDBClient):
            self.rollback()

    @contextlib.contextmanager
    def block(self) -> Iterator[None]:
        async def begin() -> Any:
            block = in_transaction()
            await block.__aenter__()
            return block

        block = self.task(begin())
        try:
            yield
        except BaseException as error:
            self.task(block.__aexit__(type(error), error, error.__traceback__))
            raise
        else:
            self.task(block.__aexit__(None, None, None))


async def _present() -> Any:
    return connections.get("default")


@contextlib.contextmanager
def _opened(connection: dict[str, Any], autocommit: bool) -> Iterator[Session]:
    apps = {"models": {"models": [__name__], "default_connection": "default"}}
    task = Task()
    task(Tortoise.init(config={"connections": {"default": connection}, "apps": apps}))
    try:
        session = _Session(task, autocommit)
        yield session
        session.end()
    finally:
        task(Tortoise.close_connections())
        task.close()


def _opening(make: Callable[..., dict[str, Any]]) -> Any:
    @contextlib.contextmanager
    def open_session(url: str, *, autocommit: bool = False, **options: Any) -> Iterator[Session]:
        with _opened(make(url, **options), autocommit) as session:
            yield session

    return open_session


CLIENT = Client("Tortoise", _opening(tracked), _opening(expand_db_url), copies=False)
