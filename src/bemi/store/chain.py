"""Reads the history of a source for changes that are missing in it, and records where.

Three proofs: the chain of each row's images, the ordinals within each transaction, and the
checkpoint, which no change may lie behind. Whole tables are compared by the destination itself,
a range of keys at a time; what does not fit comes here, and `bemi.store.links` judges it.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, LiteralString

import msgspec
import psycopg
from psycopg import sql

from bemi.rules import Rules
from bemi.store import findings, link_rows, versions
from bemi.store import rules as stored_rules
from bemi.store.link_rows import BASELINE, Scope
from bemi.store.links import Finding, Judge, Known, KnownGap, Stretch

CHUNK: Final = 50_000
"""Changes of one step: few enough to be sorted in memory, if they are not too wide."""


class Table(msgspec.Struct, frozen=True):
    """A table by its present name in the history; `unchecked` says why its rows can't be."""

    relation: int
    schema: str
    table: str
    partition: str | None
    names: tuple[str, ...] = ()
    """All that it had, `schema.table`; a partition's own, and those of the table above it."""
    unchecked: str | None = None

    @property
    def name(self) -> str:
        return self.partition or f"{self.schema}.{self.table}"


class Source(msgspec.Struct, frozen=True):
    """A source with its checkpoint; None before its setup was finished."""

    source_id: int
    name: str
    epoch: int
    position: int


class Step(msgspec.Struct, frozen=True):
    """Progress: `done` of `total` steps, and what this one found."""

    done: int
    total: int
    findings: list[Finding]


def sources(conn: psycopg.Connection[Any], schema: str) -> list[Source]:
    rows = conn.execute(
        sql.SQL(
            "select s.source_id, s.name, k.epoch, k.position from {} s join {} k using (source_id) "
            "order by s.source_id"
        ).format(sql.Identifier(schema, "sources"), sql.Identifier(schema, "checkpoints"))
    )
    return [Source(*row) for row in rows]


class Chain:
    """The chain check of one source, as of the moment in which this is made."""

    def __init__(
        self,
        conn: psycopg.Connection[Any],
        schema: str,
        source: Source,
        *,
        chunk: int = CHUNK,
    ) -> None:
        self._conn = conn
        self._schema = schema
        self._source = source
        self._chunk = chunk
        tables = ("row_changes", "contexts", "intervals", "gaps", "table_versions", "epochs")
        self._tables = {name: sql.Identifier(schema, name) for name in (*tables, "ddl_messages")}
        self._epochs = [
            row[0]
            for row in self._run(
                "select epoch from {epochs} where source_id = %(source)s order by epoch"
            )
        ]
        self._names = self._read_names()
        self._rules = stored_rules.read(conn, schema, source.source_id)
        self._known = Known(
            versions=versions.read(conn, schema, source.source_id),
            rules=self._rules,
            stretches=self._read_stretches(),
            gaps=self._read_gaps(),
            emptied=self._read_emptied(),
            rewritten=self._read_rewritten(),
        )
        self._judge = Judge(self._known)
        self.tables = [
            Table(
                relation,
                *names[-1],
                names=tuple(
                    {
                        name
                        for schema_name, table, partition in names
                        for name in (f"{schema_name}.{table}", partition)
                        if name is not None
                    }
                ),
                unchecked=self._judge.unchecked(relation),
            )
            for relation, names in sorted(self._names.items())
        ]

    def steps(self, scope: Scope, *, ordinals: bool = True) -> Iterator[Step]:
        """Look at everything in the scope, step by step.

        `ordinals`: also at transactions and at the checkpoint, which belong to no table.
        """
        relations = [
            table.relation
            for table in self.tables
            if table.unchecked is None
            and (scope.relations is None or table.relation in scope.relations)
        ]
        work: list[Callable[[], list[Finding]]] = []
        for names, members in _groups({each: self._names[each] for each in relations}):
            bounds = self._bounds(names)
            for low, high in zip([None, *bounds], [*bounds, None], strict=True):
                work.append(_call(self._compare, names, members, low, high, scope))
        if ordinals:
            for epoch in self._epochs:
                places = self._places(epoch)
                for start, until in zip([None, *places], [*places, None], strict=True):
                    work.append(_call(self._holes, epoch, start, until, scope))
            work.append(self._beyond)
        for done, each in enumerate(work, 1):
            yield Step(done, len(work), each())

    # --- what is known beside the changes -----------------------------------------------------

    def _read_names(self) -> dict[int, list[tuple[str, str, str | None]]]:
        """The names that each table had, the present one last."""
        found: dict[int, list[tuple[str, str, str | None]]] = {}
        for relation, *names in self._run(
            'select relation::bigint, schema, "table", partition from ('
            'select relation, schema, "table", partition, epoch, from_position as place '
            "from {table_versions} where source_id = %(source)s union all "
            'select relation, schema, "table", partition, epoch, from_position '
            "from {intervals} where source_id = %(source)s) x order by epoch, place"
        ):
            found.setdefault(relation, []).append((names[0], names[1], names[2]))
        return found

    def _read_stretches(self) -> dict[int, list[Stretch]]:
        found: dict[int, list[Stretch]] = {}
        for relation, epoch, start, until, state in self._run(
            "select relation::bigint, epoch, from_position, to_position, state_position "
            "from {intervals} where source_id = %(source)s order by epoch, from_position"
        ):
            if until is None:
                until = self._source.position if epoch == self._source.epoch else start
            found.setdefault(relation, []).append(Stretch(epoch, start, until, state))
        return found

    def _read_gaps(self) -> list[KnownGap]:
        """All but those that this check found, which it is to find again."""
        return [
            KnownGap(epoch, relation, start, until, None if not columns else frozenset(columns))
            for epoch, relation, start, until, columns in self._run(
                "select epoch, relation::bigint, from_position, to_position, columns from {gaps} "
                "where source_id = %(source)s and cause <> %(cause)s",
                cause=findings.CAUSE,
            )
        ]

    def _read_emptied(self) -> dict[int, list[tuple[int, int, int]]]:
        names = sorted({name for each in self._names.values() for _, name, _ in each})
        return _by_relation(
            self._run(
                "select relation::bigint, epoch, commit_position, ordinal from {row_changes} "
                'where "table" = any(%(names)s) and primary_key is null '
                "and operation = 'TRUNCATE' and epoch = any(%(epochs)s)",
                names=names,
            )
        )

    def _read_rewritten(self) -> dict[int, list[tuple[int, int, int]]]:
        return _by_relation(
            self._run(
                "select relation::bigint, epoch, commit_position, 0 from {ddl_messages} "
                "where source_id = %(source)s and relation is not null "
                "and detail ->> 'event' = 'table_rewrite'"
            )
        )

    # --- the chain ----------------------------------------------------------------------------

    def _bounds(self, names: Sequence[str]) -> list[str]:
        """Keys that divide the tables' changes into chunks of about one size."""
        rows = self._run(
            "select distinct primary_key from (select primary_key, "
            "row_number() over (order by primary_key) as number from {row_changes} "
            'where "table" = any(%(names)s) and primary_key is not null '
            "and epoch = any(%(epochs)s)) x where number %% %(chunk)s = 0 order by 1",
            names=list(names),
            chunk=self._chunk,
        )
        return [row[0] for row in rows]

    def _compare(
        self,
        names: Sequence[str],
        relations: Sequence[int],
        low: str | None,
        high: str | None,
        scope: Scope,
    ) -> list[Finding]:
        found = []
        links = link_rows.read(
            self._conn,
            self._tables,
            epochs=self._epochs,
            end=(self._source.epoch, self._source.position),
            names=names,
            relations=relations,
            low=low,
            high=high,
            scope=scope,
        )
        for link in links:
            finding = self._judge.judge(link)
            if finding is not None:
                found.append(finding)
        return found

    # --- transactions and the checkpoint ------------------------------------------------------

    def _places(self, epoch: int) -> list[int]:
        """Commit positions that divide an epoch into chunks."""
        rows = self._run(
            "select distinct commit_position from (select commit_position, "
            "row_number() over (order by commit_position) as number from {row_changes} "
            "where epoch = %(of)s) x where number %% %(chunk)s = 0 order by 1",
            of=epoch,
            chunk=self._chunk,
        )
        return [row[0] for row in rows]

    def _holes(
        self, epoch: int, start: int | None, until: int | None, scope: Scope
    ) -> list[Finding]:
        """Transactions of which some change is missing, where no rules leave any out."""
        rows = self._run(
            "select commit_position from {row_changes} r where epoch = %(of)s "
            "and commit_position >= %(start)s and commit_position < %(until)s "
            "and context_id & %(baseline)s = 0 "
            "and (%(since)s::timestamptz is null or committed_at >= %(since)s) "
            "and (%(upto)s::timestamptz is null or committed_at <= %(upto)s) "
            "group by commit_position having count(*) <> max(ordinal) or min(ordinal) <> 1 "
            "order by 1",
            of=epoch,
            start=start or 0,
            until=_LAST if until is None else until,
            since=scope.since,
            upto=scope.until,
            baseline=BASELINE,
        )
        quiet = self._left_out(epoch)
        return [
            Finding(None, epoch, "hole", position, position)
            for (position,) in rows
            if not any(begin <= position < end for begin, end in quiet)
        ]

    def _left_out(self, epoch: int) -> list[tuple[int, int]]:
        """Where rules left changes out, so that ordinals have holes."""
        rows = list(
            self._conn.execute(
                sql.SQL(
                    "select rules_id, epoch, from_position from {} where source_id = %s "
                    "order by rules_id"
                ).format(sql.Identifier(self._schema, "rules")),
                [self._source.source_id],
            )
        )
        found = []
        for at, (number, begun, start) in enumerate(rows):
            if not _leaves_out(self._rules[number]):
                continue
            ended, end = rows[at + 1][1:] if at + 1 < len(rows) else (self._source.epoch, _LAST)
            if begun <= epoch <= ended:
                found.append((start if begun == epoch else 0, end if ended == epoch else _LAST))
        return found

    def _beyond(self) -> list[Finding]:
        """Changes that the checkpoint does not vouch for: they were not written with it."""
        rows = self._conn.execute(
            sql.SQL(
                "select k.epoch, k.position, count(*), max(r.commit_position) from {} k join {} r "
                "on r.epoch = k.epoch and r.commit_position >= k.position "
                "where k.source_id = %s and r.context_id & %s = 0 group by 1, 2"
            ).format(
                sql.Identifier(self._schema, "checkpoints"),
                sql.Identifier(self._schema, "row_changes"),
            ),
            [self._source.source_id, BASELINE],
        )
        return [Finding(None, epoch, "beyond", position, last) for epoch, position, _, last in rows]

    def _run(self, query: LiteralString, **parameters: object) -> psycopg.Cursor[Any]:
        return self._conn.execute(
            sql.SQL(query).format(**self._tables),
            {"source": self._source.source_id, "epochs": getattr(self, "_epochs", [])} | parameters,
        )


def _groups(
    names: dict[int, list[tuple[str, str, str | None]]],
) -> list[tuple[list[str], list[int]]]:
    """Tables that share a name in the history, since that is what the index begins with."""
    groups: list[tuple[set[str], set[int]]] = []
    for relation, found in names.items():
        joined = ({name for _, name, _ in found}, {relation})
        for group in [each for each in groups if each[0] & joined[0]]:
            groups.remove(group)
            joined = (joined[0] | group[0], joined[1] | group[1])
        groups.append(joined)
    return [(sorted(some), sorted(members)) for some, members in groups]


def _by_relation(rows: psycopg.Cursor[Any]) -> dict[int, list[tuple[int, int, int]]]:
    found: dict[int, list[tuple[int, int, int]]] = {}
    for relation, epoch, position, ordinal in rows:
        found.setdefault(relation, []).append((epoch, position, ordinal))
    for places in found.values():
        places.sort()
    return found


def _call(
    function: Callable[..., list[Finding]], *arguments: object
) -> Callable[[], list[Finding]]:
    return lambda: function(*arguments)


def _leaves_out(rules: Rules) -> bool:
    return bool(rules.skip or rules.ignore or rules.exclude)


_LAST: Final = (1 << 63) - 1
