"""`bemi snapshot`: stores the rows that tables had before they were tracked."""

import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from bemi.cli.options import SettingsFlags

if TYPE_CHECKING:
    from bemi.capture.baseline import Result
    from bemi.store.baselines import Interval

Globs = Annotated[tuple[str, ...], Parameter(negative=())]
Switch = Annotated[bool, Parameter(negative=())]
AtLeastOne = Annotated[int | None, Parameter(validator=validators.Number(gte=1))]


def command(
    *,
    schema: Globs = (),
    table: Globs = (),
    rate: AtLeastOne = None,
    chunk_rows: AtLeastOne = None,
    again: Switch = False,
    connection: SettingsFlags = SettingsFlags(),  # noqa: B008 - frozen
    json: bool = False,
) -> int:
    """Store what tables already hold: their baseline.

    Takes each tracked table that has none yet, or those that --schema and --table choose, while
    changes go on: in chunks by key, each in a transaction of about a second. Works beside a running
    worker; where there is none, it captures itself until it is done. It may be killed at any time:
    run again, it goes on behind the last chunk that was stored. A table without a key is read in
    one piece.

    Parameters
    ----------
    schema
        Schemas, as globs; repeatable.
    table
        Tables, as globs SCHEMA.TABLE, without a schema in public; repeatable.
    rate
        Rows per second at most, for a source that has little to spare.
    chunk_rows
        Rows of a chunk at most; without this 10,000. About 8 MB or a second end it before.
    again
        Also tables that have a baseline: their rows are stored once more, as they are now.
    json
        Print one JSON value: the tables, each with its rows, or with its error and fix.
    """
    settings = connection.settings()

    from dataclasses import replace

    from bemi.capture.tables import matches
    from bemi.cli import output
    from bemi.cli.taking import take

    wanted = replace(settings, schemas=schema, tables=table, exclude_tables=())

    def chosen(interval: "Interval") -> bool:
        if not interval.lacks_baseline and not again:
            return False
        root = f"{interval.schema}.{interval.table}"
        if interval.partition is not None:
            return matches(interval.partition, root, wanted)
        return matches(root, None, wanted)

    results, stopped = take(settings, chosen, rate=rate, chunk_rows=chunk_rows, quiet=json)
    if json:
        output.print_json({"tables": results, "complete": not stopped})
    else:
        show(results, stopped=stopped)
    if stopped:
        return 128 + signal.SIGINT
    return 1 if any(result.error for result in results) else 0


def show(results: "Sequence[Result]", *, stopped: bool) -> None:
    from bemi.cli.output import count, printable

    failed = [result for result in results if result.error is not None]
    for result in failed:
        print(f"error: {printable(result.table)}: {printable(result.error or '')}", file=sys.stderr)
        if result.fix:
            print(f"fix: {printable(result.fix)}", file=sys.stderr)
    done = len(results) - len(failed)
    if stopped:
        print(
            f"stopped after {count(done, 'table')}; what is stored stays:"
            " `bemi snapshot` goes on from there"
        )
    elif not results:
        print("every table that is tracked has its baseline")
    elif done:
        rows = sum(result.rows for result in results)
        print(f"baselines of {count(done, 'table')} stored, {count(rows, 'row')}")
    sys.stdout.flush()
