"""Names for test databases, and dropping them with everything that holds on to them."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql

from bemi.embedded import Server
from tests.support.waiting import until

_numbers = itertools.count(1)


def unused_name(kind: str = "db") -> str:
    """Never used before in this test process, so slots, which are named after it, aren't either."""
    return f"{kind}_{next(_numbers)}"


def connect_quickly(server: Server) -> None:
    """The superuser's password is hashed once instead of 4,096 times, which is half of what a
    connection costs: tests make some hundred thousand."""
    with psycopg.connect(server.url(), autocommit=True) as connection:
        if connection.info.server_version >= 160000:
            connection.execute("SET scram_iterations = 1")
            password = sql.Literal(connection.info.password)
            connection.execute(sql.SQL("ALTER ROLE postgres PASSWORD {}").format(password))


@contextmanager
def pair(server: Server) -> Iterator[tuple[str, str]]:
    """A source and a destination, for fixtures of more than one test."""
    names = [unused_name("source"), unused_name("destination")]
    source, destination = [server.create_database(name) for name in names]
    try:
        yield source, destination
    finally:
        server.start()
        for name in reversed(names):
            drop(server, name)


def drop(server: Server, name: str) -> None:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        prepared = connection.execute(
            "SELECT gid FROM pg_prepared_xacts WHERE database = %s", [name]
        ).fetchall()
        if prepared:
            with psycopg.connect(server.url(name), autocommit=True) as inside:
                for (gid,) in prepared:
                    inside.execute(sql.SQL("ROLLBACK PREPARED {}").format(sql.Literal(gid)))
        drop_slots(connection, name)
        connection.execute(
            sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        )


def drop_slots(connection: psycopg.Connection, database: str) -> None:
    """Ends the slots' walsenders first: a slot that is in use can't be dropped."""
    slots = connection.execute(
        "SELECT slot_name FROM pg_replication_slots WHERE database = %s", [database]
    ).fetchall()
    for (slot,) in slots:
        drop_slot(connection, slot)


def drop_slot(connection: psycopg.Connection[Any], slot: str) -> None:
    """Also of a walsender that has not ended yet, or is being replaced by a reconnecting client."""

    def dropped() -> bool:
        connection.execute(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots"
            " WHERE slot_name = %s AND active",
            [slot],
        )
        try:
            connection.execute("SELECT pg_drop_replication_slot(%s)", [slot])
        except psycopg.errors.ObjectInUse:
            return False
        return True

    until(dropped, 10, f"slot {slot} is free to be dropped")
