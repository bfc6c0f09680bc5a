"""Jobs of RQ that write; DATABASE_URL says where."""

import os

from rq import get_current_job

from bemi.integrations.psycopg import Connection


def write(task: str) -> None:
    with Connection.connect(os.environ["DATABASE_URL"]) as conn:
        conn.execute("insert into todo (task) values (%s)", [task])


def write_and_fail_once(task: str) -> None:
    job = get_current_job()
    assert job is not None
    first = "again" not in job.meta
    write(f"{task}-{'first' if first else 'again'}")
    if first:
        job.meta["again"] = True
        job.save_meta()  # type: ignore[no-untyped-call]
        raise ZeroDivisionError
