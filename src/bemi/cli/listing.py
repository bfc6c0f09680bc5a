"""How the commands that list changes do it: as a table, one JSON value, or a stream."""

import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec
import psycopg

from bemi import tabular
from bemi.cli import groups, output
from bemi.cli.options import ChangeFlags, ListFlags
from bemi.config import History
from bemi.connections import connect, explained
from bemi.store import reader, schema_version
from bemi.store.filters import Filters
from bemi.store.reader import StoredChange
from bemi.times import spell


def show(history: History, wanted: Filters, form: ListFlags) -> int:
    """Prints the changes that are wanted. Raises BemiError."""
    with (
        connect(history.url, what="destination", client_encoding="utf8") as conn,
        explained("destination"),
    ):
        schema_version.require_current(conn, history.schema)
        found = reader.changes(conn, history.schema, wanted)
        if form.ndjson or form.csv:
            count, last = _stream(found, form)
            _more(count, last, wanted, to=sys.stderr)
            return 0
        rows = list(found)
        several = wanted.source is None and len(reader.sources(conn, history.schema)) > 1
        if not (rows or form.json):
            explain(conn, history.schema, wanted)
            return 0
    if form.json:
        output.print_json(rows if form.group_by is None else groups.as_values(rows, form.group_by))
    elif form.group_by is None:
        output.print_changes(rows, output.console(), with_source=several)
    else:
        groups.print_groups(rows, form.group_by, output.console(), with_source=several)
    _more(len(rows), rows[-1] if rows else None, wanted, to=sys.stderr if form.json else sys.stdout)
    return 0


def _stream(found: Iterable[StoredChange], form: ListFlags) -> tuple[int, StoredChange | None]:
    """How many there were, and the last one."""
    columns: tuple[str, ...] = StoredChange.__struct_fields__
    if form.group_by is not None:
        columns = (*groups.COLUMNS, *columns)
    table = tabular.Table(*columns) if form.csv else None
    count, last = 0, None
    for before, change in groups.numbered(found, form.group_by):
        if table is not None:
            table.add((*before.values(), *msgspec.structs.astuple(change)))
        elif before:
            output.print_ndjson({**before, **msgspec.structs.asdict(change)})
        else:
            output.print_ndjson(change)
        count, last = count + 1, change
    return count, last


def echo(filters: ChangeFlags) -> None:
    """What the times that were typed came to, beside the output, not in it."""
    bounds = [
        f"{word} {spell(moment)}"
        for word, moment in (("since", filters.since), ("until", filters.until))
        if moment is not None
    ]
    if bounds:
        print(", ".join(bounds), file=sys.stderr)


def explain(conn: psycopg.Connection[Any], schema: str, wanted: Filters) -> None:
    """Why there may be nothing."""
    if not reader.has_changes(conn, schema):
        print(
            "the history has no changes yet; `bemi run` captures them, and `bemi status` tells"
            " whether it runs"
        )
        return
    print("no changes match")
    if wanted.since is not None and wanted.since > datetime.now(UTC):
        print(f"{spell(wanted.since)} has not come yet")
    if wanted.table:
        within, _, name = wanted.table.rpartition(".")
        known = reader.tables_called(conn, schema, name)
        elsewhere = [f"{other}.{name}" for other in known if other != "public"]
        if not known:
            print(f"the history has no change of a table {output.printable(name)}")
        elif elsewhere and not within:
            print(f"did you mean {' or '.join(map(output.printable, elsewhere))}?")


def _more(count: int, last: StoredChange | None, wanted: Filters, to: TextIO) -> None:
    """That there may be more, and how to get it: beside the output where programs read that."""
    if last is None or count != wanted.limit:
        return
    which = "oldest" if wanted.oldest_first else "newest"
    first = f"the {which} {count}" if wanted.behind is None else f"{count} more"
    print(f"{first}; --limit shows more, --behind {last.place} the next ones", file=to)
