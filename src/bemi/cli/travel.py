"""`bemi travel`: a schema that holds the tables as they were."""

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from bemi.cli.options import ConfigFlags, Names, Text
from bemi.errors import UsageError

if TYPE_CHECKING:
    from bemi.history.travel import Travel


def command(
    *,
    at: Text = None,
    into: Annotated[Text, Parameter(show_default=True)] = "bemi_travel",
    table: Names = (),
    source: Text = None,
    allow_gaps: bool = False,
    drop: bool = False,
    json: bool = False,
    connection: ConfigFlags = ConfigFlags(),  # noqa: B008 - frozen
) -> int:
    """Build a schema with the tables as they were, as read-only views.

    All at one moment, under their own names and with the columns and types of then, in the database
    that holds the history: joins, ORMs and other tools work as they would on the tables. Where
    tables are of several schemas, each gets one of its own, INTO_SCHEMA. Views read from the
    history, and take next to no room.

        bemi travel --at "yesterday 09:00"

    Parameters
    ----------
    at
        A time like those of --since, a position like 0/1A2B3C4D, or a change's id.
    into
        The schema to build. What an earlier travel built there is replaced.
    table
        Only SCHEMA.TABLE; `*` stands for anything; repeatable.
    source
        Name of the source, where the history has several.
    allow_gaps
        Show what there is where the history does not know all, and say what it does not know.
    drop
        Drop what was built, and nothing else.
    json
        Print one JSON value.
    """
    if drop and (at is not None or table or source is not None or allow_gaps):
        raise UsageError("--drop takes only --into", fix="first drop, then travel again")
    if not drop and at is None:
        raise UsageError("it takes a moment", fix="--at WHEN, as in --at 2h")
    where = connection.history()

    from bemi.cli import output
    from bemi.history.history import History

    with History(where.url, schema=where.schema) as history:
        if at is None:
            gone = history.drop_travel(into or "")
            if json:
                output.print_json({"dropped": gone})
            else:
                named = ", ".join(map(output.printable, gone))
                print(f"dropped {named}" if gone else "there is nothing to drop")
            return 0
        made = history.travel(
            at, into=into or "", tables=table, source=source, allow_gaps=allow_gaps
        )
    if json:
        output.print_json(made)
    else:
        _print(made)
    return 0


def _print(made: "Travel") -> None:
    from bemi.cli import output
    from bemi.times import spell

    when = f"{spell(made.time)}, " if made.time is not None else ""
    print(f"{output.printable(made.source)} as it was at {when}{made.position}")
    shown = output.table("table", "view", "")
    for view in made.views:
        notes = []
        if view.partition_of is not None:
            notes.append(f"partition of {view.partition_of}")
        notes += [f"{column} is text: it was {of}" for column, of in view.text.items()]
        if view.uncertain is not None:
            notes.append(f"uncertain: {view.uncertain}")
        shown.add_row(
            output.text(view.table), output.text(view.view), output.text("; ".join(notes))
        )
    output.show(shown, output.console())
    for name, why in made.left_out.items():
        print(f"left out: {output.printable(name)}: {output.printable(why)}")
