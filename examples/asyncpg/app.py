"""A todo list on plain asyncpg, with a pool: each request is a user's, some at the same time."""

import asyncio
import os
import sys
from typing import Any

import asyncpg

import bemi
from bemi.integrations.asyncpg import Connection


async def handle(pool: Any, user: int, method: str, path: str, *statements: str) -> None:
    """One request. The statements need not know who asks for them."""
    with bemi.context(user_id=user, method=method, endpoint=path):
        async with pool.acquire() as conn, conn.transaction():
            for statement in statements:
                await conn.execute(statement)


async def make_tables(url: str) -> None:
    conn = await asyncpg.connect(url)
    await conn.execute("create table todo (id serial primary key, task text, done bool)")
    await conn.close()


async def take_requests(url: str) -> None:
    async with asyncpg.create_pool(url, connection_class=Connection, min_size=2) as pool:
        insert = "insert into todo (task) values ('Buy milk'), ('Sleep')"
        await handle(pool, 42, "POST", "/todo", insert)
        await asyncio.gather(
            handle(pool, 42, "GET", "/todo", "select * from todo"),
            handle(pool, 7, "PUT", "/todo/1", "update todo set done = true where id = 1"),
            handle(pool, 42, "DELETE", "/todo/2", "delete from todo where id = 2"),
        )
        with bemi.context(job="import"):
            await pool.copy_records_to_table(
                "todo", columns=["task"], records=[("Call Ada",), ("Call Bob",)]
            )


if __name__ == "__main__":
    work = make_tables if sys.argv[1:] == ["tables"] else take_requests
    asyncio.run(work(os.environ["DATABASE_URL"]))
