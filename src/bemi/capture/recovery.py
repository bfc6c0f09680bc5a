"""Finds out what of the capture is broken for good, and makes it anew.

What was lost stays lost: it is recorded as a gap. What it came to is found by comparing the
tables with what the history last knew of them (see `bemi.capture.baseline`).
"""

import threading
import time
from collections.abc import Callable
from typing import Final

import msgspec
from psycopg import sql

from bemi.capture import publication, setup, slot
from bemi.capture.continuity import epoch_changed
from bemi.capture.progress import Report
from bemi.capture.source import Source
from bemi.config import Settings
from bemi.connections import connect, explained
from bemi.errors import SetupError
from bemi.store import baselines, schema_version, sources
from bemi.store import checkpoint as checkpoints
from bemi.store.baselines import Interval

_PAUSE: Final = 0.1
_PATIENCE: Final = 120.0
"""Seconds for a worker to take over behind the gap: it waits for the slot, if another holds it."""


class Diagnosis(msgspec.Struct, frozen=True):
    """What is wrong; empty when nothing is."""

    broken: tuple[str, ...] = ()
    """What has to be made anew on the source."""
    gap: str | None = None
    """Why changes between the history and what the slot will send are lost."""
    unknown: tuple[str, ...] = ()
    """Tables of which it is not known what happened to them behind a gap."""

    def __bool__(self) -> bool:
        return bool(self.broken or self.gap or self.unknown)


def diagnose(settings: Settings) -> Diagnosis:
    """Look at both servers; nothing is changed. Raises `SetupError` where there is no history."""
    schema = settings.schema
    with (
        connect(settings.source_url, what="source", client_encoding="UTF8") as source,
        connect(
            settings.destination_url, what="destination", client_encoding="UTF8"
        ) as destination,
    ):
        with explained("destination"):
            schema_version.require_current(destination, schema)
            stored = sources.read(destination, schema, settings.source)
            held = checkpoints.read(destination, schema, settings.source)
            if stored is None or held is None:
                raise SetupError(
                    f'the source "{settings.source}" has no history yet', fix="run `bemi init`"
                )
            epoch = checkpoints.read_epoch(destination, schema, held.epoch)
            unknown = [
                interval.name
                for interval in baselines.intervals(destination, schema, held.source_id)
                if is_unknown(interval)
            ]
        broken: list[str] = []
        if publication.read(source, settings.publication) is None:
            broken.append(f'the publication "{settings.publication}" is gone')
        found = slot.read(source, settings.slot)
        if found is None:
            broken.append(f'the replication slot "{settings.slot}" is gone')
        elif found.wal_status == "lost":
            broken.append(
                f'the replication slot "{settings.slot}" is lost: the source has removed WAL'
                " that it needed"
            )
        gap = None
        if not broken and found is not None and found.confirmed is not None:
            replication = Source(settings.source_url)
            try:
                identity = replication.identify()
            finally:
                replication.close()
            gap = epoch_changed(epoch, identity, held.position)
            if gap is None:
                with explained("destination"):
                    gap = checkpoints.read_restored(destination, schema, held)
            if gap is None and found.confirmed > held.position:
                gap = f"the history ends at {held.position}, the slot begins at {found.confirmed}"
    return Diagnosis(tuple(broken), gap, tuple(unknown))


def is_unknown(interval: Interval) -> bool:
    """Whether a gap lies before an interval or in it, and nobody has looked what is behind it."""
    return (interval.known_before and interval.lacks_baseline) or interval.found_missing


def make_anew(settings: Settings, *, new_slot: bool, report: Report) -> None:
    """Publication and slot, those that are broken; for the tables that were tracked."""
    setup.init(settings, new_slot=new_slot, report=report)


def take_over(
    settings: Settings,
    captures: Callable[[], None],
    stop: threading.Event,
) -> None:
    """Wait until a worker goes on behind the gap, which it records as accepted.

    `captures` sees that there is one that accepts it. Then whatever was found missing before is
    accepted as well.
    """
    deadline = time.monotonic() + _PATIENCE
    while not stop.is_set():
        captures()
        found = diagnose(settings)
        if not found.broken and found.gap is None:
            break
        if time.monotonic() > deadline:
            raise SetupError(
                f"no worker went on behind the gap: {found.gap or '; '.join(found.broken)}",
                fix="stop other workers of this source, then run the command again",
            )
        stop.wait(_PAUSE)
    else:
        return
    with (
        connect(settings.destination_url, what="destination") as destination,
        explained("destination"),
    ):
        destination.execute(
            sql.SQL(
                "update {} set accepted_at = now() where accepted_at is null and relation is null "
                "and source_id = (select source_id from {} where name = %s)"
            ).format(
                sql.Identifier(settings.schema, "gaps"),
                sql.Identifier(settings.schema, "sources"),
            ),
            [settings.source],
        )
