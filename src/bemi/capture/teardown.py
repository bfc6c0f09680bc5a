"""Takes away what `init` made: from the source without a trace, the history only when asked.

Nothing is done while a worker holds the slot, and nothing that is not Bemi's is dropped.
Replica identities belong to the application's tables: how to set them back is told, not done.
"""

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from bemi.capture import event_triggers, postgrest, publication, slot
from bemi.capture.progress import Progress, Report
from bemi.config import Settings
from bemi.connections import connect, explained
from bemi.errors import BemiError, SetupError
from bemi.store import checkpoint, schema_version, sources

Connection = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class TeardownResult:
    changed: tuple[str, ...]
    set_back: tuple[str, ...]
    """SQL that sets back the replica identities that `init` changed."""
    notes: tuple[str, ...]
    history_kept: bool
    """Whether there is a history that stays readable."""


def teardown(settings: Settings, *, history: bool, report: Report) -> TeardownResult:
    """Drop the slot and the publication; with `history`, the destination's schema too.

    Replica identities are the application's tables: the SQL that sets them back is returned
    and not run. Raises `SetupError`, with nothing done, while a worker holds the slot, and where
    the history says that slot and publication are not this source's (`refusal`).
    """
    progress = Progress(report)
    notes: list[str] = []
    with (
        connect(settings.source_url, what="source", client_encoding="UTF8") as source,
        progress.completing("bemi teardown"),
    ):
        with explained("source"):
            found = _droppable_slot(source, settings, notes)
            published = _droppable_publication(source, settings, notes)
        stored, refused = _stored(settings, notes, required=history)
        # Where neither side has anything of it, there is nothing to be mistaken about.
        if refused is not None and (
            stored is not None or found is not None or published is not None
        ):
            raise refused
        if history:
            with (
                connect(
                    settings.destination_url, what="destination", client_encoding="UTF8"
                ) as destination,
                explained("destination"),
            ):
                _require_only_ours(destination, settings)
        with explained("source"):
            if found is not None:
                slot.drop(source, found)
                progress.add(f'dropped the replication slot "{found.name}"')
            if published is not None:
                publication.drop(source, published.name)
                progress.add(f'dropped the publication "{published.name}"')
            _remove_event_triggers(source, notes, progress)
            _remove_postgrest(source, notes, progress)
            set_back = _still_full(source, stored)
        if history:
            with (
                connect(
                    settings.destination_url, what="destination", client_encoding="UTF8"
                ) as destination,
                explained("destination"),
            ):
                _drop_history(destination, settings, progress)
    kept = stored is not None and not history
    if kept:
        _mark_removed(settings)
    return TeardownResult(tuple(progress.done), tuple(set_back), tuple(notes), kept)


def refusal(
    destination: Connection, settings: Settings, stored: sources.StoredSource | None
) -> SetupError | None:
    """Why slot and publication of the settings are not to be dropped for this source, if so.

    Whose they are then would lose its changes without a word.
    """
    if stored is None:
        known = [each.name for each in sources.read_all(destination, settings.schema)]
        return SetupError(
            f'the history in schema "{settings.schema}" has no source {settings.source}, so the'
            f' slot "{settings.slot}" and the publication "{settings.publication}" may be'
            " another's",
            fix=(f"its sources: {', '.join(known)}" if known else "correct the settings")
            + f"; if nobody needs them: select pg_drop_replication_slot('{settings.slot}');"
            f' drop publication "{settings.publication}";',
        )
    if (stored.slot, stored.publication) != (settings.slot, settings.publication):
        return SetupError(
            f"the history knows the source {stored.name} with slot {stored.slot} and publication"
            f" {stored.publication}, the settings with {settings.slot} and {settings.publication}",
            fix="correct the settings, or name the source that is meant",
        )
    held = checkpoint.read(destination, settings.schema, stored.name)
    epoch = (
        None if held is None else checkpoint.read_epoch(destination, settings.schema, held.epoch)
    )
    other = sources.twin(
        destination,
        settings.schema,
        stored.name,
        slot=stored.slot,
        publication=stored.publication,
        system_identifier=None if epoch is None else epoch.system_identifier,
        database_oid=None if epoch is None else epoch.database_oid,
    )
    if other is None:
        return None
    what = f"slot {other.slot}" if other.slot == stored.slot else f"publication {other.publication}"
    return SetupError(
        f"the {what} is by now that of the source {other.name}, which would lose it",
        fix=f"`bemi source remove {other.name}` removes that one",
    )


def _droppable_slot(source: Connection, settings: Settings, notes: list[str]) -> slot.Slot | None:
    found = slot.read(source, settings.slot)
    if found is None:
        return None
    fault = found.fault(source.info.dbname)
    if fault is not None:
        notes.append(f'left the replication slot "{found.name}": it is not one of Bemi\'s, {fault}')
        return None
    if found.active_pid is not None:
        raise slot.held(found)
    return found


def _droppable_publication(
    source: Connection, settings: Settings, notes: list[str]
) -> publication.Publication | None:
    found = publication.read(source, settings.publication)
    if found is None:
        return None
    if found.faults:
        notes.append(
            f'left the publication "{found.name}": it is not one of Bemi\'s,'
            f" {'; '.join(found.faults)}"
        )
        return None
    if not found.owned:
        raise SetupError(
            f'the publication "{found.name}" belongs to "{found.owner}"; the role'
            f' "{source.info.user}" may not drop it',
            fix=f'as {found.owner}: drop publication "{found.name}"; then run'
            " `bemi teardown` again",
        )
    return found


def _remove_event_triggers(source: Connection, notes: list[str], progress: Progress) -> None:
    if event_triggers.read(source).installed == "no":
        return
    try:
        event_triggers.remove(source)
    except psycopg.errors.InsufficientPrivilege:
        notes.append(
            "the event triggers that record DDL stay: only a superuser may remove them; as one:\n"
            + event_triggers.removal()
        )
        return
    progress.add("dropped the event triggers that record DDL")


def _remove_postgrest(source: Connection, notes: list[str], progress: Progress) -> None:
    """But not while PostgREST calls it: each request would fail."""
    for installed in postgrest.read(source):
        chosen = installed.options
        name = f"the function {chosen.function}"
        callers = postgrest.callers(source, chosen)
        if callers:
            notes.append(
                f"{name} stays: it is called by {', '.join(callers)}, and every request would fail;"
                " after `alter role authenticator reset pgrst.db_pre_request;"
                " notify pgrst, 'reload config'` and the like, run:\n" + postgrest.removal(chosen)
            )
            continue
        try:
            postgrest.remove(source, chosen)
        except psycopg.errors.InsufficientPrivilege:
            notes.append(f"{name} stays: as its owner, run:\n" + postgrest.removal(chosen))
            continue
        except psycopg.errors.DependentObjectsStillExist as error:
            notes.append(f"{name} stays, since something needs it: {error.diag.message_detail}")
            continue
        progress.add(f"dropped {name}")


def _stored(
    settings: Settings, notes: list[str], *, required: bool
) -> tuple[sources.StoredSource | None, SetupError | None]:
    """What init noted, and why not to go by it. Also without a destination, the source is freed."""
    try:
        with (
            connect(
                settings.destination_url, what="destination", client_encoding="UTF8"
            ) as destination,
            explained("destination"),
        ):
            stored = sources.read(destination, settings.schema, settings.source)
            return stored, refusal(destination, settings, stored)
    except BemiError as error:
        if required:
            raise
        notes.append(
            f"{error}; so it is not known which tables `bemi init` set to REPLICA IDENTITY FULL"
        )
        return None, None


def _mark_removed(settings: Settings) -> None:
    """Have the history say that nothing captures it any more, until `init` sets it up again."""
    with (
        connect(settings.destination_url, what="destination", client_encoding="UTF8") as conn,
        explained("destination"),
    ):
        # A history of an earlier version may have no place for that.
        newest = schema_version.migrations()[-1].version
        if schema_version.current_version(conn, settings.schema) == newest:
            sources.remove(conn, settings.schema, settings.source)


def _still_full(source: Connection, stored: sources.StoredSource | None) -> list[str]:
    if stored is None or not stored.setup.replica_identity:
        return []
    full = {
        row[0]
        for row in source.execute(
            "select n.nspname || '.' || c.relname from pg_class c"
            " join pg_namespace n on n.oid = c.relnamespace where c.relreplident = 'f'"
        )
    }
    return [back for name, back in stored.setup.replica_identity.items() if name in full]


def _require_only_ours(destination: Connection, settings: Settings) -> None:
    """That dropping the history takes away nothing but this source's."""
    others = [
        source.name
        for source in sources.read_all(destination, settings.schema)
        if source.name != settings.source
    ]
    if others:
        raise SetupError(
            f'schema "{settings.schema}" also holds the history of: {", ".join(others)}',
            fix="run `bemi teardown` without --history",
        )
    dependents = [
        row[0]
        for row in destination.execute(
            "select distinct v.oid::regclass::text from pg_depend d"
            " join pg_rewrite w on d.classid = 'pg_rewrite'::regclass and w.oid = d.objid"
            " join pg_class v on v.oid = w.ev_class"
            " join pg_class t on d.refclassid = 'pg_class'::regclass and t.oid = d.refobjid"
            " where t.relnamespace = to_regnamespace(quote_ident(%(schema)s))"
            " and v.relnamespace <> t.relnamespace order by 1",
            {"schema": settings.schema},
        )
    ]
    if dependents:
        raise SetupError(
            f"views outside the history depend on it: {', '.join(dependents)}",
            fix="drop them first",
        )


def _drop_history(destination: Connection, settings: Settings, progress: Progress) -> None:
    if schema_version.current_version(destination, settings.schema) == 0:
        return
    destination.execute(sql.SQL("drop schema {} cascade").format(sql.Identifier(settings.schema)))
    progress.add(f'dropped schema "{settings.schema}" of the destination, with the history')
