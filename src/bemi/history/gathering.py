"""Reads, of all rows that chosen changes are of, what happened to them from the first one on."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, LiteralString, TypeVar
from uuid import UUID

import msgspec
import psycopg
from psycopg import sql

from bemi.errors import UnknownStateError, UsageError
from bemi.history.families import Family, Relation, families, key_of
from bemi.history.following import COLUMNS, Found, lacking
from bemi.history.lives import Life, Place, Step, Value, lives
from bemi.history.state import state
from bemi.lsn import Lsn
from bemi.store.filters import Filters
from bemi.store.query import compiled

_BATCH: Final = 5000
_PLACES: Final = ("committed_at", "commit_position", "ordinal", "epoch", "source")
_UNPLACED: Final = "before_unknown"

_Each = TypeVar("_Each")


class Refused(msgspec.Struct, frozen=True):
    """Something chosen whose effect the history can't tell; `change`: the chosen one."""

    table: str
    message: str
    change: UUID


class Rows(msgspec.Struct, frozen=True):
    """The rows of one table that chosen changes are of. `elsewhere`: they were made when the source
    was another database, in which tables had other numbers."""

    family: Family
    lives: list[Life]
    elsewhere: bool


class Gathered(msgspec.Struct, frozen=True):
    """`position`: until where the history was read; `changes`: how many were chosen."""

    source: str
    epoch: int
    position: Lsn
    changes: int
    ids: tuple[UUID, ...]
    rows: list[Rows]
    refused: list[Refused]
    notes: list[str]


class _Chosen(msgspec.Struct, frozen=True):
    relation: int
    place: Place
    operation: str
    key: str | None
    previous: str | None
    id: UUID
    silent: bool
    """It has columns of which can't be told whether it changed them."""


_OF_TABLE: Final[LiteralString] = """
select {columns} from {changes} r
where r."table" = any(%(names)s) and r.relation = any(%(relations)s)
    and (r.epoch > %(epoch)s or r.epoch = %(epoch)s and r.commit_position >= %(position)s)
    and {which}
"""

_ELSEWHERE: Final[LiteralString] = """
select distinct on (v.relation, v.epoch) v.relation::bigint, v.schema || '.' || v."table"
from (select distinct * from unnest(%(relations)s::bigint[], %(epochs)s::int[]) w (oid, epoch)) w
join {epochs} e on e.epoch = w.epoch
join {epochs} now on now.epoch = %(now)s
    and (now.system_identifier, now.database_oid)
        is distinct from (e.system_identifier, e.database_oid)
join {versions} v on v.source_id = %(source_id)s and v.epoch = w.epoch
    and v.relation::bigint = w.oid
order by v.relation, v.epoch, v.from_position desc, v.from_ordinal desc
"""

_OTHERS: Final = "the source is another database since, in which {} has another number"


def gather(conn: psycopg.Connection[Any], schema: str, wanted: Sequence[Filters]) -> Gathered:
    """Raises `UsageError` where nothing is chosen, or changes of several sources are.

    `wanted`: what any of these lets through is chosen.
    """
    with conn.transaction():
        conn.execute("set transaction isolation level repeatable read, read only")
        return _Gathering(conn, schema).gather(wanted)


class _Gathering:
    def __init__(self, conn: psycopg.Connection[Any], schema: str) -> None:
        self._conn = conn
        self._schema = schema
        self._chosen: dict[Place, _Chosen] = {}
        self._source = ""
        self._refused: list[Refused] = []
        self._notes: dict[str, None] = {}

    def gather(self, wanted: Sequence[Filters]) -> Gathered:
        self._choose(wanted)
        source_id, epoch, position = self._checkpoint()
        relations = {each.relation for each in self._chosen.values()}
        names = self._elsewhere(source_id, epoch)
        rows = []
        for family in families(self._conn, self._schema, source_id, relations):
            were = {name for oid in family.relations for name in names.get(oid, ())}
            if were - {family.name}:
                first = next(c for c in self._chosen.values() if c.relation in family.relations)
                self._refuse(family, _OTHERS.format(", ".join(sorted(were))), first.id)
                continue
            steps = self._steps(family)
            rows.append(Rows(family, lives(steps, keyed=family.keyed), bool(were)))
        rows.sort(key=lambda each: each.family.name)
        return Gathered(
            self._source,
            epoch,
            position,
            len(self._chosen),
            tuple(each.id for each in self._chosen.values()),
            rows,
            self._refused,
            [*self._notes],
        )

    def _choose(self, wanted: Sequence[Filters]) -> None:
        sources = set()
        for filters in wanted:
            query, parameters = compiled(self._schema, filters, _PLACES)
            rows = self._conn.execute(
                sql.SQL(
                    "select c.source, r.relation::bigint, r.epoch, r.commit_position, r.ordinal, "
                    "r.operation, r.primary_key, r.previous_key, r.id, "
                    "array_to_string(r.flags, chr(10)) ~ '(^|\\n)(masked|too_large):' "
                    "from ({}) c join {} r using (committed_at, commit_position, ordinal, epoch)"
                ).format(query, sql.Identifier(self._schema, "row_changes")),
                parameters,
            )
            for source, relation, epoch, commit, ordinal, operation, *rest in rows:
                if operation == "SNAPSHOT":
                    continue  # nothing was done: the row was there
                sources.add(source)
                place = (epoch, commit, ordinal)
                self._chosen[place] = _Chosen(relation, place, operation, *rest)
        if len(sources) > 1:
            raise UsageError(
                f"changes of several sources match: {', '.join(sorted(sources))}",
                fix="say which source is meant: --source, or source=",
            )
        if not sources:
            raise UnknownStateError(
                "no changes match", fix="`bemi changes` with the same filters lists what matches"
            )
        (self._source,) = sources

    def _checkpoint(self) -> tuple[int, int, Lsn]:
        row = self._conn.execute(
            sql.SQL(
                "select s.source_id, k.epoch, k.position from {} s join {} k using (source_id)"
                " where s.name = %s"
            ).format(
                sql.Identifier(self._schema, "sources"),
                sql.Identifier(self._schema, "checkpoints"),
            ),
            [self._source],
        ).fetchone()
        assert row is not None
        return row[0], row[1], Lsn(row[2])

    def _elsewhere(self, source_id: int, epoch: int) -> dict[int, set[str]]:
        """Of relations that were chosen when the source was another database: their names there."""
        rows = self._conn.execute(
            sql.SQL(_ELSEWHERE).format(
                versions=sql.Identifier(self._schema, "table_versions"),
                epochs=sql.Identifier(self._schema, "epochs"),
            ),
            {
                "source_id": source_id,
                "now": epoch,
                "relations": [each.relation for each in self._chosen.values()],
                "epochs": [each.place[0] for each in self._chosen.values()],
            },
        )
        found: dict[int, set[str]] = {}
        for relation, name in rows:
            found.setdefault(relation, set()).add(name)
        return found

    def _steps(self, family: Family) -> list[Step]:
        """What happened to the rows that are chosen, in the order of the log."""
        ours = [each for each in self._chosen.values() if each.relation in family.relations]
        first = min(each.place for each in ours)[:2]
        found = Found(self, family)
        if family.keyed:
            starts: dict[str, tuple[int, int]] = {}
            for each in ours:
                for key in (each.key, each.previous):
                    if key is not None:
                        starts[key] = min(starts.get(key, each.place[:2]), each.place[:2])
            while starts:
                starts = found.follow(starts)
            found.take(self._ask(family, _OF_TABLE, first, _IS_TRUNCATE))
        else:
            found.take(self._ask(family, _OF_TABLE, first, _ANY))
        of_rows = [each for each in ours if each.operation != "TRUNCATE"]
        if of_rows and any(each.key is None for each in of_rows) == family.keyed:
            self._refuse(family, "its key became another since", ours[0].id)
            return []
        emptied: set[tuple[int, tuple[int, int]]] = set()
        for each in ours:
            if each.operation == "TRUNCATE" and (each.relation, each.place[:2]) not in emptied:
                emptied.add((each.relation, each.place[:2]))
                found.remember(self._before_truncate(family, each))
            if each.silent:
                self.note(
                    f"{family.name}: what the changes did to columns that are masked in the"
                    " history, or too large for it, is not known: they stay as they are"
                )
        return found.in_order()

    def _ask(
        self,
        family: Family,
        query: LiteralString,
        first: tuple[int, int],
        which: sql.SQL,
    ) -> Iterator[tuple[Any, ...]]:
        yield from self._conn.execute(
            self.statement(query, which=which),
            {
                "names": family.names,
                "relations": [*family.relations],
                "epoch": first[0],
                "position": first[1],
            },
        )

    def statement(self, query: LiteralString, **more: sql.Composable) -> sql.Composed:
        return sql.SQL(query).format(
            columns=sql.SQL(COLUMNS).format(contexts=sql.Identifier(self._schema, "contexts")),
            changes=sql.Identifier(self._schema, "row_changes"),
            **more,
        )

    def ask(self, query: sql.Composed, given: Mapping[str, object]) -> list[tuple[Any, ...]]:
        return self._conn.execute(query, given).fetchall()

    def _refuse(self, family: Family, message: str, change: UUID) -> None:
        self._refused.append(Refused(family.name, message, change))

    def note(self, text: str) -> None:
        self._notes[text] = None

    def is_chosen(self, place: Place) -> bool:
        return place in self._chosen

    def _before_truncate(self, family: Family, truncate: _Chosen) -> Iterator[Step]:
        """The rows that a TRUNCATE took: as they were before its transaction, seen there."""
        epoch, commit, _ = truncate.place
        relation = family.relations[truncate.relation]
        before = Lsn(commit - 1)
        name = relation.partition or family.name
        try:
            rows = list(state(self._conn, self._schema, self._source, name, before, epoch=epoch))
        except UnknownStateError as error:
            self._refuse(family, f"the rows that TRUNCATE took are not known: {error}", truncate.id)
            return
        for row in rows:
            image = relation.values(
                epoch, (before, 0), bytes(row.image).decode(), row.flags, whole=True
            )
            image |= lacking(row.flags)
            yield Step(
                truncate.id,
                (epoch, commit, 0),
                relation.oid,
                "SNAPSHOT",
                False,
                key_of(family.key, image, row.key),
                None,
                {},
                image,
            )

    def before(
        self, family: Family, relation: Relation, place: Place, key: str
    ) -> dict[str, Value]:
        """A row as it was before the transaction of `place`, where that can be told."""
        epoch, commit, _ = place
        name = relation.partition or family.name
        try:
            # To the end: what is left early is cancelled, which takes another connection.
            rows = list(
                state(
                    self._conn,
                    self._schema,
                    self._source,
                    name,
                    Lsn(commit - 1),
                    epoch=epoch,
                    key=key,
                )
            )
        except UnknownStateError:
            return {}
        if not rows or any(flag.startswith("stale:") for flag in rows[0].flags):
            return {}
        image = bytes(rows[0].image).decode()
        return relation.values(epoch, (commit - 1, 0), image, rows[0].flags, whole=True)


_ANY: Final = sql.SQL("true")
_IS_TRUNCATE: Final = sql.SQL("r.operation = 'TRUNCATE'")
