"""What `init` makes on the source: the tables to publish (and their rules), publication, slot."""

import shlex

from psycopg import conninfo

from bemi.capture import publication, slot
from bemi.capture.checks.finding import (
    FEW,
    Servers,
    fetch_value,
    fixes_of,
    missing,
    name_tables,
    rules_of,
    source_of,
)
from bemi.capture.tables import survey, unmatched_rules
from bemi.observed import Finding


def trackable(servers: Servers) -> Finding:
    """Tables that the rules want, and that have an effective identity or not."""
    settings = rules_of(servers)
    servers.tables = survey(source_of(servers), settings)
    failing = [state for state in servers.tables if state.published and state.reason]
    if failing:
        return Finding(
            "tables",
            "failure",
            "published without a usable identity, so that the application's updates and deletes"
            f" fail: {name_tables(failing, reasons=True)}",
            fixes_of(failing),
        )
    wanted = [state for state in servers.tables if state.wanted]
    unable = [state for state in wanted if state.reason is not None]
    if unable:
        return Finding(
            "tables",
            "warning",
            f"{len(unable)} of {len(wanted)} tables can't be tracked: "
            f"{name_tables(unable, reasons=True)}",
            fixes_of(unable),
        )
    if not wanted:
        return Finding(
            "tables",
            "warning",
            "there is no table to track",
            "create one, or check `schemas` and `tables` where you set them",
        )
    return Finding("tables", "ok", f"tables with a usable identity: {len(wanted)}, that is all")


def rules(servers: Servers) -> Finding:
    """A rule that matches nothing hides nothing: what it was for is stored as it is."""
    settings = rules_of(servers)
    unmatched = unmatched_rules(source_of(servers), settings, servers.tables)
    if unmatched:
        more = f" and {len(unmatched) - FEW} more" if len(unmatched) > FEW else ""
        return Finding(
            "rules",
            "warning",
            "; ".join(unmatched[:FEW]) + more,
            "write them as the tables have it now; those for what is still to come, or for another"
            " source, may stay",
        )
    if not settings.rules:
        return Finding("rules", "ok", "there are no rules for columns and changes")
    return Finding("rules", "ok", "each rule matches something of a tracked table")


def ownership(servers: Servers) -> Finding:
    """Whether the role may publish: new tables are added by it, or by an owner."""
    conn = source_of(servers)
    found = publication.read(conn, servers.settings.publication)
    wanted = [state for state in servers.tables if state.wanted and state.reason is None]
    unpublished = [state for state in wanted if not state.published]
    foreign = [state for state in unpublished if not state.owned]
    role = conn.info.user
    if found is None:
        create = publication.create_statement(
            servers.settings.publication,
            [state.identifier for state in wanted],
            conn.info.server_version,
        )
        if not fetch_value(conn, "select has_database_privilege(current_database(), 'CREATE')"):
            return Finding(
                "may publish",
                "warning",
                f'role "{role}" may not create a publication',
                f"as the owner of the tables: {create}",
            )
    elif not found.owned and unpublished:
        return Finding(
            "may publish",
            "warning",
            f'the publication belongs to "{found.owner}": role "{role}" can\'t add to it: '
            f"{name_tables(unpublished)}",
            publication.add_statement(found.name, [state.identifier for state in unpublished]),
        )
    if foreign:
        return Finding(
            "may publish",
            "warning",
            f'role "{role}" does not own, and so may not publish: {name_tables(foreign)}',
            "let it own them, or as a superuser: "
            + publication.add_statement(
                servers.settings.publication, [state.identifier for state in foreign]
            ),
        )
    return Finding("may publish", "ok", f'role "{role}" may publish what is to be tracked')


def publication_whole(servers: Servers) -> Finding:
    name = servers.settings.publication
    found = servers.publication = publication.read(source_of(servers), name)
    if found is None:
        return missing(servers, "publication", f'the publication "{name}" does not exist')
    if found.faults:
        return Finding(
            "publication",
            "failure",
            f'the publication "{name}" is not one of Bemi\'s: {"; ".join(found.faults)}',
            found.fix or "name another one in BEMI_PUBLICATION, then run `bemi init`",
        )
    if not found.generated:
        return Finding(
            "publication",
            "warning",
            f'the publication "{name}" leaves out stored generated columns: updates of tables with'
            " one and REPLICA IDENTITY FULL fail",
            "run `bemi init`",
        )
    return Finding("publication", "ok", f'the publication "{name}" is whole')


def all_published(servers: Servers) -> Finding:
    found = servers.publication
    if found is None:
        return Finding("tracked", "not checked", "not checked: there is no publication yet")
    missing = [
        state
        for state in servers.tables
        if state.wanted and state.reason is None and not state.published
    ]
    extra = [state for state in servers.tables if state.published and not state.wanted]
    if missing:
        return Finding(
            "tracked",
            "warning",
            f"not tracked yet: {name_tables(missing)}",
            "`bemi init` adds them, and so does a running worker with new_tables = track",
        )
    if extra:
        return Finding(
            "tracked",
            "warning",
            f"tracked, though the rules do not want them: {name_tables(extra)}",
            "\n".join(publication.drop_statement(found.name, state.identifier) for state in extra),
        )
    count = sum(state.published for state in servers.tables)
    return Finding("tracked", "ok", f"tables tracked: {count}")


def slot_usable(servers: Servers) -> Finding:
    name = servers.settings.slot
    conn = source_of(servers)
    found = servers.slot = slot.read(conn, name)
    if found is None:
        return missing(servers, "slot", f'the replication slot "{name}" does not exist')
    fault = found.fault(conn.info.dbname)
    if fault is not None:
        return Finding(
            "slot",
            "failure",
            f'the replication slot "{name}" is not one for this source: {fault}',
            "name another one in BEMI_SLOT, then run `bemi init`",
        )
    if found.wal_status == "lost":
        return Finding(
            "slot",
            "failure",
            f'the replication slot "{name}" is lost: the source has removed WAL that it needed',
            "`bemi recover` makes a new one, and finds out what changed meanwhile",
        )
    kept = f"{(found.retained or 0) / 2**20:,.1f} MB of WAL are kept for it"
    if found.wal_status == "unreserved":
        return Finding(
            "slot",
            "warning",
            f'the replication slot "{name}" is about to be lost: {kept}, more than'
            " max_slot_wal_keep_size",
            "start the worker now, or raise max_slot_wal_keep_size",
        )
    if found.safe_wal_size is not None and (found.retained or 0) >= found.safe_wal_size:
        return Finding(
            "slot",
            "warning",
            f'the replication slot "{name}" has used more than half of its room: {kept}, and it is'
            f" lost after {found.safe_wal_size / 2**20:,.1f} MB more",
            "start the worker, see why it lags, or raise max_slot_wal_keep_size",
        )
    state = "in use" if found.active_pid is not None else "idle: no worker is running"
    return Finding("slot", "ok", f'the replication slot "{name}" is {state}; {kept}')


def failover(servers: Servers) -> Finding:
    """Whether a standby that takes over has the slot, too. A slot can follow from 17 on."""
    found = servers.slot
    if found is None:
        return Finding("failover", "not checked", "not checked: there is no slot yet")
    if found.failover is None:
        return Finding(
            "failover",
            "ok",
            "before PostgreSQL 17 a slot does not follow to a standby: after a failover `bemi"
            " recover` makes a new one, and tells what it missed",
        )
    if found.failover:
        return Finding(
            "failover", "ok", "standbys that synchronise slots have the replication slot"
        )
    conn = source_of(servers)
    address = conninfo.make_conninfo(
        host=conn.info.host,
        port=conn.info.port,
        user=conn.info.user,
        dbname=conn.info.dbname,
        replication="database",
    )
    return Finding(
        "failover",
        "warning",
        f'the replication slot "{found.name}" does not follow to a standby: a failover loses it,'
        " and the changes that were not stored yet",
        "stop the worker (the statement waits for it), then as a role that may replicate:"
        f" psql {shlex.quote(address)} -c 'ALTER_REPLICATION_SLOT"
        f" {found.name} (FAILOVER true)'",
    )
