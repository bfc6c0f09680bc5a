"""`bemi history`: what happened to one row."""

from bemi.cli.options import ConfigFlags, ListFlags, OfRowFlags, Required


def command(
    table: Required,
    key: Required,
    /,
    *,
    filters: OfRowFlags = OfRowFlags(),  # noqa: B008 - frozen
    connection: ConfigFlags = ConfigFlags(),  # noqa: B008 - frozen
    form: ListFlags = ListFlags(),  # noqa: B008 - frozen
) -> int:
    """List what happened to one row, the newest first.

    All rows that had the key count, one after the other. A change of the key belongs to the
    history of both keys; a TRUNCATE, which ends all rows, has none and is not listed.

        bemi history todo 1

    Parameters
    ----------
    table
        SCHEMA.TABLE, or a table in the schema public.
    key
        Primary key of the row; a composite one as JSON: '["1","2"]'.
    """
    history = connection.history()

    from bemi.cli import listing

    listing.echo(filters)
    return listing.show(history, filters.filters(table=table, key=key), form)
