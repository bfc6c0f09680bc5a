"""How commands print: tables for people, one JSON value or a stream of them for programs.

What is printed comes out of databases and may be hostile: it is never taken for markup, and
characters that would command a terminal are shown, not sent.
"""

import itertools
import json
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import msgspec

from bemi import amounts
from bemi.errors import UncertainWarning
from bemi.lsn import Lsn
from bemi.times import spell

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

count, size, span = amounts.count, amounts.size, amounts.span

# Control characters, and those that turn the direction of the text around them.
_COMMANDING: Final = re.compile(
    "[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_WIDTH_WITHOUT_TERMINAL: Final = 100
_LONGEST_VALUE: Final = 200
_MOST_ROWS: Final = 200
# Numbers stay numbers, with all of their digits.
_encode: Final = msgspec.json.Encoder(decimal_format="number").encode


class _Literal(str):
    """A number's digits as they stand in the JSON."""


def console() -> "Console":
    """Standard output, as wide as the window; colours only on a terminal without NO_COLOR."""
    from rich.console import Console

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _WIDTH_WITHOUT_TERMINAL
    return Console(width=width, highlight=False, markup=False, emoji=False, soft_wrap=False)


def table(*headings: str) -> "Table":
    """A table of aligned columns with nothing but a line under its headings."""
    from rich import box
    from rich.table import Table

    made = Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1), header_style="dim"
    )
    for heading in headings:
        made.add_column(heading, overflow="fold")
    return made


def show(made: "Table", to: "Console") -> None:
    """Prints a table, without the spaces that would fill its last column."""
    from rich.segment import Segment, Segments

    lines = []
    for line in to.render_lines(made, pad=False):
        while line and not line[-1].text.strip():
            line.pop()
        if line:
            last = line.pop()
            line.append(Segment(last.text.rstrip(), last.style))
        lines += [*line, Segment.line()]
    to.print(Segments(lines), end="")


def ask(question: str) -> str:
    """What is answered at the terminal; nothing when its input ends (Ctrl-D)."""
    try:
        return input(question).strip()
    except EOFError:
        print()
        return ""


def text(value: str, style: str = "") -> "Text":
    from rich.text import Text

    return Text(printable(value), style=style)


def printable(value: str) -> str:
    """`value` with what commands a terminal spelled out: an escape becomes `\\x1b`."""
    return _COMMANDING.sub(lambda match: match[0].encode("unicode_escape").decode(), value)


def lines(value: str) -> str:
    """As `printable`, for texts of several lines, which stay so."""
    return "\n".join(printable(line) for line in value.split("\n"))


def print_json(value: Any) -> None:
    """One JSON value, with numbers as exact as they came."""
    sys.stdout.buffer.write(msgspec.json.format(_encode(value), indent=2) + b"\n")
    sys.stdout.buffer.flush()


def print_ndjson(value: Any) -> None:
    """One JSON value on one line."""
    # In one piece, so that a reader at the other end of a pipe never sees half a line.
    sys.stdout.buffer.write(_encode(value).replace(b"\n", b" ") + b"\n")


def members(raw: msgspec.Raw) -> dict[str, str]:
    """The members of a JSON object as people read them: texts bare, numbers exact, JSON compact."""
    read = json.loads(bytes(raw), parse_int=_Literal, parse_float=_Literal)
    return {name: _shown(value) for name, value in read.items()}


def shortened(value: str, length: int = _LONGEST_VALUE) -> str:
    return value if len(value) <= length else f"{value[: length - 1]}…"


def print_changes(
    rows: Sequence[Any],
    to: "Console",
    *,
    with_source: bool = False,
    with_time: bool = True,
    with_context: bool = True,
) -> None:
    """Changes as a table: what an update left alone is only counted."""
    timed = ["time (UTC)"] if with_time else []
    sourced = ["source"] if with_source else []
    contexts = ["context"] if with_context else []
    made = table(*timed, *sourced, "change", "before", "after", *contexts)
    made.columns[0].no_wrap = with_time
    for row in rows:
        before, after = members(row.before), members(row.after)
        same = 0
        if before and after:
            same = sum(name in after and after[name] == value for name, value in before.items())
            differing = [n for n in {**before, **after} if before.get(n) != after.get(n)]
            before = {name: before[name] for name in differing if name in before}
            after = {name: after[name] for name in differing if name in after}
        made.add_row(
            *([f"{row.committed_at:%Y-%m-%d}\n{row.committed_at:%H:%M:%S}"] if with_time else []),
            *([text(row.source)] if with_source else []),
            what(row),
            _pairs(before),
            _pairs(after, f"{same} unchanged" if same else None),
            *([_pairs(members(row.context))] if with_context else []),
        )
    show(made, to)


def print_change(row: Any, to: "Console") -> None:
    """One change: each column before and after, and all that is known of where it came from."""
    before, after = members(row.before), members(row.after)
    to.print(what(row))
    if before or after:
        made = table("column", "before", "after")
        for name in {**before, **after}:
            differs = before.get(name) != after.get(name) or name not in before
            style = "" if differs else "dim"
            made.add_row(
                text(name, style),
                text(before.get(name, ""), style),
                text(after.get(name, ""), style),
            )
        to.print()
        show(made, to)
    made = table("", "")
    made.show_header = False
    facts = {
        **{f"context {name}": value for name, value in members(row.context).items()},
        "committed": spell(row.committed_at),
        "transaction": str(row.transaction_id),
        "position": f"{Lsn(row.position)}, committed at {Lsn(row.commit_position)}",
        "source": f"{row.source} ({row.database})",
        "rules": "" if row.rules is None else f"version {row.rules}",
        "id": str(row.id),
    }
    for name, value in facts.items():
        if value:
            made.add_row(text(name, "dim"), text(value))
    to.print()
    show(made, to)


def print_rows(rows: Iterator[Any], to: "Console") -> None:
    """Rows as a table, the first of them; a column that is not known is marked."""
    shown = [*itertools.islice(rows, _MOST_ROWS)]
    if not shown:
        print("no rows")
        return
    names = [*dict.fromkeys(name for row in shown for name in row.values)]
    unknown = {
        flag.partition(":")[2]
        for row in shown
        for flag in row.flags
        if flag.startswith("unchanged:")
    }
    names += sorted(unknown - {*names})
    made = table(*(printable(name) for name in names))
    for row in shown:
        made.add_row(*(_cell(row, name) for name in names))
    show(made, to)
    if unknown:
        print("?: a value that is not known")
    if next(rows, None) is not None:
        print(f"the first {_MOST_ROWS:,} rows; --json and --ndjson have all")


def _cell(row: Any, name: str) -> "Text":
    value = row.values.get(name)
    if value is not None:
        return text(shortened(spoken(value), 60))
    if name in row.values:
        return text("null", "dim")
    return text("?" if f"unchanged:{name}" in row.flags else "", "dim")


def print_blame(rows: Sequence[Any], to: "Console") -> None:
    """Of each column its value, and the change that it is of."""
    made = table("column", "value", "before", "since (UTC)", "change", "context")
    for fixed in (3, 4):
        made.columns[fixed].no_wrap = True
    for row in rows:
        change = row.change
        context = {name: spoken(value) for name, value in change.context.items()}
        since = f"{change.committed_at:%Y-%m-%d}\n{change.committed_at:%H:%M:%S}"
        made.add_row(
            text(row.column),
            text(shortened(spoken(row.value))),
            text("" if row.previous is None else shortened(spoken(row.previous))),
            since if row.exact else f"{since}\nor before",
            _stacked(
                [
                    text(change.operation, _STYLES.get(change.operation, "blue")),
                    text(str(change.id), "dim"),
                ]
            ),
            _pairs(context),
        )
    show(made, to)


@contextmanager
def doubts() -> Iterator[None]:
    """Says on standard error what is not surely known of what is printed meanwhile."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", UncertainWarning)
        warnings.showwarning = _warn
        yield


def _warn(message: Warning | str, *_where: object, **_how: object) -> None:
    print(f"warning: {lines(str(message))}", file=sys.stderr)


def spoken(value: object) -> str:
    """A value of Python's as people read it in JSON, texts bare."""
    return value if isinstance(value, str) else _encode(value).decode()


_STYLES: Final = {"CREATE": "green", "UPDATE": "yellow", "DELETE": "red", "TRUNCATE": "red"}


def name_of(row: Any) -> str:
    """The table and the key of a change; not printable yet."""
    name: str = row.table if row.schema == "public" else f"{row.schema}.{row.table}"
    if row.primary_key is not None:
        name += f" {shortened(row.primary_key, 40)}"
    if row.previous_key is not None:
        name += f" (was {shortened(row.previous_key, 40)})"
    return name


def what(row: Any) -> "Text":
    operation = text(row.operation, _STYLES.get(row.operation, "blue"))
    return _stacked(
        [operation, text(name_of(row)), *(text(flag, "dim") for flag in row.flags or ())]
    )


def _pairs(values: dict[str, str], note: str | None = None) -> "Text":
    pairs = [
        # Not appended to a dim text, whose style would be the whole one's.
        text("").append_text(text(f"{name} ", "dim")).append_text(text(shortened(value)))
        for name, value in values.items()
    ]
    return _stacked([*pairs, *([text(note, "dim")] if note else [])])


def _stacked(parts: Sequence["Text"]) -> "Text":
    from rich.text import Text

    return Text("\n").join(parts)


def _shown(value: object) -> str:
    if isinstance(value, str):
        return value
    return _spell(value)


def _spell(value: object) -> str:
    """JSON again, with the digits that were read."""
    if isinstance(value, _Literal):
        return str(value)
    if isinstance(value, dict):
        inside = (f"{json.dumps(name)}: {_spell(member)}" for name, member in value.items())
        return f"{{{', '.join(inside)}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_spell, value))}]"
    return json.dumps(value, ensure_ascii=False)
