"""A tracked source whose statements say who they are, and the plans that are made of them."""

from typing import Any

import bemi
from bemi.history.planning import Plan
from tests.support.tracked import Tracked

EMIT = "select pg_logical_emit_message(true, '_bemi', %s)"


class Shop:
    def __init__(self, at: Tracked) -> None:
        self.at = at
        self.url = at.settings.source_url
        self.history = bemi.History(at.settings.destination_url)

    def close(self) -> None:
        self.history.close()

    def write(self, *statements: str, context: str = "{}") -> int:
        """In one transaction, whose number this is."""
        with self.at.source.transaction():
            self.at.source.execute(EMIT, [context])
            for statement in statements:
                self.at.source.execute(statement.encode())
            row = self.at.source.execute("select pg_current_xact_id()::text::bigint").fetchone()
        assert row is not None
        return int(row[0])

    def plan(self, **filters: Any) -> Plan:
        """Of a revert, once all is in the history."""
        self.at.catch_up()
        return self.history.plan_revert(self.url, **filters)

    def rows(self, *tables: str) -> dict[str, list[str]]:
        """Each row as text."""
        found = {}
        for table in tables:
            rows = self.at.source.execute(f"select t::text from {table} t order by 1".encode())
            found[table] = [row[0] for row in rows]
        return found
