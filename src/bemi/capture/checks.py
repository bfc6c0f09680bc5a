"""The checks of source and destination: each looks at one thing and returns one finding.

A finding says what is so, and where it is not as it should be, the exact fix. `CHECKS` lists
them in the order in which they rest on each other.
"""

import ipaddress
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, LiteralString

import psycopg

from bemi.capture import publication, slot
from bemi.capture.encodings import encoding_of
from bemi.capture.publication import Publication
from bemi.capture.slot import Slot
from bemi.capture.tables import TableState, survey, with_remembered_rules
from bemi.config import Settings
from bemi.connections import Role, connect, describe
from bemi.errors import RefusedError, SetupError
from bemi.store import checkpoint, migrate, sources

Level = Literal["ok", "warning", "failure", "not checked"]
Connection = psycopg.Connection[Any]

OLDEST: Final = 14
NEWEST: Final = 18
CLOCK_TOLERANCE: Final = 2.0
"""Seconds that clocks may differ: times of commits are the source's, times of capture ours."""
SHORTEST_SENDER_TIMEOUT_MS: Final = 10_000
"""The worker reports every 5 s; the source wants to hear from it within half of its timeout."""
FEW: Final = 10
"""So many names in a message; the rest are counted."""


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    level: Level
    message: str
    fix: str | None = None


@dataclass(slots=True)
class Servers:
    """What the checks look at: both connections and what was read through them, once."""

    settings: Settings
    clock: Callable[[], float] = time.time
    source: Connection | None = None
    destination: Connection | None = None
    publication: Publication | None = None
    slot: Slot | None = None
    tables: list[TableState] = field(default_factory=list)
    set_up: bool | None = None
    """Whether `init` left any trace: what is missing then is a failure, else a thing to do.
    None: not known yet."""

    def close(self) -> None:
        for conn in (self.source, self.destination):
            if conn is not None:
                conn.close()


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    look: Callable[["Servers"], Finding]
    needs: tuple[str, ...] = ()


# --- the source ------------------------------------------------------------------------------


def source_reachable(servers: Servers) -> Finding:
    url = servers.settings.source_url
    servers.source = connect(url, what="source", client_encoding="UTF8")
    return Finding("source", "ok", f"connected to {describe(url)}")


def version(servers: Servers) -> Finding:
    number = _source(servers).info.server_version // 10000
    if number < OLDEST:
        return Finding(
            "version",
            "failure",
            f"the source is PostgreSQL {number}; messages in the WAL stream came with {OLDEST}",
            f"upgrade the source to PostgreSQL {OLDEST} or newer",
        )
    if number > NEWEST:
        return Finding(
            "version",
            "warning",
            f"the source is PostgreSQL {number}; this Bemi was tested with {OLDEST} to {NEWEST}",
            "look for a newer Bemi",
        )
    return Finding("version", "ok", f"the source is PostgreSQL {number}")


def writable_source(servers: Servers) -> Finding:
    if _one(_source(servers), "select pg_is_in_recovery()"):
        return Finding(
            "primary",
            "failure",
            "the source is a standby; publications and slots are made on the primary",
            "point BEMI_SOURCE_URL at the primary",
        )
    return Finding("primary", "ok", "the source is a primary server")


def wal_level(servers: Servers) -> Finding:
    level = _one(_source(servers), "show wal_level")
    if level != "logical":
        return Finding(
            "wal_level",
            "failure",
            f"wal_level of the source is {level}; row changes are only in the WAL with logical",
            "alter system set wal_level = logical; then restart the source (managed services have"
            " a parameter for it, such as rds.logical_replication or cloudsql.logical_decoding)",
        )
    return Finding("wal_level", "ok", "wal_level is logical")


def replication_privilege(servers: Servers) -> Finding:
    """By doing, since attributes lie on managed services."""
    role = _source(servers).info.user
    try:
        with connect(servers.settings.source_url, what="source", replication=True) as conn:
            conn.execute("IDENTIFY_SYSTEM")
    except RefusedError as error:
        return Finding("replication", "failure", str(error), slot.replication_fix(role))
    return Finding("replication", "ok", f'role "{role}" may replicate')


def free_slots(servers: Servers) -> Finding:
    conn = _source(servers)
    if slot.read(conn, servers.settings.slot) is not None:
        return Finding("free slots", "ok", "the replication slot exists")
    used, limit = _row(
        conn,
        "select count(*), current_setting('max_replication_slots')::int from pg_replication_slots",
    )
    if used >= limit:
        return Finding(
            "free slots",
            "failure",
            f"all {limit} replication slots of the source are in use",
            "drop one that nobody needs (select * from pg_replication_slots), or raise"
            " max_replication_slots and restart",
        )
    return Finding("free slots", "ok", f"{limit - used} of {limit} replication slots are free")


def free_senders(servers: Servers) -> Finding:
    used, limit = _row(
        _source(servers),
        "select count(*), current_setting('max_wal_senders')::int from pg_stat_replication",
    )
    found = slot.read(_source(servers), servers.settings.slot)
    if used >= limit and (found is None or found.active_pid is None):
        return Finding(
            "free senders",
            "failure",
            f"all {limit} WAL senders of the source are in use",
            "end a replication connection that nobody needs, or raise max_wal_senders and restart",
        )
    return Finding("free senders", "ok", f"{limit - used} of {limit} WAL senders are free")


def source_encryption(servers: Servers) -> Finding:
    return _encryption("source TLS", _source(servers), "source")


def wal_sender_timeout(servers: Servers) -> Finding:
    timeout = int(
        _one(
            _source(servers),
            "select setting from pg_settings where name = 'wal_sender_timeout'",
        )
    )
    if timeout == 0:
        return Finding(
            "wal_sender_timeout",
            "warning",
            "wal_sender_timeout is 0: after a network failure the source takes a dead worker for"
            " alive and keeps the slot from a new one",
            "alter system set wal_sender_timeout = '60s'; select pg_reload_conf();",
        )
    if timeout < SHORTEST_SENDER_TIMEOUT_MS:
        return Finding(
            "wal_sender_timeout",
            "warning",
            f"wal_sender_timeout is {timeout} ms: the source may cut a worker that is only busy",
            "alter system set wal_sender_timeout = '60s'; select pg_reload_conf();",
        )
    return Finding("wal_sender_timeout", "ok", f"wal_sender_timeout is {timeout / 1000:g} s")


def wal_retention(servers: Servers) -> Finding:
    limit = int(
        _one(
            _source(servers),
            "select setting from pg_settings where name = 'max_slot_wal_keep_size'",
        )
    )
    if limit == -1:
        return Finding(
            "WAL retention",
            "warning",
            "max_slot_wal_keep_size is -1: while no worker runs, the source keeps all WAL, until"
            " its disk is full and it stops. With a limit, the slot is lost beyond it instead,"
            " and with it the changes in between",
            "choose by what is worse; with room for a day of WAL, for example: alter system set"
            " max_slot_wal_keep_size = '50GB'; select pg_reload_conf();",
        )
    return Finding("WAL retention", "ok", f"max_slot_wal_keep_size is {limit} MB")


def encoding(servers: Servers) -> Finding:
    found = _one(_source(servers), "show server_encoding")
    if found == "SQL_ASCII":
        return Finding(
            "encoding",
            "warning",
            "the source's encoding is SQL_ASCII: it stores bytes of any encoding; those that are"
            " not UTF-8 are kept apart and flagged",
            "move to a database in UTF8 when you can",
        )
    try:
        converted = encoding_of(found).client != found
    except SetupError as error:
        return Finding("encoding", "failure", str(error), error.fix)
    if converted:
        return Finding(
            "encoding",
            "warning",
            f"the source's encoding is {found}, which the source converts for Bemi: a text that"
            " has bytes without a character in Unicode would stop the worker",
            "move to a database in UTF8 when you can",
        )
    return Finding("encoding", "ok", f"the source's encoding is {found}")


# --- what init makes on the source -----------------------------------------------------------


def trackable(servers: Servers) -> Finding:
    """Tables that the rules want, and that have an effective identity or not."""
    settings = _rules(servers)
    servers.tables = survey(_source(servers), settings)
    failing = [state for state in servers.tables if state.published and state.reason]
    if failing:
        return Finding(
            "tables",
            "failure",
            "published without a usable identity, so that the application's updates and deletes"
            f" fail: {_names(failing, reasons=True)}",
            _fixes(failing),
        )
    wanted = [state for state in servers.tables if state.wanted]
    unable = [state for state in wanted if state.reason is not None]
    if unable:
        return Finding(
            "tables",
            "warning",
            f"{len(unable)} of {len(wanted)} tables can't be tracked: "
            f"{_names(unable, reasons=True)}",
            _fixes(unable),
        )
    if not wanted:
        return Finding("tables", "warning", "the rules match no table", "check schemas and tables")
    return Finding("tables", "ok", f"all {len(wanted)} tables have a usable identity")


def ownership(servers: Servers) -> Finding:
    """Whether the role may publish: new tables are added by it, or by an owner."""
    conn = _source(servers)
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
        if not _one(conn, "select has_database_privilege(current_database(), 'CREATE')"):
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
            f"{_names(unpublished)}",
            publication.add_statement(found.name, [state.identifier for state in unpublished]),
        )
    if foreign:
        return Finding(
            "may publish",
            "warning",
            f'role "{role}" does not own, and so may not publish: {_names(foreign)}',
            "let it own them, or as a superuser: "
            + publication.add_statement(
                servers.settings.publication, [state.identifier for state in foreign]
            ),
        )
    return Finding("may publish", "ok", f'role "{role}" may publish what is to be tracked')


def publication_whole(servers: Servers) -> Finding:
    name = servers.settings.publication
    found = servers.publication = publication.read(_source(servers), name)
    if found is None:
        return _missing(servers, "publication", f'the publication "{name}" does not exist')
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
            f"not tracked yet: {_names(missing)}",
            "`bemi init` adds them, and so does a running worker with new_tables = track",
        )
    if extra:
        return Finding(
            "tracked",
            "warning",
            f"tracked, though the rules do not want them: {_names(extra)}",
            "\n".join(publication.drop_statement(found.name, state.identifier) for state in extra),
        )
    count = sum(state.published for state in servers.tables)
    return Finding("tracked", "ok", f"{count} tables are tracked")


def slot_usable(servers: Servers) -> Finding:
    name = servers.settings.slot
    conn = _source(servers)
    found = servers.slot = slot.read(conn, name)
    if found is None:
        return _missing(servers, "slot", f'the replication slot "{name}" does not exist')
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
            "`bemi init` makes a new one; `bemi run --accept-gap` records what is missing",
        )
    kept = f"{(found.retained or 0) / 2**20:,.0f} MB of WAL are kept for it"
    if found.wal_status == "unreserved":
        return Finding(
            "slot",
            "warning",
            f'the replication slot "{name}" is about to be lost: {kept}, more than'
            " max_slot_wal_keep_size",
            "start the worker now, or raise max_slot_wal_keep_size",
        )
    state = "in use" if found.active_pid is not None else "idle: no worker is running"
    return Finding("slot", "ok", f'the replication slot "{name}" is {state}; {kept}')


# --- the destination -------------------------------------------------------------------------


def destination_reachable(servers: Servers) -> Finding:
    url = servers.settings.destination_url
    servers.destination = connect(url, what="destination", client_encoding="UTF8")
    return Finding("destination", "ok", f"connected to {describe(url)}")


def destination_writable(servers: Servers) -> Finding:
    conn = _destination(servers)
    recovering, read_only = _row(
        conn, "select pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'"
    )
    if recovering:
        return Finding(
            "writable",
            "failure",
            "the destination is read-only: it is a standby",
            "point BEMI_DESTINATION_URL at a primary",
        )
    if read_only:
        return Finding(
            "writable",
            "failure",
            "the destination is read-only: default_transaction_read_only is on",
            "turn it off for this role or database: alter role … set default_transaction_read_only"
            " = off",
        )
    schema = servers.settings.schema
    if _one(conn, "select to_regnamespace(quote_ident(%s)) is not null", schema):
        wanted = f'usage on schema "{schema}"'
        allowed = _one(conn, "select has_schema_privilege(%s, 'USAGE')", schema)
    else:
        wanted = f'create on database "{conn.info.dbname}"'
        allowed = _one(conn, "select has_database_privilege(current_database(), 'CREATE')")
    if not allowed:
        return Finding(
            "writable",
            "failure",
            f'role "{conn.info.user}" may not write to the destination: it lacks {wanted}',
            f'grant {wanted} to "{conn.info.user}";',
        )
    return Finding("writable", "ok", "the destination takes writes")


def destination_encoding(servers: Servers) -> Finding:
    """jsonb refuses characters that the database's encoding has not, and the stream would stop."""
    found = _one(_destination(servers), "show server_encoding")
    if found != "UTF8":
        return Finding(
            "destination encoding",
            "failure",
            f"the destination's encoding is {found}, which can't hold every character",
            "point BEMI_DESTINATION_URL at a database in UTF8: create database bemi"
            " encoding 'UTF8' template template0",
        )
    return Finding("destination encoding", "ok", "the destination's encoding is UTF8")


def destination_version(servers: Servers) -> Finding:
    conn, schema = _destination(servers), servers.settings.schema
    if migrate.current_version(conn, schema) == 0:
        return _missing(servers, "history", f'the destination has no schema "{schema}" of Bemi\'s')
    migrate.require_current(conn, schema)
    if checkpoint.read(conn, schema, servers.settings.source) is None:
        return _missing(
            servers,
            "history",
            f'the source "{servers.settings.source}" is not registered in the destination',
        )
    return Finding("history", "ok", f'schema "{schema}" of the destination is up to date')


def destination_encryption(servers: Servers) -> Finding:
    return _encryption("destination TLS", _destination(servers), "destination")


def durable_commits(servers: Servers) -> Finding:
    """An acknowledged change is gone from the source's WAL: the destination must not lose it."""
    commit, sync = _row(
        _destination(servers),
        "select current_setting('synchronous_commit'), current_setting('fsync')",
    )
    if sync == "off":
        return Finding(
            "durability",
            "warning",
            "fsync is off on the destination: a crash of its machine can lose stored changes",
            "alter system set fsync = on; select pg_reload_conf();",
        )
    if commit == "off":
        return Finding(
            "durability",
            "warning",
            "synchronous_commit is off on the destination; the worker turns it on for itself",
            "leave it off only where other applications of that database need it",
        )
    return Finding(
        "durability", "ok", f"the destination commits with synchronous_commit = {commit}"
    )


def clocks(servers: Servers) -> Finding:
    apart: list[str] = []
    zones: list[str] = []
    ends: list[tuple[Role, Connection | None]] = [
        ("source", servers.source),
        ("destination", servers.destination),
    ]
    for what, conn in ends:
        if conn is None:
            continue
        before = servers.clock()
        seconds, zone = _row(
            conn,
            "select extract(epoch from clock_timestamp())::float8, current_setting('TimeZone')",
        )
        after = servers.clock()
        zones.append(f"{what} {zone}")
        # The answer was made between the two; what lies outside is a difference for certain.
        difference = max(before - seconds, seconds - after, 0.0)
        if difference > CLOCK_TOLERANCE:
            ahead = "behind" if before > seconds else "ahead of"
            apart.append(f"the {what}'s clock is {difference:.1f} s {ahead} this machine's")
    if apart:
        return Finding(
            "clocks", "warning", "; ".join(apart), "synchronise the machines' clocks with NTP"
        )
    return Finding(
        "clocks",
        "ok",
        f"clocks agree within {CLOCK_TOLERANCE:g} s (session zones: {', '.join(zones)})",
    )


# --- shared by the checks --------------------------------------------------------------------


def _source(servers: Servers) -> Connection:
    assert servers.source is not None
    return servers.source


def _destination(servers: Servers) -> Connection:
    assert servers.destination is not None
    return servers.destination


def _row(conn: Connection, query: LiteralString, *parameters: object) -> tuple[Any, ...]:
    row: tuple[Any, ...] | None = conn.execute(query, parameters).fetchone()
    assert row is not None
    return row


def _one(conn: Connection, query: LiteralString, *parameters: object) -> Any:
    return _row(conn, query, *parameters)[0]


def _missing(servers: Servers, check: str, message: str) -> Finding:
    """What `init` makes and is not there: a failure once there is any trace of `init`."""
    if servers.set_up is None:
        servers.set_up = _has_traces(servers)
    if servers.set_up:
        return Finding(check, "failure", message, "run `bemi init`")
    return Finding(check, "warning", f"not set up yet: {message}", "run `bemi init`")


def _has_traces(servers: Servers) -> bool:
    settings = servers.settings
    if servers.source is not None and (
        publication.read(servers.source, settings.publication) is not None
        or slot.read(servers.source, settings.slot) is not None
    ):
        return True
    return servers.destination is not None and _stored(servers) is not None


def _stored(servers: Servers) -> sources.StoredSource | None:
    """What the destination knows of the source, where it may be asked."""
    if servers.destination is None:
        return None
    try:
        return sources.read(servers.destination, servers.settings.schema, servers.settings.source)
    except psycopg.Error:
        return None  # a check of its own says why


def _rules(servers: Servers) -> Settings:
    stored = _stored(servers)
    return with_remembered_rules(servers.settings, stored.setup if stored else None)


def _encryption(check: str, conn: Connection, what: Role) -> Finding:
    info = conn.info
    if conn.pgconn.ssl_in_use:
        return Finding(check, "ok", f"the connection to the {what} is encrypted")
    if info.host.startswith("/") or _is_loopback(info.hostaddr):
        return Finding(check, "ok", f"the {what} is on this machine; no TLS is needed")
    return Finding(
        check,
        "warning",
        f"the connection to the {what} is not encrypted: rows pass the network in clear",
        f"add sslmode=verify-full to BEMI_{what.upper()}_URL",
    )


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _names(states: Sequence[TableState], *, reasons: bool = False) -> str:
    shown = [
        f"{state.qualified} ({state.reason})" if reasons else state.qualified
        for state in states[:FEW]
    ]
    more = f" and {len(states) - FEW} more" if len(states) > FEW else ""
    return ", ".join(shown) + more


def _fixes(states: Sequence[TableState]) -> str | None:
    return "\n".join(state.fix for state in states[:FEW] if state.fix) or None


CHECKS: Final = (
    Check("source", source_reachable),
    Check("destination", destination_reachable),
    Check("version", version, ("source",)),
    Check("primary", writable_source, ("source",)),
    Check("wal_level", wal_level, ("source",)),
    Check("replication", replication_privilege, ("source",)),
    Check("free slots", free_slots, ("source",)),
    Check("free senders", free_senders, ("source",)),
    Check("source TLS", source_encryption, ("source",)),
    Check("wal_sender_timeout", wal_sender_timeout, ("source",)),
    Check("WAL retention", wal_retention, ("source",)),
    Check("encoding", encoding, ("source",)),
    Check("tables", trackable, ("source",)),
    Check("may publish", ownership, ("source",)),
    Check("publication", publication_whole, ("source",)),
    Check("tracked", all_published, ("publication",)),
    Check("slot", slot_usable, ("source",)),
    Check("writable", destination_writable, ("destination",)),
    Check("destination encoding", destination_encoding, ("destination",)),
    Check("history", destination_version, ("destination",)),
    Check("destination TLS", destination_encryption, ("destination",)),
    Check("durability", durable_commits, ("destination",)),
    Check("clocks", clocks, ("source", "destination")),
)
