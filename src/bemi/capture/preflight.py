"""Runs the checks: all of them for `doctor`, the indispensable ones for the worker and `init`.

A check that rests on another one that failed says "not checked", so one failure never hides
the rest. What is merely unwise keeps nobody from working.
"""

import time
from collections.abc import Callable, Generator, Mapping
from typing import Any

import psycopg

from bemi.capture import checks
from bemi.capture.checks import Finding
from bemi.config import Settings
from bemi.connections import explained
from bemi.errors import BemiError, SetupError
from bemi.store import schema_version

Connection = psycopg.Connection[Any]


def diagnose(settings: Settings, *, clock: Callable[[], float] = time.time) -> list[Finding]:
    """Run all checks, in the order in which they rest on each other."""
    return list(findings(settings, clock=clock))


def findings(settings: Settings, *, clock: Callable[[], float] = time.time) -> Generator[Finding]:
    """The same, each as soon as it is found. What was connected to is let go in the end."""
    servers = checks.Servers(settings, clock)
    found: dict[str, Finding] = {}
    try:
        for check in checks.CHECKS:
            found[check.name] = _finding(servers, check, found)
            yield found[check.name]
    finally:
        servers.close()


def _finding(servers: checks.Servers, check: checks.Check, found: Mapping[str, Finding]) -> Finding:
    failed = [name for name in check.needs if found[name].level in ("failure", "not checked")]
    if failed:
        message = f"not checked, because of: {', '.join(failed)}"
        return Finding(check.name, "not checked", message)
    try:
        return check.look(servers)
    except BemiError as error:
        return Finding(check.name, "failure", str(error), error.fix)
    except psycopg.Error as error:
        message = (error.diag.message_primary or str(error)).strip()
        return Finding(check.name, "failure", message)


def require(
    source: Connection, settings: Settings, *, destination: Connection | None = None
) -> None:
    """What a worker can't do without. Raises `SetupError` with the fix; waiting will not help.

    Looks at the source and, when given, at the destination.
    """
    servers = checks.Servers(settings, source=source, destination=destination, set_up=True)
    with explained("source"):
        looks = [
            checks.source.version,
            checks.source.primary,
            checks.source.wal_level,
            checks.source.encoding,
            checks.published.publication_whole,
            checks.published.slot_usable,
        ]
        for look in looks:
            _insist(look(servers))
    if destination is not None:
        with explained("destination"):
            _insist(checks.destination.writable(servers))
            _insist(checks.destination.encoding(servers))
            schema_version.require_current(destination, settings.schema)


def require_source(source: Connection, settings: Settings) -> None:
    """What `init` can't do without on the source."""
    servers = checks.Servers(settings, source=source)
    with explained("source"):
        looks = (
            checks.source.version,
            checks.source.primary,
            checks.source.wal_level,
            checks.source.encoding,
        )
        for look in looks:
            _insist(look(servers))


def require_destination(destination: Connection, settings: Settings) -> None:
    """What `init` can't do without on the destination."""
    servers = checks.Servers(settings, destination=destination)
    with explained("destination"):
        _insist(checks.destination.writable(servers))
        _insist(checks.destination.encoding(servers))


def _insist(finding: Finding) -> None:
    if finding.level == "failure":
        raise SetupError(finding.message, fix=finding.fix)
