"""A change as people read it: a sentence first, then what differs, column by column. Pure.

What comes out of the history is text of anybody's: here it becomes words and values, and templates
write them as text.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import msgspec

from bemi.history.change import Change
from bemi.history.difference import Difference
from bemi.history.parts import MISSING, parts
from bemi.store.reader import StoredChange
from bemi.ui import links
from bemi.ui.actors import Actor, actor_of
from bemi.ui.values import UNKNOWN, Shown, brief, named, pair, shown, visible

MOST_CHARACTERS: Final = 160
_IN_SENTENCES: Final = 40
_NAMED: Final = 3
"""Columns that a sentence names."""
_INSIDE: Final = 12
"""Places in a JSON value that are told."""

_HUES: Final = {
    "CREATE": "create",
    "UPDATE": "update",
    "DELETE": "delete",
    "TRUNCATE": "delete",
    "SNAPSHOT": "baseline",
}

_NOTES: Final = {
    "before_unknown": "The row before is not known: PostgreSQL did not log it, and the history"
    " can't vouch for it.",
    "context_dropped": "The application sent a context that could not be read.",
    "inferred": "Not seen as it happened: a baseline behind a gap found the row so, or the table"
    " was altered before its change was read.",
    "moved": "The row came from another partition of its table.",
    "key_digest": "The key is longer than 2,000 bytes: this is its digest.",
}


class Bit(NamedTuple):
    """A part of a sentence."""

    kind: Literal["", "who", "column", "row", "value", "none"]
    text: str
    href: str = ""


Sentence: TypeAlias = tuple[Bit, ...]


class Line(msgspec.Struct, frozen=True):
    """A column that differs; without a side that there is not. `inside`: in place of both, where
    in its JSON."""

    name: str
    before: Shown | None = None
    after: Shown | None = None
    inside: tuple["Line", ...] = ()


class Told(msgspec.Struct, frozen=True):
    """`more`: columns that differ beside those in `lines`; `same`: how many do not."""

    change: StoredChange
    hue: str
    actor: Actor
    sentence: Sentence
    lines: tuple[Line, ...] = ()
    more: int = 0
    same: int = 0
    unchanged: tuple[Line, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def href(self) -> str:
        return links.change(self.change.id, self.change.source)

    @property
    def is_said(self) -> bool:
        """Whether the sentence has both values of the one column that differs, whole."""
        if len(self.lines) != 1 or self.more or self.notes:
            return False
        (line,) = self.lines
        sides = [side.text for side in (line.before, line.after) if side and side.kind != "note"]
        said = [bit.text for bit in self.sentence if bit.kind in ("value", "none")]
        return len(sides) == 2 and sides == said


def tell(
    stored: StoredChange,
    *,
    by: Actor | None = None,
    columns: int = 20,
    most: int = MOST_CHARACTERS,
) -> Told:
    """With at most so many columns that differ, and as many that do not. The sentence does not
    repeat whom it is `by`."""
    actor = actor_of(stored.context)
    hue = _HUES[stored.operation]
    who = () if by == actor or stored.operation == "SNAPSHOT" else actor_bits(actor)
    try:
        change = Change.of(stored)
        said, lines, unchanged = _content(change, most)
    except RecursionError:
        # Whoever nests a value deep enough must not make the page fail.
        said = (Bit("", "wrote "), _row(stored))
        return Told(
            stored, hue, actor, (*who, *said), notes=("A value is nested too deeply to be shown.",)
        )
    return Told(
        stored,
        hue,
        actor,
        (*who, *said),
        tuple(lines[:columns]),
        max(0, len(lines) - columns),
        len(unchanged),
        tuple(unchanged[:columns]),
        tuple(_notes(change.flags)),
    )


def actor_bits(actor: Actor) -> Sentence:
    return Bit("who", actor.text, actor.href), Bit("", " ")


def listed(several: Sequence[Sentence]) -> Iterator[Bit]:
    """`a, b and c`."""
    for at, part in enumerate(several):
        if at:
            yield Bit("", " and " if at == len(several) - 1 else ", ")
        yield from part


def name_of(schema: str, table: str) -> str:
    return visible(table if schema == "public" else f"{schema}.{table}")


def _content(change: Change, most: int) -> tuple[Sentence, list[Line], list[Line]]:
    """What it did, in words; the columns that differ; those that do not."""
    row = _row(change)
    if change.operation == "TRUNCATE":
        of = named(change.flags, "partition")
        part = f", its partition {brief(of[0], _IN_SENTENCES)}" if of else ""
        return (Bit("", "emptied "), row, Bit("", part)), [], []
    found = Difference.of_change(change)
    lines = [_line(name, change, most) for name in found.columns]
    unchanged = _unchanged(change, found, most)
    if change.operation == "SNAPSHOT":
        return (Bit("", "a baseline read "), row), lines, unchanged
    if change.operation == "CREATE":
        verb = "moved " if "moved" in change.flags else "created "
        tail = " to another partition" if "moved" in change.flags else ""
        return (Bit("", verb), row, Bit("", tail)), lines, unchanged
    if change.operation == "DELETE":
        return (Bit("", "deleted "), row), lines, unchanged
    return _update(change, found, row), lines, unchanged


def _update(change: Change, found: Difference, row: Bit) -> Sentence:
    names = [*found.columns]
    if not names:
        return Bit("", "wrote "), row, Bit("", " without a difference that you can see")
    if "before_unknown" in change.flags:
        return Bit("", "wrote "), row, Bit("", "; what it was before is not known")
    columns = [(Bit("column", brief(name, _IN_SENTENCES)),) for name in names[:_NAMED]]
    if len(names) > _NAMED:
        return Bit("", f"changed {len(names):,} columns of "), row
    head = (Bit("", "changed "), *listed(columns), Bit("", " of "), row)
    if len(names) > 1 or found.unknown:
        return head
    (before, after) = found.columns[names[0]]
    if any(isinstance(value, dict | list) for value in (before, after)):
        return head
    sides = [_value(value, names[0], change.flags) for value in (before, after)]
    return (*head, Bit("", " from "), sides[0], Bit("", " to "), sides[1])


def _value(value: Any, name: str, flags: Sequence[str]) -> Bit:
    found = shown(value, _IN_SENTENCES, name, flags)
    kind: Literal["none", "value"] = "none" if found.kind == "none" else "value"
    return Bit(kind, brief(found.text, _IN_SENTENCES))


def _row(change: StoredChange | Change) -> Bit:
    name = name_of(change.schema, change.table)
    if change.primary_key is None:
        return Bit("row", brief(name, 2 * _IN_SENTENCES))
    text = f"{brief(name, 2 * _IN_SENTENCES)} {brief(change.primary_key, _IN_SENTENCES)}"
    table = f"{change.schema}.{change.table}"
    return Bit("row", text, links.record(table, change.primary_key, change.source))


def _line(name: str, change: Change, most: int) -> Line:
    told = brief(name, MOST_CHARACTERS)
    before, after = change.before, change.after
    if name in before and name in after:
        with suppress(RecursionError):  # then it differs as a whole
            inside = tuple(_inside(before[name], after[name], most))
            if inside:
                return Line(told, inside=inside)
        return Line(told, *pair(before[name], after[name], most, name, change.flags))
    # Of an update each side is there, whether it is known or not.
    missing = UNKNOWN if change.operation == "UPDATE" else None
    return Line(
        told,
        shown(before[name], most, name, change.flags) if name in before else missing,
        shown(after[name], most, name, change.flags) if name in after else missing,
    )


def _inside(before: Any, after: Any, most: int) -> Iterator[Line]:
    """Where two values of JSON differ; nothing for whole other ones."""
    if not any(isinstance(before, kind) and isinstance(after, kind) for kind in (dict, list)):
        return
    for at, (path, old, new) in enumerate(parts(before, after)):
        if at == _INSIDE:
            yield Line("and more")
            return
        yield Line(
            brief(path, MOST_CHARACTERS),
            None if old is MISSING else shown(old, most),
            None if new is MISSING else shown(new, most),
        )


def _unchanged(change: Change, found: Difference, most: int) -> list[Line]:
    names = dict.fromkeys([*change.after, *change.before, *named(change.flags, "unchanged")])
    values = {**change.before, **change.after}
    return [
        Line(
            brief(name, MOST_CHARACTERS),
            after=shown(values[name], most, name, change.flags) if name in values else UNKNOWN,
        )
        for name in names
        if name not in found.columns
    ]


def _notes(flags: Iterable[str]) -> Iterator[str]:
    for flag in flags:
        if flag in _NOTES:
            yield _NOTES[flag]
        elif flag.startswith("before_unknown:"):
            name = brief(flag.partition(":")[2], MOST_CHARACTERS)
            yield f"What {name} was before is not known."
