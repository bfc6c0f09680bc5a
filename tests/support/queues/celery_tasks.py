"""Tasks of Celery that write; DATABASE_URL and BROKER_URL say where."""

import os
from typing import Any

from celery import Celery

import bemi
from bemi.integrations import celery as integration
from bemi.integrations.psycopg import Connection

app = Celery("shop", broker=os.environ.get("BROKER_URL"), backend=os.environ.get("BROKER_URL"))
app.conf.broker_connection_retry_on_startup = True
integration.install(app)


def _write(task: str) -> None:
    with Connection.connect(os.environ["DATABASE_URL"]) as conn:
        conn.execute("insert into todo (task) values (%s)", [task])


@app.task(name="write")
def write(task: str) -> str:
    _write(task)
    return task


@app.task(name="append")
def append(before: str, more: str) -> str:
    _write(before + more)
    return before + more


@app.task(name="retry", bind=True, max_retries=2, default_retry_delay=0)
def retry(self: Any, task: str) -> None:
    _write(f"{task}-{self.request.retries}")
    if self.request.retries < 2:
        raise self.retry()


@app.task(name="fail")
def fail(task: str) -> None:
    _write(task)
    raise ZeroDivisionError


@app.task(name="headers", bind=True)
def headers(self: Any) -> dict[str, Any]:
    return dict(self.request.headers or {})


@app.task(name="alter")
def alter() -> None:
    bemi.set_context(user_id="somebody else")


@app.task(name="outer")
def outer(task: str) -> None:
    _write(f"{task}-before")
    write.apply(args=[f"{task}-inside"])
    _write(f"{task}-after")
