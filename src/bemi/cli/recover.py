"""`bemi recover`: goes on after changes were lost, and finds out what they came to."""

import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from bemi.cli.options import SettingsFlags

if TYPE_CHECKING:
    from bemi.capture.recovery import Diagnosis
    from bemi.capture.results import Result

Switch = Annotated[bool, Parameter(negative=())]
AtLeastOne = Annotated[int | None, Parameter(validator=validators.Number(gte=1))]


def command(
    *,
    rate: AtLeastOne = None,
    new_slot: Switch = False,
    yes: Switch = False,
    connection: SettingsFlags = SettingsFlags(),  # noqa: B008 - frozen
    json: bool = False,
) -> int:
    """Go on after the slot or the publication was lost, or the source failed over.

    Makes anew what is broken, records what is lost as a gap, and reads all tracked tables: rows
    that differ from what the history last knew of them become changes flagged `inferred`. Nothing
    else is known of them, neither when nor by whom. It may be stopped and run again: it goes on
    where it was. When nothing is wrong, it does nothing, and the exit code is 1. Asks before, when
    it runs on a terminal.

    Parameters
    ----------
    rate
        Rows per second at most that are read from the source.
    new_slot
        Make the slot anew even if it looks well, because the worker can't get past some WAL.
    yes
        Do not ask.
    json
        Print one JSON value: what was wrong, and per table the rows compared and what is inferred.
    """
    settings = connection.settings()

    from bemi.capture import recovery
    from bemi.cli import output
    from bemi.cli.taking import take

    found = recovery.diagnose(settings)
    if not found and not new_slot:
        if json:
            output.print_json({"wrong": [], "tables": [], "complete": True})
        else:
            print("nothing is wrong: the slot goes on where the history ends")
        return 1
    if not json:
        _explain(found)
    if not yes and not json and sys.stdin.isatty() and not _confirmed():
        print("nothing was done")
        return 1
    if found.broken or new_slot:
        recovery.make_anew(
            settings,
            new_slot=new_slot,
            report=lambda line: print(
                output.printable(line), file=sys.stderr if json else sys.stdout, flush=True
            ),
        )
    results, stopped = take(
        settings,
        recovery.is_unknown,
        rate=rate,
        before=recovery.take_over,
        accept_gap=True,
        quiet=json,
    )
    if json:
        output.print_json({"wrong": _wrong(found), "tables": results, "complete": not stopped})
    else:
        _show(results, stopped=stopped)
    if stopped:
        return 128 + signal.SIGINT
    return 1 if any(result.error for result in results) else 0


def _wrong(found: "Diagnosis") -> list[str]:
    wrong = [*found.broken, *([found.gap] if found.gap else [])]
    if found.unknown:
        wrong.append(f"what happened behind a gap is not known of {', '.join(found.unknown)}")
    return wrong


def _explain(found: "Diagnosis") -> None:
    from bemi.cli.output import printable

    for reason in _wrong(found):
        print(printable(reason))
    sys.stdout.flush()


def _confirmed() -> bool:
    from bemi.cli.output import ask

    print(
        "What is broken will be made anew and what is lost recorded as a gap; then all tracked"
        " tables are read and compared with the history."
    )
    return ask("Go on? [y/N] ").lower() in ("y", "yes")


def _show(results: "Sequence[Result]", *, stopped: bool) -> None:
    from bemi.cli import output

    failed = [result for result in results if result.error is not None]
    for result in failed:
        print(
            f"error: {output.printable(result.table)}: {output.printable(result.error or '')}",
            file=sys.stderr,
        )
        if result.fix:
            print(f"fix: {output.printable(result.fix)}", file=sys.stderr)
    done = [result for result in results if result.error is None]
    if done:
        made = output.table("table", "rows read", "created", "updated", "deleted")
        for column in made.columns[1:]:
            column.justify = "right"
        for result in done:
            counts = (result.created, result.updated, result.deleted)
            shown = [f"{count:,}" for count in counts] if result.itemised else ["?"] * 3
            made.add_row(output.text(result.table), f"{result.rows:,}", *shown)
        print()
        output.show(made, output.console())
        print("\nWhat was created, updated and deleted is in the history, flagged `inferred`.")
    if any(not result.itemised for result in done):
        print("?: a table without a key, whose rows can't be told apart: it was stored as it is.")
    if stopped:
        print("stopped; what is stored stays: `bemi recover` goes on from there")
    elif failed:
        print("`bemi recover` goes on with the rest once that is mended")
    else:
        print("next: `bemi run` captures changes")
    sys.stdout.flush()
