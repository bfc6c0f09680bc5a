"""`bemi blame`: who gave each column of a row its value."""

from bemi.cli.options import ConfigFlags, Required, Text


def command(
    table: Required,
    key: Required,
    /,
    *,
    source: Text = None,
    connection: ConfigFlags = ConfigFlags(),  # noqa: B008 - frozen
    json: bool = False,
) -> int:
    """Show which change gave each column of a row the value that it has.

    The row is followed under every key that it had. Of a row that was deleted: as it last was.

        bemi blame todo 1

    Parameters
    ----------
    table
        SCHEMA.TABLE, or a table in the schema public.
    key
        Primary key of the row; a composite one as JSON: '["1","2"]'.
    source
        Name of the source, where the history has several.
    json
        Print one JSON value: a list with column, value, previous, exact and change of each.
    """
    where = connection.history()

    from bemi.cli import output
    from bemi.history.history import History

    with History(where.url, schema=where.schema) as history:
        found = history.blame(table, key, source=source)
    if json:
        output.print_json(found)
    else:
        output.print_blame(found, output.console())
    return 0
