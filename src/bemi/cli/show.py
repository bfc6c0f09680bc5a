"""`bemi show`: one change, whole."""

from uuid import UUID

from bemi.cli.options import ConfigFlags, Text


def command(
    id: UUID,
    /,
    *,
    source: Text = None,
    connection: ConfigFlags = ConfigFlags(),  # noqa: B008 - frozen
    json: bool = False,
) -> int:
    """Show one change, with all of its columns and where it came from.

    Columns that an update left alone are dim.

        bemi show 00003d09-0000-8000-8000-5a1f3b7c9d2e

    Parameters
    ----------
    id
        The change's id, as `bemi changes --json` and SQL have it.
    source
        Name of the source, where several have the change.
    json
        Print one JSON object, with the columns of the relation `changes`.
    """
    history = connection.history()

    from bemi.cli import output
    from bemi.connections import connect, explained
    from bemi.store import reader, schema_version

    with (
        connect(history.url, what="destination", client_encoding="utf8") as conn,
        explained("destination"),
    ):
        schema_version.require_current(conn, history.schema)
        change = reader.change(conn, history.schema, id, source)
    if json:
        output.print_json(change)
    else:
        output.print_change(change, output.console())
    return 0
