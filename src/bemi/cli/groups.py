"""How listings show groups: under headings for people, with a number and a value for programs."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from bemi.cli import output
from bemi.history.grouping import runs
from bemi.store.dimensions import Dimension
from bemi.store.reader import StoredChange
from bemi.times import spell

if TYPE_CHECKING:
    from rich.console import Console

COLUMNS: Final = ("group_number", "group_value")


def numbered(
    changes: Iterable[StoredChange], by: Dimension | None
) -> Iterator[tuple[dict[str, Any], StoredChange]]:
    """Each change with the columns of its group, which are none where nothing is grouped."""
    if by is None:
        for change in changes:
            yield {}, change
        return
    for number, (value, group) in enumerate(runs(changes, by), 1):
        before = dict(zip(COLUMNS, (number, value), strict=True))
        for change in group:
            yield before, change


def as_values(changes: Iterable[StoredChange], by: Dimension) -> list[dict[str, Any]]:
    found = []
    for value, run in runs(changes, by):
        group = list(run)
        times = [change.committed_at for change in group]
        found.append(
            {
                "by": by.name,
                "value": value,
                "count": len(group),
                "first": min(times),
                "last": max(times),
                "changes": group,
            }
        )
    return found


def print_groups(
    changes: Sequence[StoredChange], by: Dimension, to: "Console", *, with_source: bool
) -> None:
    for number, (value, run) in enumerate(runs(changes, by)):
        group = list(run)
        context = group[0].context
        is_transaction = by.name == "transaction"
        shared = all(bytes(change.context) == bytes(context) for change in group)
        if number:
            print()
        to.print(_heading(by, value, group), soft_wrap=True)
        if shared and is_transaction:
            said = "  ".join(f"{name} {text}" for name, text in output.members(context).items())
            if said:
                to.print(output.text(output.shortened(said), "dim"), soft_wrap=True)
        print()
        output.print_changes(
            group,
            to,
            with_source=with_source,
            with_time=not is_transaction,
            with_context=not (shared and is_transaction),
        )


def _heading(by: Dimension, value: Any, group: Sequence[StoredChange]) -> Any:
    if value is None:
        named = f"no {by.name.removeprefix('context.')}"
    else:
        named = f"{by.name.removeprefix('context.')} {output.shortened(str(value))}"
    times = [change.committed_at for change in group]
    first, last = (moment.replace(microsecond=0) for moment in (min(times), max(times)))
    when = spell(first) if first == last else f"{spell(first)} to {spell(last)}"
    return (
        output.text("")
        .append_text(output.text(named, "bold"))
        .append_text(output.text(f" · {when} · {output.count(len(group), 'change')}"))
    )
