"""What sending contexts costs an application: microseconds and round trips, by library.

Each library of the conformance tests, on a connection of its own for each contestant: without
Bemi, with it, and in the way that contexts are usually sent: as a comment in the SQL text, which a
trigger of each table reads and writes into the log, once per row.
"""

import contextlib
import functools
import json
import os
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import psycopg
from benchmarks.servers import Servers
from tests.conformance.clients import CLIENTS
from tests.conformance.clients.client import Client, Session

import bemi

_TABLES: Final = r"""
create table todo (id serial primary key, task text, n int);
create table commented (id serial primary key, task text, n int);
create function read_comment() returns trigger language plpgsql as $$
declare
    told text := substring(current_query() from '/\* context (.*) \*/');
begin
    if told is not null then
        perform pg_logical_emit_message(true, 'comment', told);
    end if;
    return null;
end $$;
create trigger read_comment after insert on commented
    for each row execute function read_comment();
"""

_CONTEXT: Final = {"user_id": 42, "endpoint": "/todo/complete", "method": "POST"}


@dataclass(frozen=True, slots=True)
class Sending:
    """Of one library and one kind of transaction: medians, and round trips per transaction."""

    library: str
    kind: str
    without: float
    """Microseconds per transaction."""
    sent: float
    commented: float
    trips_without: float
    trips_sent: float


def measure(servers: Servers, repeats: int, transactions: int) -> list[Sending]:
    url = servers.source.create_database("sending")
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(_TABLES.encode())
        # What it costs to wait for the disk is the same for all, and much.
        conn.execute("alter database sending set synchronous_commit to off")
    with _one_core():
        return [
            found for client in CLIENTS for found in _library(client, url, repeats, transactions)
        ]


@contextlib.contextmanager
def _one_core() -> Iterator[None]:
    """On one core there is no waking of another one, which takes longer than what is measured and
    now and then not at all: what remains is the work of all that take part."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def _library(client: Client, url: str, repeats: int, transactions: int) -> Iterator[Sending]:
    with (
        client.open_plain(url, autocommit=True) as without,
        client.open(url, autocommit=True) as sending,
        client.open_plain(url, autocommit=True) as commenting,
    ):
        for session in (without, sending, commenting):
            ((backend,),) = session.run("select pg_backend_pid()")
            os.sched_setaffinity(backend, {min(os.sched_getaffinity(0))})
        for kind, work in _KINDS.items():
            contestants = (
                functools.partial(work, without),
                functools.partial(work, sending),
                functools.partial(work, commenting, commented=True),
            )
            plain, sent, commented = _turns(contestants, repeats, transactions)
            with _Counter(url) as counter, client.open_plain(counter.url, autocommit=True) as each:
                trips = counter.trips(functools.partial(work, each))
            with _Counter(url) as counter, client.open(counter.url, autocommit=True) as each:
                trips_sent = counter.trips(functools.partial(work, each))
            yield Sending(client.name, kind, plain, sent, commented, trips, trips_sent)


def _turns(
    contestants: tuple[Callable[[], None], ...], repeats: int, transactions: int
) -> list[float]:
    """Median microseconds of each, which take turns at every transaction; the first tenth warms
    up."""
    seconds: list[list[float]] = [[] for _ in contestants]
    for turn in range(-transactions // 10, repeats * transactions):
        for contestant, times in zip(contestants, seconds, strict=True):
            began = time.perf_counter()
            contestant()
            if turn >= 0:
                times.append(time.perf_counter() - began)
    return [statistics.median(each) * 1e6 for each in seconds]


def _requested(session: Session, writes: int, commented: bool) -> None:
    """A request, whose context is unlike the one before."""
    context = {**_CONTEXT, "request_id": f"req-{time.perf_counter_ns()}"}
    statement = "insert into todo (task) values ({})"
    if commented:
        text = json.dumps(context).replace("{", "{{").replace("}", "}}")
        statement = f"insert into commented (task) values ({{}}) /* context {text} */"  # noqa: S608 - that way is what is measured
    with bemi.context(context):
        for _ in range(writes):
            session.run(statement, ["Buy milk"])


def _autocommitted(session: Session, *, commented: bool = False) -> None:
    _requested(session, 1, commented)


def _one_write(session: Session, *, commented: bool = False) -> None:
    with session.block():
        _requested(session, 1, commented)


def _ten_writes(session: Session, *, commented: bool = False) -> None:
    with session.block():
        _requested(session, 10, commented)


def _reading(session: Session, *, commented: bool = False) -> None:
    """Nothing is sent, nor commented, where a client knows that it only reads."""
    with bemi.context({**_CONTEXT, "commented": commented}), session.block():
        session.run("select 1")


_KINDS: Final[dict[str, Callable[..., None]]] = {
    "one write, autocommit": _autocommitted,
    "a transaction of one write": _one_write,
    "a transaction of ten writes": _ten_writes,
    "a transaction that reads": _reading,
}


class _Counter:
    """Passes bytes on to a server, and counts how often its client waited for an answer."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._server = (parts.hostname or "127.0.0.1", parts.port or 5432)
        self._listener = socket.create_server(("127.0.0.1", 0))
        there = parts.netloc.rpartition(":")[0]
        self.url = urlunsplit(parts._replace(netloc=f"{there}:{self._listener.getsockname()[1]}"))
        self._asked = self._answered = 0
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = [self._listener]

    def __enter__(self) -> "_Counter":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def trips(self, work: Callable[[], None]) -> float:
        """Per call of `work`, when what is asked but once has been."""
        calls = 20
        for _ in range(10):
            work()
        before = self._asked
        for _ in range(calls):
            work()
        return (self._asked - before) / calls

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                self._sockets += [client, server]
                for source, target, asks in ((client, server, True), (server, client, False)):
                    threading.Thread(
                        target=self._pass_on, args=[source, target, asks], daemon=True
                    ).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, asks: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                with self._lock:
                    if asks and self._answered == self._asked:
                        self._asked += 1
                    elif not asks:
                        self._answered = self._asked
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)  # some wait until the other side has closed
