"""The worker's peak memory in one large transaction."""

import time

from benchmarks import worker_process
from benchmarks.figures import Memory
from benchmarks.orders import one_transaction
from benchmarks.servers import Servers
from psycopg import sql

from bemi.config import Settings

_DEADLINE = 900.0


def measure(servers: Servers, rows: int) -> Memory:
    workload = one_transaction(rows)
    workload.make_ready(servers.source_conn)
    with servers.worker("memory") as (settings, pid):
        _wait_for_position(servers, settings)
        idle = worker_process.peak_memory(pid)
        workload.write(servers.source_conn)
        _wait_for_position(servers, settings)
        return Memory(rows, round(worker_process.peak_memory(pid)), round(idle))


def _wait_for_position(servers: Servers, settings: Settings) -> None:
    """Until the worker has stored all that is committed by now, told by a mark of ours."""
    end = servers.mark()
    query = sql.SQL("select position >= %s from {}").format(
        sql.Identifier(settings.schema, "checkpoints")
    )
    deadline = time.monotonic() + _DEADLINE
    while servers.destination_conn.execute(query, [int(end)]).fetchone() != (True,):
        if time.monotonic() > deadline:
            raise TimeoutError("the worker did not catch up")
        time.sleep(0.1)
