"""A todo list on SQLAlchemy: each request is a user's."""

import os
import sys
from collections.abc import Callable

from sqlalchemy import create_engine, delete, make_url
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import bemi
from bemi.integrations.sqlalchemy import install

engine = create_engine(make_url(os.environ["DATABASE_URL"]).set(drivername="postgresql+psycopg"))
install(engine)


class Base(DeclarativeBase):
    pass


class Todo(Base):
    __tablename__ = "todo"

    id: Mapped[int] = mapped_column(primary_key=True)
    task: Mapped[str]
    done: Mapped[bool] = mapped_column(default=False)


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
    session.execute(delete(Todo).where(Todo.id == 2))


def take_requests() -> None:
    handle(42, "POST", "/todo", add)
    handle(7, "PUT", "/todo/1", finish)
    handle(42, "DELETE", "/todo/2", remove)


if __name__ == "__main__":
    if sys.argv[1:] == ["tables"]:
        Base.metadata.create_all(engine)
    else:
        take_requests()
