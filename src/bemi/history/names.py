"""Which relations bore a name at a position: a table, or the partitions of one."""

from collections.abc import Sequence
from typing import Any, Final, LiteralString

import msgspec
import psycopg
from psycopg import sql

from bemi.errors import UnknownStateError
from bemi.lsn import Lsn


class Called(msgspec.Struct, frozen=True):
    """What a relation was called from `seen` on; at `before` it was not yet."""

    relation: int
    seen: int
    before: int | None
    name: str | None
    """None: it was dropped."""
    partition: str | None

    def is_called(self, table: str) -> bool:
        return table in (self.name, self.partition)


_CALLED: Final[LiteralString] = """
select n.relation::bigint, n.from_position, n.after_position, n.schema || '.' || n."table",
    n.partition
from {names} n join {sources} s using (source_id)
where s.name = %(source)s and n.epoch = %(epoch)s and n.relation in (
    select m.relation from {names} m
    where m.source_id = n.source_id and m.epoch = n.epoch
        and (m.schema || '.' || m."table" = %(table)s or m.partition = %(table)s)
)
order by n.relation, n.from_position
"""


def called(
    conn: psycopg.Connection[Any],
    schema: str,
    source: str,
    table: str,
    *,
    epoch: int,
    position: Lsn,
) -> list[Called]:
    """The relations that were called `table` (`schema.table`) then.

    Raises `UnknownStateError` where there were none, or where that can't be told.
    """
    found = conn.execute(
        sql.SQL(_CALLED).format(
            names=sql.Identifier(schema, "relation_names"),
            sources=sql.Identifier(schema, "sources"),
        ),
        {"source": source, "epoch": epoch, "table": table},
    )
    rows = [Called(*row) for row in found]
    if not rows:
        raise UnknownStateError(
            f"{table} is not in the history of {source}",
            fix="`bemi status --coverage` lists the tables that are",
        )
    of: dict[int, list[Called]] = {}
    for row in rows:
        of.setdefault(row.relation, []).append(row)
    then = [_then(each, table, position) for each in of.values()]
    borne = [each for each in then if each is not None]
    if not borne:
        raise UnknownStateError(
            f"{table} at {position} is not known: it was not tracked then under"
            " that name, or was dropped before (table_dropped)",
            fix="`bemi status --coverage` shows from where to where it is",
        )
    return borne


def _then(rows: Sequence[Called], table: str, position: Lsn) -> Called | None:
    """The name that a relation bore then, if it is the one that is asked for."""
    then = next((row for row in reversed(rows) if row.seen <= position), None)
    is_called = then is not None and then.is_called(table)
    following = next((row for row in rows if row.seen > position), None)
    if (
        following is not None
        and following.before is not None
        and following.before < position
        and following.is_called(table) != is_called
    ):
        named = then if then is not None and then.name else following
        raise UnknownStateError(
            f"{table} at {position} is not known: between"
            f" {Lsn(following.before)} and {Lsn(following.seen)},"
            f" {named.partition or named.name} was made, renamed, attached, detached or"
            " dropped (table_dropped)",
            fix="ask for a position before or behind that",
        )
    return then if is_called else None
