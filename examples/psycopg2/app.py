"""A todo list on plain psycopg2, with a pool: each request is a user's."""

import os
import sys

import psycopg2
from psycopg2.extras import execute_values
from psycopg2.pool import ThreadedConnectionPool

import bemi
from bemi.integrations.psycopg2 import Connection


def handle(
    pool: ThreadedConnectionPool, user: int, method: str, path: str, *statements: str
) -> None:
    """One request, in one transaction. The statements need not know who asks for them."""
    conn = pool.getconn()
    try:
        with bemi.context(user_id=user, method=method, endpoint=path), conn, conn.cursor() as cur:
            for statement in statements:
                cur.execute(statement)
    finally:
        pool.putconn(conn)


def import_tasks(pool: ThreadedConnectionPool, tasks: list[str]) -> None:
    """A job, which writes many rows with one statement."""
    conn = pool.getconn()
    try:
        with bemi.context(job="import"), conn, conn.cursor() as cursor:
            execute_values(cursor, "insert into todo (task) values %s", [(task,) for task in tasks])
    finally:
        pool.putconn(conn)


def make_tables(url: str) -> None:
    conn = psycopg2.connect(url)
    with conn, conn.cursor() as cursor:
        cursor.execute("create table todo (id serial primary key, task text, done bool)")
    conn.close()


def take_requests(url: str) -> None:
    pool = ThreadedConnectionPool(1, 4, url, connection_factory=Connection)
    import_tasks(pool, ["Buy milk", "Sleep"])
    handle(pool, 42, "GET", "/todo", "select * from todo")
    handle(pool, 7, "PUT", "/todo/1", "update todo set done = true where id = 1")
    handle(pool, 42, "DELETE", "/todo/2", "delete from todo where id = 2")
    pool.closeall()


if __name__ == "__main__":
    work = make_tables if sys.argv[1:] == ["tables"] else take_requests
    work(os.environ["DATABASE_URL"])
