"""`bemi teardown`: removes Bemi from the source, and the history only when asked."""

import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from bemi.cli.options import SettingsFlags
from bemi.config import Settings
from bemi.errors import UsageError

if TYPE_CHECKING:
    from bemi.capture.teardown import TeardownResult

Switch = Annotated[bool, Parameter(negative=())]


def command(
    *,
    history: Switch = False,
    legacy_triggers: Switch = False,
    yes: Switch = False,
    connection: SettingsFlags = SettingsFlags(),  # noqa: B008 - frozen
    json: bool = False,
) -> int:
    """Remove every trace from the source, and with --history the history too.

    Drops the replication slot and the publication; changes from then on are not captured. Stop the
    worker first. Asks before, when it runs on a terminal.

    Parameters
    ----------
    history
        Drop the destination's schema with the whole history, too.
    legacy_triggers
        Remove what Bemi's earlier packages left on the source instead, and nothing else: their
        triggers and functions. They are listed first; without a terminal, only with --yes.
    yes
        Do not ask.
    json
        Print one JSON value: what was done, SQL that sets back replica identities, notes. With
        --legacy-triggers what was found, and whether it was removed.
    """
    settings = connection.settings()
    if legacy_triggers:
        from bemi.cli import legacy

        if history:
            raise UsageError("--legacy-triggers removes nothing else: leave out --history")
        return legacy.remove(settings, yes=yes, json=json)

    from bemi.capture import teardown
    from bemi.cli import output

    if not yes and not json and sys.stdin.isatty() and not _confirmed(settings, history):
        print("nothing was done")
        return 1
    result = teardown.teardown(
        settings,
        history=history,
        report=lambda line: print(
            output.printable(line), file=sys.stderr if json else sys.stdout, flush=True
        ),
    )
    show(result, json=json)
    if not json and result.history_kept:
        print(f'the history stays readable in schema "{output.printable(settings.schema)}"')
    return 0


def show(result: "TeardownResult", *, json: bool) -> None:
    """What was done; all but that was told already."""
    from bemi.cli import output

    if json:
        output.print_json(
            {"changed": result.changed, "set_back": result.set_back, "notes": result.notes}
        )
        return
    if not result.changed:
        print("there was nothing to remove")
    for note in result.notes:
        print(f"note: {output.lines(note)}")
    if result.set_back:
        print("`bemi init --full` changed these tables; to set them back:")
        for statement in result.set_back:
            print(f"  {output.printable(statement)}")


def _confirmed(settings: Settings, history: bool) -> bool:
    from bemi.cli.output import ask, printable
    from bemi.connections import describe

    print(
        f"From {printable(describe(settings.source_url))}: the slot"
        f" {printable(settings.slot)} and the publication {printable(settings.publication)}"
        " will be dropped."
    )
    if not history:
        return ask("Go on? [y/N] ").lower() in ("y", "yes")
    print(
        f"From {printable(describe(settings.destination_url))}: the whole history in schema"
        f" {printable(settings.schema)} will be dropped."
    )
    return ask("Type the schema's name to go on: ") == settings.schema
