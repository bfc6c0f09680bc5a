"""The rows of a table as they were, a page at a time, in the order of their keys' texts.

A state is made of the last change of each key. So a page is that of a range of keys: how far it
goes is looked up by an index, key by key, and then only what lies in it is asked for.
"""

from collections.abc import Generator
from contextlib import closing
from typing import Any, Final

import msgspec
import psycopg
from psycopg import sql

from bemi.history.change import Row
from bemi.history.moments import Moment
from bemi.history.state import Asked, StateRow, asked, rows
from bemi.store.refusals import told

_LARGEST: Final = 16 << 20
"""Bytes of values after which a page ends, however few rows it has by then."""
_RANGES: Final = 20
"""That are asked for at most, where most of the keys in them were not there then."""


class Page(msgspec.Struct, frozen=True):
    """`following`: the key that the next page is behind, if there may be one. `cut`: there are
    others, without a key to go on from. `columns`: in which order they stood, as far as that is
    known. `uncertain`: as `Asked` has it."""

    rows: list[Row]
    columns: list[str]
    following: str | None
    cut: bool
    uncertain: str | None


def page(
    conn: psycopg.Connection[Any],
    schema: str,
    place: Moment,
    table: str,
    *,
    behind: str | None,
    limit: int,
    allow_gaps: bool = False,
) -> Page:
    """At most `limit` rows of `table` (`schema.table`), of keys behind that one, or as many as
    there is room for. Raises as `state` does."""
    with told(), conn.transaction():
        question = asked(
            conn,
            schema,
            place.source,
            table,
            place.position,
            epoch=place.epoch,
            allow_gaps=allow_gaps,
        )
        columns = _columns(conn, schema, place, table)
        found: list[Row] = []
        size = 0
        for _ in range(_RANGES):
            until = _key_ahead(conn, schema, place.source, table, behind, limit)
            more = limit + 1 - len(found)
            with closing(_between(conn, question, behind, until, more)) as each:
                for row in each:
                    if len(found) == limit or size > _LARGEST:
                        last = found[-1].key
                        return Page(found, columns, last, last is None, question.uncertain)
                    found.append(Row.of(row))
                    size += len(row.image)
            behind = until
            if until is None:
                break
        return Page(found, columns, behind, False, question.uncertain)


def _columns(conn: psycopg.Connection[Any], schema: str, place: Moment, table: str) -> list[str]:
    row = conn.execute(
        sql.SQL(
            """
            select jsonb_path_query_array(v.columns, '$[*].name')
            from {versions} v join {sources} s using (source_id)
            where s.name = %s and v.epoch = %s and v.from_position <= %s
                and (v.schema || '.' || v."table" = %s or v.partition = %s)
            order by v.from_position desc, v.from_ordinal desc limit 1
            """
        ).format(
            versions=sql.Identifier(schema, "table_versions"),
            sources=sql.Identifier(schema, "sources"),
        ),
        [place.source, place.epoch, int(place.position), table, table],
    ).fetchone()
    return [] if row is None else row[0]


def _key_ahead(
    conn: psycopg.Connection[Any],
    schema: str,
    source: str,
    table: str,
    behind: str | None,
    number: int,
) -> str | None:
    """The key that so many keys behind this one come to, whenever there was a row with it; None
    where there are not as many."""
    first = "" if behind is None else "and r.primary_key > %(behind)s"
    row = conn.execute(
        sql.SQL(
            """
            with recursive names as (
                select distinct n."table"
                from {names} n join {sources} s using (source_id)
                where s.name = %(source)s and n."table" is not null and n.relation in (
                    select o.relation from {names} o
                    where o.source_id = n.source_id
                        and (o.schema || '.' || o."table" = %(table)s or o.partition = %(table)s)
                )
            ), step as (
                select n."table", (
                    select r.primary_key from {changes} r
                    where r."table" = n."table" and r.primary_key is not null {first}
                    order by r.primary_key limit 1
                ) as key, 1 as nth
                from names n
                union all
                select s."table", (
                    select r.primary_key from {changes} r
                    where r."table" = s."table" and r.primary_key > s.key
                    order by r.primary_key limit 1
                ), s.nth + 1
                from step s where s.key is not null and s.nth < %(number)s
            )
            select key from step where key is not null order by key limit 1 offset %(number)s - 1
            """
        ).format(
            names=sql.Identifier(schema, "relation_names"),
            sources=sql.Identifier(schema, "sources"),
            changes=sql.Identifier(schema, "row_changes"),
            first=sql.SQL(first),
        ),
        {"source": source, "table": table, "behind": behind, "number": number},
    ).fetchone()
    return None if row is None else row[0]


def _between(
    conn: psycopg.Connection[Any],
    question: Asked,
    behind: str | None,
    until: str | None,
    limit: int,
) -> Generator[StateRow]:
    conditions: list[sql.Composable] = [sql.SQL("true")]
    if behind is not None:
        conditions.append(sql.SQL("q.key > {}").format(sql.Literal(behind)))
    if until is not None:
        conditions.append(sql.SQL("q.key <= {}").format(sql.Literal(until)))
    query = sql.SQL(
        "select q.key, q.image, q.flags from ({}) q where {} order by q.key limit {}"
    ).format(sql.SQL(question.query), sql.SQL(" and ").join(conditions), sql.Literal(limit))
    piece = msgspec.structs.replace(question, query=query.as_string(conn))
    return rows(conn, piece)
