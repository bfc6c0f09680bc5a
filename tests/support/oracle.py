"""The truth about a source, from triggers, and its comparison with the history.

It shares nothing with what it judges: the source's own triggers write down what was done, under
which transaction and context, into tables that are not published; the comparison is SQL over
both. What it relies on: a session's sequence numbers rise, AFTER ROW triggers fire in the order
of the rows, a row's lock is held until its transaction has committed. Foreign keys with cascades
would break the second, so tables that it watches have none.
"""

import contextlib
import dataclasses
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import psycopg
from psycopg import sql

from bemi.config import Settings

Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class Tracked:
    """A table that the oracle watches. `full`: its replica identity is FULL, it has whole images.

    `leaves` are a partitioned table's: TRUNCATE is one change for each.
    """

    name: str
    key: tuple[str, ...]
    full: bool = True
    leaves: tuple[str, ...] = ()


@dataclass(frozen=True)
class Findings:
    """What the comparison found, in numbers; all but the first two are faults."""

    transactions: int
    changes: int
    lost: int
    extra: int
    out_of_order: int
    """Changes at another place of their transaction than they were made."""
    wrong_contexts: int
    wrong_images: int
    unknown_images: int
    """Changes of tables without FULL whose old row the history did not have: it is empty at first,
    so it has all of them unless changes were lost."""
    wrong_times: int
    """Changes whose `committed_at` is not what the source itself says."""
    holes: int
    """Transactions whose ordinals are not 1 to n."""
    split: int
    """Transactions at several commit positions, or several at one."""
    commit_disorder: int
    """Changes that a session, a row's lock or the turn says came later than history has it."""
    broken_chains: int
    """Changes whose before-image is not what the change before left behind."""
    replay_differences: int
    """Rows that replaying the history gives and the source has not, or the other way."""
    duplicate_ids: int
    stray_contexts: int
    """Contexts that no change refers to: they were stored without their rows."""

    @property
    def faults(self) -> dict[str, int]:
        numbers = dataclasses.asdict(self)
        return {name: count for name, count in list(numbers.items())[2:] if count}

    def __str__(self) -> str:
        return ", ".join(f"{count} {name}" for name, count in dataclasses.asdict(self).items())


class Oracle:
    """Watches `tables` of one source."""

    def __init__(self, source_url: str, tables: Sequence[Tracked]) -> None:
        self._source_url = source_url
        self._tables = tuple(tables)

    def install(self, conn: Connection) -> None:
        """Make its tables and triggers. To be done while nobody writes."""
        conn.execute(_INSTALL)
        for table in self._tables:
            name = sql.Identifier(*table.name.split("."))
            conn.execute(
                sql.SQL(
                    "create trigger oracle after insert or update or delete on {} "
                    "for each row execute function oracle.record({})"
                ).format(name, sql.Literal(table.name))
            )
            for leaf in table.leaves or (table.name,):
                conn.execute(
                    sql.SQL(
                        "create trigger oracle_truncate after truncate on {} "
                        "for each statement execute function oracle.record({})"
                    ).format(sql.Identifier(*leaf.split(".")), sql.Literal(table.name))
                )

    def rows(self) -> int:
        """How many changes were committed so far."""
        with psycopg.connect(self._source_url) as conn:
            row = conn.execute("select count(*) from oracle.rows").fetchone()
        assert row is not None
        return int(row[0])

    def compare(self, settings: Settings) -> Findings:
        """Judge the history. To be done when the source is at rest and the worker has caught up."""
        with (
            psycopg.connect(self._source_url) as source,
            psycopg.connect(settings.destination_url) as destination,
        ):
            # What is read here is the truth; what decodes it is PostgreSQL's own COPY.
            destination.execute("set work_mem = '256MB'")
            destination.execute("set jit = off")
            destination.execute(_TABLES)
            self._load(source, destination)
            destination.execute(_TRUTH)
            destination.execute(
                sql.SQL(_HISTORY).format(sql.Identifier(settings.schema, "changes")),
                [settings.source],
            )
            for statement in _MATCH:
                destination.execute(statement)
            numbers = {}
            for name, query in _NUMBERS.items():
                row = destination.execute(query).fetchone()
                assert row is not None
                numbers[name] = int(row[0])
            stray = destination.execute(
                sql.SQL(
                    "select count(*) from {contexts} c where not exists "
                    "(select from {changes} r where r.context_id = c.id)"
                ).format(
                    contexts=sql.Identifier(settings.schema, "contexts"),
                    changes=sql.Identifier(settings.schema, "row_changes"),
                )
            ).fetchone()
            assert stray is not None
            destination.rollback()
        return Findings(**numbers, stray_contexts=int(stray[0]))

    def examples(self, settings: Settings, limit: int = 5) -> str:
        """Some faults in full, for a failed test's message."""
        with (
            psycopg.connect(self._source_url) as source,
            psycopg.connect(settings.destination_url) as destination,
        ):
            destination.execute(_TABLES)
            self._load(source, destination)
            destination.execute(_TRUTH)
            destination.execute(
                sql.SQL(_HISTORY).format(sql.Identifier(settings.schema, "changes")),
                [settings.source],
            )
            for statement in _MATCH:
                destination.execute(statement)
            cursor = destination.execute(_EXAMPLES, [limit])
            rows = cursor.fetchall()
            destination.rollback()
        return "\n".join(str(row) for row in rows)

    def _load(self, source: Connection, destination: Connection) -> None:
        for table in self._tables:
            destination.execute(
                "insert into tracked values (%s, %s, %s)",
                [table.name, list(table.key), table.full],
            )
            _copy(
                source,
                destination,
                sql.SQL("select {}, to_jsonb(t) from {} t").format(
                    sql.Literal(table.name), sql.Identifier(*table.name.split("."))
                ),
                "present",
            )
        _copy(source, destination, sql.SQL(_READ_ROWS), "recorded")
        _copy(source, destination, sql.SQL("select xid, seq, context from oracle.contexts"), "said")
        _copy(source, destination, sql.SQL("select xid, turn from oracle.turns"), "turns")
        on = source.execute("show track_commit_timestamp").fetchone()
        if on == ("on",):
            _copy(source, destination, sql.SQL(_READ_TIMES), "times")


def _copy(source: Connection, destination: Connection, query: sql.Composable, into: str) -> None:
    with (
        source.cursor() as reading,
        destination.cursor() as writing,
        reading.copy(sql.SQL("copy ({}) to stdout (format binary)").format(query)) as rows,
        writing.copy(
            sql.SQL("copy {} from stdin (format binary)").format(sql.Identifier(into))
        ) as copy,
    ):
        for data in rows:
            copy.write(data)


class SlotMonitor:
    """Looks, while it is entered, whether the source was ever told more than was stored.

    The slot is read first: the checkpoint can only have grown by the time it is read.
    """

    def __init__(self, settings: Settings, *, interval: float = 0.03) -> None:
        self._settings = settings
        self._interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="slot-monitor", daemon=True)
        self.samples = 0
        self.ahead = 0
        """Samples in which the slot was ahead of the checkpoint."""
        self.positions: set[int] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            # A server that is being restarted is looked at again when it is back.
            with contextlib.suppress(psycopg.OperationalError):
                self._watch()
            self._stop.wait(self._interval)

    def _watch(self) -> None:
        schema = sql.Identifier(self._settings.schema, "checkpoints")
        sources = sql.Identifier(self._settings.schema, "sources")
        with (
            psycopg.connect(self._settings.source_url, autocommit=True) as source,
            psycopg.connect(self._settings.destination_url, autocommit=True) as destination,
        ):
            while not self._stop.is_set():
                slot = source.execute(
                    "select confirmed_flush_lsn - '0/0' from pg_replication_slots "
                    "where slot_name = %s",
                    [self._settings.slot],
                ).fetchone()
                stored = destination.execute(
                    sql.SQL(
                        "select position from {} join {} using (source_id) where name = %s"
                    ).format(schema, sources),
                    [self._settings.source],
                ).fetchone()
                assert slot is not None
                assert stored is not None
                self.samples += 1
                self.ahead += slot[0] > stored[0]
                self.positions.add(int(stored[0]))
                self._stop.wait(self._interval)


_INSTALL: Final = b"""
create schema oracle;
create sequence oracle.seq;
create table oracle.rows (
    seq bigint not null default nextval('oracle.seq'),
    xid bigint not null, pid int not null, tbl text not null, op text not null,
    old jsonb, new jsonb, context jsonb
);
create table oracle.contexts (
    seq bigint not null default nextval('oracle.seq'), xid bigint not null, context jsonb not null
);
-- Whoever takes a turn holds the row's lock until its commit is in the log: turns are commit order.
create table oracle.turn (n bigint not null);
insert into oracle.turn values (0);
create table oracle.turns (xid bigint not null, turn bigint not null);

create function oracle.record() returns trigger language plpgsql as $$
declare
    was jsonb;
    becomes jsonb;
begin
    if tg_op in ('UPDATE', 'DELETE') then was := to_jsonb(old); end if;
    if tg_op in ('INSERT', 'UPDATE') then becomes := to_jsonb(new); end if;
    insert into oracle.rows (xid, pid, tbl, op, old, new, context) values (
        pg_current_xact_id()::text::bigint, pg_backend_pid(), tg_argv[0], tg_op, was, becomes,
        nullif(current_setting('test.context', true), '')::jsonb);
    return null;
end $$;

-- Says a context to both: to Bemi by its message, to the oracle by a setting that ends with the
-- transaction and goes back with a savepoint, as the message does.
create function oracle.set_context(context jsonb) returns void language sql as $$
    select pg_logical_emit_message(true, '_bemi', context::text);
    select set_config('test.context', context::text, true);
    insert into oracle.contexts (xid, context) values (pg_current_xact_id()::text::bigint, context);
$$;

create function oracle.take_turn() returns void language sql as $$
    with taken as (update oracle.turn set n = n + 1 returning n)
    insert into oracle.turns select pg_current_xact_id()::text::bigint, n from taken;
$$;
"""

_READ_ROWS: Final = "select seq, xid, pid, tbl, op, old, new, context from oracle.rows"
_READ_TIMES: Final = """
select xid, pg_xact_commit_timestamp(xid::text::xid8::xid)
from (select distinct xid from oracle.rows) x
"""

_TABLES: Final = b"""
create temp table tracked (tbl text, key text[], whole boolean);
create temp table present (tbl text, image jsonb);
create temp table recorded
    (seq bigint, xid bigint, pid int, tbl text, op text, old jsonb, new jsonb, context jsonb);
create temp table said (xid bigint, seq bigint, context jsonb);
create temp table turns (xid bigint, turn bigint);
create temp table times (xid bigint, committed_at timestamptz);
"""

_TRUTH: Final = b"""
analyze recorded; analyze said; analyze times; analyze tracked;
create temp table truth as
select
    r.seq, r.xid, r.pid, r.tbl, t.whole,
    case r.op when 'INSERT' then 'CREATE' else r.op end as op,
    case cardinality(t.key)
        when 0 then null
        when 1 then coalesce(r.new, r.old) ->> t.key[1]
        else (select '[' || string_agg(to_json(coalesce(r.new, r.old) ->> k.name)::text, ','
                order by k.ordinality) || ']'
              from unnest(t.key) with ordinality k (name, ordinality))
    end as key,
    coalesce(r.old, '{}') as before,
    coalesce(r.new, '{}') as after,
    coalesce(r.context, f.context, '{}') as context,
    w.committed_at,
    row_number() over (partition by r.xid order by r.seq) as n
from recorded r
join tracked t using (tbl)
left join (select distinct on (xid) xid, context from said order by xid, seq) f using (xid)
left join times w using (xid);
"""

_HISTORY: Final = """
create temp table history as
select id, schema || '.' || "table" as tbl, operation as op, primary_key as key, previous_key,
    before, after, context, committed_at, transaction_id as xid, commit_position, ordinal, epoch,
    (select array_agg(flag) from unnest(flags) flag
        where not (operation = 'TRUNCATE' and flag like 'partition:%%'
            or operation = 'CREATE' and flag = 'moved')) as flags
from {} where source = %s
"""

_MATCH: Final = (
    b"analyze truth; analyze history",
    # The nth change of a kind to a row in a transaction is the nth of both.
    b"""
create temp table matched as
select
    t.seq, t.pid, coalesce(t.xid, h.xid) as xid, coalesce(t.tbl, h.tbl) as tbl,
    coalesce(t.op, h.op) as op, coalesce(t.key, h.key) as key, t.n, t.whole,
    t.before as true_before, t.after as true_after, t.context as true_context,
    t.committed_at as true_time,
    h.id, h.ordinal, h.epoch, h.commit_position, h.before, h.after, h.context, h.committed_at,
    h.flags
from (select *, coalesce(key, '') as k,
        row_number() over (partition by xid, tbl, op, key order by n) as occurrence from truth) t
full join (select *, coalesce(key, '') as k,
        row_number() over (partition by xid, tbl, op, key order by commit_position, ordinal)
        as occurrence from history) h
    using (xid, tbl, op, k, occurrence)
""",
    b"analyze matched",
    b"""
create temp table steps as
with numbered as (
    select h.*, t.whole, count(*) filter (where op = 'TRUNCATE')
        over (partition by tbl order by epoch, commit_position, ordinal) as emptied
    from history h join tracked t using (tbl)
)
select tbl, key, whole, emptied, epoch, commit_position, ordinal, 0 as half,
    case when op <> 'CREATE' then before end as came,
    case when op <> 'DELETE' then after end as went
from numbered where op <> 'TRUNCATE' and previous_key is null
union all
select tbl, previous_key, whole, emptied, epoch, commit_position, ordinal, 0, before, null
from numbered where previous_key is not null
union all
select tbl, key, whole, emptied, epoch, commit_position, ordinal, 1, null, after
from numbered where previous_key is not null
""",
    b"""
create temp table replayed as
select tbl, went as image from (
    select distinct on (s.tbl, s.key) s.tbl, s.went
    from steps s
    join (
        select tbl, count(*) filter (where op = 'TRUNCATE') as emptied from history group by tbl
    ) l
        using (tbl, emptied)
    where s.key is not null
    order by s.tbl, s.key, s.epoch desc, s.commit_position desc, s.ordinal desc, s.half desc
) last where went is not null
""",
    # Rows without a key: those that came, but for those that went.
    b"""
insert into replayed
select tbl, image from (
    select tbl, image, sum(n) as n from (
        select tbl, emptied, went as image, 1 as n from steps where key is null and went is not null
        union all
        select tbl, emptied, came, -1 from steps where key is null and came is not null
    ) moved
    join (
        select tbl, count(*) filter (where op = 'TRUNCATE') as emptied from history group by tbl
    ) l
        using (tbl, emptied)
    group by tbl, image
) left_over, generate_series(1, n)
""",
)

_NUMBERS: Final = {
    "transactions": b"select count(distinct xid) from truth",
    "changes": b"select count(*) from truth",
    "lost": b"select count(*) from matched where id is null",
    "extra": b"select count(*) from matched where seq is null",
    "out_of_order": b"""
select count(*) from (
    select row_number() over (partition by xid order by n) as made,
        row_number() over (partition by xid order by commit_position, ordinal) as found
    from matched where id is not null and seq is not null
) m where made <> found""",
    "wrong_contexts": b"""
select count(*) from matched
where id is not null and seq is not null and context is distinct from true_context""",
    # A table whose identity is its key has its old rows from the history, or says that it has not.
    "wrong_images": b"""
select count(*) from matched where id is not null and seq is not null and not (
    after = true_after and case
        when whole then before = true_before and flags is null
        when op = 'CREATE' then before = '{}' and flags is null
        when op = 'TRUNCATE' then before = '{}'
        when flags is null then before = true_before
        else true_before @> before and flags = '{before_unknown}' end)""",
    "unknown_images": b"select count(*) from matched where not whole and flags is not null",
    "wrong_times": b"""
select count(*) from matched
where id is not null and seq is not null and true_time is not null and committed_at <> true_time""",
    "holes": b"""
select count(*) from (
    select from history group by xid
    having min(ordinal) <> 1 or max(ordinal) <> count(*) or count(distinct ordinal) <> count(*)
) h""",
    "split": b"""
select (select count(*) from (select from history group by xid
            having count(distinct (epoch, commit_position)) > 1) a)
     + (select count(*) from (select from history group by epoch, commit_position
            having count(distinct xid) > 1) b)""",
    "commit_disorder": b"""
select
    (select count(*) from (select commit_position as later,
            lag(commit_position) over (partition by pid order by seq) as earlier
        from matched where id is not null and seq is not null) a where later < earlier)
  + (select count(*) from (select commit_position as later,
            lag(commit_position) over (partition by tbl, key order by seq) as earlier
        from matched where id is not null and seq is not null and key is not null) b
        where later < earlier)
  + (select count(*) from (select commit_position as later,
            lag(commit_position) over (order by turn) as earlier
        from turns join (select distinct xid, commit_position from history) h using (xid)) c
        where later <= earlier)""",
    "broken_chains": b"""
select count(*) from (
    select whole, came, lag(went) over (partition by tbl, emptied, key
        order by epoch, commit_position, ordinal, half) as left_behind
    from steps where key is not null
) s where case when whole then came is distinct from left_behind
    else (came is null) <> (left_behind is null) end""",
    "replay_differences": b"""
select (select count(*) from (select * from replayed except all select * from present) a)
     + (select count(*) from (select * from present except all select * from replayed) b)""",
    "duplicate_ids": b"select count(*) - count(distinct id) from history",
}

_EXAMPLES: Final = b"""
select * from (
    select case when id is null then 'lost' when seq is null then 'extra'
            when context is distinct from true_context then 'context' else 'image' end as fault,
        xid, n, ordinal, tbl, op, key, left(true_before::text, 200), left(before::text, 200),
        left(true_after::text, 200), left(after::text, 200), true_context, context, flags
    from matched
    where id is null or seq is null or context is distinct from true_context
        or after <> true_after or (whole and before <> true_before)
        or flags is not null or (flags is null and op <> 'TRUNCATE' and before <> true_before)
    order by xid, n limit %s
) f
"""
