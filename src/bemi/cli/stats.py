"""`bemi stats`: how much happens when."""

import sys
from typing import Annotated, Literal

from cyclopts import Parameter, validators

from bemi.cli.options import ConfigFlags, Dimensions, FormFlags, PagelessFlags


def command(
    *,
    by: Dimensions = (),
    every: Literal["minute", "hour", "day", "week", "month"] | None = None,
    top: Annotated[int | None, Parameter(validator=validators.Number(gte=1))] = None,
    filters: PagelessFlags = PagelessFlags(),  # noqa: B008 - frozen
    connection: ConfigFlags = ConfigFlags(),  # noqa: B008 - frozen
    form: FormFlags = FormFlags(),  # noqa: B008 - frozen
) -> int:
    """Show how many changes there were when, as bars.

    From --since, or the first change that matches, until --until, or now; in UTC. Times without
    changes count as 0. With --by there is a bar for each value, the largest first; --json, --ndjson
    and --csv have a row for each value at each time.

        bemi stats --since 7d --every day --by table

    Parameters
    ----------
    by
        Count by table, operation, source, user, transaction or context.KEY; at most twice.
    every
        How long each bar is: a week begins on Monday. Without it what fits the range.
    top
        The largest so many values, and all others together. People see 8 unless told otherwise.
    """
    history = connection.history()

    from contextlib import closing
    from datetime import UTC, datetime

    from bemi import tabular
    from bemi.cli import bars, listing, output
    from bemi.connections import connect, explained
    from bemi.history import trends
    from bemi.store import schema_version

    wanted = filters.filters()
    for_people = not (form.json or form.ndjson or form.csv)
    if not for_people:  # the bars say it themselves
        listing.echo(filters)
    with (
        connect(history.url, what="destination", client_encoding="utf8") as conn,
        explained("destination"),
    ):
        schema_version.require_current(conn, history.schema)
        trend = trends.plan(
            conn,
            history.schema,
            wanted,
            by=by,
            every=every,
            top=(top or bars.TOP) if for_people else top,
            now=datetime.now(UTC),
        )
        names = bars.columns(by, others=top is not None)
        if trend is None:
            if for_people:
                listing.explain(conn, history.schema, wanted)
            elif form.csv:
                tabular.Table(*names)
            elif form.json:
                output.print_json([])
            return 0
        if for_people:
            bars.require_few(trend)
        with closing(trends.counts(conn, history.schema, wanted, trend)) as counts:
            if for_people:
                found = list(counts)
            elif form.csv:
                table = tabular.Table(*names)
                for count in counts:
                    table.add(bars.row(count, names).values())
            elif form.ndjson:
                for count in counts:
                    output.print_ndjson(bars.row(count, names))
            else:
                output.print_json([bars.row(count, names) for count in counts])
        if for_people:
            if any(count.count for count in found):
                bars.show(trend, found, output.console())
            else:
                listing.explain(conn, history.schema, wanted)
    sys.stdout.flush()
    return 0
