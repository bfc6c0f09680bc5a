"""A todo list on Flask and psycopg: who asks for what is known without a line in a view.

To look at it yourself: `flask run`, in this folder, with DATABASE_URL.
"""

import os
import sys

import psycopg
from flask import Flask, request
from psycopg_pool import ConnectionPool

from bemi.integrations.psycopg import Connection
from bemi.integrations.wsgi import ContextMiddleware

pool = ConnectionPool(
    os.environ["DATABASE_URL"], connection_class=Connection, min_size=1, open=False
)
app = Flask(__name__)
app.wsgi_app = ContextMiddleware(  # type: ignore[method-assign]
    app.wsgi_app,
    # An application would ask its session; here the client says who it is.
    context=lambda environ: {"user_id": environ.get("HTTP_X_USER")},
)


@app.post("/todo")
def add() -> str:
    with pool.connection() as conn:
        conn.execute("insert into todo (task) values (%s)", [request.form["task"]])
    return "added"


@app.put("/todo/<int:todo_id>")
def complete(todo_id: int) -> str:
    with pool.connection() as conn:
        conn.execute("update todo set done = true where id = %s", [todo_id])
    return "done"


def make_tables(url: str) -> None:
    with psycopg.connect(url) as conn:
        conn.execute("create table todo (id serial primary key, task text, done bool)")


def take_requests() -> None:
    with pool:
        client = app.test_client()
        client.post("/todo", data={"task": "Buy milk"}, headers={"X-User": "ann"})
        client.put("/todo/1", headers={"X-User": "bob", "X-Request-ID": "req-12"})


if __name__ == "__main__":
    if sys.argv[1:] == ["tables"]:
        make_tables(os.environ["DATABASE_URL"])
    else:
        take_requests()
