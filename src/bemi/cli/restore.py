"""`bemi restore`: tables as they were, as real tables."""

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from bemi.cli.options import ConfigFlags, Names, Required, Text

if TYPE_CHECKING:
    from bemi.history.restore import Follows, Restored


def command(
    *,
    at: Required,
    into: Required,
    table: Annotated[Names, Parameter(negative=())] = (),
    wait: bool = False,
    allow_gaps: bool = False,
    source: Text = None,
    connection: ConfigFlags = ConfigFlags(),  # noqa: B008 - frozen
    json: bool = False,
) -> int:
    """Make tables as they were, with their types, keys and constraints.

    All at one position, after all transactions that had been committed by then; in one transaction,
    so that nothing is left behind when it fails or is stopped. What can't be had, such as masked
    values or a foreign key to a table that is not tracked, is listed.

        bemi restore --at "yesterday 09:00" --into rescue --table todo

    Parameters
    ----------
    at
        A time like those of --since, a position like 0/1A2B3C4D, or a change's id.
    into
        Schema of the destination, which must be empty or not there yet; or the URL of another
        database, where the tables keep their schemas and none of them may be there.
    table
        Only these: SCHEMA.TABLE, or a table in the schema public; globs; repeatable.
    wait
        Wait for what is not captured yet.
    allow_gaps
        What is not surely known then is made as well as it can be, and listed.
    source
        Name of the source, where the history has several.
    json
        Print one JSON value: what was made, what was left out, and which values are unknown.
    """
    where = connection.history()

    from bemi.history.history import History

    with History(where.url, schema=where.schema) as history, _followed() as follow:
        restored = history.restore(
            at,
            into,
            tables=table,
            wait=wait,
            allow_gaps=allow_gaps,
            source=source,
            follow=follow,
        )
    _print(restored, into, json=json)
    return 0


@contextlib.contextmanager
def _followed() -> "Iterator[Follows | None]":
    """How many rows each table has so far, while somebody watches."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress, TaskID, TextColumn, TimeElapsedColumn

    from bemi.cli import output

    columns = (
        TextColumn("{task.description}", markup=False),
        TextColumn("{task.completed:,.0f} rows"),
        TimeElapsedColumn(),
    )
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:

        def follow(table: str, rows: int) -> None:
            if table not in tasks:
                for before in tasks.values():
                    progress.stop_task(before)
                tasks[table] = progress.add_task(output.printable(table), total=None)
            progress.advance(tasks[table], rows)

        yield follow


def _print(restored: "Restored", into: str, *, json: bool) -> None:
    import msgspec

    from bemi.cli import output
    from bemi.connections import describe
    from bemi.lsn import Lsn

    if json:
        found = msgspec.to_builtins(restored)
        output.print_json({**found, "position": str(Lsn(restored.position))})
        return
    to = output.console()
    rows = sum(each.rows for each in restored.tables)
    place = describe(into) if _is_url(into) else f"schema {into}"
    made = output.table("table", "rows")
    for each in restored.tables:
        made.add_row(output.text(each.name), output.text(str(each.rows)))
    output.show(made, to)
    to.print()
    to.print(
        output.text(
            f"{output.count(len(restored.tables), 'table')} with {output.count(rows, 'row')}"
            f" into {place}, as of {Lsn(restored.position)} of {restored.source}"
        )
    )
    if restored.left_out:
        to.print("\nnot as it was:")
        for left in restored.left_out:
            of = "" if left.table is None else f"{left.table}, "
            to.print(output.text(f"  {of}{left.what}: {left.why}"), soft_wrap=True)
    if restored.unknown:
        to.print("\nvalues that are not known:")
        for unknown in restored.unknown:
            to.print(
                output.text(
                    f"  {unknown.table}, column {unknown.column}: {unknown.why} in"
                    f" {output.count(unknown.rows, 'row')}"
                ),
                soft_wrap=True,
            )


def _is_url(into: str) -> bool:
    from bemi.history.restore import is_url

    return is_url(into)
