"""`bemi init`: prepares source and destination, and shows which tables are tracked."""

import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Parameter

from bemi.cli.options import SettingsFlags
from bemi.cli.snapshot import show as show_baselines

if TYPE_CHECKING:
    from bemi.capture.postgrest import Options
    from bemi.capture.results import Result as BaselineResult
    from bemi.capture.setup import InitResult
    from bemi.capture.tables import TableState
    from bemi.config import Settings

PRICE: Final = (
    "REPLICA IDENTITY FULL puts the whole old row into the WAL with every update and delete"
    " (some 40 to 60 % more WAL for updates), and a row over 1 GB can't be updated any more"
)

Globs = Annotated[tuple[str, ...], Parameter(negative=())]


def command(
    *,
    schema: Globs = (),
    table: Globs = (),
    full: Globs = (),
    reader: Globs = (),
    slot_wait: float | None = None,
    new_slot: Annotated[bool, Parameter(negative=())] = False,
    ddl: Annotated[bool, Parameter(negative=())] = False,
    snapshot: Annotated[bool, Parameter(negative=())] = False,
    postgrest: Annotated[bool, Parameter(negative=())] = False,
    postgrest_schema: str | None = None,
    claim: Globs = (),
    header: Globs = (),
    trust_context: Globs = (),
    connection: SettingsFlags = SettingsFlags(),  # noqa: B008 - frozen
    json: bool = False,
) -> int:
    """Prepare source and destination: schema, publication, slot.

    Tracks every table with a primary key (or another replica identity), or those that --schema
    and --table choose. Safe to run again: adds what is missing, changes nothing else.

        bemi init --table 'shop.*' --reader auditor

    Parameters
    ----------
    schema
        Schemas to track, as globs; repeatable. Remembered, like --table, for the worker.
    table
        Tables to track, as globs SCHEMA.TABLE, without a schema in public; repeatable.
    full
        Tables, as globs, to set to REPLICA IDENTITY FULL; repeatable. It keeps the whole row
        before each change, and lets tables without a key be tracked; which ones are tracked,
        --schema and --table say. Its price: the whole old row in the
        WAL of every update and delete, some 40 to 60 % more WAL for updates, and a row over 1 GB
        can't be updated any more.
    reader
        Role of the destination that may read the history; repeatable.
    slot_wait
        Seconds to wait for transactions that were open before the slot.
    new_slot
        Make the slot anew where the worker can't get past some WAL. What lies between is lost;
        `bemi recover --new-slot` does the same, and finds out what it came to.
    ddl
        Make event triggers on the source that record DDL statements with their context. Only a
        superuser may; else the SQL for one is printed.
    snapshot
        Store what the tables hold already, as `bemi snapshot` does, and let the worker do so for
        tables that are added later.
    postgrest
        Make the function on the source that PostgREST (Supabase too) calls before each request,
        so that what is written through it has a context: method, path, user, role, the ids of
        request and trace. Where the role may not, its SQL is printed.
    postgrest_schema
        The schema of that function, not one that PostgREST exposes. Default: bemi_postgrest.
    claim
        Claim of the JWT to put into the context, as NAME, a path with dots, or MEMBER=NAME;
        repeatable. Always there: user_id=sub and role.
    header
        Header of the request to put into the context, as NAME or MEMBER=NAME; repeatable.
    trust_context
        Member of the context that clients may say by the header bemi-context; repeatable, '*' for
        all but endpoint and method. It is somebody's input: by default none.
    json
        Print one JSON value: what changed, and the tables with their reasons and fixes.
    """
    settings = connection.settings(
        schemas=schema or None, tables=table or None, slot_wait=slot_wait
    )

    from bemi.capture import setup
    from bemi.cli import output

    chosen = _for_postgrest(
        postgrest,
        schema=postgrest_schema,
        claims=claim,
        headers=header,
        trusted=trust_context,
    )
    asked = (
        [] if json or not sys.stdin.isatty() else _ask_for_full(setup.without_key(settings, full))
    )
    result = setup.init(
        settings,
        full=[*full, *asked],
        readers=reader,
        new_slot=new_slot,
        ddl=ddl,
        snapshot=snapshot,
        for_postgrest=chosen,
        report=lambda line: print(
            output.printable(line), file=sys.stderr if json else sys.stdout, flush=True
        ),
    )
    taken, stopped = _take_baselines(settings, quiet=json) if snapshot else ((), False)
    refused = result.not_full or result.ddl_script or result.postgrest_script
    failed = bool(refused or any(each.error for each in taken))
    code = 128 + signal.SIGINT if stopped else int(failed)
    if json:
        output.print_json(_as_json(result) | ({"baselines": taken} if snapshot else {}))
        return code
    _show(result, priced=bool(full))
    if snapshot:
        show_baselines(taken, stopped=stopped)
    for flag in matching_nothing(settings, schema, table, [*result.tracked, *result.untracked]):
        print(f"note: {output.printable(flag)} matches no table yet", file=sys.stderr)
    for reason in result.unmatched:
        print(f"note: {output.printable(reason)}", file=sys.stderr)
    return code


def _for_postgrest(
    asked: bool,
    *,
    schema: str | None,
    claims: Sequence[str],
    headers: Sequence[str],
    trusted: Sequence[str],
) -> "Options | None":
    from bemi.capture import postgrest
    from bemi.errors import UsageError

    if asked:
        return postgrest.options(
            schema=schema or postgrest.SCHEMA, claims=claims, headers=headers, trusted=trusted
        )
    if schema is not None or claims or headers or trusted:
        raise UsageError(
            "--postgrest-schema, --claim, --header and --trust-context say what the function for"
            " PostgREST does",
            fix="add --postgrest",
        )
    return None


def _take_baselines(
    settings: "Settings", *, quiet: bool
) -> "tuple[Sequence[BaselineResult], bool]":
    from bemi.cli.taking import take

    return take(settings, lambda interval: interval.lacks_baseline, quiet=quiet)


def _ask_for_full(states: Sequence["TableState"]) -> list[str]:
    """Only on a terminal, and only for tables that can't be tracked otherwise."""
    import glob

    from bemi.cli.output import ask, printable

    chosen: list[str] = []
    if states:
        print(f"{PRICE}.")
    for state in states:
        question = f"{printable(state.qualified)}: {state.reason}. Track it so? [y/N] "
        if ask(question).lower() in ("y", "yes"):
            chosen.append(glob.escape(state.qualified))
    return chosen


def _show(result: "InitResult", *, priced: bool) -> None:
    from bemi.cli import output

    console = output.console()
    if not result.changed:
        print("everything was in place")
    if result.tracked:
        tracked = output.table("tracked", "identity")
        for state in result.tracked:
            tracked.add_row(output.text(state.qualified), output.text(state.identity))
        print()
        output.show(tracked, console)
    else:
        print("no table is tracked yet")
    if result.remembered:
        print(
            f"tables as an earlier run was told: {output.printable(' '.join(result.remembered))}"
            "; `bemi init --schema '*'` is for all"
        )
    untracked = [(state.qualified, state.reason, state.fix) for state in result.untracked]
    untracked += [
        (name, f"not set to FULL: {reason}", None)
        for name, reason in (*result.not_full, *result.left_out)
    ]
    if untracked:
        listed = output.table("not tracked", "why, and what helps")
        for name, reason, fix in untracked:
            why = output.text(reason or "")
            if fix:
                why = why + "\n" + output.text("fix: ", "dim") + output.text(fix)
            listed.add_row(output.text(name), why)
        print()
        output.show(listed, console)
        print("\nafter a fix, run `bemi init` again, or let a running worker add the table")
    print()
    for state in result.unwanted:
        print(f"still tracked, though no rule wants it: {output.printable(state.qualified)}")
    if priced:
        print(PRICE)
    if result.ddl_script:
        print("DDL is not recorded: this role may not make event triggers. As a superuser, run:\n")
        print(output.lines(result.ddl_script))
    if result.postgrest_script:
        print("this role may not make the function for PostgREST. As one that may, run:\n")
        print(output.lines(result.postgrest_script))
    if result.postgrest_use:
        print("to let PostgREST call it (or name it in db-pre-request of its own settings):\n")
        print(output.lines(result.postgrest_use) + "\n")
    if result.gap:
        print(
            f"gap: {result.gap}; `bemi recover` goes on behind it and finds out what it came to,"
            " `bemi run --accept-gap` only goes on"
        )
    else:
        print("next: `bemi run` captures changes")
    sys.stdout.flush()


def matching_nothing(
    settings: "Settings", schemas: Globs, tables: Globs, states: Sequence["TableState"]
) -> list[str]:
    """Flags that may be misspelt; or they are for tables that are still to come."""
    from bemi.capture.tables import matches

    alone = {
        **{f"--schema {glob}": replace(settings, schemas=(glob,), tables=()) for glob in schemas},
        **{f"--table {glob}": replace(settings, schemas=(), tables=(glob,)) for glob in tables},
    }
    return [
        flag
        for flag, rules in alone.items()
        if not any(matches(state.qualified, state.root, rules) for state in states)
    ]


def _as_json(result: "InitResult") -> dict[str, Any]:
    def table(state: "TableState") -> dict[str, Any]:
        return {
            "schema": state.schema,
            "table": state.name,
            "root": state.root,
            "identity": state.identity,
            "reason": state.reason,
            "fix": state.fix,
        }

    return {
        "changed": result.changed,
        "tracked": [table(state) for state in result.tracked],
        "untracked": [table(state) for state in result.untracked],
        "unwanted": [table(state) for state in result.unwanted],
        "not_full": [
            {"table": name, "reason": reason}
            for name, reason in (*result.not_full, *result.left_out)
        ],
        "remembered": result.remembered,
        "gap": result.gap,
        "position": str(result.position),
        "unmatched_rules": result.unmatched,
        "ddl_script": result.ddl_script,
        "postgrest_script": result.postgrest_script,
        "postgrest_use": result.postgrest_use,
    }
