"""A todo list on FastAPI and psycopg: who asks for what is known without a line in an endpoint.

To look at it yourself: `uvicorn app:app`, in this folder, with DATABASE_URL.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import psycopg
from fastapi import FastAPI, Request
from psycopg_pool import AsyncConnectionPool

from bemi.integrations.asgi import ContextMiddleware
from bemi.integrations.psycopg import AsyncConnection

pool = AsyncConnectionPool(
    os.environ["DATABASE_URL"], connection_class=AsyncConnection, min_size=1, open=False
)


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    async with pool:
        yield


def who(scope: Any) -> dict[str, Any]:
    """An application would ask its session; here the client says it."""
    return {"user_id": Request(scope).headers.get("x-user")}


app = FastAPI(lifespan=lifespan)
app.add_middleware(ContextMiddleware, context=who)


@app.post("/todo")
async def add(task: str) -> None:
    async with pool.connection() as conn:
        await conn.execute("insert into todo (task) values (%s)", [task])


@app.put("/todo/{todo_id}")
async def complete(todo_id: int) -> None:
    async with pool.connection() as conn:
        await conn.execute("update todo set done = true where id = %s", [todo_id])


def make_tables(url: str) -> None:
    with psycopg.connect(url) as conn:
        conn.execute("create table todo (id serial primary key, task text, done bool)")


async def take_requests() -> None:
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop")
    async with lifespan(app), client:
        await client.post("/todo", params={"task": "Buy milk"}, headers={"X-User": "ann"})
        await client.put("/todo/1", headers={"X-User": "bob", "X-Request-ID": "req-12"})


if __name__ == "__main__":
    if sys.argv[1:] == ["tables"]:
        make_tables(os.environ["DATABASE_URL"])
    else:
        asyncio.run(take_requests())
