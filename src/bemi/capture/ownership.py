"""Sees that the names that `bemi init` is to use are this source's, before anything is changed.

A slot or a publication that somebody else reads is never taken: what one of two acknowledges,
the other never gets.
"""

from typing import Any

import psycopg

from bemi.capture import publication, slot
from bemi.capture.source import Identity
from bemi.config import Settings
from bemi.connections import explained
from bemi.errors import SetupError
from bemi.store import schema_version, sources

Connection = psycopg.Connection[Any]


def require_same_source(
    settings: Settings, stored: sources.StoredSource | None, identity: Identity
) -> None:
    if stored is None:
        return
    known = (stored.database, stored.slot, stored.publication)
    now = (identity.database, settings.slot, settings.publication)
    if known != now:
        raise SetupError(
            f'the destination knows the source "{settings.source}" with database "{known[0]}",'
            f' slot "{known[1]}" and publication "{known[2]}", not with database "{now[0]}",'
            f' slot "{now[1]}" and publication "{now[2]}"',
            fix="set BEMI_SOURCE to a name of its own for this one, or the other settings to"
            " what they were",
        )


def require_no_twin(destination: Connection, settings: Settings, identity: Identity) -> None:
    """That no other source of the history is captured with this slot: what one of the two
    acknowledges, the other never gets."""
    if schema_version.current_version(destination, settings.schema) == 0:
        return
    other = sources.twin(
        destination,
        settings.schema,
        settings.source,
        slot=settings.slot,
        publication=settings.publication,
        system_identifier=identity.system_identifier,
        database_oid=identity.database_oid,
    )
    if other is not None:
        same = other.slot == settings.slot
        what = f"slot {other.slot}" if same else f"publication {other.publication}"
        raise SetupError(
            f"the {what} is that of the source {other.name}",
            fix="set BEMI_SLOT and BEMI_PUBLICATION to names of their own, or use --source"
            f" {other.name}",
        )


def require_ours(
    source: Connection, settings: Settings, stored: sources.StoredSource | None
) -> None:
    """That neither name is taken by something that is not Bemi's, nor the slot by another history.

    `init` notes a source in the history before it makes the slot: a slot that is there before
    the source is noted was made for another one. (An owner may have made the publication.)
    """
    with explained("source"):
        found = publication.read(source, settings.publication)
        if found is not None and found.faults:
            raise SetupError(
                f'the publication "{found.name}" is not one of Bemi\'s: {"; ".join(found.faults)}',
                fix=found.fix or "name another one in BEMI_PUBLICATION",
            )
        existing = slot.read(source, settings.slot)
        fault = None if existing is None else existing.fault(source.info.dbname)
        if fault is not None:
            raise SetupError(
                f'the replication slot "{settings.slot}" can\'t be used: {fault}',
                fix="name another one in BEMI_SLOT",
            )
        if existing is not None and stored is None:
            raise SetupError(
                f'the replication slot "{settings.slot}" is there already, and this history (schema'
                f' "{settings.schema}") did not make it: another history, or another destination,'
                " may be captured with it",
                fix="set BEMI_SLOT and BEMI_PUBLICATION to names of their own; or, if nobody needs"
                f" it: select pg_drop_replication_slot('{settings.slot}');",
            )
