"""A todo list on SQLModel: each request is a user's."""

import os
import sys
from collections.abc import Callable

from sqlalchemy import make_url
from sqlmodel import Field, Session, SQLModel, create_engine

import bemi
from bemi.integrations.sqlalchemy import install

engine = create_engine(make_url(os.environ["DATABASE_URL"]).set(drivername="postgresql+psycopg"))
install(engine)


class Todo(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    task: str
    done: bool = False


def handle(user: int, method: str, path: str, work: Callable[[Session], None]) -> None:
    """One request. What it does need not know who asks for it."""
    with bemi.context(user_id=user, method=method, endpoint=path), Session(engine) as session:
        work(session)
        session.commit()


def add(session: Session) -> None:
    session.add_all([Todo(task="Buy milk"), Todo(task="Sleep")])


def finish(session: Session) -> None:
    session.get_one(Todo, 1).done = True


def remove(session: Session) -> None:
    session.delete(session.get_one(Todo, 2))


def take_requests() -> None:
    handle(42, "POST", "/todo", add)
    handle(7, "PUT", "/todo/1", finish)
    handle(42, "DELETE", "/todo/2", remove)


if __name__ == "__main__":
    if sys.argv[1:] == ["tables"]:
        SQLModel.metadata.create_all(engine)
    else:
        take_requests()
