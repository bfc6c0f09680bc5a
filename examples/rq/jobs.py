"""The jobs, for those who ask for them and for the worker."""

import os

from bemi.integrations.psycopg import Connection


def add(task: str) -> None:
    with Connection.connect(os.environ["DATABASE_URL"]) as conn:
        conn.execute("insert into todo (task) values (%s)", [task])


def complete_all() -> None:
    with Connection.connect(os.environ["DATABASE_URL"]) as conn:
        conn.execute("update todo set done = true")
