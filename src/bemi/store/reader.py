"""The read side of the destination: changes by filters, and how far each source's history is.

Reads the relation `changes` and the bookkeeping beside it, and writes nothing. Images and contexts
stay the JSON that the server sent, so that no number passes through a float.
"""

from collections.abc import Generator
from datetime import datetime
from typing import Any, Final, TypeVar
from uuid import UUID

import msgspec
import psycopg
from psycopg import sql
from psycopg.abc import Buffer, Params, Query
from psycopg.adapt import Loader
from psycopg.rows import class_row

from bemi.errors import UnknownStateError, UsageError
from bemi.lsn import Lsn
from bemi.store import pages
from bemi.store.filters import Filters, Place
from bemi.store.query import compiled
from bemi.store.refusals import told

_FETCH: Final = 1000
"""Changes that are read at once, of which the first, and all of their values together:"""
_FIRST: Final = 50
_PIECE: Final = 8 << 20
_STREAMED: Final = 100
_BITS_BEHIND_SOURCE: Final = 32
_SOURCE_MASK: Final = 0xFFF

_Row = TypeVar("_Row")


class StoredChange(msgspec.Struct, frozen=True):
    """A row of the relation `changes`, with the names and in the order of its columns."""

    id: UUID
    database: str
    schema: str
    table: str
    primary_key: str | None
    operation: str
    before: msgspec.Raw
    after: msgspec.Raw
    context: msgspec.Raw
    committed_at: datetime
    queued_at: datetime
    created_at: datetime
    transaction_id: int
    position: int
    commit_position: int
    ordinal: int
    epoch: int
    source: str
    previous_key: str | None
    flags: list[str] | None
    rules: int | None

    @property
    def size(self) -> int:
        """Bytes of its values."""
        return sum(map(len, filter(None, (self.before, self.after, self.context))))

    @property
    def place(self) -> Place:
        return Place(self.committed_at, self.commit_position, self.ordinal, self.epoch)


class Gap(msgspec.Struct, frozen=True):
    """A stretch of a source's WAL whose changes, of one table or of all, are not in the history.

    With `columns` only older values of these may be outdated. `changes`: how many are missing,
    where that is known.
    """

    from_position: Lsn
    to_position: Lsn
    cause: str
    detail: str
    detected_at: datetime
    accepted_at: datetime | None
    table: str | None = None
    columns: list[str] | None = None
    changes: int | None = None


class SourceStatus(msgspec.Struct, frozen=True):
    """How far the history of one source is. `committed_at` is that of its last transaction.

    The checkpoint is missing when the source was never wholly set up. `age` is the seconds since
    the checkpoint was written, by the destination's clock; `dropped` counts unreadable contexts.
    """

    source: str
    database: str
    slot: str
    publication: str
    epoch: int | None
    position: Lsn | None
    committed_at: datetime | None
    updated_at: datetime | None
    age: float | None
    dropped: int
    gaps: list[Gap]
    paused_at: datetime | None
    removed_at: datetime | None

    @property
    def unaccepted(self) -> list[Gap]:
        return [gap for gap in self.gaps if gap.accepted_at is None]


class JsonAsItIs(Loader):
    """JSON as the server sent it, unread."""

    def load(self, data: Buffer) -> msgspec.Raw:
        return msgspec.Raw(bytes(data))


def _keep_json(cursor: psycopg.Cursor[Any]) -> None:
    for name in ("json", "jsonb"):
        cursor.adapters.register_loader(name, JsonAsItIs)


def changes(
    conn: psycopg.Connection[Any], schema: str, filters: Filters
) -> Generator[StoredChange]:
    """The changes that the filters let through, in their order, as of one moment.

    Read in pieces, of as few changes as they are large, so that a history of any size takes
    constant memory. Raises `UsageError` for
    positions where it is not clear in whose log.
    """
    require_clear_positions(conn, schema, filters)
    columns = StoredChange.__struct_fields__
    with conn.cursor(row_factory=class_row(StoredChange)) as cursor:
        _keep_json(cursor)
        page = pages.page(cursor, schema, filters, columns)
    if page is not None:
        yield from page
        return
    query, parameters = compiled(schema, filters, columns)
    with (
        conn.transaction(),
        conn.cursor("bemi_changes", row_factory=class_row(StoredChange)) as cursor,
    ):
        _keep_json(cursor)
        cursor.execute(query, parameters)
        number = _FIRST
        while piece := cursor.fetchmany(number):
            yield from piece
            if len(piece) < number:
                return
            average = sum(each.size for each in piece) // number
            number = max(1, min(_FETCH, _PIECE // (average + 1)))


def portion(
    conn: psycopg.Connection[Any], schema: str, filters: Filters
) -> Generator[StoredChange]:
    """As `changes`, in one statement that ends when the generator is closed.

    For who takes what there is at once, and wants no transaction open behind it.
    """
    query, parameters = compiled(schema, filters, StoredChange.__struct_fields__)
    with conn.cursor(row_factory=class_row(StoredChange)) as cursor:
        _keep_json(cursor)
        yield from streamed(cursor, query, parameters)


def streamed(
    cursor: psycopg.Cursor[_Row], query: Query, parameters: Params | None = None
) -> Generator[_Row]:
    """The rows of one statement as they come, in constant memory: the server goes on meanwhile.

    It ends when the generator is closed; until then the connection is not for anything else.
    """
    size = _STREAMED if psycopg.capabilities.has_stream_chunked() else 1
    yield from cursor.stream(query, parameters, size=size)


def change(
    conn: psycopg.Connection[Any], schema: str, id: UUID, source: str | None = None
) -> StoredChange:
    """The one with this id. Raises `UnknownStateError` where there is none, and `UsageError` where
    several sources have it, which read the same database."""
    found = list(changes(conn, schema, Filters(id=id, source=source)))
    if not found:
        raise UnknownStateError(
            f"there is no change {id} in the history", fix="`bemi changes --json` lists ids"
        )
    _require_one([each.source for each in found], f"the change {id} is there more than once")
    return found[0]


def source_of(conn: psycopg.Connection[Any], schema: str, table: str | None) -> str:
    """That which has, or had, such a table (`schema.table`, or a partition); or the only one.

    Raises `UnknownStateError` where there is none, and `UsageError` for several: rows of two
    databases are two rows.
    """
    query = sql.SQL("select {}(%s)").format(sql.Identifier(schema, "source_of"))
    with told(), conn.transaction():
        row = conn.execute(query, [table]).fetchone()
    assert row is not None
    return str(row[0])


def roots_of(conn: psycopg.Connection[Any], schema: str, name: str) -> list[tuple[str, str]]:
    """Schema and name of each table that was ever called so (`schema.table`, of which both may have
    dots), or that a partition which was called so was of."""
    query = sql.SQL(
        'select distinct schema, "table" from {}'
        " where schema is not null and (schema || '.' || \"table\" = %s or partition = %s)"
    ).format(sql.Identifier(schema, "relation_names"))
    return [(row[0], row[1]) for row in conn.execute(query, [name, name])]


def require_clear_positions(conn: psycopg.Connection[Any], schema: str, filters: Filters) -> None:
    """Raises `UsageError` for positions where it is not clear in whose log."""
    if filters.source is None and {filters.from_position, filters.to_position} != {None}:
        _require_one(sources(conn, schema), "positions are those of one source's log")


def _require_one(names: list[str], why: str) -> None:
    if len(names) > 1:
        raise UsageError(
            f"{why}: {', '.join(names)}", fix="say which source is meant: --source, or source="
        )


def sources(conn: psycopg.Connection[Any], schema: str) -> list[str]:
    """The names of all that the history has had changes of, or will."""
    query = sql.SQL("select name from {} order by name").format(sql.Identifier(schema, "sources"))
    return [row[0] for row in conn.execute(query)]


def has_changes(conn: psycopg.Connection[Any], schema: str) -> bool:
    row = conn.execute(
        sql.SQL("select exists (select from {})").format(sql.Identifier(schema, "row_changes"))
    ).fetchone()
    assert row is not None
    return bool(row[0])


def tables_called(conn: psycopg.Connection[Any], schema: str, name: str) -> list[str]:
    """The schemas in which the history has changes of a table of that name."""
    # One step per schema through the index on the table's name, however many changes there are.
    rows = conn.execute(
        sql.SQL(
            "with recursive found(schema) as ("
            '(select min(schema) from {0} where "table" = %(name)s) union all '
            'select (select min(c.schema) from {0} c where c."table" = %(name)s '
            "and c.schema > f.schema) from found f where f.schema is not null) "
            "select schema from found where schema is not null"
        ).format(sql.Identifier(schema, "changes")),
        {"name": name},
    )
    return [row[0] for row in rows]


def status(conn: psycopg.Connection[Any], schema: str) -> list[SourceStatus]:
    """Of each source: its checkpoint, its gaps, and the contexts that could not be read."""
    with conn.transaction():
        gaps: dict[int, list[Gap]] = {}
        for source_id, *columns in conn.execute(
            sql.SQL(
                "select g.source_id, g.from_position, g.to_position, g.cause, g.detail, "
                "g.detected_at, g.accepted_at, case when g.relation is not null then coalesce("
                "(select coalesce(i.partition, i.schema || '.' || i.\"table\") from {intervals} i "
                "where i.source_id = g.source_id and i.relation = g.relation "
                "order by i.interval_id desc limit 1), 'the table ' || g.relation) end, "
                "g.columns, g.changes from {gaps} g order by g.gap_id"
            ).format(
                gaps=sql.Identifier(schema, "gaps"), intervals=sql.Identifier(schema, "intervals")
            )
        ):
            gaps.setdefault(source_id, []).append(
                Gap(Lsn(columns[0]), Lsn(columns[1]), *columns[2:])
            )
        # A context's id has its source in these bits; rows are found by a partial index.
        dropped = dict(
            conn.execute(
                sql.SQL(
                    "select (id >> %s) & %s, count(*) from {} where dropped is not null group by 1"
                ).format(sql.Identifier(schema, "contexts")),
                [_BITS_BEHIND_SOURCE, _SOURCE_MASK],
            ).fetchall()
        )
        rows = conn.execute(
            sql.SQL(
                "select s.source_id, s.name, s.database, s.slot, s.publication, c.epoch, "
                "c.position, c.committed_at, c.updated_at, "
                "extract(epoch from clock_timestamp() - c.updated_at)::float8, "
                "s.paused_at, s.removed_at "
                "from {} s left join {} c using (source_id) order by s.name"
            ).format(sql.Identifier(schema, "sources"), sql.Identifier(schema, "checkpoints"))
        ).fetchall()
    return [
        SourceStatus(
            source=name,
            database=database,
            slot=slot,
            publication=publication,
            epoch=epoch,
            position=None if position is None else Lsn(position),
            committed_at=committed_at,
            updated_at=updated_at,
            age=None if age is None else max(age, 0.0),
            dropped=dropped.get(source_id, 0),
            gaps=gaps.get(source_id, []),
            paused_at=paused_at,
            removed_at=removed_at,
        )
        for (
            source_id,
            name,
            database,
            slot,
            publication,
            epoch,
            position,
            committed_at,
            updated_at,
            age,
            paused_at,
            removed_at,
        ) in rows
    ]
