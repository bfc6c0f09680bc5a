"""A todo list on plain psycopg, with a pool: each request is a user's."""

import os
import sys

import psycopg
from psycopg_pool import ConnectionPool

import bemi
from bemi.integrations.psycopg import Connection


def handle(pool: ConnectionPool, user: int, method: str, path: str, *statements: str) -> None:
    """One request. The statements need not know who asks for them."""
    with bemi.context(user_id=user, method=method, endpoint=path), pool.connection() as conn:
        for statement in statements:
            conn.execute(statement.encode())


def make_tables(url: str) -> None:
    with psycopg.connect(url) as conn:
        conn.execute("create table todo (id serial primary key, task text, done bool)")


def take_requests(url: str) -> None:
    with ConnectionPool(url, connection_class=Connection, min_size=1, open=True) as pool:
        handle(pool, 42, "POST", "/todo", "insert into todo (task) values ('Buy milk'), ('Sleep')")
        handle(pool, 42, "GET", "/todo", "select * from todo")
        handle(pool, 7, "PUT", "/todo/1", "update todo set done = true where id = 1")
        handle(pool, 42, "DELETE", "/todo/2", "delete from todo where id = 2")


if __name__ == "__main__":
    work = make_tables if sys.argv[1:] == ["tables"] else take_requests
    work(os.environ["DATABASE_URL"])
