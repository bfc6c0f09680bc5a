"""How the commands that plan do it: what there is to be done, row by row, and what was done."""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from bemi.cli import output
from bemi.cli.options import ChosenFlags
from bemi.config import History
from bemi.connections import connect, describe, explained
from bemi.errors import UsageError
from bemi.store import schema_version

if TYPE_CHECKING:
    from rich.text import Text

    from bemi.history.plan import PlannedRow
    from bemi.history.planning import Plan

_MOST_ROWS: Final = 200
_STYLES: Final = {"insert": "green", "update": "yellow", "delete": "red"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Doing:
    """What to do with a plan, and in which form to tell it."""

    apply: bool
    skip_conflicts: bool
    by: str | None
    sql: bool
    json: bool

    def __post_init__(self) -> None:
        """Raises UsageError."""
        if self.sql and (self.apply or self.json):
            raise UsageError(
                "--sql prints a script and does nothing else",
                fix="give it without --apply and --json",
            )


def run(
    what: Literal["revert", "replay"],
    history: History,
    onto: str,
    filters: ChosenFlags,
    doing: Doing,
) -> int:
    """Plans, and does it or shows it. The exit code: 1 for conflicts in the way. Raises
    BemiError."""
    from bemi.history.planning import Narrowing, plan_of

    with (
        connect(history.url, what="destination", client_encoding="utf8") as conn,
        explained("destination"),
    ):
        schema_version.require_current(conn, history.schema)
        narrowed = Narrowing(filters.only, filters.without)
        plan = plan_of(conn, history.schema, what, onto, filters.several(), narrowed)
    blocked = bool(plan.conflicts) and not doing.skip_conflicts
    if doing.sql:
        print(plan.sql(), end="")
        return int(bool(plan.conflicts))
    if not doing.apply:
        if doing.json:
            output.print_json(_told(plan))
        else:
            _show(plan, onto)
        return int(blocked)
    if blocked:
        if doing.json:
            output.print_json({"applied": None, **_told(plan)})
        else:
            _show(plan, onto)
        print("nothing was done: there are conflicts", file=sys.stderr)
        return 1
    applied = plan.apply(by=doing.by, skip_conflicts=doing.skip_conflicts)
    if doing.json:
        output.print_json({"applied": applied, "notes": plan.notes})
        return 0
    print(
        f"{output.count(applied.rows, 'row')} written"
        + (f" in transaction {applied.transaction_id}" if applied.transaction_id else "")
        + (f", {applied.done:,} as they should be already" if applied.done else "")
        + (f", {applied.skipped:,} skipped for conflicts" if applied.skipped else "")
    )
    for each in applied.altered:
        print(f"a trigger has put another value: {output.printable(each)}")
    return 0


def _told(plan: Plan) -> dict[str, Any]:
    return {
        "what": plan.about.what,
        "source": plan.source,
        "position": str(plan.position),
        "changes": plan.changes,
        "filters": plan.about.filters,
        "rows": plan.rows,
        "conflicts": plan.conflicts,
        "notes": plan.notes,
    }


def _show(plan: Plan, onto: str) -> None:
    to = output.console()
    todo = sum(not (row.done or row.conflicts) for row in plan.rows)
    done = sum(row.done for row in plan.rows)
    print(
        f"{plan.about.what} of {output.count(plan.changes, 'change')} of"
        f" {output.printable(plan.source)}, on {output.printable(describe(onto))}:"
        f" {output.count(todo, 'row')} to write"
        + (f", {done:,} as they should be already" if done else "")
        + (f", {output.count(len(plan.conflicts), 'conflict')}" if plan.conflicts else "")
    )
    rows = sorted(plan.rows, key=lambda row: (not row.conflicts, row.done))
    if rows:
        made = output.table("row", "column", "is", "becomes", "")
        for row in itertools.islice(rows, _MOST_ROWS):
            _add(made, row)
        print()
        output.show(made, to)
        if len(rows) > _MOST_ROWS:
            print(f"the first {_MOST_ROWS:,} rows; --json has all")
    for conflict in plan.conflicts:
        if conflict.key is None:
            print(output.printable(f"conflict: {conflict.table}: {conflict.message}"))
    for note in plan.notes:
        print(output.printable(f"note: {note}"))
    if todo and not plan.conflicts:
        print("--apply does it")
    elif plan.conflicts:
        print(
            "nothing can be done while there are conflicts; --except leaves rows out,"
            " --skip-conflicts all that have some"
        )


def _add(made: Any, row: PlannedRow) -> None:
    name = row.table.removeprefix("public.")
    head = output.text(f"{row.action} ", _STYLES[row.action])
    head.append_text(output.text(f"{name} {output.shortened(row.key, 40)}", "default"))
    told: list[tuple[Text, Text, Text, Text]] = []
    empty = output.text("")
    for field in row.fields:
        mark = empty
        becomes = _value(field.target)
        if row.action == "delete":
            becomes = empty
        present = empty if row.action == "insert" else _value(field.present)
        if field.mark == "conflict":
            why = f"expected {output.shortened(_spoken(field.expected), 60)}"
            if field.present == field.expected:
                why = "set since"  # to what it was
            mark = output.text(f"conflict: {why}", "red")
            if field.between is not None:
                mark.append("\n").append_text(output.text(f"set by {field.between}", "dim"))
        elif field.mark == "done":
            mark = output.text("done", "dim")
        told.append((output.text(field.column), present, becomes, mark))
    if row.done:
        told = [(empty, empty, empty, output.text("done already", "dim"))]
    elif any(conflict.kind != "changed" for conflict in row.conflicts):
        for conflict in row.conflicts:
            if conflict.kind == "changed":
                continue
            text = output.text(f"conflict: {conflict.message}", "red")
            if conflict.change is not None:
                text.append("\n").append_text(output.text(f"by {conflict.change}", "dim"))
            told.append((empty, empty, empty, text))
    for at, line in enumerate(told or [(empty,) * 4]):
        made.add_row(head if at == 0 else empty, *line)


def _spoken(value: str | None) -> str:
    return "null" if value is None else value


def _value(value: str | None) -> Text:
    if value is None:
        return output.text("null", "dim")
    return output.text(output.shortened(value, 60))
