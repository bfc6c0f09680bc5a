"""A plan as people read it: what becomes of each row, and what stands in its way."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final
from uuid import UUID

import msgspec

from bemi.amounts import count
from bemi.api import showing
from bemi.api.principals import Principal
from bemi.api.routes.changes import one
from bemi.api.serving import Serving
from bemi.errors import BemiError
from bemi.history.effect import Action
from bemi.history.plan import Conflict, PlannedField, PlannedRow
from bemi.history.planning import Plan
from bemi.ui import links
from bemi.ui.telling import MOST_CHARACTERS, Told, name_of, tell
from bemi.ui.values import Shown as Value
from bemi.ui.values import brief, pair, visible
from bemi.ui.values import shown as value

_MOST_ROWS: Final = 100
_MOST_COLUMNS: Final = 20
_LISTED: Final = 10
_MOST_TOLD: Final = 20
"""Changes in between that are looked up."""
_TYPED: Final = 60
"""Characters that somebody types to confirm."""
_IN_SENTENCES: Final = 60

_WORDS: Final[Mapping[Action, tuple[str, str]]] = {
    "insert": ("comes back", "come back"),
    "update": ("is set back", "are set back"),
    "delete": ("goes", "go"),
}
_HUES: Final[Mapping[Action, str]] = {"insert": "create", "update": "update", "delete": "delete"}


class Between(msgspec.Struct, frozen=True):
    """A change that nobody chose to undo: `told` where it was looked up."""

    href: str
    told: Told | None


class Field(msgspec.Struct, frozen=True):
    """`old` becomes `new`. Where something is `in_the_way`, `expected` is what it would be if
    nobody had set it, unless it is that; `between` who has."""

    name: str
    old: Value | None
    new: Value | None
    done: bool = False
    in_the_way: bool = False
    expected: Value | None = None
    between: Between | None = None


class Obstacle(msgspec.Struct, frozen=True):
    text: str
    between: Between | None


class Row(msgspec.Struct, frozen=True):
    """`verb`: what becomes of it. `label`: what it is called where a plan is narrowed; empty where
    that is too long."""

    action: Action
    hue: str
    verb: str
    name: str
    href: str
    label: str
    done: bool
    fields: list[Field]
    more: int
    obstacles: list[Obstacle]
    stuck: bool


class Shown(msgspec.Struct, frozen=True):
    """`words`: what has to be typed. `todo`, `stuck`, `done`: rows that can be written, that can't,
    and that are as they should be already. `lost`: what can't be said of a row that there is."""

    rows: list[Row]
    more: int
    summary: str
    words: str
    todo: int
    stuck: int
    done: int
    lost: list[Obstacle]
    notes: list[str]


def shown(serving: Serving, who: Principal, plan: Plan) -> Shown:
    """Rows that can't be written come first, and those that need not be last."""
    rows = sorted(plan.rows, key=lambda row: (not row.conflicts, row.done))
    todo = [row for row in rows if not row.done and not row.conflicts]
    seen = rows[:_MOST_ROWS]
    lost = [each for each in plan.conflicts if each.key is None]
    looked = _Between(serving, who, plan.source)
    return Shown(
        rows=[_row(row, plan.source, looked) for row in seen],
        more=len(rows) - len(seen),
        summary=_summary(todo),
        words=words(plan),
        todo=len(todo),
        stuck=sum(bool(row.conflicts) for row in rows),
        done=sum(row.done for row in rows),
        lost=[
            Obstacle(visible(f"{each.table}: {each.message}"), looked.of(each.change))
            for each in lost[:_MOST_ROWS]
        ],
        notes=[visible(each) for each in plan.notes],
    )


def records(plan: Plan) -> list[tuple[str, str]]:
    """The first of those that it writes: names, and where they lead."""
    todo = [row for row in plan.rows if not row.done and not row.conflicts]
    named = [(_name(row), links.record(row.table, row.key, plan.source)) for row in todo[:_LISTED]]
    return [(name, href) for name, href in named if href]


def _name(row: PlannedRow) -> str:
    schema, _, table = row.table.partition(".")
    return f"{brief(name_of(schema, table), _IN_SENTENCES)} {brief(row.key, _IN_SENTENCES)}"


class _Between:
    """Changes by their ids, of which some are looked up."""

    def __init__(self, serving: Serving, who: Principal, source: str) -> None:
        self._serving = serving
        self._who = who
        self._source = source
        self._found: dict[UUID, Between] = {}

    def of(self, id: UUID | None) -> Between | None:
        if id is None:
            return None
        found = self._found.get(id)
        if found is None:
            told: Told | None = None
            if len(self._found) < _MOST_TOLD:
                try:
                    stored = one(self._serving, self._who, str(id), self._source)
                    told = tell(showing.change(stored, self._who), columns=0)
                except BemiError:
                    told = None  # it was pruned, or can't be read now: the plan holds all the same
            found = self._found[id] = Between(links.change(id, self._source), told)
        return found


def _row(row: PlannedRow, source: str, looked: _Between) -> Row:
    fields = sorted(row.fields, key=lambda field: (field.mark != "conflict", field.mark == "done"))
    label = f"{row.table}:{row.key}"
    return Row(
        action=row.action,
        hue=_HUES[row.action],
        verb=_WORDS[row.action][0],
        name=_name(row),
        href=links.record(row.table, row.key, source),
        label=label if len(label) <= links.LONGEST else "",
        done=row.done,
        fields=[_field(row.action, field, looked) for field in fields[:_MOST_COLUMNS]],
        more=max(0, len(fields) - _MOST_COLUMNS),
        obstacles=[*_obstacles(row.conflicts, looked)],
        stuck=bool(row.conflicts),
    )


def _field(action: Action, field: PlannedField, looked: _Between) -> Field:
    name = brief(field.column, MOST_CHARACTERS)
    if field.mark == "conflict":
        return Field(
            name,
            old=value(field.present, MOST_CHARACTERS),
            new=None if action == "delete" else value(field.target, MOST_CHARACTERS),
            expected=None
            if field.expected == field.present
            else value(field.expected, MOST_CHARACTERS),
            in_the_way=True,
            between=looked.of(field.between),
        )
    if action == "insert":
        return Field(name, None, value(field.target, MOST_CHARACTERS))
    if action == "delete":
        return Field(name, value(field.present, MOST_CHARACTERS), None)
    if field.mark == "done":
        return Field(name, None, value(field.target, MOST_CHARACTERS), done=True)
    return Field(name, *pair(field.present, field.target, MOST_CHARACTERS))


def _obstacles(conflicts: Iterable[Conflict], looked: _Between) -> Iterable[Obstacle]:
    """But for columns that others have set, of which the fields tell more."""
    for each in conflicts:
        if each.kind != "changed":
            yield Obstacle(visible(each.message), looked.of(each.change))


def _summary(todo: Iterable[PlannedRow]) -> str:
    """`2 rows of todo are set back, 1 row of pair goes`."""
    found = Counter((row.table, row.action) for row in todo)
    parts = []
    for (table, action), number in found.most_common(5):
        schema, _, name = table.partition(".")
        verb = _WORDS[action][number > 1]
        parts.append(f"{count(number, 'row')} of {brief(name_of(schema, name), 60)} {verb}")
    if len(found) > len(parts):
        parts.append("and others")
    return ", ".join(parts)


def words(plan: Plan) -> str:
    """What has to be typed: the name of the table, where there is one only that can be typed; else
    how many rows."""
    todo = [row for row in plan.rows if not row.done and not row.conflicts]
    tables = {row.table.removeprefix("public.") for row in todo}
    if len(tables) == 1:
        (name,) = tables
        if len(name) <= _TYPED and name == brief(name, _TYPED):
            return name
    return count(len(todo), "row")
