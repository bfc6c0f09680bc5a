"""`bemi tail`: changes as they come."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Annotated, Final, TextIO

from cyclopts import Parameter, validators

from bemi.cli.options import ConfigFlags, FormFlags, PagelessFlags, Required
from bemi.errors import MissingChangesError, UsageError

if TYPE_CHECKING:
    from bemi.store.reader import StoredChange

_LONGEST_VALUE: Final = 60
_MOST_VALUES: Final = 12
_COLOURS: Final = {"CREATE": "32", "UPDATE": "33", "DELETE": "31", "TRUNCATE": "31"}


def command(
    *,
    start: Annotated[Required, Parameter(name="--from")] = "now",
    limit: Annotated[int | None, Parameter(validator=validators.Number(gte=1))] = None,
    until_caught_up: bool = False,
    baseline: bool = False,
    filters: PagelessFlags = PagelessFlags(),  # noqa: B008 - frozen
    connection: ConfigFlags = ConfigFlags(),  # noqa: B008 - frozen
    form: FormFlags = FormFlags(),  # noqa: B008 - frozen
) -> int:
    """Show changes as they are captured, each on a line, until Ctrl-C.

    In the order of each source's log, whole transactions at a time. All filters that are given
    must match. What went wrong meanwhile, a destination that restarts or changes that are missing,
    is told on standard error; and in the end with which --from it goes on.

        bemi tail --table todo --context user_id=42

    Parameters
    ----------
    start
        Where to begin: now, beginning, a time like those of --since, a position like 0/1A2B3C4D, a
        change's id, or what the end of another `bemi tail` told. Without it, now.
    limit
        End after so many changes.
    until_caught_up
        End behind what was captured when this began.
    baseline
        Show the rows that baselines read, too.
    """
    history = connection.history()
    if form.json and limit is None and not until_caught_up:
        raise UsageError(
            "--json is one value, and so needs an end",
            fix="give --limit or --until-caught-up, or --ndjson: one value per line",
        )

    import msgspec

    from bemi import tabular
    from bemi.cli import listing, output
    from bemi.history.beginning import beginning_of
    from bemi.history.feed import Feed
    from bemi.store.reader import StoredChange

    listing.echo(filters)
    table = tabular.Table(*StoredChange.__struct_fields__) if form.csv else None
    coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    given = 0
    rows: list[StoredChange] = []
    with (
        _told(sys.stderr),
        closing(
            Feed(
                history.url,
                history.schema,
                filters.filters(),
                beginning_of(start),
                baseline=baseline,
            )
        ) as feed,
    ):
        try:
            for each in feed.follow(timeout=None, until_caught_up=until_caught_up):
                if isinstance(each, MissingChangesError):
                    print(f"missing: {output.printable(str(each))}", file=sys.stderr)
                    continue
                if form.json:
                    rows.append(each)
                elif table is not None:
                    table.add(msgspec.structs.astuple(each))
                elif form.ndjson:
                    output.print_ndjson(each)
                else:
                    several = len(feed.cursor.places) > 1
                    print(_line(each, coloured=coloured, with_source=several))
                sys.stdout.flush()
                given += 1
                if given == limit:
                    break
        finally:
            print(f"goes on with --from '{feed.cursor}'", file=sys.stderr)
    if form.json:
        output.print_json(rows)
    return 0


@contextmanager
def _told(to: TextIO) -> Iterator[None]:
    """Says there what is waited for."""
    log = logging.getLogger("bemi.stream")
    handler, level = _Told(to), log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(level)
        log.removeHandler(handler)


class _Told(logging.Handler):
    def __init__(self, to: TextIO) -> None:
        super().__init__()
        self._to = to

    def emit(self, record: logging.LogRecord) -> None:
        from bemi.cli import output

        reason = getattr(record, "reason", "")
        print(output.printable(": ".join(filter(None, [record.msg, reason]))), file=self._to)


def _line(row: "StoredChange", *, coloured: bool, with_source: bool) -> str:
    """When, in which source, what, the columns that differ, and in brackets the context."""
    from bemi.cli import output

    before, after = output.members(row.before), output.members(row.after)
    values = []
    for name in {**before, **after}:
        if before and after and before.get(name) == after.get(name):
            continue
        sides = [before[name]] if name in before else []
        sides += [after[name]] if name in after else []
        shown = " → ".join(output.shortened(value, _LONGEST_VALUE) for value in sides)
        values.append(f"{name} {shown}")
    context = [
        f"{name} {output.shortened(value, _LONGEST_VALUE)}"
        for name, value in output.members(row.context).items()
    ]
    operation = f"{row.operation:<8}"
    if coloured:
        operation = f"\x1b[{_COLOURS.get(row.operation, '34')}m{operation}\x1b[0m"
    parts = [
        f"{row.committed_at:%Y-%m-%d %H:%M:%S}",
        output.printable(row.source) if with_source else "",
        operation,
        output.printable(output.name_of(row)),
        output.printable(_some(values)),
        output.printable(f"[{_some(context)}]") if context else "",
        " ".join(map(output.printable, row.flags or ())),
    ]
    return "  ".join(filter(None, parts))


def _some(values: list[str]) -> str:
    more = len(values) - _MOST_VALUES
    return ", ".join([*values[:_MOST_VALUES], *([f"{more} more"] if more > 0 else [])])
