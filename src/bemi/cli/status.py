"""`bemi status`: how far each source's history is, and what an operator must know about it."""

import re
import shlex
import sys
from collections.abc import Sequence, Set
from typing import TYPE_CHECKING, Any, Final

import msgspec

from bemi import config
from bemi.cli import output
from bemi.cli.options import Names, SourcesFlags, Text
from bemi.errors import BemiError, ConfigError, UsageError
from bemi.times import spell

if TYPE_CHECKING:
    from bemi.config import Settings
    from bemi.observed import Live
    from bemi.store.extent import SourceCoverage
    from bemi.store.reader import SourceStatus

_FOR_ONE: Final = re.compile("`bemi (doctor|init|recover|run|snapshot)\\b(?![^`]*--source)")
"""Commands that ask for the name of a source where there are several."""


def command(
    *,
    source: Names = (),
    coverage: bool = False,
    table: Text = None,
    json: bool = False,
    connection: SourcesFlags = SourcesFlags(),  # noqa: B008 - frozen
) -> int:
    """Show how far the history is, and what needs attention.

    For each source its checkpoint, its gaps, and the contexts that could not be read; for those
    in the settings also the slot, the WAL that the source keeps for it and, where that is bounded,
    how long it takes until the slot is lost, and the tables that are not tracked. Exit code 1 when
    there is something that an operator must decide or mend: a gap that was not accepted or that
    nobody looked behind, a publication that is missing or not whole, a slot that is missing, lost,
    or will be within the hour, a table whose updates fail.

    With --coverage, for each table instead: since when its history is complete, from where on all
    of its rows are known, and what is missing and why. That is read from the destination alone.

    Parameters
    ----------
    source
        Name of a source to ask, where the file has several; repeatable. Without it, all.
    coverage
        Show what is complete, table by table, along the source's log.
    table
        Glob SCHEMA.TABLE of the tables whose coverage to show, without a schema in public.
    json
        Print one JSON value: `sources` and `findings`. Each source has `live`, which is null where
        it is not in the settings or can't be asked; with --coverage it has `coverage` in its place.
    """
    from bemi.capture import live
    from bemi.capture.tables import with_remembered_rules
    from bemi.connections import connect, explained
    from bemi.store import amiss, completeness, reader, schema_version
    from bemi.store import sources as stored

    if table is not None and not coverage:
        raise UsageError(
            "--table is for the coverage of tables", fix="give --coverage as well, or leave it out"
        )

    history = connection.history(source[0] if len(source) == 1 else None)
    with (
        connect(history.url, what="destination", client_encoding="utf8") as conn,
        explained("destination"),
    ):
        schema_version.require_current(conn, history.schema)
        sources = reader.status(conn, history.schema)
        covered = {
            each.source: each for each in completeness.read(conn, history.schema, glob=table)
        }
        remembered = {each.name: each.setup for each in stored.read_all(conn, history.schema)}

    if coverage:
        return _show_coverage(sources, covered, source, table, json=json)
    configured = _settings(connection, source)
    found = {each.source: each for each in sources}
    several = len({*found, *(settings.source for settings in configured)}) > 1
    findings: list[str] = []
    for each in sources:
        findings += _named(amiss.findings(each, covered[each.source]), each.source, several=several)
    answers: dict[str, Live] = {}
    for settings in configured:
        current = found.get(settings.source)
        told: list[str] = []
        if current is None:
            told.append(f"the source {settings.source} is not in this history: run `bemi init`")
        elif current.removed_at is None:
            known = with_remembered_rules(settings, remembered.get(settings.source))
            try:
                answers[settings.source] = live.ask(known, current, covered[settings.source], told)
            except BemiError as error:
                told.append(str(error) + (f" ({error.fix})" if error.fix else ""))
        findings += _named(told, settings.source, several=several)

    if json:
        listed = [_as_json(each) | {"live": answers.get(each.source)} for each in sources]
        output.print_json({"sources": listed, "findings": findings})
    else:
        known_here = {settings.source for settings in configured}
        strangers = {*found} - known_here if known_here and not source else set()
        _print(sources, covered, answers, findings, strangers)
    return 1 if findings else 0


def _named(lines: Sequence[str], source: str, *, several: bool) -> list[str]:
    """Lines with the source's name in the commands that they tell, where it has to be given."""
    if not several:
        return list(lines)
    named = f" --source {shlex.quote(source)}"
    return [_FOR_ONE.sub(lambda command: command[0] + named, line) for line in lines]


def _show_coverage(
    sources: list["SourceStatus"],
    covered: dict[str, "SourceCoverage"],
    names: Sequence[str],
    glob: str | None,
    *,
    json: bool,
) -> int:
    """What the destination knows of each table; the findings are those of the same sources."""
    from bemi.cli import coverage
    from bemi.store import amiss, extent

    for name in names:
        if name not in covered:
            raise ConfigError(f"the source {name} is not in this history", fix="run `bemi status`")
    shown = [each for each in sources if not names or each.source in names]
    if glob is not None and not any(covered[each.source].tables for each in shown):
        raise ConfigError(
            f"--table {glob} matches no table of the history",
            fix="`bemi status --coverage` shows them all",
        )
    several = len(sources) > 1
    findings = [
        finding
        for each in shown
        for finding in _named(
            amiss.findings(each, covered[each.source]), each.source, several=several
        )
    ]
    if json:
        listed = [
            _as_json(each) | {"coverage": extent.as_json(covered[each.source])} for each in shown
        ]
        output.print_json({"sources": listed, "findings": findings})
        return 1 if findings else 0
    window = output.console().width if sys.stdout.isatty() else None
    if not shown:
        print("no sources yet: run `bemi init`")
    for each in shown:
        print(output.printable(each.source))
        for text, bar in coverage.lines(covered[each.source], window=window):
            (named,) = _named([text], each.source, several=several)
            for line in coverage.wrapped(named, window):
                _print_bar(line, bar)
    if any(covered[each.source].tables for each in shown):
        print()
        for line in coverage.wrapped(coverage.LEGEND, window):
            print(line)
    _print_findings(findings)
    return 1 if findings else 0


def _print_bar(text: str, bar: str | None) -> None:
    if bar is None:
        print(text)
    elif not sys.stdout.isatty():
        print(f"{text}  {bar}")
    else:
        from rich.text import Text

        from bemi.cli.coverage import STYLES

        coloured = Text(f"{text}  ")
        for cell in bar:
            coloured.append(cell, STYLES.get(cell, ""))
        output.console().print(coloured, soft_wrap=True)


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


def _print(
    sources: list["SourceStatus"],
    covered: dict[str, "SourceCoverage"],
    answers: dict[str, "Live"],
    findings: list[str],
    strangers: Set[str],
) -> None:
    """`strangers`: sources that are not in the settings, though others are."""
    from bemi import observed
    from bemi.store.covered import summary

    if not sources:
        print("no sources yet: run `bemi init`")
    for source in sources:
        asked = answers.get(source.source)
        rows = _rows(source)
        if source.position is not None:
            rows.append(("coverage", summary(covered[source.source])))
        if asked is not None:
            rows += observed.rows(asked, paused=source.paused_at is not None)
        if source.source in strangers and source.removed_at is None:
            rows.append(
                ("settings", "not in them, so its worker is not of these; its slot keeps WAL")
            )
        print(output.printable(source.source))
        for name, value in rows:
            (named,) = _named([value], source.source, several=len(sources) > 1)
            print(f"  {name:<13} {output.printable(named)}")
    for name, asked in answers.items():
        if not asked.untracked:
            continue
        print(f"\nnot tracked in {output.printable(name)}" if len(answers) > 1 else "\nnot tracked")
        for table in asked.untracked:
            print(f"  {output.printable(table.table)}: {output.printable(table.reason)}")
            if table.fix:
                (fix,) = _named([table.fix], name, several=len(sources) > 1)
                print(f"    fix: {output.printable(fix)}")
    _print_findings(findings)


def _print_findings(findings: Sequence[str]) -> None:
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
