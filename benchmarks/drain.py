"""A slot drained to encoded rows, against PostgreSQL's own pg_recvlogical to /dev/null."""

import subprocess
import time
from typing import Final, cast

import psycopg
from benchmarks.figures import Contest, contest
from benchmarks.orders import Workload
from benchmarks.servers import Servers

from bemi.capture.catalog import Catalog
from bemi.capture.encoder import Encoder
from bemi.capture.filter import Filter
from bemi.capture.masker import Masker
from bemi.capture.pipeline import Pipeline
from bemi.capture.protocol import postgres_time
from bemi.capture.sink import Sink
from bemi.capture.source import Source
from bemi.capture.stitcher import Stitcher
from bemi.change import Change, Committed, Event, Stretch
from bemi.lsn import Lsn
from bemi.rules import NO_RULES

_BASE: Final = "drain_base"
_COPY: Final = "drain_copy"


class Encoded:
    """Stands where the pipeline has its sink: encodes, and stores nothing."""

    def __init__(self, encoder: Encoder, *, keep: bool) -> None:
        self._encoder = encoder
        self._keep = keep
        self._context = 0
        self._done = False
        self.changes: list[bytes] = []
        self.stretches: list[bytes] = []
        self.count = 0
        self.acknowledgeable = Lsn(0)
        self.wake = 0

    def done(self) -> bool:
        """Whether the mark that ends the workload has come."""
        return self._done

    def put(self, event: Event) -> None:
        if isinstance(event, Committed):
            self._context += 1
            self._done |= event.marked
            return
        context_id = self._encoder.context_id(event.transaction.committed_at, self._context)
        if isinstance(event, Change):
            row = self._encoder.change(event, context_id)
            self.count += 1
            kept = self.changes
        elif isinstance(event, Stretch):
            row = self._encoder.stretch(event, context_id)
            kept = self.stretches
        else:
            return
        if self._keep:
            kept.append(row)

    def full(self) -> bool:
        return False

    def flush(self) -> None:
        pass

    def reached(self, position: Lsn, *, urgent: bool = False) -> None:
        pass


def encoded_rows(servers: Servers, slot: str, rows: int, *, keep: bool = False) -> Encoded:
    """Take the slot's changes through the pipeline, up to where a sink stores them.

    They end with a mark; `rows` is how many there must be.
    """
    url = servers.settings.source_url
    source = Source(url)
    try:
        encoding = source.check_settings()
        identity = source.identify()
        with psycopg.connect(url, autocommit=True) as catalog_conn:
            source.start(slot, servers.settings.publication)
            stitcher = Stitcher(
                Catalog(catalog_conn, encoding, servers.settings.publication).describe,
                clock=lambda: postgres_time(time.time()),
                encoding=encoding.messages,
                next_xid=1000,
            )
            encoder = Encoder(
                epoch=1,
                source_id=1,
                system_identifier=identity.system_identifier,
                timeline=identity.timeline,
                database_oid=identity.database_oid,
                encoding=encoding.text,
            )
            encoded = Encoded(encoder, keep=keep)
            # `wake` must be a file descriptor: the source's own, which is waited for anyway.
            encoded.wake = source.socket
            pipeline = Pipeline(
                source, stitcher, Filter(NO_RULES), Masker(NO_RULES), cast(Sink, encoded)
            )
            pipeline.run(encoded.done)
    finally:
        source.close()
    if encoded.count != rows:
        raise RuntimeError(f"{rows} changes were to be captured, found {encoded.count}")
    return encoded


def measure(servers: Servers, workload: Workload, repeats: int) -> Contest:
    workload.make_ready(servers.source_conn)
    servers.slot(_BASE)
    workload.write(servers.source_conn)
    end = servers.mark()

    def ours() -> float:
        servers.slot(_COPY, like=_BASE)
        began = time.perf_counter()
        encoded_rows(servers, _COPY, workload.rows)
        seconds = time.perf_counter() - began
        servers.drop_slot(_COPY)
        return seconds

    def theirs() -> float:
        servers.slot(_COPY, like=_BASE)
        began = time.perf_counter()
        _pg_recvlogical(servers, _COPY, end)
        seconds = time.perf_counter() - began
        servers.drop_slot(_COPY)
        return seconds

    try:
        return contest(workload.name, workload.rows, repeats, ours, "pg_recvlogical", theirs)
    finally:
        servers.drop_slot(_BASE)


def _pg_recvlogical(servers: Servers, slot: str, end: Lsn) -> None:
    command: list[str] = [
        str(servers.source.bin("pg_recvlogical")),
        f"--dbname={servers.settings.source_url}",
        f"--slot={slot}",
        f"--endpos={end}",
        "--start",
        "--no-loop",
        "--file=/dev/null",
        "--fsync-interval=0",
    ]
    options = {
        "proto_version": "1",
        "publication_names": servers.settings.publication,
        "messages": "true",
    }
    command += [f"--option={name}={value}" for name, value in options.items()]
    subprocess.run(command, check=True, capture_output=True)
