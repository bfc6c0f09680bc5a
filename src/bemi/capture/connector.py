"""The sources of some settings, looked at for others: how they are now, without changing them.

What `bemi serve` gives to the server, which knows no capture. It asks briefly: somebody waits for
the page.
"""

from collections.abc import Mapping
from typing import Final

from bemi.capture import live
from bemi.capture.tables import with_remembered_rules
from bemi.config import Settings
from bemi.connections import connect, explained
from bemi.observed import Seen
from bemi.store.completeness import SourceCoverage
from bemi.store.reader import SourceStatus
from bemi.store.sources import Setup

_PATIENCE: Final = 2
"""Seconds until a source can't be reached: fewer than two PostgreSQL's library does not take."""
_RATE_OVER: Final = 0.5

_ESTIMATES: Final = """
select c.oid::bigint, c.reltuples::bigint from pg_class c
where c.oid = any(%s::oid[]) and c.reltuples > 0
"""


class Connector:
    """`settings`: by the names of their sources."""

    def __init__(self, settings: Mapping[str, Settings]) -> None:
        self._settings = dict(settings)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._settings)

    def look(self, source: SourceStatus, covered: SourceCoverage, setup: Setup | None) -> Seen:
        """What a source of the settings itself says now. Raises `BemiError`."""
        settings = with_remembered_rules(self._settings[source.source], setup)
        findings: list[str] = []
        reading = [each.relation for each in covered.tables if each.state == "baseline_running"]
        with (
            connect(
                settings.source_url,
                what="source",
                options=f"-c statement_timeout={_PATIENCE}s",
                client_encoding="UTF8",
                connect_timeout=str(_PATIENCE),
                tcp_user_timeout="3000",
            ) as conn,
            explained("source"),
        ):
            found = live.look(conn, settings, source, covered, findings, rate_over=_RATE_OVER)
            estimates = dict(conn.execute(_ESTIMATES, [reading]).fetchall()) if reading else {}
        return Seen(found, tuple(findings), estimates)
