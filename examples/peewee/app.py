"""A todo list on Peewee: each request is a user's, and a nightly job tidies up."""

import os
import sys

import peewee

import bemi
from bemi.integrations.peewee import install

# Over psycopg 3, where a context costs no round trip.
database = peewee.PostgresqlDatabase(os.environ["DATABASE_URL"], prefer_psycopg3=True)
install(database)


class Todo(peewee.Model):
    task = peewee.TextField()
    done = peewee.BooleanField(default=False)

    class Meta:
        database = database


def add(user: int, task: str) -> None:
    with bemi.context(user_id=user, method="POST", endpoint="/todo"):
        Todo.create(task=task)


def complete(user: int, task: str) -> None:
    with bemi.context(user_id=user, method="PUT", endpoint="/todo"), database.atomic():
        todo = Todo.get(Todo.task == task)
        todo.done = True
        todo.save()


def tidy_up() -> None:
    with bemi.context(job="nightly"):
        Todo.delete().where(Todo.done).execute()


def make_tables() -> None:
    database.create_tables([Todo])


def take_requests() -> None:
    add(42, "Buy milk")
    add(42, "Sleep")
    complete(7, "Buy milk")
    tidy_up()


if __name__ == "__main__":
    with database.connection_context():
        (make_tables if sys.argv[1:] == ["tables"] else take_requests)()
