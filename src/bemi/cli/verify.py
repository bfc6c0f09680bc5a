"""`bemi verify`: looks for changes that are missing in the history, and records where."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from bemi.cli.options import ConfigFlags, Moment, Text

if TYPE_CHECKING:
    import psycopg

    from bemi.store.chain import Source, Table
    from bemi.store.link_rows import Scope
    from bemi.store.links import Finding

_MOST: Final = 1000
"""Findings that are told one by one; the rest are counted, and recorded all the same."""
_SHOWN: Final = 20


class _Result:
    """What was found in one source."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tables: list[Table] = []
        self.findings: list[Finding] = []
        self.found = 0
        self.accepted = 0

    def name_of(self, relation: int | None) -> str | None:
        return next((each.name for each in self.tables if each.relation == relation), None)


def command(
    *,
    table: Text = None,
    source: Text = None,
    since: Moment = None,
    until: Moment = None,
    accept: bool = False,
    connection: ConfigFlags = ConfigFlags(),  # noqa: B008 - frozen
    json: bool = False,
) -> int:
    """Look for changes that are missing in the history.

    What each change says of the row before it has to be what the change before left behind; the
    changes of a transaction have to be numbered without holes; and none may lie behind the
    checkpoint. What does not fit is recorded as a gap, once. Reads the destination only, and may
    run beside a worker. Exit code 1 when something is missing that was not accepted.

        bemi verify --table shop.orders --since 25h

    Parameters
    ----------
    table
        SCHEMA.TABLE, or a table in the schema public, by any name that it had. Without it, all
        tables, and the transactions.
    source
        Name of the source. Without it, all.
    since
        Check the changes committed at or after this time, against all that came before.
    until
        Check the changes committed at or before this time.
    accept
        Mark what is found, and what was found before, as known: it is no finding any more.
    json
        Print one JSON value: per source its tables, and what is missing.
    """
    history = connection.history()

    from bemi.cli import output
    from bemi.connections import connect, explained
    from bemi.errors import ConfigError
    from bemi.store import chain, schema_version
    from bemi.store.link_rows import Scope

    with (
        connect(history.url, what="destination", client_encoding="utf8") as conn,
        explained("destination"),
    ):
        schema_version.require_current(conn, history.schema)
        sources = [
            each for each in chain.sources(conn, history.schema) if source in (None, each.name)
        ]
        if not sources and source is not None:
            raise ConfigError(f"the history has no source {source}", fix="`bemi status` lists them")
        with _progress(to_terminal=sys.stderr.isatty()) as tell:
            scope = Scope(since=since, until=until)
            results = [
                _verify(conn, history.schema, each, table, scope, accept=accept, tell=tell)
                for each in sources
            ]
    if table is not None and not any(_named(result.tables, table) for result in results):
        raise ConfigError(
            f"the history has no table {table}", fix="give SCHEMA.TABLE; `bemi changes` shows some"
        )
    if json:
        output.print_json([_as_json(result) for result in results])
    else:
        for result in results:
            _print(result, table)
    return int(any(result.found > result.accepted for result in results))


def _verify(
    conn: "psycopg.Connection[Any]",
    schema: str,
    source: "Source",
    table: str | None,
    scope: "Scope",
    *,
    accept: bool,
    tell: Callable[[str, int, int], None],
) -> _Result:
    import msgspec

    from bemi.store import chain, findings

    result = _Result(source.name)
    found = chain.Chain(conn, schema, source)
    result.tables = found.tables
    if table is not None:
        named = frozenset(each.relation for each in _named(found.tables, table))
        scope = msgspec.structs.replace(scope, relations=named)
    known = findings.accepted(conn, schema, source.source_id)
    for step in found.steps(scope, ordinals=table is None):
        tell(source.name, step.done, step.total)
        if step.findings:
            findings.record(conn, schema, source.source_id, step.findings)
        for each in step.findings:
            result.found += 1
            if accept or findings.place_of(each) in known:
                result.accepted += 1
            elif len(result.findings) < _MOST:
                result.findings.append(each)
    if accept:
        findings.accept(conn, schema, source.source_id)
    return result


def _named(tables: "list[Table]", name: str) -> "list[Table]":
    wanted = name if "." in name else f"public.{name}"
    return [each for each in tables if wanted in each.names]


@contextlib.contextmanager
def _progress(*, to_terminal: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A bar on a terminal, and nothing elsewhere."""
    if not to_terminal:
        yield lambda _name, _done, _total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    from bemi.cli.output import printable

    with Progress(console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def tell(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(printable(name), total=total)
            bar.update(tasks[name], completed=done)

        yield tell


def _print(result: _Result, table: str | None) -> None:
    from bemi.cli import output
    from bemi.lsn import Lsn
    from bemi.store.findings import say

    looked = result.tables if table is None else _named(result.tables, table)
    checked = [each for each in looked if each.unchecked is None]
    print(f"{output.printable(result.name)}: {output.count(len(checked), 'table')} checked")
    unchecked = [each for each in looked if each.unchecked is not None]
    if unchecked:
        made = output.table("not checked", "why")
        for each in unchecked:
            made.add_row(output.text(each.name), output.text(each.unchecked or ""))
        print()
        output.show(made, output.console())
    if result.findings:
        made = output.table("missing between", "and", "table", "what shows it", "change")
        made.columns[0].no_wrap = made.columns[1].no_wrap = True
        for finding in result.findings[:_SHOWN]:
            made.add_row(
                str(Lsn(finding.from_position)),
                str(Lsn(finding.to_position)),
                output.text(result.name_of(finding.relation) or "not known"),
                output.text(say(finding)),
                finding.change or "",
            )
        print()
        output.show(made, output.console())
        print()
    new = result.found - result.accepted
    if new > _SHOWN:
        print(f"the first {_SHOWN} of {new:,}; the table gaps has them all, --json more")
    if result.accepted:
        print(f"{output.count(result.accepted, 'finding')} accepted")
    if not new:
        print("nothing is missing that can be seen")
    else:
        print(
            f"{output.count(new, 'finding')}, recorded as gaps: `bemi recover` brings the history"
            " in line with the tables; once it is known, `bemi verify --accept` says so"
        )


def _as_json(result: _Result) -> dict[str, Any]:
    from bemi.lsn import Lsn
    from bemi.store.findings import say

    return {
        "source": result.name,
        "tables": [
            {"table": each.name, "checked": each.unchecked is None, "reason": each.unchecked}
            for each in result.tables
        ],
        "found": result.found,
        "accepted": result.accepted,
        "findings": [
            {
                "table": result.name_of(each.relation),
                "epoch": each.epoch,
                "problem": each.problem,
                "text": say(each),
                "columns": each.columns,
                "from": str(Lsn(each.from_position)),
                "to": str(Lsn(each.to_position)),
                "change": each.change,
                "last": each.last,
            }
            for each in result.findings
        ],
    }
