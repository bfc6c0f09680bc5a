"""The source as it is before anything of Bemi's is on it."""

from typing import Final

from bemi.capture import slot
from bemi.capture.checks.finding import Servers, encryption, fetch_row, fetch_value, source_of
from bemi.capture.encodings import encoding_of
from bemi.connections import connect, describe
from bemi.errors import RefusedError, SetupError
from bemi.observed import Finding

OLDEST: Final = 14
NEWEST: Final = 18
SHORTEST_SENDER_TIMEOUT_MS: Final = 10_000
"""The worker reports every 5 s; the source wants to hear from it within half of its timeout."""


def reachable(servers: Servers) -> Finding:
    url = servers.settings.source_url
    servers.source = connect(url, what="source", client_encoding="UTF8")
    return Finding("source", "ok", f"connected to {describe(url)}")


def version(servers: Servers) -> Finding:
    number = source_of(servers).info.server_version // 10000
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


def primary(servers: Servers) -> Finding:
    if fetch_value(source_of(servers), "select pg_is_in_recovery()"):
        return Finding(
            "primary",
            "failure",
            "the source is a standby; publications and slots are made on the primary",
            "point BEMI_SOURCE_URL at the primary",
        )
    return Finding("primary", "ok", "the source is a primary server")


def wal_level(servers: Servers) -> Finding:
    level = fetch_value(source_of(servers), "show wal_level")
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
    role = source_of(servers).info.user
    try:
        with connect(servers.settings.source_url, what="source", replication=True) as conn:
            conn.execute("IDENTIFY_SYSTEM")
    except RefusedError as error:
        return Finding("replication", "failure", str(error), slot.replication_fix(role))
    return Finding("replication", "ok", f'role "{role}" may replicate')


def free_slots(servers: Servers) -> Finding:
    conn = source_of(servers)
    if slot.read(conn, servers.settings.slot) is not None:
        return Finding("free slots", "ok", "the replication slot exists")
    used, limit = fetch_row(
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
    used, limit = fetch_row(
        source_of(servers),
        "select count(*), current_setting('max_wal_senders')::int from pg_stat_replication",
    )
    found = slot.read(source_of(servers), servers.settings.slot)
    if used >= limit and (found is None or found.active_pid is None):
        return Finding(
            "free senders",
            "failure",
            f"all {limit} WAL senders of the source are in use",
            "end a replication connection that nobody needs, or raise max_wal_senders and restart",
        )
    return Finding("free senders", "ok", f"{limit - used} of {limit} WAL senders are free")


def tls(servers: Servers) -> Finding:
    return encryption("source TLS", source_of(servers), "source")


def wal_sender_timeout(servers: Servers) -> Finding:
    timeout = int(
        fetch_value(
            source_of(servers),
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
        fetch_value(
            source_of(servers),
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
    found = fetch_value(source_of(servers), "show server_encoding")
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
