"""`bemi changes`: lists changes by filters."""

import sys

from bemi.cli.options import ConfigFlags, FilterFlags
from bemi.errors import UsageError


def command(
    *,
    filters: FilterFlags = FilterFlags(),  # noqa: B008 - frozen
    connection: ConfigFlags = ConfigFlags(),  # noqa: B008 - frozen
    json: bool = False,
    ndjson: bool = False,
) -> int:
    """List changes, the newest first.

    All filters that are given must match. Where the history has several sources, each change shows
    its own. An update shows the columns that it changed; --json and --ndjson have whole rows.

        bemi changes --table todo --since 2h --context user_id=42

    Parameters
    ----------
    json
        Print one JSON value: a list of changes, with the columns of the relation `changes`.
    ndjson
        Print one JSON object per line, as they are read.
    """
    if json and ndjson:
        raise UsageError("--json and --ndjson are two forms of output", fix="give one of them")
    history = connection.history()
    wanted = filters.filters()

    from bemi.cli import output
    from bemi.connections import connect, explained
    from bemi.store import migrate, reader, sources

    if filters.since or filters.until:
        _echo(filters)
    with (
        connect(history.url, what="destination", client_encoding="utf8") as conn,
        explained("destination"),
    ):
        migrate.require_current(conn, history.schema)
        found = reader.changes(conn, history.schema, wanted)
        if ndjson:
            for change in found:
                output.print_ndjson(change)
            return 0
        rows = list(found)
        several = wanted.source is None and len(sources.read_all(conn, history.schema)) > 1
        if json:
            output.print_json(rows)
            return 0
        if not rows and not reader.has_changes(conn, history.schema):
            print(
                "the history has no changes yet; `bemi run` captures them, and `bemi status` tells"
                " whether it runs"
            )
            return 0
        if not rows:
            print("no changes match")
            if wanted.table:
                schema, _, name = wanted.table.rpartition(".")
                known = reader.tables_called(conn, history.schema, name)
                elsewhere = [f"{other}.{name}" for other in known if other != "public"]
                if not known:
                    print(f"the history has no change of a table {output.printable(name)}")
                elif elsewhere and not schema:
                    print(f"did you mean {' or '.join(map(output.printable, elsewhere))}?")
            return 0
    output.print_changes(rows, output.console(), with_source=several)
    if len(rows) == wanted.limit:
        print(f"the newest {wanted.limit}; --limit shows more")
    return 0


def _echo(filters: FilterFlags) -> None:
    """What the times that were typed came to, beside the output, not in it."""
    from bemi.times import spell

    bounds = [
        f"{word} {spell(moment)}"
        for word, moment in (("since", filters.since), ("until", filters.until))
        if moment is not None
    ]
    print(", ".join(bounds), file=sys.stderr)
