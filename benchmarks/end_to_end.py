"""The worker from slot to committed history, against one bare COPY of the same encoded rows."""

import threading
import time
from typing import Final

from benchmarks.drain import Encoded, encoded_rows
from benchmarks.figures import Contest, contest
from benchmarks.orders import Workload
from benchmarks.servers import Servers
from psycopg import sql

from bemi.capture import worker
from bemi.config import Settings
from bemi.store.rows import CHANGE_COLUMNS, COPY_HEADER, COPY_TRAILER, STRETCH_COLUMNS

_BASE: Final = "end_to_end_base"
_COPY: Final = "end_to_end_copy"


def measure(servers: Servers, workload: Workload, repeats: int) -> Contest:
    workload.make_ready(servers.source_conn)
    position = servers.slot(_BASE)
    workload.write(servers.source_conn)
    servers.mark()
    servers.slot(_COPY, like=_BASE)
    encoded = encoded_rows(servers, _COPY, workload.rows, keep=True)
    servers.drop_slot(_COPY)

    def ours() -> float:
        servers.slot(_COPY, like=_BASE)
        settings = servers.history(slot=_COPY, position=position)
        began = time.perf_counter()
        worker.run(settings, stop=threading.Event(), until_caught_up=True)
        seconds = time.perf_counter() - began
        _finish(servers, settings, workload.rows)
        return seconds

    def theirs() -> float:
        servers.slot(_COPY, like=_BASE)
        settings = servers.history(slot=_COPY, position=position)
        _make_partitions(servers, settings)
        began = time.perf_counter()
        _copy(servers, settings, encoded)
        seconds = time.perf_counter() - began
        _finish(servers, settings, workload.rows)
        return seconds

    try:
        return contest(workload.name, workload.rows, repeats, ours, "one bare COPY", theirs)
    finally:
        servers.drop_slot(_BASE)


def _make_partitions(servers: Servers, settings: Settings) -> None:
    servers.destination_conn.execute(
        sql.SQL("select {}(now() - interval '1 day', now())").format(
            sql.Identifier(settings.schema, "ensure_partitions")
        )
    )


def _copy(servers: Servers, settings: Settings, encoded: Encoded) -> None:
    conn = servers.destination_conn
    with conn.transaction(), conn.cursor() as cursor:
        for table, columns, rows in (
            ("contexts", STRETCH_COLUMNS, encoded.stretches),
            ("row_changes", CHANGE_COLUMNS, encoded.changes),
        ):
            statement = sql.SQL("copy {} ({}) from stdin (format binary)").format(
                sql.Identifier(settings.schema, table),
                sql.SQL(", ").join(map(sql.Identifier, columns)),
            )
            with cursor.copy(statement) as copy:
                copy.write(COPY_HEADER)
                for first in range(0, len(rows), 1000):
                    copy.write(b"".join(rows[first : first + 1000]))
                copy.write(COPY_TRAILER)


def _finish(servers: Servers, settings: Settings, rows: int) -> None:
    """See that both contestants stored the same, and make room for the next one."""
    row = servers.destination_conn.execute(
        sql.SQL("select count(*) from {}").format(sql.Identifier(settings.schema, "row_changes"))
    ).fetchone()
    if row != (rows,):
        raise RuntimeError(f"{rows} changes were to be stored, found {row}")
    servers.drop_history(settings)
