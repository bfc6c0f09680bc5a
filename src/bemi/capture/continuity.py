"""Sees that what the slot will send goes on where the history ends.

To be asked by the worker that holds the slot. Where changes between the two can't be had any
more, the gap is recorded, and the worker stops until an operator has accepted it.
"""

import logging
from typing import Any

import psycopg

from bemi.capture.source import Identity
from bemi.config import Settings
from bemi.errors import GapError, SetupError
from bemi.lsn import Lsn
from bemi.store import checkpoint as checkpoints
from bemi.store import coverage, sources
from bemi.store.checkpoint import Checkpoint, Epoch, StoredTransaction

log = logging.getLogger("bemi.worker")


def take_over(
    conn: psycopg.Connection[Any],
    settings: Settings,
    identity: Identity,
    slot_at: Lsn,
    *,
    accept_gap: bool,
    restored: str | None = None,
) -> Checkpoint:
    """Claim the source's checkpoint; the one to go on from. Commits.

    `slot_at` is the slot's confirmed position; `restored` is why the stream was found to be that
    of an older copy. Raises `GapError`, with the gap recorded, when the slot begins behind the
    checkpoint, or in another stretch of WAL history.
    """
    schema = settings.schema
    found = registered(conn, settings)
    # The former holder may be about to commit; one that froze then is waited for elsewhere.
    conn.execute("set local lock_timeout to '30s'")
    held = checkpoints.claim(conn, schema, found.source_id)
    conn.commit()
    epoch = checkpoints.read_epoch(conn, schema, held.epoch)
    changed = epoch_changed(epoch, identity, held.position)
    broken = changed or restored
    if broken is None and slot_at <= held.position:
        return held
    cause = "epoch_changed" if changed else "restored" if restored else "slot_ahead"
    detail = broken or f"the history ends at {held.position}, the slot begins at {slot_at}"
    checkpoints.record_gap(
        conn, schema, held, to=slot_at, cause=cause, detail=detail, accepted=accept_gap
    )
    if not accept_gap:
        conn.commit()
        raise lost(detail)
    before = held
    if broken is None:
        held = checkpoints.advance(conn.cursor(), schema, held, position=slot_at)
    else:
        checkpoints.begin_epoch(
            conn,
            schema,
            held.source_id,
            system_identifier=identity.system_identifier,
            timeline=identity.timeline,
            database_oid=identity.database_oid,
            database=identity.database,
            position=slot_at,
        )
        held = checkpoints.claim(conn, schema, held.source_id)
    coverage.split(
        conn,
        schema,
        held.source_id,
        at=before.position,
        ended=before.epoch,
        epoch=held.epoch,
        onward=slot_at,
        cause=cause,
        same_tables=(epoch.system_identifier, epoch.database_oid)
        == (identity.system_identifier, identity.database_oid),
    )
    conn.commit()
    log.warning("gap accepted", extra={"cause": cause, "detail": detail})
    return held


def registered(conn: psycopg.Connection[Any], settings: Settings) -> Checkpoint:
    """The source's checkpoint, whoever holds it. Raises `SetupError` where there is none."""
    found = checkpoints.read(conn, settings.schema, settings.source)
    if found is None:
        known = [each.name for each in sources.read_all(conn, settings.schema)]
        raise SetupError(
            f'the source "{settings.source}" is not registered in the destination',
            fix="run `bemi init`"
            + (f", or name one of those that are: {', '.join(known)}" if known else ""),
        )
    return found


def expected(
    conn: psycopg.Connection[Any], schema: str, held: Checkpoint, slot_at: Lsn
) -> StoredTransaction | None:
    """What the source must send again before it goes on behind the checkpoint.

    A slot that lags, as after a crash of the source, sends what the history has. One that does
    not is that of an older copy of the source, which went on differently: its server and its
    timeline are the same, and its log may have grown past the checkpoint by now.
    """
    if slot_at >= held.position:
        return None
    conn.execute("set local lock_timeout to '10s'")  # the source hears nothing meanwhile
    found = checkpoints.last_transaction(conn, schema, held, since=slot_at)
    conn.commit()
    return found


def lost(detail: str) -> GapError:
    """An operator must decide."""
    return GapError(
        f"changes are missing and can't be had any more: {detail}",
        fix="find out why; then `bemi recover` goes on behind them and finds out what they came to,"
        " `bemi run --accept-gap` only goes on",
    )


def epoch_changed(epoch: Epoch, identity: Identity, position: Lsn) -> str | None:
    """Why positions of the history can't be compared with the source's, if they can't."""
    if epoch.system_identifier != identity.system_identifier:
        return (
            f"the source is another server: its system identifier is "
            f"{identity.system_identifier}, the history's {epoch.system_identifier}"
        )
    if epoch.database_oid != identity.database_oid:
        return (
            f"the source is another database: its OID is {identity.database_oid}, "
            f"the history's {epoch.database_oid}"
        )
    if epoch.timeline != identity.timeline:
        return (
            f"the source was promoted or restored: it is on timeline {identity.timeline}, "
            f"the history on {epoch.timeline}"
        )
    if position > identity.flushed:
        return (
            f"the source's log ends at {identity.flushed}, before the history's end at "
            f"{position}: it was restored from an older state"
        )
    return None
