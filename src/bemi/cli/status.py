"""`bemi status`: how far each source's history is, and what an operator must know about it."""

from typing import TYPE_CHECKING, Any

import msgspec

from bemi import config
from bemi.cli import output
from bemi.cli.options import SettingsFlags
from bemi.errors import BemiError, ConfigError
from bemi.times import spell

if TYPE_CHECKING:
    from bemi.capture.tables import TableState
    from bemi.config import Settings
    from bemi.store.reader import SourceStatus


class Problem(msgspec.Struct, frozen=True):
    """A table, and why it is not as it should be."""

    table: str
    reason: str
    fix: str | None


class Live(msgspec.Struct, frozen=True):
    """What the source itself says now, of the slot and the tables of these settings."""

    slot_active: bool
    wal_status: str | None
    retained_bytes: int | None
    safe_wal_size: int | None
    behind_bytes: int | None
    tracked: int
    untracked: list[Problem]
    failing: list[Problem]


def command(
    *,
    json: bool = False,
    connection: SettingsFlags = SettingsFlags(),  # noqa: B008 - frozen
) -> int:
    """Show how far the history is, and what needs attention.

    For each source its checkpoint, its gaps, and the contexts that could not be read; for the one
    in the settings also its slot, the WAL that the source keeps for it, and the tables that are
    not tracked. Exit code 1 when there is something that an operator must decide or mend: a gap
    that was not accepted, a slot that is missing or lost, a table whose updates fail.

    Parameters
    ----------
    json
        Print one JSON value: `sources`, `findings`, and `live`, which is null where the source is
        not in the settings or can't be asked.
    """
    from bemi.capture.tables import with_remembered_rules
    from bemi.connections import connect, explained
    from bemi.store import migrate, reader
    from bemi.store import sources as stored

    overrides = {"destination_url": connection.destination_url, "source_url": connection.source_url}
    history = config.load_history(overrides, path=connection.config)
    with (
        connect(history.url, what="destination", client_encoding="utf8") as conn,
        explained("destination"),
    ):
        migrate.require_current(conn, history.schema)
        sources = reader.status(conn, history.schema)
        remembered = {each.name: each.setup for each in stored.read_all(conn, history.schema)}

    findings: list[str] = []
    for source in sources:
        findings += _findings(source)
    live: Live | None = None
    settings = _settings(connection)
    current: SourceStatus | None = None
    if settings is not None:
        current = next((each for each in sources if each.source == settings.source), None)
        if current is None:
            findings.append(f"the source {settings.source} is not in this history: run `bemi init`")
        else:
            settings = with_remembered_rules(settings, remembered.get(settings.source))
            try:
                live = _ask(settings, current, findings)
            except BemiError as error:
                findings.append(str(error) + (f" ({error.fix})" if error.fix else ""))

    if json:
        output.print_json(
            {"sources": [_as_json(each) for each in sources], "live": live, "findings": findings}
        )
    else:
        _print(sources, current, live, findings)
    return 1 if findings else 0


def _as_json(source: "SourceStatus") -> dict[str, Any]:
    """LSNs in PostgreSQL's form."""
    gaps = [
        msgspec.structs.asdict(gap)
        | {"from_position": str(gap.from_position), "to_position": str(gap.to_position)}
        for gap in source.gaps
    ]
    position = None if source.position is None else str(source.position)
    return msgspec.structs.asdict(source) | {"position": position, "gaps": gaps}


def _settings(connection: SettingsFlags) -> "Settings | None":
    """None where no source is set: who only reads the history has a status too."""

    try:
        return connection.settings()
    except ConfigError:
        if config.is_set("source_url", path=connection.config) or connection.source_url:
            raise
        return None


def _findings(source: "SourceStatus") -> list[str]:
    """What the destination alone knows to be amiss."""

    found = [
        f"{source.source}: changes between {gap.from_position} and {gap.to_position} are missing"
        f" ({gap.cause}, seen {spell(gap.detected_at)}):"
        " `bemi run --accept-gap` goes on behind them"
        for gap in source.unaccepted
    ]
    if source.position is None:
        found.append(f"{source.source}: its setup was not finished: run `bemi init`")
    return found


def _ask(settings: "Settings", source: "SourceStatus", findings: list[str]) -> Live:
    from bemi.capture import slot as slots
    from bemi.capture.tables import survey
    from bemi.connections import connect, explained
    from bemi.lsn import Lsn

    with connect(settings.source_url, what="source") as conn, explained("source"):
        slot = slots.read(conn, source.slot)
        states = survey(conn, settings)
        row = conn.execute(
            "select case when not pg_is_in_recovery() then pg_current_wal_lsn()::text end"
        ).fetchone()
    if slot is None:
        findings.append(
            f"{source.source}: its replication slot {source.slot} is gone from the source, and"
            " with it the changes since: `bemi init` makes a new one"
        )
    elif slot.wal_status == "lost":
        findings.append(
            f"{source.source}: its replication slot {source.slot} is lost: the source has removed"
            " WAL that it needed; `bemi init --new-slot` makes a new one"
        )
    behind = None
    if row is not None and row[0] is not None and source.position is not None:
        behind = max(Lsn.parse(row[0]) - source.position, 0)
    failing = [state for state in states if state.published and state.reason is not None]
    findings += [
        f"{state.qualified} is published, but {state.reason}: updates and deletes of it fail"
        + (f"; {state.fix}" if state.fix else "")
        for state in failing
    ]
    return Live(
        slot_active=slot is not None and slot.active_pid is not None,
        wal_status=None if slot is None else slot.wal_status,
        retained_bytes=None if slot is None else slot.retained,
        safe_wal_size=None if slot is None else slot.safe_wal_size,
        behind_bytes=behind,
        tracked=sum(state.published for state in states),
        untracked=[_problem(state) for state in states if state.wanted and not state.published],
        failing=[_problem(state) for state in failing],
    )


def _problem(state: "TableState") -> Problem:
    reason = state.reason or "it is not in the publication yet"
    return Problem(state.qualified, reason, state.fix)


def _print(
    sources: list["SourceStatus"],
    current: "SourceStatus | None",
    live: Live | None,
    findings: list[str],
) -> None:

    if not sources:
        print("no sources yet: run `bemi init`")
    for source in sources:
        rows = _rows(source)
        if live is not None and source is current:
            rows += _live_rows(live)
        print(output.printable(source.source))
        for name, value in rows:
            print(f"  {name:<13} {output.printable(value)}")
    if live is not None and live.untracked:
        print("\nnot tracked")
        for table in live.untracked:
            print(f"  {output.printable(table.table)}: {output.printable(table.reason)}")
            if table.fix:
                print(f"    fix: {output.printable(table.fix)}")
    if findings:
        print("\nneeds attention")
        for finding in findings:
            print(f"  {output.printable(finding)}")


def _rows(source: "SourceStatus") -> list[tuple[str, str]]:

    rows = [("database", source.database), ("slot", source.slot)]
    if source.position is not None:
        rows.append(
            ("checkpoint", f"{source.position}, written {output.span(source.age or 0)} ago")
        )
    last = "none yet" if source.committed_at is None else spell(source.committed_at)
    rows.append(("last change", last))
    if source.gaps:
        rows.append(
            (
                "gaps",
                f"{output.count(len(source.gaps), 'gap')}, {len(source.unaccepted)} not accepted",
            )
        )
    if source.dropped:
        rows.append(("contexts", f"{source.dropped:,} could not be read (flag context_dropped)"))
    return rows


def _live_rows(live: Live) -> list[tuple[str, str]]:

    rows = [("worker", "connected" if live.slot_active else "not connected: `bemi run` starts one")]
    if live.wal_status is not None:
        limit = "without a limit"
        if live.safe_wal_size is not None:
            limit = f"{output.size(live.safe_wal_size)} more before the slot is lost"
        rows.append(
            ("kept WAL", f"{output.size(live.retained_bytes or 0)}, {live.wal_status}, {limit}")
        )
    if live.behind_bytes is not None:
        rows.append(("behind", f"{output.size(live.behind_bytes)} of WAL"))
    tables = output.count(live.tracked, "table")
    if live.untracked:
        tables += f", {len(live.untracked)} not tracked"
    rows.append(("tracked", tables))
    return rows
