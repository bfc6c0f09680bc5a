"""How differences are shown: column by column, with what changed inside of long values."""

import itertools
import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from bemi import tabular
from bemi.cli import output
from bemi.history.difference import Difference
from bemi.history.parts import MISSING, Part, parts, pieces

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from bemi.history.change import Change

_MOST: Final = 200
"""Rows that people are shown."""
_LONG: Final = 40
"""From so many characters on a text is compared inside."""
_AROUND: Final = 20
"""Characters that are shown before and behind what differs."""
_LONGEST: Final = 400
_MOST_PARTS: Final = 50

_MARKS: Final = {"added": "+", "removed": "-", "changed": "~"}
_STYLES: Final = {"added": "green", "removed": "red", "changed": "yellow"}


def as_value(each: Difference) -> dict[str, Any]:
    """As programs get it: a side that is not there, or not known, has no member."""
    columns = {}
    for name, (before, after) in each.columns.items():
        sides = {"before": before, "after": after}
        for side, kind in (("before", "added"), ("after", "removed")):
            if each.kind == kind or (name in each.unknown and sides[side] is None):
                del sides[side]
        columns[name] = sides
    return {
        "kind": each.kind,
        "key": each.key,
        "previous_key": each.previous_key,
        "count": each.count,
        "columns": columns,
        "unknown": each.unknown,
    }


def print_csv(found: Iterable[Difference]) -> None:
    table = tabular.Table(
        "kind", "key", "previous_key", "count", "column", "before", "after", "unknown"
    )
    for each in found:
        for name, (before, after) in each.columns.items():
            row = (each.kind, each.key, each.previous_key, each.count)
            table.add((*row, name, before, after, name in each.unknown))


def print_one(change: "Change", to: "Console") -> None:
    """Of one change, under what it is of."""
    difference = Difference.of_change(change)
    context = "  ".join(f"{name} {output.spoken(value)}" for name, value in change.context.items())
    to.print(output.what(change))
    if context:
        to.print(output.text(output.shortened(context), "dim"), soft_wrap=True)
    made = output.table("column", "before", "after")
    for line in _lines(difference):
        made.add_row(*line)
    print()
    if difference.columns:
        output.show(made, to)
    else:
        print("no column differs")


def print_all(found: Iterator[Difference], to: "Console") -> None:
    shown = [*itertools.islice(found, _MOST)]
    if not shown:
        print("no difference")
        return
    counts = {kind: sum(each.count for each in shown if each.kind == kind) for kind in _MARKS}
    more = next(found, None) is not None
    told = ", ".join(f"{number:,} {kind}" for kind, number in counts.items() if number)
    print(f"{told}{f', of the first {_MOST:,}' if more else ''}")
    print()
    made = output.table("row", "column", "before", "after")
    for each in shown:
        head = _head(each)
        for line in _lines(each):
            made.add_row(head, *line)
            head = output.text("")
    output.show(made, to)
    if any(each.unknown for each in shown):
        print("?: a value that is not known")
    if more:
        print(f"the first {_MOST:,} rows; --json, --ndjson and --csv have all")


def _head(each: Difference) -> "Text":
    key = "" if each.key is None else f" {output.shortened(each.key, 40)}"
    was = "" if each.previous_key is None else f" (was {output.shortened(each.previous_key, 40)})"
    times = "" if each.count == 1 else f" × {each.count:,}"
    told = f"{_MARKS[each.kind]} {each.kind}{key}{was}{times}"
    return output.text(told, _STYLES[each.kind])


def _lines(each: Difference) -> Iterator[tuple["Text", "Text", "Text"]]:
    for name, (before, after) in each.columns.items():
        if name in each.unknown:
            yield (
                output.text(name),
                output.text("?", "dim") if before is None else _shown(before),
                output.text("?", "dim") if after is None else _shown(after),
            )
        elif each.kind == "added":
            yield output.text(name), output.text(""), _shown(after)
        elif each.kind == "removed":
            yield output.text(name), _shown(before), output.text("")
        else:
            yield from _inside(name, before, after)


def _inside(name: str, before: Any, after: Any) -> Iterator[tuple["Text", "Text", "Text"]]:
    found = [*itertools.islice(parts(before, after), _MOST_PARTS + 1)]
    for path, old, new in found[:_MOST_PARTS] or [Part("", before, after)]:
        # Within JSON, and where the types differ, a text is told from what looks the same.
        texts = isinstance(old, str) and isinstance(new, str) and not path
        sides = (_shown(old, quoted=not texts), _shown(new, quoted=not texts))
        if isinstance(old, str) and isinstance(new, str) and max(len(old), len(new)) > _LONG:
            sides = _compared(old, new)
        yield (output.text(f"{name}{path}"), *sides)
    if len(found) > _MOST_PARTS:
        yield output.text(name), output.text("…", "dim"), output.text("…", "dim")


def _shown(value: Any, *, quoted: bool = False) -> "Text":
    if value is MISSING:
        return output.text("")
    if value is None:
        return output.text("null", "dim")
    if quoted and isinstance(value, str):
        value = json.dumps(value, ensure_ascii=False)
    return output.text(output.shortened(output.spoken(value)))


def _compared(before: str, after: str) -> tuple["Text", "Text"]:
    """What both have is cut around what they have not, which is marked with more than a colour."""
    found = pieces(before, after)
    if not any(mark == "=" and len(text) > 2 for mark, text in found):
        return _shown(before), _shown(after)
    old, new = output.text(""), output.text("")
    for number, (mark, text) in enumerate(found):
        if mark == "=":
            cut = _cut(text, begins=number == 0, ends=number == len(found) - 1)
            old.append_text(output.text(cut))
            new.append_text(output.text(cut))
        elif mark == "-":
            old.append_text(output.text(f"[-{output.shortened(text)}-]", "red"))
        else:
            new.append_text(output.text(f"{{+{output.shortened(text)}+}}", "green"))
    return _shortened(old), _shortened(new)


def _cut(text: str, *, begins: bool, ends: bool) -> str:
    if (begins and ends) or len(text) <= 2 * _AROUND:
        return text
    if begins:
        return f"…{text[-_AROUND:]}"
    if ends:
        return f"{text[:_AROUND]}…"
    return f"{text[:_AROUND]}…{text[-_AROUND:]}"


def _shortened(text: "Text") -> "Text":
    text.truncate(_LONGEST, overflow="ellipsis")
    return text
