"""The tasks, for those who ask for them and for the worker."""

import os
from pathlib import Path

from celery import Celery

from bemi.integrations import celery as bemi_celery
from bemi.integrations.psycopg import Connection

# A folder as the broker, so that nothing has to be installed; in production RabbitMQ or Redis.
folder = Path(os.environ.get("EXAMPLE_FOLDER", "."))
app = Celery("shop", broker="filesystem://", backend=f"file://{folder / 'results'}")
app.conf.broker_transport_options = {
    "data_folder_in": str(folder / "messages"),
    "data_folder_out": str(folder / "messages"),
    "control_folder": str(folder / "control"),
    "polling_interval": 0.1,
}
bemi_celery.install(app)


@app.task
def add(task: str) -> None:
    with Connection.connect(os.environ["DATABASE_URL"]) as conn:
        conn.execute("insert into todo (task) values (%s)", [task])


@app.task
def complete_all() -> None:
    with Connection.connect(os.environ["DATABASE_URL"]) as conn:
        conn.execute("update todo set done = true")
