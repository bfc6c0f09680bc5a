"""Leaves out the changes that the rules do not want stored, with the contexts only they had.

What alters rows and is left out (by table, operation or context) is told as `Skipped`, since
images from before it are then out of date. An UPDATE of nothing but ignored columns is no
change at all; where the old row is not known yet, the completer decides.
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
        self._held: Stretch | None = None  # a context that no change kept so far has
        self._context: dict[str, object] = {}
        self._stretch_told = -1
        self._kept = 0
        self._skipped: dict[int, tuple[Table, int]] = {}

    def take(self, event: Event) -> tuple[Event, ...]:
        if not self._rules:
            return (event,)
        if isinstance(event, Change):
            return self._change(event)
        if isinstance(event, Stretch):
            return self._stretch(event)
        if isinstance(event, Committed):
            return self._commit(event)
        return (event,)

    def _change(self, change: Change) -> tuple[Event, ...]:
        rules = self._of(change.table)
        if rules.skip and self._skips(rules.skip, change):
            table, count = self._skipped.get(change.table.oid, (change.table, 0))
            self._skipped[change.table.oid] = (table, count + 1)
            return ()
        if change.before_known and rules.ignore and only_ignored(change, rules.ignore):
            return ()
        self._kept += 1
        held, self._held = self._held, None
        self._stretch_told = change.stretch
        return (change,) if held is None or held.number != change.stretch else (held, change)

    def _stretch(self, stretch: Stretch) -> tuple[Event, ...]:
        self._context = json.loads(stretch.context)
        if stretch.number == self._stretch_told:
            return (stretch,)
        self._held = stretch
        return ()

    def _commit(self, committed: Committed) -> tuple[Event, ...]:
        skipped = tuple(
            Skipped(committed.transaction, table, count) for table, count in self._skipped.values()
        )
        kept = self._kept
        self._held = None
        self._context = {}
        self._stretch_told = -1
        self._kept = 0
        self._skipped = {}
        return (*skipped, msgspec.structs.replace(committed, changes=kept))

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
                table.schema, table.name, [column.name for column in table.columns]
            )
            self._tables[table.oid] = known = (table, rules)
        return known[1]


def only_ignored(change: Change, ignored: frozenset[int]) -> bool:
    """Whether an UPDATE changed some of the ignored columns, and nothing else."""
    if change.operation is not Operation.UPDATE or change.before is None or change.after is None:
        return False
    differing = {
        at
        for at, (was, value) in enumerate(zip(change.before, change.after, strict=True))
        if was != value
    }
    return bool(differing) and differing <= ignored


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
