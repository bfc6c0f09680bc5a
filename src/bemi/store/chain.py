"""Reads the history of a source for changes that are missing in it, and records where.

Three proofs: the chain of each row's images, the ordinals within each transaction, and the
checkpoint, which no change may lie behind. Whole tables are compared by the destination itself,
a range of keys at a time; what does not fit comes here, and `bemi.store.links` judges it.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, Final, LiteralString

import msgspec
import psycopg
from psycopg import sql

from bemi.lsn import Lsn
from bemi.rules import Rules
from bemi.store import rules as stored_rules
from bemi.store import versions
from bemi.store.links import Event, Finding, Judge, Known, KnownGap, Link, Stretch

CAUSE: Final = "chain"

CHUNK: Final = 50_000
"""Changes of one step: few enough to be sorted in memory, if they are not too wide."""

_FETCH: Final = 2000
_BASELINE: Final = 1 << 31  # in the ids of a baseline's contexts


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


class Scope(msgspec.Struct, frozen=True):
    """What is looked at: changes committed in this time, of these tables; None: all."""

    since: datetime | None = None
    until: datetime | None = None
    relations: frozenset[int] | None = None


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
                cause=CAUSE,
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
        for link in self._links(names, relations, low, high, scope):
            finding = self._judge.judge(link)
            if finding is not None:
                found.append(finding)
        return found

    def _links(
        self,
        names: Sequence[str],
        relations: Sequence[int],
        low: str | None,
        high: str | None,
        scope: Scope,
    ) -> Iterator[Link]:
        parameters = {
            "names": list(names),
            "relations": list(relations),
            "low": low,
            "high": high,
            "epochs": self._epochs,
            "epoch": self._source.epoch,
            "position": self._source.position,
            "baseline": _BASELINE,
            "since": scope.since,
            "until": scope.until,
        }
        query = sql.SQL(_LINKS).format(
            **self._tables,
            of=_among("relation", relations),
            new=_within("primary_key", low, high),
            old=_within("previous_key", low, high),
            touched=sql.SQL(_TOUCHED).format(**self._tables) if scope.since else sql.SQL(""),
            new_touched=_touched("primary_key", scope),
            old_touched=_touched("previous_key", scope),
            when=_when(scope),
        )
        with self._conn.transaction(), self._conn.cursor("bemi_chain") as cursor:
            self._conn.execute("set local work_mem = '64MB'; set local jit = off")
            cursor.itersize = _FETCH
            cursor.execute(query, parameters)
            for relation, epoch, problem, columns, now_ambiguous, was_ambiguous, *rest in cursor:
                now, last = rest[:6], rest[6:]
                yield Link(
                    relation,
                    epoch,
                    problem,
                    _event(now, now_ambiguous),
                    None if last[0] is None else _event(last, was_ambiguous),
                    tuple(columns or ()),
                )

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
            baseline=_BASELINE,
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
            [self._source.source_id, _BASELINE],
        )
        return [Finding(None, epoch, "beyond", position, last) for epoch, position, _, last in rows]

    def _run(self, query: LiteralString, **parameters: object) -> psycopg.Cursor[Any]:
        return self._conn.execute(
            sql.SQL(query).format(**self._tables),
            {"source": self._source.source_id, "epochs": getattr(self, "_epochs", [])} | parameters,
        )


def place_of(finding: Finding) -> tuple[int, int | None, int, int]:
    """What makes two findings one gap: epoch, table, and between which positions."""
    return (finding.epoch, finding.relation, finding.from_position, finding.to_position)


def record(
    conn: psycopg.Connection[Any], schema: str, source_id: int, findings: Sequence[Finding]
) -> None:
    """Keep findings as gaps, each place once, however often it is found."""
    places: dict[tuple[int, int | None, int, int], list[Finding]] = {}
    for each in findings:
        if each.problem == "beyond":
            continue  # nothing is missing there
        places.setdefault(place_of(each), []).append(each)
    with conn.transaction(), conn.cursor() as cursor:
        cursor.executemany(
            sql.SQL(
                "insert into {} (source_id, epoch, relation, from_position, to_position, cause, "
                "detail) values (%s, %s, %s, %s, %s, %s, %s) on conflict do nothing"
            ).format(sql.Identifier(schema, "gaps")),
            [
                (source_id, epoch, relation, start, until, CAUSE, _detail(found))
                for (epoch, relation, start, until), found in places.items()
            ],
        )


def accepted(
    conn: psycopg.Connection[Any], schema: str, source_id: int
) -> set[tuple[int, int | None, int, int]]:
    """The places of findings that an operator has accepted."""
    return {
        (epoch, relation, start, until)
        for epoch, relation, start, until in conn.execute(
            sql.SQL(
                "select epoch, relation::bigint, from_position, to_position from {} "
                "where source_id = %s and cause = %s and accepted_at is not null"
            ).format(sql.Identifier(schema, "gaps")),
            [source_id, CAUSE],
        )
    }


def accept(conn: psycopg.Connection[Any], schema: str, source_id: int) -> int:
    """Mark all recorded findings of a source as accepted; how many were not."""
    return conn.execute(
        sql.SQL(
            "update {} set accepted_at = now() where source_id = %s and cause = %s "
            "and accepted_at is null"
        ).format(sql.Identifier(schema, "gaps")),
        [source_id, CAUSE],
    ).rowcount


def say(finding: Finding) -> str:
    """What a finding means, in words."""
    columns = f" ({', '.join(finding.columns)})" if finding.columns else ""
    return {
        "differs": "a row was changed from other values than the change before left" + columns,
        "living": "a row was created that was there",
        "dead": "a row was changed that was gone",
        "never": "a row was changed that never was",
        "hole": "a transaction has not all of its changes",
        "beyond": "changes lie behind the checkpoint, up to " + str(Lsn(finding.to_position)),
    }[finding.problem]


def _detail(findings: Sequence[Finding]) -> str:
    return "; ".join(sorted({say(each) for each in findings}))[:2000]


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


def _event(columns: Sequence[Any], ambiguous: bool | None) -> Event:
    change, position, ordinal, flags, transaction, rules = columns
    return Event(
        str(change),
        position,
        ordinal,
        transaction or 0,
        rules,
        frozenset(flags or ()),
        bool(ambiguous),
    )


def _call(
    function: Callable[..., list[Finding]], *arguments: object
) -> Callable[[], list[Finding]]:
    return lambda: function(*arguments)


def _leaves_out(rules: Rules) -> bool:
    return bool(rules.skip or rules.ignore or rules.exclude)


def _among(column: LiteralString, relations: Sequence[int]) -> sql.Composable:
    if len(relations) == 1:
        return sql.SQL("{} = (%(relations)s::oid[])[1]").format(sql.Identifier(column))
    return sql.SQL("{} = any(%(relations)s::oid[])").format(sql.Identifier(column))


def _within(column: LiteralString, low: str | None, high: str | None) -> sql.Composable:
    parts: list[LiteralString] = ["{0} is not null"]
    if low is not None:
        parts.append("{0} >= %(low)s")
    if high is not None:
        parts.append("{0} < %(high)s")
    return sql.SQL(" and ".join(parts)).format(sql.Identifier(column))


def _touched(column: LiteralString, scope: Scope) -> sql.Composable:
    if scope.since is None:
        return sql.SQL("")
    return sql.SQL("and {} in (select key from touched)").format(sql.Identifier(column))


def _when(scope: Scope) -> sql.Composable:
    parts: list[LiteralString] = []
    if scope.since is not None:
        parts.append("and x.committed_at >= %(since)s")
    if scope.until is not None:
        parts.append("and x.committed_at <= %(until)s")
    return sql.SQL(" ").join(map(sql.SQL, parts))


_LAST: Final = (1 << 63) - 1

_TOUCHED: Final[LiteralString] = """
touched as materialized (
    select primary_key as key from {row_changes}
    where "table" = any(%(names)s) and committed_at >= %(since)s and primary_key is not null
    union
    select previous_key from {row_changes}
    where "table" = any(%(names)s) and committed_at >= %(since)s and previous_key is not null
),
"""

# Every change as a link of its key's chain; one that moves a row to another key, as one of both.
# `image` is what a change says the row was, `after` what it leaves.
_LINKS: Final[LiteralString] = """
with {touched}
events as (
    select relation, epoch, primary_key as key, commit_position, ordinal, committed_at, id,
        context_id, flags, before, changed, after,
        case
            when context_id & %(baseline)s <> 0 or operation = 'SNAPSHOT'
                then case operation when 'DELETE' then 'ended' else 'stated' end
            when operation = 'CREATE' then 'created'
            when operation = 'DELETE' then 'deleted'
            when previous_key is null then 'updated'
            else 'arrived'
        end as kind
    from {row_changes}
    where "table" = any(%(names)s) and {of} and {new} and epoch = any(%(epochs)s)
        and (epoch <> %(epoch)s or commit_position < %(position)s) {new_touched}
    union all
    select relation, epoch, previous_key, commit_position, ordinal, committed_at, id,
        context_id, flags, before, changed, after, 'left'
    from {row_changes}
    where "table" = any(%(names)s) and {of} and {old} and epoch = any(%(epochs)s)
        and (epoch <> %(epoch)s or commit_position < %(position)s) {old_touched}
        and operation = 'UPDATE' and context_id & %(baseline)s = 0
),
linked as (
    select *, lag(kind) over w as last_kind, lag(after) over w as last_after
    from events
    window w as (partition by relation, epoch, key order by commit_position, ordinal)
),
marked as (
    select *,
        bool_or(
            kind in ('created', 'arrived')
            and last_kind in ('created', 'arrived', 'updated', 'stated')
        ) over t and bool_or(kind in ('deleted', 'left')) over t as ambiguous,
        -- Not all of a row may be known of it.
        coalesce(before, after || changed) <> last_after as differs
    from linked
    window t as (partition by relation, epoch, key, commit_position)
),
known as (
    select *,
        lag(id) over w as last_id, lag(commit_position) over w as last_position,
        lag(ordinal) over w as last_ordinal, lag(flags) over w as last_flags,
        lag(context_id) over w as last_context, lag(ambiguous) over w as last_ambiguous
    from marked
    window w as (partition by relation, epoch, key order by commit_position, ordinal)
),
judged as (
    select x.*,
        case
            when kind in ('created', 'arrived') then
                case when last_kind in ('created', 'arrived', 'updated', 'stated') then 'living' end
            when kind in ('updated', 'deleted', 'left') then case
                when last_kind is null then 'never'
                when last_kind in ('deleted', 'left', 'ended') then 'dead'
                when differs then 'differs'
            end
        end as problem
    from known x
    where kind not in ('stated', 'ended') {when}
)
select j.relation::bigint, j.epoch, j.problem, d.columns, j.ambiguous, j.last_ambiguous,
    j.id, j.commit_position, j.ordinal, j.flags, c.transaction_id, c.rules,
    j.last_id, j.last_position, j.last_ordinal, j.last_flags, p.transaction_id, p.rules
from judged j
left join lateral (
    select array_agg(b.key order by b.key) as columns
    from jsonb_each(coalesce(j.before, j.after || j.changed)) b
    where j.problem = 'differs' and j.last_after ? b.key and j.last_after -> b.key <> b.value
) d on true
left join lateral (
    select transaction_id, rules from {contexts} where id = j.context_id limit 1
) c on true
left join lateral (
    select transaction_id, rules from {contexts} where id = j.last_context limit 1
) p on true
where j.problem is not null and (j.problem <> 'differs' or d.columns is not null)
"""
