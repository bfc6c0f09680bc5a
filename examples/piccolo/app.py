"""A todo list on Piccolo: each request is a user's."""

import asyncio
import os
import sys
from collections.abc import Awaitable

from piccolo.columns import Boolean, Serial, Text
from piccolo.engine.postgres import PostgresEngine
from piccolo.table import Table

import bemi
from bemi.integrations.piccolo import install

DB = PostgresEngine(config={"dsn": os.environ["DATABASE_URL"]})
install(DB)


class Todo(Table, db=DB):
    id = Serial(primary_key=True)
    task = Text()
    done = Boolean()


async def handle(user: int, method: str, path: str, work: Awaitable[None]) -> None:
    """One request. What it does need not know who asks for it."""
    with bemi.context(user_id=user, method=method, endpoint=path):
        await work


async def add(*tasks: str) -> None:
    await Todo.insert(*(Todo(task=task) for task in tasks))


async def finish(todo_id: int) -> None:
    async with DB.transaction():
        todo = await Todo.objects().get(Todo.id == todo_id)
        if todo is not None:
            todo.done = True
            await todo.save()


async def remove(todo_id: int) -> None:
    await Todo.delete().where(Todo.id == todo_id)


async def take_requests() -> None:
    await DB.start_connection_pool()
    await handle(42, "POST", "/todo", add("Buy milk", "Sleep"))
    await handle(7, "PUT", "/todo/1", finish(1))
    await handle(42, "DELETE", "/todo/2", remove(2))
    await DB.close_connection_pool()


async def make_tables() -> None:
    await Todo.create_table()


if __name__ == "__main__":
    asyncio.run(make_tables() if sys.argv[1:] == ["tables"] else take_requests())
