"""Counts over time: as bars from zero for people, labelled where they are; as rows for programs."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from bemi.cli import output
from bemi.errors import UsageError
from bemi.history.trends import Trend
from bemi.store.dimensions import Dimension
from bemi.store.trends import Count
from bemi.times import spell

if TYPE_CHECKING:
    from rich.console import Console

TOP: Final = 8
_MOST_BUCKETS: Final = 400
_SHORTEST: Final = 10
_LONGEST: Final = 60
_LONGEST_VALUE: Final = 40
_EIGHTHS: Final = " ▏▎▍▌▋▊▉"
_TIMES: Final = {
    "minute": "%Y-%m-%d %H:%M",
    "hour": "%Y-%m-%d %H:%M",
    "day": "%Y-%m-%d",
    "week": "%Y-%m-%d",
    "month": "%Y-%m",
}


def columns(by: Sequence[Dimension], *, others: bool) -> list[str]:
    return ["start", *(each.name for each in by), *(["others"] if others and by else []), "count"]


def row(count: Count, names: Sequence[str]) -> dict[str, Any]:
    """A count with the names that `columns` gave."""
    others = (count.others,) if "others" in names else ()
    values = (count.start, *count.values, *others, count.count)
    return dict(zip(names, values, strict=True))


def require_few(trend: Trend) -> None:
    """Raises `UsageError` for more than anybody looks at."""
    if trend.buckets > _MOST_BUCKETS:
        raise UsageError(
            f"from {spell(trend.since)} to {spell(trend.until)} there are {trend.buckets:,}"
            f" {trend.every}s, more than can be shown as bars",
            fix="give a longer --every or a later --since; --csv and --json have all",
        )


def show(trend: Trend, counts: Sequence[Count], to: "Console") -> None:
    since, until = (spell(each.replace(microsecond=0)) for each in (trend.since, trend.until))
    total = sum(count.count for count in counts)
    to.print(
        output.text(f"{output.count(total, 'change')} from {since} to {until}, by {trend.every}"),
        soft_wrap=True,
    )
    print()
    names = [each.name.removeprefix("context.") for each in trend.by]
    made = output.table(f"{trend.every} (UTC)", *map(output.printable, names), "changes", "")
    made.columns[0].no_wrap = True
    made.columns[-2].justify = "right"
    made.columns[-1].no_wrap = True
    lines = _lines(trend, counts)
    taken = sum(
        max(map(len, texts)) + 2 for texts in zip(*(line[:-1] for line in lines), strict=True)
    )
    most = max(count.count for count in counts)
    width = max(_SHORTEST, min(_LONGEST, to.width - max(taken, 8 * len(names) + 28)))
    solid = to.options.ascii_only
    for *texts, number in lines:
        bar = _bar(number / most * width, ascii_only=solid)
        made.add_row(*map(output.text, texts), f"{number:,}", output.text(bar, "blue"))
    output.show(made, to)


def _lines(trend: Trend, counts: Sequence[Count]) -> list[tuple[Any, ...]]:
    """A line for each group that has changes then; one of 0 for a time without any."""
    found: list[tuple[Any, ...]] = []
    told = None
    busy = {count.start for count in counts if count.count}
    for count in counts:
        if count.start in busy and not count.count:
            continue
        if count.start == told and count.start not in busy:
            continue
        when = f"{count.start:{_TIMES[trend.every]}}" if count.start != told else ""
        told = count.start
        if count.start not in busy:
            values = [""] * len(trend.by)
        elif count.others:
            values = ["others", *[""] * (len(trend.by) - 1)]
        else:
            values = [_value(value) for value in count.values]
        found.append((when, *values, count.count))
    return found


def _value(value: str | None) -> str:
    return "-" if value is None else output.shortened(output.printable(value), _LONGEST_VALUE)


def _bar(length: float, *, ascii_only: bool) -> str:
    """To an eighth of a character; what is not nothing is seen."""
    eighths = round(length * 8) or (1 if length else 0)
    if ascii_only:
        return "#" * (-(-eighths // 8))
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()
