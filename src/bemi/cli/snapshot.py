"""`bemi snapshot`: stores the rows that tables had before they were tracked."""

import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from bemi.cli.options import SettingsFlags

if TYPE_CHECKING:
    from bemi.capture.results import Result
    from bemi.config import Settings
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

    Takes each tracked table that has none yet, or in which `bemi verify` found changes missing
    since, of all or of those that --schema and --table choose. Changes go on meanwhile: it reads in
    chunks by key, each in a transaction of about a second. Works beside a running worker; where
    there is none, it captures itself until it is done. It may be killed at any time: run again, it
    goes on behind the last chunk that was stored. A table without a key is read in one piece.

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
        Also tables that have a baseline: their rows are stored once more, as they are now. When it
        is stopped, go on without this flag: with it, those that were done are read once more.
    json
        Print one JSON value: `tables`, each with its rows, or with its error and fix; `unknown`,
        the tables with a baseline behind which changes are missing; `complete`, when it came to its
        end and none of these is left.
    """
    settings = connection.settings()

    from dataclasses import replace

    from bemi.capture.snapshot import ask
    from bemi.capture.tables import matches
    from bemi.cli import output
    from bemi.cli.taking import take

    wanted = replace(settings, schemas=schema, tables=table, exclude_tables=())
    _require_tracked(wanted, schema, table)
    lost: dict[str, bool] = {}

    def chosen(interval: "Interval") -> bool:
        root = f"{interval.schema}.{interval.table}"
        own = root if interval.partition is None else interval.partition
        if not matches(own, root, wanted):
            return False
        lost[interval.name] = bool(interval.lost)
        lacks = interval.lacks_baseline or interval.unfinished or interval.found_missing
        return lacks or again

    results, stopped = take(
        settings,
        chosen,
        rate=rate,
        chunk_rows=chunk_rows,
        before=(lambda *_: ask(settings, chosen)) if again else None,
        quiet=json,
    )
    taken = {result.table for result in results}
    unknown = [name for name, is_lost in lost.items() if is_lost and name not in taken]
    if json:
        complete = not stopped and not unknown
        output.print_json({"tables": results, "unknown": unknown, "complete": complete})
    else:
        which = "chosen" if schema or table else "tracked"
        show(results, stopped=stopped, unknown=unknown, which=which)
    if stopped:
        return 128 + signal.SIGINT
    return 1 if any(result.error for result in results) else 0


def _require_tracked(wanted: "Settings", schemas: Globs, tables: Globs) -> None:
    """That each glob is of a table that is tracked: a misspelt one would look like success."""
    if not schemas and not tables:
        return

    from bemi.capture.tables import survey
    from bemi.cli.init import matching_nothing
    from bemi.connections import connect
    from bemi.errors import SetupError

    with connect(wanted.source_url, what="source") as conn:
        tracked = [state for state in survey(conn, wanted) if state.published]
    nothing = matching_nothing(wanted, schemas, tables, tracked)
    if nothing:
        raise SetupError(
            f"{nothing[0]} matches no tracked table",
            fix="`bemi init` tracks tables, and says why it can't; `bemi status --coverage` lists"
            " those that are tracked",
        )


def show(
    results: "Sequence[Result]",
    *,
    stopped: bool,
    unknown: Sequence[str] = (),
    which: str = "tracked",
) -> None:
    """`unknown`: tables with a baseline that does not tell their rows any more."""
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
    elif not results and not unknown:
        print(f"every table that is {which} has its baseline")
    elif done:
        rows = sum(result.rows for result in results)
        print(f"baselines of {count(done, 'table')} stored, {count(rows, 'row')}")
    for name in unknown:
        print(
            f"{printable(name)}: its rows are not known since changes are missing:"
            f" `bemi snapshot --again --table '{printable(name)}'`"
        )
    sys.stdout.flush()
