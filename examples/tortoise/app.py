"""A todo list on Tortoise ORM: each request is a user's."""

import asyncio
import os
import sys
from collections.abc import Awaitable

from tortoise import Model, Tortoise, fields
from tortoise.transactions import in_transaction

import bemi
from bemi.integrations.tortoise import tracked


class Todo(Model):
    id = fields.IntField(primary_key=True)
    task = fields.TextField()
    done = fields.BooleanField(default=False)


async def handle(user: int, method: str, path: str, work: Awaitable[None]) -> None:
    """One request. What it does need not know who asks for it."""
    with bemi.context(user_id=user, method=method, endpoint=path):
        await work


async def add(*tasks: str) -> None:
    await Todo.bulk_create([Todo(task=task) for task in tasks])


async def finish(todo_id: int) -> None:
    async with in_transaction():
        todo = await Todo.select_for_update().get(id=todo_id)
        todo.done = True
        await todo.save()


async def remove(todo_id: int) -> None:
    await Todo.filter(id=todo_id).delete()


async def take_requests() -> None:
    await handle(42, "POST", "/todo", add("Buy milk", "Sleep"))
    await handle(7, "PUT", "/todo/1", finish(1))
    await handle(42, "DELETE", "/todo/2", remove(2))


async def main() -> None:
    await Tortoise.init(
        config={
            "connections": {"default": tracked(os.environ["DATABASE_URL"])},
            "apps": {"models": {"models": [__name__]}},
        }
    )
    if sys.argv[1:] == ["tables"]:
        await Tortoise.generate_schemas()
    else:
        await take_requests()
    await Tortoise.close_connections()


if __name__ == "__main__":
    asyncio.run(main())
