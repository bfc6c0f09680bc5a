"""A todo list on Litestar and psycopg, whose endpoints run in threads.

To look at it yourself: `uvicorn app:app`, in this folder, with DATABASE_URL.
"""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from litestar import Litestar, post, put
from litestar.connection import ASGIConnection
from litestar.middleware import AbstractAuthenticationMiddleware, AuthenticationResult
from litestar.params import FromPath, FromQuery
from litestar.testing import TestClient
from psycopg_pool import ConnectionPool

from bemi.integrations.asgi import ContextMiddleware
from bemi.integrations.psycopg import Connection

pool = ConnectionPool(
    os.environ["DATABASE_URL"], connection_class=Connection, min_size=1, open=False
)


@asynccontextmanager
async def lifespan(_app: Litestar) -> AsyncIterator[None]:
    with pool:
        yield


class Login(AbstractAuthenticationMiddleware):
    """An application would ask its session; here the client says who it is."""

    async def authenticate_request(
        self, connection: ASGIConnection[Any, Any, Any, Any]
    ) -> AuthenticationResult:
        return AuthenticationResult(user=connection.headers.get("x-user"), auth=None)


@post("/todo", sync_to_thread=True)
def add(task: FromQuery[str]) -> None:
    with pool.connection() as conn:
        conn.execute("insert into todo (task) values (%s)", [task])


@put("/todo/{todo_id:int}", sync_to_thread=True)
def complete(todo_id: FromPath[int]) -> None:
    with pool.connection() as conn:
        conn.execute("update todo set done = true where id = %s", [todo_id])


app = Litestar(
    [add, complete],
    middleware=[ContextMiddleware, Login],
    lifespan=[lifespan],
    openapi_config=None,
)


def make_tables(url: str) -> None:
    with psycopg.connect(url) as conn:
        conn.execute("create table todo (id serial primary key, task text, done bool)")


def take_requests() -> None:
    with TestClient(app) as client:
        client.post("/todo", params={"task": "Buy milk"}, headers={"X-User": "ann"})
        client.put("/todo/1", headers={"X-User": "bob", "X-Request-ID": "req-12"})


if __name__ == "__main__":
    if sys.argv[1:] == ["tables"]:
        make_tables(os.environ["DATABASE_URL"])
    else:
        take_requests()
