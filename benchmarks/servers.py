"""A source and a destination, each an embedded PostgreSQL with its default durability."""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any, Final

import psycopg
from benchmarks import worker_process
from benchmarks.orders import TABLE
from psycopg import sql

from bemi.capture.setup import init
from bemi.capture.stitcher import MARK_PREFIX
from bemi.config import Settings
from bemi.embedded import Server
from bemi.lsn import Lsn
from bemi.store import checkpoint, migrate

# No checkpoint and no vacuum in the middle of a measurement.
_SETTINGS: Final = {
    "shared_buffers": "512MB",
    "max_wal_size": "16GB",
    "checkpoint_timeout": "1h",
    "autovacuum": "off",
    "max_replication_slots": "50",
}

Connection = psycopg.Connection[Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Servers:
    source: Server
    settings: Settings
    source_conn: Connection
    destination_conn: Connection

    def slot(self, name: str, *, like: str | None = None) -> Lsn:
        """Make a slot, at the end of the log or where another one stands; its position."""
        if like is None:
            statement = "select lsn::text from pg_create_logical_replication_slot(%s, 'pgoutput')"
            return _position(self.source_conn, statement, [name])
        statement = "select lsn::text from pg_copy_logical_replication_slot(%s, %s)"
        return _position(self.source_conn, statement, [like, name])

    def drop_slot(self, name: str) -> None:
        # Its walsender may need a moment to see that the client is gone.
        self.source_conn.execute(
            "select pg_terminate_backend(active_pid, 10000) from pg_replication_slots "
            "where slot_name = %s and active",
            [name],
        )
        self.source_conn.execute("select pg_drop_replication_slot(%s)", [name])

    def mark(self) -> Lsn:
        """A position behind everything committed so far; a worker stores it without delay."""
        statement = "select pg_logical_emit_message(true, %s, '', true)::text"
        return _position(self.source_conn, statement, [MARK_PREFIX])

    def history(self, *, slot: str, position: Lsn) -> Settings:
        """Make an empty history that begins where the slot stands."""
        settings = dataclasses.replace(self.settings, slot=slot, schema=slot)
        migrate.migrate(self.destination_conn, settings.schema)
        held = checkpoint.read(self.destination_conn, self.settings.schema, settings.source)
        assert held is not None
        epoch = checkpoint.read_epoch(self.destination_conn, self.settings.schema, held.epoch)
        checkpoint.register(
            self.destination_conn,
            settings.schema,
            name=settings.source,
            database=epoch.database,
            slot=slot,
            publication=settings.publication,
            system_identifier=epoch.system_identifier,
            timeline=epoch.timeline,
            database_oid=epoch.database_oid,
            position=position,
        )
        self.destination_conn.execute("checkpoint")
        return settings

    def drop_history(self, settings: Settings) -> None:
        self.destination_conn.execute(
            sql.SQL("drop schema {} cascade").format(sql.Identifier(settings.schema))
        )
        self.drop_slot(settings.slot)

    @contextlib.contextmanager
    def worker(self, name: str) -> Iterator[tuple[Settings, int]]:
        """A worker in a process of its own, with a slot and a history that begin now."""
        settings = self.history(slot=name, position=self.slot(name))
        with worker_process.running(settings) as pid:
            yield settings, pid
        self.drop_history(settings)


@contextlib.contextmanager
def running() -> Iterator[Servers]:
    """Two servers, the table `orders` on the source, tracked by `init`."""
    with Server(settings=_SETTINGS) as source, Server(settings=_SETTINGS) as destination:
        source_url = source.create_database("shop")
        with (
            psycopg.connect(source_url, autocommit=True) as source_conn,
            psycopg.connect(
                destination.create_database("history"), autocommit=True
            ) as destination_conn,
        ):
            source_conn.execute("set synchronous_commit to off")
            source_conn.execute(TABLE)
            settings = Settings(
                source_url=source_url, destination_url=destination.url("history"), source="shop"
            )
            init(settings, report=lambda _done: None)
            servers = Servers(source, settings, source_conn, destination_conn)
            # Each measurement has its own; nobody would ever read from this one.
            servers.drop_slot(settings.slot)
            yield servers


def _position(conn: Connection, statement: Any, parameters: list[str]) -> Lsn:
    row = conn.execute(statement, parameters).fetchone()
    assert row is not None
    return Lsn.parse(row[0])
