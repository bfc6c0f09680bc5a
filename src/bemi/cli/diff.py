"""`bemi diff`: what a change did, or what rows differ in between two times."""

from typing import Annotated

from cyclopts import Parameter

from bemi.cli.options import ConfigFlags, FormFlags, Required, Text


def command(
    what: Required,
    key: Text = None,
    /,
    *,
    start: Annotated[Text, Parameter(name="--from")] = None,
    end: Annotated[Text, Parameter(name="--to")] = None,
    source: Text = None,
    connection: ConfigFlags = ConfigFlags(),  # noqa: B008 - frozen
    form: FormFlags = FormFlags(),  # noqa: B008 - frozen
) -> int:
    """Show what a change did, or what a row or a table differs in between two times.

    Of a long text what went is in [-…-] and what came in {+…+}; of JSON what differs has its path.
    A row whose key changed is one that changed. --csv has a line for each column.

        bemi diff 00003d09-0000-8000-8000-5a1f3b7c9d2e
        bemi diff todo 1 --from "yesterday 09:00"
        bemi diff todo --from 2h --to 1h

    Parameters
    ----------
    what
        A change's id; or SCHEMA.TABLE, or a table in the schema public.
    key
        Primary key of one row; a composite one as JSON: '["1","2"]'.
    start
        A time like those of --since, a position like 0/1A2B3C4D, or a change's id.
    end
        The same, by default what was captured last.
    source
        Name of the source, where the history has several.
    """
    where = connection.history()

    from bemi.cli import differences, output
    from bemi.errors import UsageError
    from bemi.history.asking import change_of
    from bemi.history.history import History

    id = change_of(what)
    if id is None and start is None:
        raise UsageError(
            f"the difference of {what} is one between two times",
            fix="say from when on with --from, and until when with --to; or give a change's id",
        )
    with History(where.url, schema=where.schema) as history:
        keys = () if key is None else (key,)
        found = history.diff(what, *keys, start=start, end=end, source=source)
        if form.csv:
            differences.print_csv(found)
        elif form.ndjson:
            for each in found:
                output.print_ndjson(differences.as_value(each))
        elif form.json:
            output.print_json([differences.as_value(each) for each in found])
        elif id is not None:
            differences.print_one(history.change(id, source=source), output.console())
        else:
            differences.print_all(found, output.console())
    return 0
