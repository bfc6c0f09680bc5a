"""What a check returns, and what all checks look at and through."""

import ipaddress
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, LiteralString

import psycopg

from bemi.capture import publication, slot
from bemi.capture.publication import Publication
from bemi.capture.slot import Slot
from bemi.capture.tables import TableState, with_remembered_rules
from bemi.config import Settings
from bemi.connections import Role
from bemi.observed import Finding
from bemi.store import checkpoint, sources

Connection = psycopg.Connection[Any]

FEW: Final = 10
"""So many names in a message; the rest are counted."""


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


def source_of(servers: Servers) -> Connection:
    assert servers.source is not None
    return servers.source


def destination_of(servers: Servers) -> Connection:
    assert servers.destination is not None
    return servers.destination


def fetch_row(conn: Connection, query: LiteralString, *parameters: object) -> tuple[Any, ...]:
    row: tuple[Any, ...] | None = conn.execute(query, parameters).fetchone()
    assert row is not None
    return row


def fetch_value(conn: Connection, query: LiteralString, *parameters: object) -> Any:
    return fetch_row(conn, query, *parameters)[0]


def missing(servers: Servers, check: str, message: str) -> Finding:
    """What `init` makes and is not there: a failure once there is any trace of `init`.

    Once there is a history, `recover` makes it anew, since changes have been lost meanwhile.
    """
    if servers.set_up is None:
        servers.set_up = _has_traces(servers)
    if servers.set_up:
        fix = "`bemi recover` makes it anew, and finds out what changed meanwhile"
        if servers.destination is None:
            fix += "; where there is no history yet, run `bemi init`"
        elif not _is_captured(servers):
            fix = "run `bemi init`"
        return Finding(check, "failure", message, fix)
    return Finding(check, "warning", f"not set up yet: {message}", "run `bemi init`")


def _has_traces(servers: Servers) -> bool:
    settings = servers.settings
    if servers.source is not None and (
        publication.read(servers.source, settings.publication) is not None
        or slot.read(servers.source, settings.slot) is not None
    ):
        return True
    return servers.destination is not None and stored_source(servers) is not None


def _is_captured(servers: Servers) -> bool:
    """Whether the source has a history that goes on."""
    stored = stored_source(servers)
    if stored is None or stored.removed_at is not None or servers.destination is None:
        return False
    settings = servers.settings
    return checkpoint.read(servers.destination, settings.schema, settings.source) is not None


def stored_source(servers: Servers) -> sources.StoredSource | None:
    """What the destination knows of the source, where it may be asked."""
    if servers.destination is None:
        return None
    try:
        return sources.read(servers.destination, servers.settings.schema, servers.settings.source)
    except psycopg.Error:
        return None  # a check of its own says why


def rules_of(servers: Servers) -> Settings:
    stored = stored_source(servers)
    return with_remembered_rules(servers.settings, stored.setup if stored else None)


def encryption(check: str, conn: Connection, what: Role) -> Finding:
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


def name_tables(states: Sequence[TableState], *, reasons: bool = False) -> str:
    shown = [
        f"{state.qualified} ({state.reason})" if reasons else state.qualified
        for state in states[:FEW]
    ]
    more = f" and {len(states) - FEW} more" if len(states) > FEW else ""
    return ", ".join(shown) + more


def fixes_of(states: Sequence[TableState]) -> str | None:
    return "\n".join(state.fix for state in states[:FEW] if state.fix) or None
