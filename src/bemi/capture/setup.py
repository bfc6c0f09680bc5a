"""Makes what a worker needs on both servers. Safe to run twice.

The order carries a guarantee: the publication is committed before the slot is made, because
decoding WAL from a time without the publication fails for ever; and the checkpoint begins
where the slot does, so the history is complete from there. Reads nothing of the stream.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import psycopg

from bemi.capture import (
    coverage,
    full_identity,
    ownership,
    postgrest,
    preflight,
    provision,
    slot,
)
from bemi.capture.progress import Progress, Report
from bemi.capture.source import Identity, Source
from bemi.capture.tables import TableState, survey, unmatched_rules, with_remembered_rules
from bemi.config import Settings
from bemi.connections import connect, explained
from bemi.errors import RefusedError, SetupError
from bemi.lsn import Lsn
from bemi.store import checkpoint, grants, migrate, sources
from bemi.store.checkpoint import Checkpoint
from bemi.store.sources import Setup

Connection = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class InitResult:
    changed: tuple[str, ...]
    """What this run did, in order; empty when everything was there."""
    tracked: tuple[TableState, ...]
    untracked: tuple[TableState, ...]
    """Wanted, not tracked; each with its reason."""
    unwanted: tuple[TableState, ...]
    """Tracked since an earlier run, though the rules do not want them any more."""
    not_full: tuple[tuple[str, str], ...]
    """Tables that were to get REPLICA IDENTITY FULL and did not, with the reason."""
    left_out: tuple[tuple[str, str], ...]
    """Tables that `full` matches and that it is not for, with the reason."""
    gap: str | None
    """What is lost between the checkpoint and the slot, which `run --accept-gap` records."""
    position: Lsn
    """Where the history goes on."""
    remembered: tuple[str, ...]
    """Flags of an earlier run that still say which tables are wanted, where none were given now."""
    unmatched: tuple[str, ...] = ()
    """Rules that match nothing yet, each in a sentence."""
    ddl_script: str | None = None
    """SQL that an owner has to run for the event triggers, where this role may not make them."""
    postgrest_script: str | None = None
    """The same for the function that PostgREST calls."""
    postgrest_use: str | None = None
    """SQL that lets PostgREST call it, where no setting in the database does yet."""


def init(
    settings: Settings,
    *,
    full: Sequence[str] = (),
    readers: Sequence[str] = (),
    new_slot: bool = False,
    ddl: bool = False,
    snapshot: bool = False,
    for_postgrest: postgrest.Options | None = None,
    report: Report,
) -> InitResult:
    """Make the destination's schema, the publication, the slot and the checkpoint.

    `full`: globs of tables to set to REPLICA IDENTITY FULL, of those that are to be tracked.
    `readers`: roles to let read the history. `new_slot`: make the slot anew, for a stream that
    can't get past some WAL. `ddl`: make the event triggers that record DDL, too. `snapshot`: from
    now on, let workers take the baselines of tables that have none. `for_postgrest`: make the
    function that PostgREST calls before each request.
    What is there already stays as it is; a run that failed is completed by the next one.
    Raises `SetupError`, before anything is changed when the servers are not as they must be.
    """
    progress = Progress(report)
    with (
        connect(settings.source_url, what="source", client_encoding="UTF8") as source,
        connect(
            settings.destination_url, what="destination", client_encoding="UTF8"
        ) as destination,
        progress.completing("bemi init"),
    ):
        preflight.require_source(source, settings)
        identity = _identify(settings, source.info.user)
        with explained("destination"):
            preflight.require_destination(destination, settings)
            stored = sources.read(destination, settings.schema, settings.source)
            ownership.require_same_source(settings, stored, identity)
            ownership.require_no_twin(destination, settings, identity)
            _require_roles(destination, readers)
        ownership.require_ours(source, settings, stored)
        setup = _chosen(settings, stored)
        if ddl:
            setup = msgspec.structs.replace(setup, ddl=True)
        if snapshot:
            setup = msgspec.structs.replace(setup, snapshot=True)
        remembered = _remembered(settings, setup)
        settings = with_remembered_rules(settings, setup)
        to_full, left_out = full_identity.select(source, settings, full)

        with explained("destination"):
            _make_history(destination, settings, identity, progress)
            _remember(destination, settings, setup)
        setup, not_full = full_identity.set_all(
            source, destination, settings, setup, to_full, progress
        )
        made = provision.make_publication(source, destination, settings, progress)
        refused = provision.publish_tables(source, settings, progress)
        published = coverage.memberships(source, settings.publication)
        position, fresh = provision.make_slot(source, settings, progress, anew=new_slot or made)
        with explained("destination"):
            held = _register(destination, settings, identity, position)
            gap = _find_gap(destination, settings, held, identity, position)
            for role in readers:
                if grants.grant(destination, settings.schema, role):
                    progress.add(f'let role "{role}" read the history')
            same = _is_of(destination, settings, held, identity)
        if same:
            since = position if fresh else None
            _cover(source, destination, settings, held, since, published, progress)

        with explained("destination"):
            # Not before all is in place, since workers take it for the word to go.
            if sources.restore(destination, settings.schema, settings.source):
                progress.add(f'added the source "{settings.source}" again, which was removed')

        ddl_script = provision.record_ddl(source, setup, progress, asked=ddl)
        postgrest_script = provision.serve_postgrest(source, for_postgrest, progress)
        unused = for_postgrest is not None and not postgrest.callers(source, for_postgrest)
        states = survey(source, settings)
        unmatched = unmatched_rules(source, settings, states)
    return InitResult(
        changed=tuple(progress.done),
        tracked=tuple(state for state in states if state.published),
        untracked=tuple(
            refused.get(state.oid, state)
            for state in states
            if state.wanted and not state.published
        ),
        unwanted=tuple(state for state in states if state.published and not state.wanted),
        not_full=tuple(not_full),
        left_out=tuple(left_out),
        gap=gap,
        position=held.position,
        remembered=remembered,
        unmatched=unmatched,
        ddl_script=ddl_script,
        postgrest_script=postgrest_script,
        postgrest_use=postgrest.use(for_postgrest) if unused and for_postgrest else None,
    )


def without_key(settings: Settings, full: Sequence[str]) -> list[TableState]:
    """Tables that are wanted and can be tracked with REPLICA IDENTITY FULL only.

    Those that `full` names already are left out. Nothing is changed.
    """
    with connect(settings.source_url, what="source", client_encoding="UTF8") as source:
        preflight.require_source(source, settings)
        with (
            connect(
                settings.destination_url, what="destination", client_encoding="UTF8"
            ) as destination,
            explained("destination"),
        ):
            stored = sources.read(destination, settings.schema, settings.source)
        settings = with_remembered_rules(settings, _chosen(settings, stored))
        chosen = {state.oid for state in full_identity.select(source, settings, full)[0]}
        return [
            state
            for state in survey(source, settings)
            if state.wanted
            and state.identity == "none"
            and not state.published
            and state.oid not in chosen
            and (state.fix or "").endswith("replica identity full;")
        ]


# --- before anything is changed --------------------------------------------------------------


def _identify(settings: Settings, role: str) -> Identity:
    """Also the test of the replication privilege, by doing."""
    try:
        replication = Source(settings.source_url)
    except RefusedError as error:
        # The same role has an ordinary connection already, whatever the server's words are.
        raise SetupError(str(error), fix=slot.replication_fix(role)) from error
    try:
        return replication.identify()
    finally:
        replication.close()


def _require_roles(destination: Connection, readers: Sequence[str]) -> None:
    for role in grants.missing(destination, readers):
        raise SetupError(
            f'there is no role "{role}" on the destination',
            fix=f'create role "{role}" login; then run `bemi init` again',
        )


def _chosen(settings: Settings, stored: sources.StoredSource | None) -> Setup:
    """The rules given now; without any, those of an earlier run."""
    setup = stored.setup if stored is not None else Setup()
    if settings.schemas or settings.tables:
        return msgspec.structs.replace(setup, schemas=settings.schemas, tables=settings.tables)
    return setup


def _remembered(settings: Settings, setup: Setup) -> tuple[str, ...]:
    if settings.schemas or settings.tables:
        return ()
    return (
        *(f"--schema {shlex.quote(glob)}" for glob in setup.schemas),
        *(f"--table {shlex.quote(glob)}" for glob in setup.tables),
    )


# --- the steps of init -----------------------------------------------------------------------


def _make_history(
    destination: Connection, settings: Settings, identity: Identity, progress: Progress
) -> None:
    applied = migrate.migrate(destination, settings.schema)
    if applied:
        progress.add(
            f'migrated schema "{settings.schema}" of the destination to version {applied[-1]}'
        )
    made = sources.declare(
        destination,
        settings.schema,
        name=settings.source,
        database=identity.database,
        slot=settings.slot,
        publication=settings.publication,
    )
    if made:
        progress.add(f'registered the source "{settings.source}" in the destination')


def _remember(destination: Connection, settings: Settings, setup: Setup) -> None:
    stored = sources.read(destination, settings.schema, settings.source)
    if stored is None or stored.setup != setup:
        sources.remember(destination, settings.schema, settings.source, setup)


def _cover(
    source: Connection,
    destination: Connection,
    settings: Settings,
    held: Checkpoint,
    since: Lsn | None,
    published: Mapping[int, int],
    progress: Progress,
) -> None:
    """Say from where on each table is complete. What that takes too long for is left to the
    worker; a slot that was made after a table was published has it whole from there."""
    coverage.keep(
        source,
        destination,
        schema=settings.schema,
        publication=settings.publication,
        source_id=held.source_id,
        epoch=held.epoch,
        since=since,
        published_before=published,
        patience=settings.slot_wait,
        verify=False,
        cause="init",
        report=progress.report,
    )


def _register(
    destination: Connection, settings: Settings, identity: Identity, position: Lsn
) -> Checkpoint:
    return checkpoint.register(
        destination,
        settings.schema,
        name=settings.source,
        database=identity.database,
        slot=settings.slot,
        publication=settings.publication,
        system_identifier=identity.system_identifier,
        timeline=identity.timeline,
        database_oid=identity.database_oid,
        position=position,
    )


def _find_gap(
    destination: Connection, settings: Settings, held: Checkpoint, identity: Identity, at: Lsn
) -> str | None:
    """The worker judges by itself; here it is only told early."""
    if not _is_of(destination, settings, held, identity):
        return (
            "the source is not the one that the history was captured from (restored, failed over"
            f" or upgraded); changes after {held.position} there are lost"
        )
    if at > held.position:
        return f"changes between {held.position} and {at} are lost"
    return None


def _is_of(
    destination: Connection, settings: Settings, held: Checkpoint, identity: Identity
) -> bool:
    """Whether the source is the one that the history was captured from."""
    epoch = checkpoint.read_epoch(destination, settings.schema, held.epoch)
    known = (epoch.system_identifier, epoch.timeline, epoch.database_oid)
    return known == (identity.system_identifier, identity.timeline, identity.database_oid)
