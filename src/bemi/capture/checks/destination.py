"""The destination, and the clocks of all three machines."""

from typing import Final

import psycopg
from psycopg import sql

from bemi.capture.checks.finding import (
    Connection,
    Servers,
    destination_of,
    encryption,
    fetch_row,
    fetch_value,
    missing,
)
from bemi.connections import Role, connect, describe, first_line
from bemi.observed import Finding
from bemi.store import checkpoint, schema_version

CLOCK_TOLERANCE: Final = 2.0
"""Seconds that clocks may differ: times of commits are the source's, times of capture ours."""


def reachable(servers: Servers) -> Finding:
    url = servers.settings.destination_url
    servers.destination = connect(url, what="destination", client_encoding="UTF8")
    return Finding("destination", "ok", f"connected to {describe(url)}")


def writable(servers: Servers) -> Finding:
    conn = destination_of(servers)
    recovering, read_only = fetch_row(
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
    if fetch_value(conn, "select to_regnamespace(quote_ident(%s)) is not null", schema):
        wanted = f'usage on schema "{schema}"'
        allowed = fetch_value(conn, "select has_schema_privilege(%s, 'USAGE')", schema)
    else:
        wanted = f'create on database "{conn.info.dbname}"'
        allowed = fetch_value(conn, "select has_database_privilege(current_database(), 'CREATE')")
    if not allowed:
        return Finding(
            "writable",
            "failure",
            f'role "{conn.info.user}" may not write to the destination: it lacks {wanted}',
            f'grant {wanted} to "{conn.info.user}";',
        )
    return Finding("writable", "ok", "the destination takes writes")


def encoding(servers: Servers) -> Finding:
    """jsonb refuses characters that the database's encoding has not, and the stream would stop."""
    found = fetch_value(destination_of(servers), "show server_encoding")
    if found != "UTF8":
        return Finding(
            "destination encoding",
            "failure",
            f"the destination's encoding is {found}, which can't hold every character",
            "point BEMI_DESTINATION_URL at a database in UTF8: create database bemi"
            " encoding 'UTF8' template template0",
        )
    return Finding("destination encoding", "ok", "the destination's encoding is UTF8")


def version(servers: Servers) -> Finding:
    conn, schema = destination_of(servers), servers.settings.schema
    try:
        if schema_version.current_version(conn, schema) == 0:
            return missing(
                servers, "history", f'the destination has no schema "{schema}" of Bemi\'s'
            )
        schema_version.require_current(conn, schema)
        held = checkpoint.read(conn, schema, servers.settings.source)
    except psycopg.errors.InsufficientPrivilege as error:
        grant = sql.SQL(
            "grant usage on schema {schema} to {role};"
            " grant select on all tables in schema {schema} to {role};"
        ).format(schema=sql.Identifier(schema), role=sql.Identifier(conn.info.user))
        return Finding(
            "history",
            "failure",
            f'role "{conn.info.user}" may not read the history: {first_line(error)}',
            f"as the owner of the history: {grant.as_string(None)}",
        )
    if held is None:
        return missing(
            servers,
            "history",
            f'the source "{servers.settings.source}" is not registered in the destination',
        )
    return Finding("history", "ok", f'schema "{schema}" of the destination is up to date')


def tls(servers: Servers) -> Finding:
    return encryption("destination TLS", destination_of(servers), "destination")


def durable_commits(servers: Servers) -> Finding:
    """An acknowledged change is gone from the source's WAL: the destination must not lose it."""
    commit, sync = fetch_row(
        destination_of(servers),
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
        seconds, zone = fetch_row(
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
