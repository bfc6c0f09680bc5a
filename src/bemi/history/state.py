"""The rows of a table as they were at a position, from its changes; refused where that is unknown.

Of a table with a key, each row is what its last change left, after the last TRUNCATE; a change
of the key ends the row under the old one. Of a table without a key the rows are a multiset: what
came less what went, refused where it can't be told what went. Both begin where the interval of
coverage does in which the position lies. A partitioned table has the rows of the tables that were
its partitions then.
"""

from collections.abc import Generator, Iterator
from typing import Any, Final, LiteralString

import msgspec
import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from bemi.errors import UnknownStateError, UsageError
from bemi.history import keyed, multiset
from bemi.history.names import Called, called
from bemi.history.shapes import shaped
from bemi.lsn import Lsn
from bemi.store import shapes
from bemi.store.images import UNSENT
from bemi.store.shapes import Shape

_FETCH: Final = 1000


_decode: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode: Final = msgspec.json.Encoder().encode


class StateRow(msgspec.Struct, frozen=True):
    """A row: its key's text, if it has one, and its columns as JSON, called as they were then.

    `flags` are those of the change that left it so, and `stale:COLUMN` for each column that DDL
    may have rewritten since.
    """

    key: str | None
    image: msgspec.Raw
    flags: frozenset[str]


class _Part(msgspec.Struct, frozen=True):
    """The rows of one relation, and the stretch of its history that tells them."""

    relation: int
    name: str
    tables: list[str]
    """What it was called in its changes, without schemas."""
    keyed: bool
    epoch: int
    start: int
    known: int
    """From here on all rows are known."""
    shapes: list[Shape]


_STRETCH: Final[LiteralString] = """
select i.from_position, i.state_position, i.opened
from {intervals} i
where i.source_id = %(source_id)s and i.relation = %(relation)s and i.epoch = %(epoch)s
    and i.from_position <= %(position)s
    and (i.to_position is null or %(position)s < i.to_position)
order by i.from_position desc limit 1
"""

_LAST: Final[LiteralString] = """
select i.to_position, i.closed
from {intervals} i
where i.source_id = %(source_id)s and i.relation = %(relation)s
    and (i.epoch < %(epoch)s or i.epoch = %(epoch)s and i.to_position <= %(position)s)
order by i.epoch desc, i.to_position desc limit 1
"""

_IN_THE_WAY: Final[LiteralString] = """
select g.cause, g.from_position, g.to_position from {gaps} g
where g.source_id = %(source_id)s and g.epoch = %(epoch)s and g.columns is null
    and (g.relation = %(relation)s or g.relation is null and g.cause = 'chain')
    and g.from_position <= %(position)s and g.to_position > %(known)s
order by g.from_position limit 1
"""

_STALE: Final[LiteralString] = """
select unnest(g.columns), g.to_position from {gaps} g
where g.source_id = %(source_id)s and g.epoch = %(epoch)s and g.relation = %(relation)s
    and g.columns is not null and g.from_position <= %(position)s
"""

_TABLES: Final[LiteralString] = """
select "table" from {names} where source_id = %(source_id)s and relation = %(relation)s
    and "table" is not null
union
select "table" from {versions} where source_id = %(source_id)s and relation = %(relation)s
union
select "table" from {intervals} where source_id = %(source_id)s and relation = %(relation)s
"""

_KINDS: Final[LiteralString] = """
select
    exists (select from {changes} where {its} and primary_key is not null),
    exists (select from {changes} where {its} and primary_key is null and operation <> 'TRUNCATE')
"""

_ITS: Final[LiteralString] = """
    "table" = any(%(tables)s) and relation = %(relation)s and epoch = %(epoch)s
    and commit_position between %(start)s and %(position)s
"""

_PRESENT: Final[LiteralString] = """
with emptied as (
    select commit_position, ordinal from {changes}
    where {its} and operation = 'TRUNCATE'
    order by commit_position desc, ordinal desc limit 1
),
present as (
    select * from {changes} r
    where {its} and operation <> 'TRUNCATE'
        and not exists (select from emptied e
            where (r.commit_position, r.ordinal) <= (e.commit_position, e.ordinal))
)
"""


def state(
    conn: psycopg.Connection[Any],
    schema: str,
    source: str,
    table: str,
    position: Lsn,
    *,
    epoch: int | None = None,
    key: str | None = None,
) -> Generator[StateRow]:
    """The rows of `table` (`schema.table`, a partition or the table above it) at `position`.

    That is, after all transactions that commit at or before it. `epoch`: by default the source's
    present one. `key`: only the row with this one. Raises `UnknownStateError` where the history
    can't tell the whole state, before the first row.
    """
    with conn.transaction():
        asked = _Asked(conn, schema, source, table, position, epoch, key)
        for part in asked.parts():
            yield from asked.rows(part)


class _Asked:
    """One question."""

    def __init__(
        self,
        conn: psycopg.Connection[Any],
        schema: str,
        source: str,
        table: str,
        position: Lsn,
        epoch: int | None,
        key: str | None,
    ) -> None:
        self._conn = conn
        self._key = key
        self._names = {
            "names": sql.Identifier(schema, "relation_names"),
            "sources": sql.Identifier(schema, "sources"),
            "checkpoints": sql.Identifier(schema, "checkpoints"),
            "intervals": sql.Identifier(schema, "intervals"),
            "gaps": sql.Identifier(schema, "gaps"),
            "versions": sql.Identifier(schema, "table_versions"),
            "changes": sql.Identifier(schema, "row_changes"),
        }
        self._schema = schema
        self._source = source
        self._table = table
        self._position = position
        self._source_id, self._epoch = self._require_captured(epoch)

    def _require_captured(self, epoch: int | None) -> tuple[int, int]:
        """The source and the epoch of the position, which the checkpoint has to have passed."""
        rows = self._ask(
            "select k.source_id, k.epoch, k.position from {checkpoints} k "
            "join {sources} s using (source_id) where s.name = %(source)s",
            source=self._source,
        )
        if not rows:
            raise UnknownStateError(f"there is no source {self._source} in the history")
        ((source_id, present, end),) = rows
        if epoch is not None and epoch != present:
            return source_id, epoch
        if self._position >= end:
            raise UnknownStateError(
                f"{self._table} at {self._position} is not captured yet: the history of"
                f" {self._source} ends at {Lsn(end)}",
                fix="wait for the worker, or ask for an earlier position",
            )
        return source_id, present

    def parts(self) -> list[_Part]:
        """Raises `UnknownStateError` unless all rows of each are known."""
        found = called(
            self._conn,
            self._schema,
            self._source,
            self._table,
            epoch=self._epoch,
            position=self._position,
        )
        return [self._part(each) for each in found]

    def _part(self, relation: Called) -> _Part:
        name = relation.partition or relation.name or self._table
        given = {
            "source_id": self._source_id,
            "relation": relation.relation,
            "epoch": self._epoch,
            "position": int(self._position),
        }
        stretch = self._ask(_STRETCH, **given)
        if not stretch:
            why = "it was not tracked then"
            last = self._ask(_LAST, **given)
            if last:
                ((ended, closed),) = last
                why = f"its coverage ended at {Lsn(ended)}: {closed}"
            raise UnknownStateError(
                f"{name} at {self._position} is not known: {why}",
                fix="`bemi status --coverage` shows from where to where it is",
            )
        ((start, known, opened),) = stretch
        if known is None or known > self._position:
            raise UnknownStateError(
                f"{name} at {self._position} is not known: its rows from before have no baseline"
                f" by then ({opened})",
                fix="`bemi snapshot` takes one",
            )
        gap = self._ask(_IN_THE_WAY, **given, known=known)
        if gap:
            ((cause, missing, until),) = gap
            raise UnknownStateError(
                f"{name} at {self._position} is not known: changes between {Lsn(missing)} and"
                f" {Lsn(until)} are missing ({cause})",
                fix="`bemi snapshot --again` takes a new baseline, behind which it is",
            )
        found = shapes.read(
            self._conn,
            self._schema,
            self._source_id,
            self._epoch,
            relation.relation,
            until=self._position,
        )
        changed = min((place for place, _ in shapes.key_changes(found, start)), default=None)
        tables = [row[0] for row in self._ask(_TABLES, **given)]
        its = given | {"tables": tables, "start": start}
        ((with_key, without),) = self._ask(_KINDS, **its)
        if changed is not None or (with_key and without):
            where = "" if changed is None else f" at {Lsn(changed)}"
            raise UnknownStateError(
                f"{name} at {self._position} is not known: its key became another{where}"
                " (key_changed)",
                fix="`bemi snapshot` takes a new baseline, behind which it is",
            )
        part = _Part(relation.relation, name, tables, with_key, self._epoch, start, known, found)
        if not with_key and self._ask(multiset.UNTOLD, **self._given(part)) == [(True,)]:
            raise UnknownStateError(
                f"{name} at {self._position} is not known: it has no key by which rows are"
                " followed, and which rows went can't be told",
                fix="`bemi snapshot --again` takes a new baseline, behind which it is",
            )
        return part

    def _given(self, part: _Part) -> dict[str, object]:
        return {
            "source_id": self._source_id,
            "relation": part.relation,
            "epoch": part.epoch,
            "position": int(self._position),
            "tables": part.tables,
            # Without keys, what went before the state was known can't be told from what stayed.
            "start": part.start if part.keyed else part.known,
            "shapes": Jsonb(multiset.by_place(part.shapes)),
        }

    def rows(self, part: _Part) -> Iterator[StateRow]:
        if self._key is not None and not part.keyed:
            raise UsageError(
                f"rows of {part.name} have no key to be asked for by", fix="ask for all of them"
            )
        given = {**self._given(part), "key": self._key}
        stale = self._ask(_STALE, **given)
        query = self._statement(keyed.ROWS if part.keyed else multiset.ROWS)
        with self._conn.cursor(f"bemi_state_{part.relation}") as cursor:
            cursor.itersize = _FETCH
            cursor.execute(query, given)
            for key, image, flags, commit_position, ordinal, oldest in cursor:
                whole, kept = shaped(
                    part.shapes,
                    msgspec.Raw(image.encode()),
                    frozenset(flags or ()),
                    (commit_position, ordinal),
                )
                if part.keyed and any(flag.startswith(UNSENT) for flag in kept):
                    whole, kept = self._filled(part, key, commit_position, ordinal)
                old = {f"stale:{column}" for column, to in stale if oldest < to}
                yield StateRow(key, whole, frozenset(kept | old))

    def _filled(
        self, part: _Part, key: str, commit_position: int, ordinal: int
    ) -> tuple[msgspec.Raw, frozenset[str]]:
        """A row whose last change left values out that it did not alter: those of before.

        A baseline's row may stand before a change that was stored when it was not there yet.
        """
        given = {
            "relation": part.relation,
            "epoch": part.epoch,
            "position": int(self._position),
            "tables": part.tables,
            "start": part.start,
            "key": key,
            "at": commit_position,
            "nth": ordinal,
        }
        values: dict[str, msgspec.Raw] = {}
        flags: set[str] = set()
        missing: set[str] | None = None
        for after, told, commit, nth in self._ask(keyed.BEFORE, **given):
            if after is None:
                break
            image, kept = shaped(
                part.shapes, msgspec.Raw(after.encode()), frozenset(told or ()), (commit, nth)
            )
            found = _decode(image)
            if missing is None:
                values, missing = (
                    found,
                    {flag.removeprefix(UNSENT) for flag in kept if flag.startswith(UNSENT)},
                )
                flags = {flag for flag in kept if not flag.startswith(UNSENT)}
            else:
                for column in sorted(missing & found.keys()):
                    values[column] = found[column]
                    flags |= {flag for flag in kept if flag.partition(":")[2] == column}
                    missing.discard(column)
            if not missing:
                break
        left = {f"{UNSENT}{column}" for column in missing or ()}
        return msgspec.Raw(_encode(values)), frozenset(flags | left)

    def _ask(self, text: LiteralString, **given: object) -> list[tuple[Any, ...]]:
        return self._conn.execute(self._statement(text), given).fetchall()

    def _statement(self, text: LiteralString) -> sql.Composed:
        its = sql.SQL(_ITS).format()
        present = sql.SQL(_PRESENT).format(its=its, **self._names)
        counted = multiset.counted(present)
        return sql.SQL(text).format(
            its=its,
            present=present,
            counted=counted,
            **keyed.conditions(self._key),
            **self._names,
        )
