"""Replaces what must not be stored, before anything else sees it.

An excluded column is as if it had not been sent. A masked value becomes `***`, a hashed one the
HMAC-SHA256 of its text, so that equal values stay comparable and nobody without the key can try
values out; both say so in a flag. NULL stays NULL. A key of which a part can't be stored is no
key: the change has none.
"""

import hmac
from typing import Final

import msgspec

from bemi.capture.ddl import without_statement
from bemi.change import UNCHANGED, Change, Ddl, Event, Row, Table, Value
from bemi.rules import Rules, TableRules

MASK: Final = b"***"
_TEXT_OID: Final = 25


class _Plan(msgspec.Struct, frozen=True):
    table: Table
    masked: Table
    """The same with the replaced columns as text."""
    rules: TableRules


class Masker:
    """`hash_key` is the secret of the rules' `hash`; without one nothing may be hashed."""

    def __init__(self, rules: Rules, hash_key: str = "") -> None:
        self._rules = rules
        self._key = hash_key.encode()
        self._plans: dict[int, _Plan] = {}

    def take(self, event: Event) -> Event:
        """The event as it may be stored. A statement may hold any value: it loses its text."""
        if not self._rules:
            return event
        if isinstance(event, Change):
            return self.change(event)
        rules = self._rules
        if isinstance(event, Ddl) and (rules.exclude or rules.mask or rules.hash):
            return without_statement(event)
        return event

    def change(self, change: Change) -> Change:
        """The change as it may be stored."""
        plan = self._plans.get(change.table.oid)
        if plan is None or plan.table is not change.table:
            plan = self._plans[change.table.oid] = self._plan(change.table)
        rules = plan.rules
        if not rules.replaced:
            return change
        return msgspec.structs.replace(
            change,
            table=plan.masked,
            before=self._row(rules, change.before),
            after=self._row(rules, change.after),
            flags=_flags(plan, change),
        )

    def table(self, table: Table) -> Table:
        """The table as its stored changes have it: replaced columns as text."""
        return self._plan(table).masked if self._rules else table

    def _plan(self, table: Table) -> _Plan:
        names = [column.name for column in table.columns]
        rules = self._rules.for_table(table.schema, table.name, names)
        columns = tuple(
            msgspec.structs.replace(column, type_oid=_TEXT_OID) if at in rules.replaced else column
            for at, column in enumerate(table.columns)
        )
        whole = not (rules.exclude | rules.mask) & {*table.key}
        masked = msgspec.structs.replace(table, columns=columns, key=table.key if whole else ())
        return _Plan(table, masked, rules)

    def _row(self, rules: TableRules, row: Row | None) -> Row | None:
        if row is None:
            return None
        return tuple(self._value(rules, at, value) for at, value in enumerate(row))

    def _value(self, rules: TableRules, at: int, value: Value) -> Value:
        if at in rules.exclude:
            return UNCHANGED
        if not isinstance(value, bytes):
            return value
        if at in rules.mask:
            return MASK
        if at in rules.hash:
            return hmac.digest(self._key, value, "sha256").hex().encode()
        return value


def _flags(plan: _Plan, change: Change) -> tuple[str, ...]:
    rules, table = plan.rules, plan.table
    left_out = {f"unchanged:{table.columns[at].name}" for at in rules.exclude}
    flags = tuple(flag for flag in change.flags if flag not in left_out)
    for at in sorted(rules.mask | rules.hash):
        if any(
            row is not None and isinstance(row[at], bytes) for row in (change.before, change.after)
        ):
            word = "masked" if at in rules.mask else "hashed"
            flags += (f"{word}:{table.columns[at].name}",)
    return flags
