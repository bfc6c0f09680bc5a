"""`bemi status`: how far each source's history is, and what an operator must know about it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from bemi import config
from bemi.cli import output
from bemi.cli.options import Names, SourcesFlags
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
    source: Names = (),
    json: bool = False,
    connection: SourcesFlags = SourcesFlags(),  # noqa: B008 - frozen
) -> int:
    """Show how far the history is, and what needs attention.

    For each source its checkpoint, its gaps, and the contexts that could not be read; for those
    in the settings also the slot, the WAL that the source keeps for it, and the tables that are
    not tracked. Exit code 1 when there is something that an operator must decide or mend: a gap
    that was not accepted, a slot that is missing or lost, a table whose updates fail.

    Parameters
    ----------
    source
        Name of a source to ask, where the file has several; repeatable. Without it, all.
    json
        Print one JSON value: `sources` and `findings`. Each source has `live`, which is null where
        it is not in the settings or can't be asked.
    """
    from bemi.capture.tables import with_remembered_rules
    from bemi.connections import connect, explained
    from bemi.store import migrate, reader
    from bemi.store import sources as stored

    history = connection.history(source[0] if len(source) == 1 else None)
    with (
        connect(history.url, what="destination", client_encoding="utf8") as conn,
        explained("destination"),
    ):
        migrate.require_current(conn, history.schema)
        sources = reader.status(conn, history.schema)
        remembered = {each.name: each.setup for each in stored.read_all(conn, history.schema)}

    findings: list[str] = []
    for each in sources:
        findings += _findings(each)
    found = {each.source: each for each in sources}
    live: dict[str, Live] = {}
    for settings in _settings(connection, source):
        current = found.get(settings.source)
        if current is None:
            findings.append(f"the source {settings.source} is not in this history: run `bemi init`")
        elif current.removed_at is None:
            known = with_remembered_rules(settings, remembered.get(settings.source))
            try:
                live[settings.source] = _ask(known, current, findings)
            except BemiError as error:
                findings.append(str(error) + (f" ({error.fix})" if error.fix else ""))

    if json:
        listed = [_as_json(each) | {"live": live.get(each.source)} for each in sources]
        output.print_json({"sources": listed, "findings": findings})
    else:
        _print(sources, live, findings)
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


def _settings(connection: SourcesFlags, names: Sequence[str]) -> "Sequence[Settings]":
    """None where no source is set: who only reads the history has a status too."""
    try:
        return connection.several(names)
    except ConfigError:
        if config.is_set("source_url", path=connection.config) or connection.source_url or names:
            raise
        return ()


def _findings(source: "SourceStatus") -> list[str]:
    """What the destination alone knows to be amiss."""
    if source.removed_at is not None:
        return []
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


def _print(sources: list["SourceStatus"], live: dict[str, Live], findings: list[str]) -> None:
    if not sources:
        print("no sources yet: run `bemi init`")
    for source in sources:
        asked = live.get(source.source)
        rows = _rows(source)
        if asked is not None:
            rows += _live_rows(asked, paused=source.paused_at is not None)
        print(output.printable(source.source))
        for name, value in rows:
            print(f"  {name:<13} {output.printable(value)}")
    for name, asked in live.items():
        if not asked.untracked:
            continue
        print(f"\nnot tracked in {output.printable(name)}" if len(live) > 1 else "\nnot tracked")
        for table in asked.untracked:
            print(f"  {output.printable(table.table)}: {output.printable(table.reason)}")
            if table.fix:
                print(f"    fix: {output.printable(table.fix)}")
    if findings:
        print("\nneeds attention")
        for finding in findings:
            print(f"  {output.printable(finding)}")


def _rows(source: "SourceStatus") -> list[tuple[str, str]]:
    rows = [("database", source.database), ("slot", source.slot)]
    if source.removed_at is not None:
        rows.append(("removed", f"{spell(source.removed_at)}, its history is kept"))
    elif source.paused_at is not None:
        rows.append(
            ("paused", f"{spell(source.paused_at)}: `bemi source resume {source.source}` goes on")
        )
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


def _live_rows(live: Live, *, paused: bool) -> list[tuple[str, str]]:
    away = "not connected" if paused else "not connected: `bemi run` starts one"
    rows = [("worker", "connected" if live.slot_active else away)]
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
