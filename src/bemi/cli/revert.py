"""`bemi revert`: undoes changes on the source."""

from bemi.cli.options import ChosenFlags, SourcesFlags, Text


def command(
    *,
    filters: ChosenFlags = ChosenFlags(),  # noqa: B008 - frozen
    apply: bool = False,
    skip_conflicts: bool = False,
    by: Text = None,
    write_url: Text = None,
    connection: SourcesFlags = SourcesFlags(),  # noqa: B008 - frozen
    sql: bool = False,
    json: bool = False,
) -> int:
    """Undo changes on the source: show the plan, or do it.

    All changes that the filters let through are undone together, row by row, to what the rows
    would be without them. What was set since by other changes is a conflict: then nothing is done,
    and the exit code is 1.

        bemi revert --context request_id=req-4 --apply

    Parameters
    ----------
    apply
        Do it, in one transaction, after looking at each row again.
    skip_conflicts
        Leave rows that have conflicts alone, and rows that need these, and do the rest.
    by
        Who does it, for the history; instead of the operating system's user.
    write_url
        Database to write to, instead of BEMI_WRITE_URL or the source's own.
    sql
        Print a script that does what the plan says.
    json
        Print one JSON value: the plan; with --apply, what was done.
    """
    from bemi import config
    from bemi.cli import plans

    onto = config.load_write_url(
        {
            "source_url": connection.source_url,
            "write_url": write_url,
            "source": filters.source,
        },
        path=connection.config,
    )
    where = connection.history(filters.source)
    return plans.run(
        "revert",
        where,
        onto,
        filters,
        plans.Doing(apply=apply, skip_conflicts=skip_conflicts, by=by, sql=sql, json=json),
    )
