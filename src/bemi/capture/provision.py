"""What `init` makes on the source: the publication with its tables, the slot, event triggers.

Each step leaves what is there as it is, and says what it did; in which order they come, `setup`
knows.
"""

from typing import Any

import psycopg

from bemi.capture import event_triggers, postgrest, publication, slot
from bemi.capture.progress import Progress
from bemi.capture.tables import TableState, publish, survey
from bemi.config import Settings
from bemi.connections import explained
from bemi.errors import SetupError
from bemi.lsn import Lsn
from bemi.store.coverage import forget_stamp
from bemi.store.sources import Setup

Connection = psycopg.Connection[Any]


def make_publication(
    source: Connection, destination: Connection, settings: Settings, progress: Progress
) -> bool:
    """Whether it was made now, so that a slot that is older could not get past its beginning."""
    name = settings.publication
    found = publication.read(source, name)
    with explained("source"):
        if found is not None:
            if not found.generated and found.owned:
                with explained("destination"):
                    forget_stamp(destination, settings.schema, settings.source)
                publication.publish_generated(source, name)
                progress.add(f'let the publication "{name}" have stored generated columns')
            return False
        # The slot begins after this commit; it must not be there only in memory.
        source.execute("set synchronous_commit = local")
        try:
            publication.create(source, name)
        except psycopg.errors.InsufficientPrivilege as error:
            wanted = [
                state.identifier
                for state in survey(source, settings)
                if state.wanted and state.reason is None
            ]
            raise SetupError(
                f'the role "{source.info.user}" may not create a publication in database'
                f' "{source.info.dbname}"',
                fix="as the owner of the tables: "
                + publication.create_statement(name, wanted, source.info.server_version),
            ) from error
    progress.add(f'created the publication "{name}"')
    return True


def publish_tables(
    source: Connection, settings: Settings, progress: Progress
) -> dict[int, TableState]:
    """Add the chosen tables; those that could not be added, with the reason, by OID."""
    missing = [
        state
        for state in survey(source, settings)
        if state.wanted and not state.published and state.reason is None
    ]
    with explained("source"):
        added, refused = publish(source, settings.publication, missing)
    if added:
        count = f"{len(added)} tables" if len(added) > 1 else added[0].qualified
        progress.add(f'added {count} to the publication "{settings.publication}"')
    return {state.oid: state for state in refused}


def make_slot(
    source: Connection, settings: Settings, progress: Progress, *, anew: bool
) -> tuple[Lsn, bool]:
    """Where the slot stands, and whether it was made now.

    One that is lost, or older than the publication, is made anew.

    To advance it past the publication's beginning would not do: a transaction that wrote before
    and commits after would still be decoded as of before. Making a slot waits for those.
    """
    name = settings.slot
    found = slot.read(source, name)
    with explained("source"):
        if found is not None and (anew or found.wal_status == "lost"):
            if found.active_pid is not None:
                raise slot.held(found)
            slot.drop(source, found)
            progress.add(f'dropped the replication slot "{name}", which could not go on')
            found = None
        if found is not None and found.confirmed is not None:
            return found.confirmed, False
        position = slot.create(
            source, name, url=settings.source_url, wait=settings.slot_wait, report=progress.report
        )
    progress.add(f'created the replication slot "{name}" at {position}')
    return position, True


def record_ddl(source: Connection, setup: Setup, progress: Progress, *, asked: bool) -> str | None:
    """Make the event triggers, or bring to this version those that an earlier run made.

    The SQL for who may, when this role may not.
    """
    if not asked and not (setup.ddl and event_triggers.read(source).installed != "no"):
        return None
    with explained("source"):
        try:
            made = event_triggers.install(source)
        except psycopg.errors.InsufficientPrivilege:
            return event_triggers.script()
    if made:
        progress.add("made event triggers that record DDL")
    return None


def serve_postgrest(
    source: Connection, chosen: postgrest.Options | None, progress: Progress
) -> str | None:
    """Make the function that PostgREST calls before each request.

    The SQL for who may, when this role may not.
    """
    if chosen is None:
        return None
    with explained("source"):
        try:
            made = postgrest.install(source, chosen)
        except psycopg.errors.InsufficientPrivilege:
            return postgrest.script(chosen)
    if made:
        progress.add(f"made the function {chosen.function}, for PostgREST to call")
    return None
