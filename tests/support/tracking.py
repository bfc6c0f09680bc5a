"""Sets a source and a destination up for a worker, and gives it its settings."""

import os
from collections.abc import Sequence
from pathlib import Path

import psycopg

from bemi import config
from bemi.capture.setup import init
from bemi.config import Settings

ROOT = Path(__file__).parents[2]


def track(
    source_url: str,
    destination_url: str = "",
    *,
    schemas: Sequence[str] = ("app",),
    tables: Sequence[str] = (),
    full: Sequence[str] = (),
    slot: str = "",
    publication: str = "bemi",
    source: str = "",
    slot_wait: float = 90.0,
) -> Settings:
    """What `bemi init` does, for the tables of the workload unless told otherwise."""
    settings = Settings(
        source_url=source_url,
        destination_url=destination_url,
        source=source,
        slot=slot,
        publication=publication,
        slot_wait=slot_wait,
        schemas=() if tables else tuple(schemas),
        tables=tuple(tables),
    )
    init(settings, full=full, report=lambda _: None)
    return settings


def environment(settings: Settings) -> dict[str, str]:
    """This process's environment with the settings in it, and no others of Bemi's.

    Rules of columns are not: only a file can give them.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith(config.PREFIX)}
    given = {}
    for variable, key in config.variables().items():
        if key not in config.KEYS:
            continue  # not of a source
        value = getattr(settings, key)
        given[variable] = ",".join(value) if isinstance(value, tuple) else str(value)
    return {**kept, **given, "PYTHONPATH": str(ROOT)}


def position(settings: Settings) -> int:
    """The checkpoint's, as a number."""
    with psycopg.connect(settings.destination_url, autocommit=True) as conn:
        row = conn.execute(
            f"select position from {settings.schema}.checkpoints "
            f"join {settings.schema}.sources using (source_id) where name = %s",
            [settings.source],
        ).fetchone()
    assert row is not None
    return int(row[0])


def confirmed(settings: Settings) -> int:
    """What the slot takes for stored, as a number."""
    with psycopg.connect(settings.source_url, autocommit=True) as conn:
        row = conn.execute(
            "select confirmed_flush_lsn - '0/0' from pg_replication_slots where slot_name = %s",
            [settings.slot],
        ).fetchone()
    assert row is not None
    return int(row[0])


def flushed(url: str) -> int:
    """Where the server's log ends, as a number."""
    with psycopg.connect(url, autocommit=True) as conn:
        row = conn.execute("select pg_current_wal_flush_lsn() - '0/0'").fetchone()
    assert row is not None
    return int(row[0])
