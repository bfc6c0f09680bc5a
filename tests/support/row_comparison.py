"""What comes back from the history, against the rows that were: see `test_values_come_back`."""

import json
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

import psycopg
from hypothesis import strategies as st
from psycopg import sql

from bemi.capture.catalog import Catalog
from bemi.capture.values import JSON, text_form, text_of_text_form
from bemi.change import Table as Described
from tests.support.kinds import Kind
from tests.support.random_tables import Table

Connection = psycopg.Connection[Any]

_COUNTED: Final = ("values", "null", "limit", "toasted", "array", "update")
_NUMBER: Final = Kind("number", "bigint", (), st.nothing())
_GENERATED: Final = Kind("generated", "of the other columns", (), st.nothing())


@dataclass
class Findings:
    cases: int = 0
    cells: int = 0
    in_baselines: int = 0
    missing: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)
    counts: dict[str, Counter[str]] = field(default_factory=dict)


def rows(conn: Connection, table: Table, found: Findings) -> Iterator[str]:
    """What differs between the rows that come back and those that were."""
    verdicts: dict[str, list[sql.Composable]] = {}
    for image, was in (("before", "old"), ("after", "new")):
        verdicts[image] = [
            sql.SQL(
                "case when not c.{image} ? {name} then 'missing'"
                " when record_image_eq(row((c.{row}).{column}), row((l.{was}).{column})) then null"
                " when {alike} then null else 'different' end"
            ).format(
                image=sql.Identifier(image),
                name=sql.Literal(column),
                row=sql.Identifier(f"{image}_row"),
                was=sql.Identifier(was),
                column=sql.Identifier(column),
                alike=_alike(table, kind, image, was, column),
            )
            for column, kind in _columns(table)
        ]
    query = sql.SQL(
        """with c as materialized (
            select
                row_number() over (order by epoch, commit_position, ordinal) as n,
                operation, coalesce(flags, '{{}}') as flags, before, after,
                bemi.populate(null::{table}, before, flags) as before_row,
                bemi.populate(null::{table}, after, flags) as after_row
            from bemi.changes where schema = {schema} and "table" = {name}
        )
        select n, l.op, c.operation, c.flags, c.before = '{{}}', c.after = '{{}}',
            array[{before}]::text[], array[{after}]::text[]
        from {log} l full join c using (n) order by n"""
    ).format(
        table=table.identifier,
        schema=sql.Literal(table.schema),
        name=sql.Literal(table.name),
        before=sql.SQL(", ").join(verdicts["before"]),
        after=sql.SQL(", ").join(verdicts["after"]),
        log=table.log_identifier,
    )
    try:
        rows = conn.execute(query).fetchall()
    except psycopg.Error as error:
        yield f"{_described(table)}: {error}"
        return
    if len(rows) != len(table.changes):
        yield f"{_described(table)}: {len(rows)} changes instead of {len(table.changes)}"
    for n, op, operation, flags, no_before, no_after, before, after in rows:
        where = f"{_described(table)}, change {n} ({op}), flags {flags}"
        if op != operation:
            yield f"{where}: it is {operation} in the history"
            continue
        for image, empty, absent, marks in (
            ("before", no_before, op == "CREATE", before),
            ("after", no_after, op == "DELETE", after),
        ):
            if absent:
                if not empty:
                    yield f"{where}: {image} is not empty"
                continue
            for (column, kind), mark in zip(_columns(table), marks, strict=True):
                if mark is None:
                    found.cells += 1
                elif mark == "missing" and _may_miss(table, image, column, flags):
                    found.missing["generated" if kind is _GENERATED else image] += 1
                else:
                    yield f"{where}: {image} {column!r} ({kind.sql}) is {mark}"


def snapshots(conn: Connection, table: Table, found: Findings) -> Iterator[str]:
    """What differs between the rows of a baseline that come back and those that are there."""
    columns = _columns(table)
    verdicts = [
        sql.SQL(
            "case when c.after is null or (l.new).number is null then 'not in both'"
            " when not c.after ? {name} then 'missing'"
            " when record_image_eq(row((c.after_row).{column}), row((l.new).{column})) then null"
            " when {alike} then null else 'different' end"
        ).format(
            name=sql.Literal(column),
            column=sql.Identifier(column),
            alike=_alike(table, kind, "after", "new", column),
        )
        for column, kind in columns
    ]
    query = sql.SQL(
        """with c as materialized (
            select coalesce(flags, '{{}}') as flags, after,
                bemi.populate(null::{table}, after, flags) as after_row
            from bemi.changes
            where operation = 'SNAPSHOT' and schema = {schema} and "table" = {name}
        ), l as (select the_whole_row as new from {table} the_whole_row)
        select coalesce((l.new).number, (c.after_row).number), c.flags, array[{verdicts}]::text[]
        from l full join c on (c.after_row).number = (l.new).number"""
    ).format(
        table=table.identifier,
        schema=sql.Literal(table.schema),
        name=sql.Literal(table.name),
        verdicts=sql.SQL(", ").join(verdicts),
    )
    try:
        rows = conn.execute(query).fetchall()
    except psycopg.Error as error:
        yield f"{_described(table)}, its baseline: {error}"
        return
    for number, flags, marks in rows:
        for (column, kind), mark in zip(columns, marks, strict=True):
            if mark is None:
                found.in_baselines += 1
            elif mark != "missing" or kind is not _GENERATED:
                yield (
                    f"{_described(table)}, row {number} of its baseline, flags {flags}:"
                    f" {column!r} ({kind.sql}) is {mark}"
                )


def _columns(table: Table) -> list[tuple[str, Kind]]:
    found = [(column.name, column.kind) for column in table.columns]
    found.append(("number", _NUMBER))
    if table.part is not None:
        found.append(("part", table.part))
    if table.generated is not None:
        found.append(("generated", _GENERATED))
    return found


def _alike(table: Table, kind: Kind, image: str, was: str, column: str) -> sql.Composable:
    """What else counts as equal for a type: see the exceptions above."""
    back = sql.SQL("(c.{}).{}").format(sql.Identifier(f"{image}_row"), sql.Identifier(column))
    original = sql.SQL("(l.{}).{}").format(sql.Identifier(was), sql.Identifier(column))
    if kind.name in ("json", "d_json not null"):
        # Its text is compared by `texts`.
        return sql.SQL("{}::jsonb = {}::jsonb and ({} or not {} = any (c.flags))").format(
            back, original, sql.Literal(_completed(table, image)), sql.Literal(f"text:{column}")
        )
    if kind.name.startswith("xml"):
        return sql.SQL("format('%s', {}) = format('%s', {})").format(back, original)
    return sql.SQL("false")


def _completed(table: Table, image: str) -> bool:
    """Whether the image may be the history's own last one, and have its form of JSON."""
    return image == "before" and not table.full


def _may_miss(table: Table, image: str, column: str, flags: Sequence[str]) -> bool:
    if column == "generated":
        return True
    if table.full:
        return False
    if f"unchanged:{column}" in flags:  # unknown, and the same before and after
        return True
    before = "before_unknown" in flags or f"before_unknown:{column}" in flags
    return image == "before" and before


def _described(table: Table) -> str:
    return f"{table.schema}.{table.name!r} (identity {'full' if table.full else 'default'})"


def texts(conn: Connection, catalog: Catalog, table: Table) -> Iterator[str]:
    """What differs between the texts that `text_form` gives and those of PostgreSQL."""
    described = _table_of(conn, catalog, table)
    types = {column.name: column.type_oid for column in described.columns}
    columns = _columns(table)
    for image, was in (("before", "old"), ("after", "new")):
        pairs = [
            sql.SQL("(c.image -> {})::text, (l.{}).{}").format(
                sql.Literal(column), sql.Identifier(was), sql.Identifier(column)
            )
            for column, _ in columns
        ]
        query = sql.SQL(
            """select n, coalesce(to_jsonb(c.flags), '[]'), {pairs}
            from {log} l join (
                select row_number() over (order by epoch, commit_position, ordinal) as n,
                    flags, {image} as image
                from bemi.changes where schema = {schema} and "table" = {table}
            ) c using (n)"""
        ).format(
            pairs=sql.SQL(", ").join(pairs),
            log=table.log_identifier,
            image=sql.Identifier(image),
            schema=sql.Literal(table.schema),
            table=sql.Literal(table.name),
        )
        result = conn.execute(query).pgresult
        assert result is not None
        for row in range(result.ntuples):
            flags = json.loads(result.get_value(row, 1) or b"")
            for at, (column, kind) in enumerate(columns):
                fragment = result.get_value(row, 2 + 2 * at)
                expected = result.get_value(row, 3 + 2 * at)
                if fragment is None:  # the image does not have the column
                    continue
                oid = types[column]
                if f"text:{column}" in flags:
                    text = text_of_text_form(fragment)
                    equal = text == expected or (
                        oid == JSON and _completed(table, image) and _same_json(text, expected)
                    )
                elif f"json_null:{column}" in flags and fragment == b"null":
                    equal = expected is not None and expected.strip() == b"null"
                else:
                    text = text_form(fragment, oid, described.array_elements)
                    equal = text == expected or (oid == JSON and _same_json(text, expected))
                if not equal:
                    yield (
                        f"{_described(table)}, change {row + 1}: the text of {column!r} "
                        f"({kind.sql}) in {image}: {_start(expected)} is stored as "
                        f"{_start(fragment)}"
                    )


def _table_of(conn: Connection, catalog: Catalog, table: Table) -> Described:
    row = conn.execute(
        "select format('%%I.%%I', %s::text, %s::text)::regclass::oid::bigint",
        [table.schema, table.name],
    ).fetchone()
    assert row is not None
    described = catalog.table(row[0])
    assert described is not None
    return described


def _same_json(one: bytes | None, other: bytes | None) -> bool:
    if one is None or other is None:
        return False

    def number(text: str) -> tuple[str, Decimal]:
        return ("-" if text[0] == "-" else "", Decimal(text))

    return bool(
        json.loads(one, parse_int=number, parse_float=number)
        == json.loads(other, parse_int=number, parse_float=number)
    )


def _start(value: bytes | None) -> str:
    return repr(value if value is None or len(value) < 300 else value[:300] + b"...")


def count(table: Table, found: Findings) -> None:
    for change in table.changes:
        for at, value in change.values.items():
            kind = table.columns[at].kind
            counts = found.counts[kind.name.removesuffix("[]")]
            counts["values"] += 1
            counts["array"] += kind.name.endswith("[]")
            counts["update"] += change.operation == "update"
            if value.sort == "large":
                # What can't be compressed below 2 kB is stored apart from its row.
                counts["toasted"] += len(zlib.compress((value.text or "").encode(), 1)) > 2100
            elif value.sort != "random":
                counts[value.sort] += 1


def report(found: Findings, seed: int, seconds: float) -> str:
    lines = [
        f"BEMI_TEST_SEED={seed}: {found.cases} changes in {seconds:.0f} s",
        f"{found.cells} values of changes compared, {found.in_baselines} of baselines",
        f"{len(found.differences)} differences",
        f"missing and flagged: {dict(found.missing)}",
        f"{'type':32}" + "".join(f"{sort:>9}" for sort in _COUNTED),
    ]
    for kind in sorted(found.counts):
        counts = found.counts[kind]
        lines.append(f"{kind:32}" + "".join(f"{counts[sort]:>9}" for sort in _COUNTED))
    return "\n".join(lines)
