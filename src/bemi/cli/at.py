"""`bemi at`: a table, or one row, as it was."""

from bemi.cli.options import ConfigFlags, Required, RowFormFlags, Text


def command(
    when: Required,
    table: Required,
    key: Text = None,
    /,
    *,
    source: Text = None,
    wait: bool = False,
    allow_gaps: bool = False,
    connection: ConfigFlags = ConfigFlags(),  # noqa: B008 - frozen
    form: RowFormFlags = RowFormFlags(),  # noqa: B008 - frozen
) -> int:
    """Show the rows of a table as they were, or one row.

    As they were after all transactions that had been committed by then: none is split. What the
    history does not know, before a baseline or in a gap, is refused.

        bemi at "yesterday 09:00" todo 1

    Parameters
    ----------
    when
        A time like those of --since, a position like 0/1A2B3C4D, or a change's id.
    table
        SCHEMA.TABLE, or a table in the schema public.
    key
        Primary key of one row; a composite one as JSON: '["1","2"]'.
    source
        Name of the source, where the history has several.
    wait
        Wait for what is not captured yet, instead of refusing it.
    allow_gaps
        Show what there is where the history does not know all, and say what it does not know.
    """
    where = connection.history()

    from bemi import tabular
    from bemi.cli import output
    from bemi.history.history import History

    with output.doubts(), History(where.url, schema=where.schema) as history:
        keys = () if key is None else (key,)
        rows = history.at(when, table, *keys, source=source, wait=wait, allow_gaps=allow_gaps)
        if form.ndjson:
            for row in rows:
                output.print_ndjson(row.values)
            return 0
        if form.csv:
            tabular.print_rows((row.values for row in rows), ())
            return 0
        if form.json:
            found = [row.values for row in rows]
            output.print_json(found if key is None else next(iter(found), None))
            return 0
        output.print_rows(rows, output.console())
    return 0
