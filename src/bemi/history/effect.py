"""The net effect, per row, of undoing chosen changes, or of doing them once more. Pure.

Undone is field by field, as if each update had set what it changed and had looked at nothing: the
value that the row would have without the chosen changes. What an unchosen change has set since is
not undone; who chose a change before it is told, since what was chosen is not there any more.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal, TypeAlias
from uuid import UUID

import msgspec

from bemi.history.lives import BORN, Key, Life, Lost, Step, Value

Action: TypeAlias = Literal["insert", "update", "delete"]

_UNKNOWN: Final = Lost("the history does not know the value before")


class Field(msgspec.Struct, frozen=True):
    """What a column has to hold for the effect to be safe, and what it is to hold then.

    `between`: the change, not chosen, that has set it since.
    """

    expected: Value
    target: Value
    between: UUID | None = None


class Effect(msgspec.Struct, frozen=True):
    """What is to become of one row, which is found by `key`; of an insert, that is the new one.

    An insert has all columns with what they are to hold, a delete with what they should hold.
    `over`: the change, not chosen, by which the row went that was to be updated. `changes`: the
    chosen ones that this is the effect of. `comes`: of an update by which another row comes in the
    place of one that goes, the columns that are known of it. `relation`: where the row was last.
    """

    action: Action
    key: Key
    relation: int
    fields: Mapping[str, Field]
    changes: tuple[UUID, ...]
    over: UUID | None = None
    comes: frozenset[str] | None = None


class _Turn(msgspec.Struct, frozen=True):
    """A step that gave a field another value, or may have."""

    step: Step
    before: Value
    after: Value


class _Course(msgspec.Struct):
    """How the fields of a row went: their turns, and what they hold at the end, or held."""

    turns: dict[str, list[_Turn]]
    last: dict[str, Value]


def undone(lives: Iterable[Life], key: Sequence[str]) -> list[Effect]:
    """The effects of undoing what is chosen in these lives of one table's rows.

    `key`: the columns by which rows are known.
    """
    return _merged(_each(lives, _undo), key)


def redone(lives: Iterable[Life], key: Sequence[str]) -> list[Effect]:
    """The effects of doing what is chosen on a database that has nothing of it yet."""
    return _merged(_each(lives, _redo), key)


def _each(lives: Iterable[Life], effect_of: Callable[[Life], Effect | None]) -> list[Effect]:
    found = (effect_of(life) for life in lives if life.chosen)
    return [effect for effect in found if effect is not None]


def _undo(life: Life) -> Effect | None:
    course = _course(life)
    changes = tuple(step.id for step in life.steps if step.chosen)
    born, died, relation = life.born, life.died, life.steps[-1].relation
    if born is not None and born.chosen:
        if died is not None:
            return None  # it is gone, as it was before
        fields = {
            column: Field(value, None, _set_since(course.turns.get(column, ())))
            for column, value in course.last.items()
        }
        return Effect("delete", life.key, relation, fields, changes)
    if died is not None and died.chosen:
        image = {
            column: _before_run(course.turns.get(column, ()), value)
            for column, value in course.last.items()
        }
        fields = {column: Field(None, value) for column, value in image.items()}
        return Effect("insert", life.key, relation, fields, changes)
    fields = {}
    for column, turns in course.turns.items():
        ours = [turn for turn in turns if turn.step.chosen]
        if not ours:
            continue
        upto = turns.index(ours[-1]) + 1
        expected, target = ours[-1].after, _before_run(turns[:upto], ours[-1].after)
        if expected != target or isinstance(target, Lost):
            fields[column] = Field(expected, target, _set_since(turns))
    if not fields:
        return None
    return Effect("update", life.key, relation, fields, changes, None if died is None else died.id)


def _redo(life: Life) -> Effect | None:
    course = _course(life)
    steps = [step for step in life.steps if step.chosen]
    changes = tuple(step.id for step in steps)
    first, last, relation = steps[0], steps[-1], steps[-1].relation
    key = first.key if first.previous is None else first.previous
    ours = {
        column: chosen
        for column, turns in course.turns.items()
        if (chosen := [turn for turn in turns if turn.step.chosen])
    }
    if first.operation == "CREATE":
        if last.operation == "DELETE":
            return None
        image = {**first.after, **{column: turns[-1].after for column, turns in ours.items()}}
        fields = {column: Field(None, value) for column, value in image.items()}
        return Effect("insert", key, relation, fields, changes)
    if last.operation == "DELETE":
        image = {**course.last, **{column: turns[0].before for column, turns in ours.items()}}
        fields = {column: Field(value, None) for column, value in image.items()}
        return Effect("delete", key, relation, fields, changes)
    fields = {
        column: Field(turns[0].before, turns[-1].after)
        for column, turns in ours.items()
        if turns[0].before != turns[-1].after
    }
    return Effect("update", key, relation, fields, changes) if fields else None


def _course(life: Life) -> _Course:
    turns: dict[str, list[_Turn]] = {}
    now: dict[str, Value] = {}
    commit: tuple[int, int] | None = None
    for at, step in enumerate(life.steps):
        # Within a transaction nothing can be missing between two changes of a row.
        joined = commit == step.place[:2]
        commit = step.place[:2]
        if step.operation == "DELETE":
            known = now if step.whole or joined else {}
            now = dict.fromkeys(now, _UNKNOWN) | known | dict(step.before)
            continue
        for column, value in step.after.items():
            if step.operation in BORN and (at == 0 or column not in now):
                before = value  # a baseline is of what is there
            elif column in step.before:
                before = step.before[column]
            elif step.whole or joined or not step.chosen:
                before = now.get(column, _UNKNOWN)
            else:
                before = _UNKNOWN
            if before != value or (column in step.unseen and not step.chosen):
                _add(turns.setdefault(column, []), _Turn(step, before, value))
            now[column] = value
    return _Course(turns, now)


def _add(turns: list[_Turn], turn: _Turn) -> None:
    """A revert restores: with what it undid it comes to nothing."""
    if turn.step.restores and not turn.step.chosen:
        for at in range(len(turns) - 1, -1, -1):
            if turns[at].step.chosen:
                break
            if turns[at].before == turn.after:
                del turns[at:]
                return
    turns.append(turn)


def _before_run(turns: Iterable[_Turn], value: Value) -> Value:
    """What a field held before the last, unbroken run of chosen turns; `value` is what it holds."""
    for turn in reversed([*turns]):
        if not turn.step.chosen:
            break
        value = turn.before
    return value


def _set_since(turns: Iterable[_Turn]) -> UUID | None:
    """The change that set a field last, where that was not a chosen one."""
    last = [*turns][-1:]
    return last[0].step.id if last and not last[0].step.chosen else None


def _merged(effects: list[Effect], key: Sequence[str]) -> list[Effect]:
    """A row that goes where another one comes under the same key is one that is updated."""
    coming: dict[Key, list[Effect]] = {}
    found: list[Effect] = []
    for effect in effects:
        if effect.action == "insert":
            comes = tuple(
                effect.fields[column].target if column in effect.fields else was
                for column, was in zip(key, effect.key, strict=True)
            )
            coming.setdefault(comes, []).append(msgspec.structs.replace(effect, key=comes))
    for effect in effects:
        if effect.action == "insert":
            continue
        others = coming.get(effect.key) if effect.action == "delete" else None
        if others:
            found += _exchanged(effect, others.pop())
        else:
            found.append(effect)
    return [*found, *(effect for effects in coming.values() for effect in effects)]


def _exchanged(went: Effect, comes: Effect) -> Iterator[Effect]:
    fields = {}
    for column in {**comes.fields, **went.fields}:
        held = went.fields.get(column, Field(_UNKNOWN, None))
        comes_as = comes.fields.get(column)
        target = _UNKNOWN if comes_as is None else comes_as.target
        blind = isinstance(target, Lost) and not target.tells
        if held.expected != target or held.between is not None or blind:
            fields[column] = Field(held.expected, target, held.between)
    if fields:
        changes = (*comes.changes, *went.changes)
        yield Effect(
            "update", went.key, went.relation, fields, changes, comes=frozenset(comes.fields)
        )
