"""`bemi replay`: does changes again on another database."""

from bemi.cli.options import ChosenFlags, SourcesFlags, Text


def command(
    *,
    filters: ChosenFlags = ChosenFlags(),  # noqa: B008 - frozen
    onto: Text = None,
    apply: bool = False,
    skip_conflicts: bool = False,
    by: Text = None,
    connection: SourcesFlags = SourcesFlags(),  # noqa: B008 - frozen
    sql: bool = False,
    json: bool = False,
) -> int:
    """Do changes again on another database, such as a test copy: show the plan, or do it.

    The rows there should be as they were on the source before the changes. What is not is a
    conflict: then nothing is done, and the exit code is 1.

        bemi replay --since 2h --onto postgresql://localhost/shop_test --apply

    Parameters
    ----------
    onto
        Database to write to, instead of BEMI_WRITE_URL. Never the source itself.
    apply
        Do it, in one transaction, after looking at each row again.
    skip_conflicts
        Leave rows that have conflicts alone, and rows that need these, and do the rest.
    by
        Who does it, for that database's history, if it has one.
    sql
        Print a script that does what the plan says.
    json
        Print one JSON value: the plan; with --apply, what was done.
    """
    from bemi import config
    from bemi.cli import plans

    url = onto or config.load_write_url(
        {"source": filters.source}, path=connection.config, or_source=False
    )
    where = connection.history(filters.source)
    return plans.run(
        "replay",
        where,
        url,
        filters,
        plans.Doing(apply=apply, skip_conflicts=skip_conflicts, by=by, sql=sql, json=json),
    )
