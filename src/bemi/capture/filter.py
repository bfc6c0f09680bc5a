"""Leaves out the changes that the rules do not want stored.

What alters rows and is left out (by table, operation or context) is told as `Skipped`, since
images from before it are then out of date. An UPDATE of nothing but ignored and excluded columns
is no change at all; where the old row is not known yet, the completer decides. Ordinals are counted
before: where one is missing, a rule left its change out.
"""

import json

import msgspec

from bemi.change import Change, Committed, Event, Operation, Skipped, Stretch, Table
from bemi.rules import Rules, Skip, TableRules


class Filter:
    """Takes the stitcher's events, in order. A context counts from where it was sent."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._tables: dict[int, tuple[Table, TableRules]] = {}
        self._context: dict[str, object] = {}
        self._left_out = 0

    def take(self, event: Event) -> Event | None:
        """The event, what stands for it, or None where nothing does."""
        if not self._rules:
            return event
        if isinstance(event, Change):
            return self._change(event)
        if isinstance(event, Stretch):
            self._context = json.loads(event.context)
        elif isinstance(event, Committed):
            kept = event.changes - self._left_out
            self._context = {}
            self._left_out = 0
            return msgspec.structs.replace(event, changes=kept)
        return event

    def _change(self, change: Change) -> Event | None:
        rules = self._of(change.table)
        if rules.skip and self._skips(rules.skip, change):
            self._left_out += 1
            return Skipped(change.transaction, change.table)
        silent = rules.silent
        if change.before_known and silent and only_silent(change, silent):
            self._left_out += 1
            return None
        return change

    def _skips(self, skips: tuple[Skip, ...], change: Change) -> bool:
        operation = change.operation.value.decode().lower()
        return any(
            (not skip.operations or operation in skip.operations)
            and all(
                name in self._context and _text(self._context[name]) == value
                for name, value in skip.context.items()
            )
            for skip in skips
        )

    def _of(self, table: Table) -> TableRules:
        known = self._tables.get(table.oid)
        if known is None or known[0] is not table:
            rules = self._rules.for_table(
                table.schema, table.name, [column.name for column in table.columns], table.key
            )
            self._tables[table.oid] = known = (table, rules)
        return known[1]


def only_silent(change: Change, silent: frozenset[int]) -> bool:
    """Whether an UPDATE changed nothing but these columns, or nothing at all."""
    if change.operation is not Operation.UPDATE or change.before is None or change.after is None:
        return False
    return all(
        was == value or at in silent
        for at, (was, value) in enumerate(zip(change.before, change.after, strict=True))
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
