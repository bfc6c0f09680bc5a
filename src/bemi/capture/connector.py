"""The sources of some settings, looked at for others: without changing them.

What `bemi serve` gives to the server, which knows no capture.
"""

import secrets
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import psycopg

from bemi.capture import live, preflight
from bemi.capture.preview import Preview
from bemi.capture.tables import TableState, survey, with_remembered_rules
from bemi.config import Settings
from bemi.connections import connect, explained
from bemi.errors import BemiError
from bemi.observed import Fate, Finding, KnownTable, Offered, Seen
from bemi.rules import Rules
from bemi.settings import parse
from bemi.store.extent import SourceCoverage
from bemi.store.reader import SourceStatus, StoredChange
from bemi.store.sources import Setup

_PATIENCE: Final = 2
"""Seconds until a source can't be reached: fewer than two PostgreSQL's library does not take."""
_RATE_OVER: Final = 0.5
_SHORTEST: Final = 4
"""Characters of a password that is told apart from others when it turns up somewhere."""

_ESTIMATES: Final = """
select c.oid::bigint, c.reltuples::bigint from pg_class c
where c.oid = any(%s::oid[]) and c.reltuples > 0
"""

# Without the lock that pg_table_size takes.
_SIZES: Final = """
select c.oid::bigint, case when c.reltuples >= 0 then c.reltuples::bigint end,
    case when c.reltuples >= 0 then c.relpages::bigint * current_setting('block_size')::bigint end
from pg_class c where c.oid = any(%s::oid[])
"""


class Connector:
    """`settings`: by the names of their sources. `takes_any`: whether others may be looked at."""

    def __init__(self, settings: Mapping[str, Settings], *, takes_any: bool = False) -> None:
        self._settings = dict(settings)
        self.takes_any = takes_any
        self._digest_key = secrets.token_hex()

    @property
    def settings(self) -> Mapping[str, Settings]:
        return self._settings

    def look(self, source: SourceStatus, covered: SourceCoverage, setup: Setup | None) -> Seen:
        """What a source of the settings itself says now. Raises `BemiError`."""
        settings = with_remembered_rules(self._settings[source.source], setup)
        findings: list[str] = []
        reading = [each.relation for each in covered.tables if each.state == "baseline_running"]
        with _connected(settings, _PATIENCE) as conn:
            found = live.look(conn, settings, source, covered, findings, rate_over=_RATE_OVER)
            estimates = dict(conn.execute(_ESTIMATES, [reading]).fetchall()) if reading else {}
        return Seen(found, tuple(findings), estimates)

    def checks(self, settings: Settings) -> Generator[Finding]:
        """Those of `bemi doctor`, each as soon as it is made."""
        for each in preflight.findings(settings):
            fix = None if each.fix is None else _discreet(each.fix, settings)
            yield replace(each, message=_discreet(each.message, settings), fix=fix)

    def tables(self, settings: Settings, setup: Setup | None) -> list[Offered]:
        """Those of the source, by their names. Raises `BemiError`."""
        known = with_remembered_rules(settings, setup)
        with _connected(settings, 5 * _PATIENCE) as conn:
            states = survey(conn, known)
            sizes = {
                oid: (rows, size)
                for oid, rows, size in conn.execute(_SIZES, [[state.oid for state in states]])
            }
        return [_offered(state, *sizes.get(state.oid, (None, None))) for state in states]

    def preview(
        self, rules: Rules, tables: Iterable[KnownTable], changes: Iterable[StoredChange]
    ) -> list[tuple[Fate, StoredChange | None]]:
        """What becomes of each change, and how it would be stored. Digests are of a key of this
        process's own."""
        preview = Preview(rules, tables, self._digest_key)
        return [preview.of(each) for each in changes]


@contextmanager
def _connected(settings: Settings, seconds: int) -> Iterator[psycopg.Connection[Any]]:
    """Of which nothing takes long. Raises `BemiError`."""
    try:
        with (
            connect(
                settings.source_url,
                what="source",
                options=f"-c statement_timeout={seconds}s",
                client_encoding="UTF8",
                connect_timeout=str(seconds),
                tcp_user_timeout="3000",
            ) as conn,
            explained("source"),
        ):
            yield conn
    except BemiError as error:
        words = _discreet(str(error), settings)
        raise (error if words == str(error) else BemiError(words, fix=error.fix)) from error


def _discreet(text: str, settings: Settings) -> str:
    """Without a password, whatever a server says: one that is asked in the clear knows it."""
    for url in (settings.source_url, settings.destination_url):
        password = parse(url, key="source_url").get("password", "")
        if len(password) >= _SHORTEST:
            text = text.replace(password, "***")
    return text


def _offered(state: TableState, rows: int | None, size: int | None) -> Offered:
    return Offered(
        schema=state.schema,
        name=state.name,
        root=state.root,
        identity=state.identity,
        tracked=state.published,
        wanted=state.wanted,
        reason=state.reason,
        fix=state.fix,
        never_full=state.never_full,
        rows=rows,
        bytes=size,
    )
