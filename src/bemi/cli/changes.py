"""`bemi changes`: lists changes by filters."""

from bemi.cli.options import ConfigFlags, FilterFlags, ListFlags


def command(
    *,
    filters: FilterFlags = FilterFlags(),  # noqa: B008 - frozen
    connection: ConfigFlags = ConfigFlags(),  # noqa: B008 - frozen
    form: ListFlags = ListFlags(),  # noqa: B008 - frozen
) -> int:
    """List changes, the newest first.

    All filters that are given must match. Where the history has several sources, each change shows
    its own. An update shows the columns that it changed; --json and --ndjson have whole rows.

        bemi changes --table todo --since 2h --context user_id=42
    """
    history = connection.history()

    from bemi.cli import listing

    listing.echo(filters)
    return listing.show(history, filters.filters(), form)
