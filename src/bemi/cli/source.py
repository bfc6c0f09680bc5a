"""`bemi source`: adds, pauses, resumes and removes single sources while others run."""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import cyclopts
import msgspec
from cyclopts import Parameter

from bemi import config
from bemi.cli import leaving
from bemi.cli.options import SettingsFlags, SourcesFlags
from bemi.config import History, Settings
from bemi.errors import BemiError, ConfigError, SetupError
from bemi.settings_file import nearest

if TYPE_CHECKING:
    import psycopg

    from bemi.store.sources import StoredSource

Globs = Annotated[tuple[str, ...], Parameter(negative=())]
Switch = Annotated[bool, Parameter(negative=())]

command = cyclopts.App(
    name="source",
    help="List, add, pause, resume and remove sources, while others run.",
)


class Listed(msgspec.Struct, frozen=True):
    """A source of the settings, of the history, or of both."""

    source: str
    standing: str
    in_settings: bool
    database: str | None
    slot: str
    publication: str
    paused_at: datetime | None
    removed_at: datetime | None


@command.command(name="list")
def list_sources(
    *,
    json: bool = False,
    connection: SourcesFlags = SourcesFlags(),  # noqa: B008 - frozen
) -> int:
    """List the sources of the settings and of the history.

    Asks the history only; `bemi status` asks the sources too.

    Parameters
    ----------
    json
        Print one JSON value: a list of sources, each with `source`, its `standing` (`not added`,
        `active`, `paused` or `removed`), `in_settings`, `database`, `slot`, `publication`,
        `paused_at` and `removed_at`.
    """
    from bemi.cli import output

    settings = {each.source: each for each in _configured(connection)}
    histories = {History(own.destination_url, own.schema) for own in settings.values()}
    listed: dict[str, Listed] = {}
    for history in histories or {connection.history()}:
        with _history(history) as (_, stored):
            for source in stored:
                listed[source.name] = _stored(source, in_settings=source.name in settings)
    for name, own in settings.items():
        if name not in listed:
            listed[name] = Listed(
                name, "not added", True, None, own.slot, own.publication, None, None
            )
    found = sorted(listed.values(), key=lambda each: each.source)
    if json:
        output.print_json(found)
        return 0
    if not found:
        print("no sources yet: run `bemi init`")
        return 0
    made = output.table("source", "standing", "database", "slot", "publication")
    for each in found:
        standing = each.standing
        if not each.in_settings and standing != "removed":
            standing += ", not in the settings"
        row = (each.source, standing, each.database or "", each.slot, each.publication)
        made.add_row(*map(output.text, row))
    output.show(made, output.console())
    return 0


@command.command
def add(
    name: str,
    /,
    *,
    full: Globs = (),
    slot_wait: float | None = None,
    connection: SourcesFlags = SourcesFlags(),  # noqa: B008 - frozen
    json: bool = False,
) -> int:
    """Set up a source of the file, as `bemi init` does.

    A worker that runs for the file captures it from then on. Safe to run again. One that was
    removed is added again; what changed meanwhile is a gap, to be accepted or recovered.

    Parameters
    ----------
    name
        Name of the source in the file.
    full
        Tables, as globs, to set to REPLICA IDENTITY FULL; repeatable. `bemi init` says its price.
    slot_wait
        Seconds to wait for transactions that were open before the slot.
    json
        Print what `bemi init --json` prints.
    """
    from bemi.cli import init

    return init.command(
        full=full,
        slot_wait=slot_wait,
        connection=SettingsFlags(
            source=name,
            source_url=connection.source_url,
            destination_url=connection.destination_url,
            config=connection.config,
        ),
        json=json,
    )


@command.command
def pause(
    name: str,
    /,
    *,
    connection: SourcesFlags = SourcesFlags(),  # noqa: B008 - frozen
    json: bool = False,
) -> int:
    """Have workers leave a source alone until it is resumed.

    A running worker stops its stream within seconds, in order. Nothing is lost: the source keeps
    its WAL, which takes room on its disk for as long as the pause lasts.

    Parameters
    ----------
    name
        Name of the source in the history.
    json
        Print one JSON value: `source`, `standing`, `changed`, and of the source's slot `kept_bytes`
        and `safe_wal_size`, which are null where it can't be asked.
    """
    from bemi.cli import output
    from bemi.store import sources

    history, settings = _meant(connection, name)
    with _history(history) as (conn, stored):
        source = _find(stored, name)
        if source.removed_at is not None:
            raise SetupError(
                f"the source {name} was removed, so there is nothing to pause",
                fix=f"`bemi source add {name}` adds it again",
            )
        changed = sources.pause(conn, history.schema, name)
    slot = leaving.slot_of(settings, source)
    if json:
        kept = None if slot is None else slot.retained
        safe = None if slot is None else slot.safe_wal_size
        output.print_json(
            {
                "source": name,
                "standing": "paused",
                "changed": changed,
                "kept_bytes": kept,
                "safe_wal_size": safe,
            }
        )
        return 0
    shown = output.printable(name)
    print(f"{shown} is paused" + ("" if changed else ", and was before"))
    print(leaving.price(slot))
    print(f"`bemi source resume {shown}` goes on, `bemi source remove {shown}` gives it up")
    return 0


@command.command
def resume(
    name: str,
    /,
    *,
    connection: SourcesFlags = SourcesFlags(),  # noqa: B008 - frozen
    json: bool = False,
) -> int:
    """Have workers capture a paused source again, from where it was paused.

    Parameters
    ----------
    name
        Name of the source in the history.
    json
        Print one JSON value: `source`, `standing`, `changed`.
    """
    from bemi.cli import output
    from bemi.store import sources

    history, _ = _meant(connection, name)
    with _history(history) as (conn, stored):
        source = _find(stored, name)
        changed = sources.resume(conn, history.schema, name)
    standing = "active" if source.removed_at is None else "removed"
    if json:
        output.print_json({"source": name, "standing": standing, "changed": changed})
        return 0
    shown = output.printable(name)
    print(f"{shown} goes on" if changed else f"{shown} was not paused")
    if standing == "removed":
        print(f"it was removed: `bemi source add {shown}` adds it again")
    return 0


@command.command
def remove(
    name: str,
    /,
    *,
    yes: Switch = False,
    connection: SourcesFlags = SourcesFlags(),  # noqa: B008 - frozen
    json: bool = False,
) -> int:
    """Stop capturing a source for good, and remove every trace from it; its history stays.

    A running worker lets it go within seconds, in order. Then its slot and its publication are
    dropped, so that it keeps no WAL any more. Asks before, when it runs on a terminal.

    Parameters
    ----------
    name
        Name of the source in the settings.
    yes
        Do not ask.
    json
        Print one JSON value: what was done, SQL that sets back replica identities, notes.
    """
    settings = connection.one(name)

    from bemi.capture import teardown
    from bemi.cli import output
    from bemi.cli.teardown import show
    from bemi.store import sources

    def report(line: str) -> None:
        print(output.printable(line), file=sys.stderr if json else sys.stdout, flush=True)

    with _history(History(settings.destination_url, settings.schema)) as (conn, stored):
        refused = teardown.refusal(conn, settings, _find(stored, name))
        if refused is not None:
            raise refused
        if not yes and not json and sys.stdin.isatty() and not _confirmed(settings):
            print("nothing was done")
            return 1
        if sources.remove(conn, settings.schema, name):
            report(f"removed the source {name} from those that workers capture")
    try:
        leaving.wait_until_left(settings, report)
        result = teardown.teardown(settings, history=False, report=report)
    except BemiError as error:
        raise SetupError(
            f"{error}; workers let the source go all the same, but its slot keeps WAL on",
            fix=f"{f'{error.fix}; then run' if error.fix else 'run'} `bemi source remove {name}`"
            " again",
        ) from error
    show(result, json=json)
    if not json and result.history_kept:
        print("its history stays; take the source out of the file, too")
    return 0


def _configured(connection: SourcesFlags) -> Sequence[Settings]:
    """Of all sources; none where nothing is said of any: who only reads has a list too."""
    try:
        return connection.several(())
    except ConfigError:
        if config.is_set("source_url", path=connection.config) or connection.source_url:
            raise
        return ()


def _meant(connection: SourcesFlags, name: str) -> tuple[History, Settings | None]:
    """Where the history of a source is; and its settings, if it is still in them."""
    try:
        settings = connection.one(name)
    except ConfigError:
        return connection.history(), None
    return History(settings.destination_url, settings.schema), settings


@contextlib.contextmanager
def _history(
    history: History,
) -> Iterator[tuple["psycopg.Connection[Any]", "list[StoredSource]"]]:
    from bemi.connections import connect, explained
    from bemi.store import schema_version, sources

    with (
        connect(history.url, what="destination", client_encoding="utf8") as conn,
        explained("destination"),
    ):
        if schema_version.current_version(conn, history.schema) == 0:
            yield conn, []
            return
        schema_version.require_current(conn, history.schema)
        yield conn, sources.read_all(conn, history.schema)


def _find(stored: "list[StoredSource]", name: str) -> "StoredSource":
    names = [each.name for each in stored]
    if name in names:
        return stored[names.index(name)]
    near = nearest(name, names, cutoff=0.6)
    raise SetupError(
        f"the history has no source {name}",
        fix=f"did you mean {near}?"
        if near
        else f"its sources: {', '.join(names)}"
        if names
        else f"`bemi source add {name}` adds one of the file",
    )


def _confirmed(settings: Settings) -> bool:
    from bemi.cli.output import ask, printable
    from bemi.connections import describe

    print(
        f"From {printable(describe(settings.source_url))}: the slot"
        f" {printable(settings.slot)} and the publication {printable(settings.publication)}"
        " will be dropped; what changes from then on is not captured."
    )
    return ask("Go on? [y/N] ").lower() in ("y", "yes")


def _stored(source: "StoredSource", *, in_settings: bool) -> Listed:
    standing = "active"
    if source.paused_at is not None:
        standing = "paused"
    if source.removed_at is not None:
        standing = "removed"
    return Listed(
        source=source.name,
        standing=standing,
        in_settings=in_settings,
        database=source.database,
        slot=source.slot,
        publication=source.publication,
        paused_at=source.paused_at,
        removed_at=source.removed_at,
    )
