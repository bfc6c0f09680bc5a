"""Builds schemas in the destination that hold a source's tables as they were: read-only views, all
at one position, under the tables' names and with the column types of that moment.
"""

import fnmatch
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec
import psycopg
from psycopg import sql

from bemi.errors import NotYetError, UnknownStateError, UsageError
from bemi.history import moments, travel_schemas, travel_types
from bemi.history.moments import Moment
from bemi.history.state import asked
from bemi.history.travel_types import Type, Types
from bemi.lsn import Lsn
from bemi.store.refusals import told


class View(msgspec.Struct, frozen=True):
    """A table as a view. `uncertain`: why it may not show all, or not rightly.

    `text`: the columns that are text, because the destination lacks their type, with that.
    """

    table: str
    view: str
    partition_of: str | None
    uncertain: str | None
    text: Mapping[str, str]


class Travel(msgspec.Struct, frozen=True):
    """What was made. `time`: the one that was asked for, or of the last commit before.

    `left_out`: tables that are not there, with the reason.
    """

    source: str
    epoch: int
    position: str
    time: datetime | None
    into: str
    schemas: Sequence[str]
    views: Sequence[View]
    left_out: Mapping[str, str]


class _Table(msgspec.Struct, frozen=True):
    schema: str
    name: str
    partition_of: str | None
    columns: Sequence[Mapping[str, Any]] | None

    @property
    def qualified(self) -> str:
        return f"{self.schema}.{self.name}"


def build(
    conn: psycopg.Connection[Any],
    schema: str,
    when: datetime | Lsn | UUID,
    *,
    into: str,
    tables: Sequence[str] = (),
    source: str | None = None,
    allow_gaps: bool = False,
) -> Travel:
    """Make the views, all or none of them, in the place of what an earlier travel made there.

    `into`: the schema, where all tables are of one of the source's; where they are of several,
    each has its own, `INTO_NAME`. `tables`: names or globs, by default all. Raises
    `UnknownStateError` where not all are surely known, unless `allow_gaps`; `NotYetError`;
    `UsageError` for a schema that is somebody else's, and tables that there were not.
    """
    place = moments.find(conn, schema, when, source=source)
    with told(), conn.transaction():
        conn.execute("set local search_path to pg_catalog")
        known = travel_types.read(conn, schema, place.source, place.epoch, place.position)
        found = _chosen(_tables(conn, schema, place, known), tables, place)
        targets = travel_schemas.targets(into, _schemas(found, known))
        travel_schemas.drop(conn, into, among=targets.values())
        time = when if isinstance(when, datetime) else _time(conn, schema, place)
        for target in targets.values():
            conn.execute(sql.SQL("create schema {}").format(sql.Identifier(target)))
        types = Types(conn, known, targets.__getitem__)
        views: list[View] = []
        unknown: dict[str, str] = {}
        for table in found:
            try:
                views.append(_view(conn, schema, table, place, targets, types, allow_gaps))
            except NotYetError:
                raise
            except UnknownStateError as error:
                unknown[table.qualified] = str(error)
        if unknown and not allow_gaps:
            raise UnknownStateError(
                "; ".join(unknown.values()),
                fix="ask for another moment, choose tables with --table, or see with"
                " --allow-gaps what there is",
            )
        made = [
            (targets[each.schema], each.name) for each in found if each.qualified not in unknown
        ]
        travel_schemas.mark(conn, into, targets, place, time, [*made, *types.made])
        return Travel(
            place.source,
            place.epoch,
            str(place.position),
            time,
            into,
            sorted({*targets.values()}),
            views,
            unknown,
        )


def _tables(
    conn: psycopg.Connection[Any],
    schema: str,
    place: Moment,
    known: Mapping[str, travel_types.Known],
) -> list[_Table]:
    rows = conn.execute(
        sql.SQL(
            'select schema, "table", partition_of, columns '
            "from {}(lsn => %s::pg_lsn, epoch => %s, source => %s)"
        ).format(sql.Identifier(schema, "tables_at")),
        [str(place.position), place.epoch, place.source],
    )
    return [
        _Table(
            of,
            name,
            partition_of,
            None
            if columns is None
            else [
                {**each, "type": travel_types.spelled(conn, known, each)}
                for each in columns
                if each.get("generated", "") != "v"
            ],
        )
        for of, name, partition_of, columns in rows.fetchall()
    ]


def _chosen(found: Sequence[_Table], patterns: Sequence[str], place: Moment) -> list[_Table]:
    if not found:
        raise UnknownStateError(
            f"{place.source} had no tracked tables at {place.position}",
            fix="`bemi status --coverage` shows from where to where tables are",
        )
    wanted = [each if "." in each else f"public.{each}" for each in patterns]
    for pattern in wanted:
        if not any(_matches(each, pattern) for each in found):
            raise UsageError(
                f"{place.source} had no table {pattern} at {place.position}",
                fix="--table takes SCHEMA.TABLE, where * stands for anything",
            )
    return [
        each for each in found if not wanted or any(_matches(each, pattern) for pattern in wanted)
    ]


def _matches(table: _Table, pattern: str) -> bool:
    return table.qualified == pattern or fnmatch.fnmatchcase(table.qualified, pattern)


def _schemas(found: Sequence[_Table], known: Mapping[str, travel_types.Known]) -> list[str]:
    """Those of the source that tables and their types are in."""
    names = {
        name
        for table in found
        for column in table.columns or ()
        for name in travel_types.used(known, column["type"])
    }
    return sorted({table.schema for table in found} | {known[name].schema for name in names})


def _time(conn: psycopg.Connection[Any], schema: str, place: Moment) -> datetime | None:
    row = conn.execute(
        sql.SQL(
            "select committed_at from {} where commit_position <= %s and epoch = %s "
            "order by commit_position desc limit 1"
        ).format(sql.Identifier(schema, "images")),
        [int(place.position), place.epoch],
    ).fetchone()
    return None if row is None else row[0]


def _view(
    conn: psycopg.Connection[Any],
    schema: str,
    table: _Table,
    place: Moment,
    targets: Mapping[str, str],
    types: Types,
    allow_gaps: bool,
) -> View:
    """Raises UnknownStateError."""
    question = asked(
        conn,
        schema,
        place.source,
        table.qualified,
        place.position,
        epoch=place.epoch,
        allow_gaps=allow_gaps,
    )
    if table.columns is None:
        raise UnknownStateError(
            f"{table.qualified} at {place.position} is not known: it had no change yet, and its"
            " columns were never seen"
        )
    columns = {each["name"]: types.of(each["type"]) for each in table.columns}
    retyped = _retyped(conn, schema, table, place)
    name = sql.Identifier(targets[table.schema], table.name)
    values = [
        _read(conn, schema, each, of) if each in retyped else _value(schema, each, of)
        for each, of in columns.items()
    ]
    conn.execute(
        sql.Composed(
            [
                sql.SQL("create view {} as select ").format(name),
                sql.SQL(", ").join(values),
                sql.SQL(" from (("),
                # As the destination's own function wrote it, with everything quoted.
                sql.SQL(question.query),
                # Or joins of views would hold each row of one against each of the other.
                sql.SQL(") union all select null, null, null from {}()) s").format(
                    sql.Identifier(schema, "none_of_many")
                ),
                _record(schema, {each: of for each, of in columns.items() if each not in retyped}),
            ]
        )
    )
    notes = [question.uncertain] if question.uncertain else []
    missing = {
        each["name"]: each["type"] for each in table.columns if columns[each["name"]].missing
    }
    notes += [f"{column} is text: it was {of}" for column, of in missing.items()]
    if notes:
        comment = sql.Literal("; ".join(notes))
        conn.execute(sql.SQL("comment on view {} is {}").format(name, comment))
    return View(
        table.qualified,
        f"{targets[table.schema]}.{table.name}",
        table.partition_of,
        question.uncertain,
        missing,
    )


_SHOWN: Final = (
    "select distinct c.name, c.number, c.type_oid, c.type from {names} n"
    " join {sources} s using (source_id) join {versions} v using (source_id, epoch, relation)"
    " cross join lateral jsonb_to_recordset(v.columns) c (name text, number int, type_oid bigint,"
    " type text)"
    " where s.name = %(source)s and n.epoch = %(epoch)s and v.from_position <= %(position)s"
    " and %(table)s in (n.schema || '.' || n.\"table\", n.partition)"
)


def _retyped(conn: psycopg.Connection[Any], schema: str, table: _Table, place: Moment) -> set[str]:
    """The columns that had another type before, whose values rows may still have."""
    shown = conn.execute(
        sql.SQL(_SHOWN).format(
            names=sql.Identifier(schema, "relation_names"),
            sources=sql.Identifier(schema, "sources"),
            versions=sql.Identifier(schema, "table_versions"),
        ),
        {
            "source": place.source,
            "epoch": place.epoch,
            "position": int(place.position),
            "table": table.qualified,
        },
    ).fetchall()
    return {
        each["name"]
        for each in table.columns or ()
        for name, number, *of in shown
        # The partitions of a table may have other numbers.
        if of != [each["type_oid"], each["type"]]
        and (name == each["name"] or number == each["number"])
    }


def _record(schema: str, columns: Mapping[str, Type]) -> sql.Composable:
    if not columns:
        return sql.SQL("")
    return sql.SQL(" cross join lateral pg_catalog.jsonb_to_record({}) r ({})").format(
        _image(schema),
        sql.SQL(", ").join(
            sql.SQL("{} {}").format(
                sql.Identifier(name), sql.SQL("pg_catalog.text") if of.is_set else of.name
            )
            for name, of in columns.items()
        ),
    )


def _image(schema: str) -> sql.Composed:
    return sql.SQL("case when s.flags is null then s.image else {}(s.image, s.flags) end").format(
        sql.Identifier(schema, "readable")
    )


def _read(conn: psycopg.Connection[Any], schema: str, name: str, of: Type) -> sql.Composable:
    """Null where the type does not take the value."""
    return sql.SQL("{}({}, s.flags, {}, {}, null::{of})::{of} as {}").format(
        sql.Identifier(schema, "retyped"),
        _image(schema),
        sql.Literal(name),
        sql.Literal(of.name.as_string(conn)),
        sql.Identifier(name),
        of=of.name,
    )


def _value(schema: str, name: str, of: Type) -> sql.Composable:
    column = sql.Identifier("r", name)
    if of.is_set:
        return sql.SQL("{}({}, null::{}) as {}").format(
            sql.Identifier(schema, "read_as"), column, of.name, sql.Identifier(name)
        )
    if of.is_json:
        # What a string of JSON is the text of, and a null that is JSON's.
        return sql.SQL(
            "case when {} = any (s.flags) then (s.image ->> {})::{} "
            "when {} = any (s.flags) and s.image -> {} = 'null' then 'null'::{} "
            "else {} end as {}"
        ).format(
            sql.Literal(f"text:{name}"),
            sql.Literal(name),
            of.name,
            sql.Literal(f"json_null:{name}"),
            sql.Literal(name),
            of.name,
            column,
            sql.Identifier(name),
        )
    return column
