"""Baselines in the store: which tables lack one, and each chunk with what it takes to go on.

A chunk's rows and the place to go on from are written in one transaction, so that a baseline
that was killed goes on behind the last chunk that is stored, and repeats none.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import psycopg
from psycopg import sql

from bemi.errors import BemiError
from bemi.lsn import Lsn
from bemi.store import notices
from bemi.store.copy import copy_rows
from bemi.store.coverage import begin_anew
from bemi.store.rows import CHANGE_COLUMNS, STRETCH_COLUMNS


class IntervalEndedError(BemiError):
    """The stretch in which the table was covered ended: what was read belongs to no other."""


class Interval(msgspec.Struct, frozen=True):
    """The open stretch of a table's coverage that a baseline is for."""

    interval_id: int
    epoch: int
    relation: int
    schema: str
    table: str
    partition: str | None
    from_position: int
    state_position: int | None
    known_before: bool
    """There is history of the table from before, with a stretch missing in between."""
    state_before: bool
    """All of its rows were known then."""
    compared: bool
    """A baseline of it was finished."""
    lost: Sequence[str] = ()
    """Causes of what is missing behind the place where its rows were known: they are not now."""
    unfinished: bool = False
    """A baseline of it was asked for or begun, and can go on."""

    @property
    def name(self) -> str:
        return self.partition or f"{self.schema}.{self.table}"

    @property
    def lacks_baseline(self) -> bool:
        """Its rows are not known; or what became of those from before, of a table now empty."""
        return self.state_position is None or (self.known_before and not self.compared)

    @property
    def found_missing(self) -> bool:
        """`verify` found changes missing, so that a baseline has to tell its rows again.

        Not so where rules leave changes out: that was meant, and may go on for ever.
        """
        return "chain" in self.lost


class Baseline(msgspec.Struct, frozen=True):
    """How far the baseline of one table is."""

    baseline_id: int
    interval: Interval
    shape: str
    last_key: tuple[bytes, ...] | None = None
    last_position: int | None = None
    chunks: int = 0
    rows: int = 0
    created: int = 0
    updated: int = 0
    deleted: int = 0


class Counts(msgspec.Struct, frozen=True):
    """What one chunk adds."""

    rows: int = 0
    created: int = 0
    updated: int = 0
    deleted: int = 0


_INTERVAL: Final = sql.SQL(
    'i.interval_id, i.epoch, i.relation::bigint, i.schema, i."table", i.partition, '
    "i.from_position, i.state_position, "
    # By another key, or one that is stored otherwise, nothing of before is found again.
    "i.opened <> 'key_changed' and exists (select from {intervals} e "
    "where e.source_id = i.source_id and e.relation = i.relation "
    "and e.interval_id <> i.interval_id), "
    "exists (select from {intervals} e where e.source_id = i.source_id "
    "and e.relation = i.relation and e.state_position <= e.to_position), "
    "exists (select from {baselines} b where b.interval_id = i.interval_id "
    "and b.finished_at is not null), "
    # What begins where the history ends is yet to be decided on.
    "array(select distinct g.cause from {gaps} g where g.source_id = i.source_id "
    "and g.epoch = i.epoch and (g.relation is null or g.relation = i.relation) "
    "and g.columns is null and g.from_position >= i.from_position "
    "and g.from_position < c.position and g.to_position > i.state_position), "
    "exists (select from {baselines} b where b.interval_id = i.interval_id "
    "and b.finished_at is null and b.failed is null)"
)

_BASELINE: Final = sql.SQL(
    "b.baseline_id, b.shape, b.last_key, b.last_position, b.chunks, b.rows, b.created, "
    "b.updated, b.deleted"
)


def intervals(conn: psycopg.Connection[Any], schema: str, source_id: int) -> list[Interval]:
    """The stretches of a source's tables that are open, by the tables' names."""
    rows = conn.execute(
        sql.SQL(
            "select {columns} from {intervals} i join {checkpoints} c "
            "on c.source_id = i.source_id and c.epoch = i.epoch "
            "where i.source_id = %s and i.to_position is null "
            'order by i.schema, i."table", i.partition'
        ).format(
            columns=_INTERVAL.format(**_tables(schema)),
            **_tables(schema),
        ),
        [source_id],
    ).fetchall()
    return [Interval(*row) for row in rows]


def claim(conn: psycopg.Connection[Any], schema: str, source_id: int) -> bool:
    """Whether this session, as long as it lasts, is the one that takes a source's baselines."""
    row = conn.execute(
        "select pg_try_advisory_lock(hashtextextended(%s, 0))",
        [f"bemi.baseline {schema} {source_id}"],
    ).fetchone()
    assert row is not None
    return bool(row[0])


def ask(
    conn: psycopg.Connection[Any], schema: str, source_id: int, wanted: Sequence[Interval]
) -> None:
    """Note that baselines of these are to be taken, so that they can be gone on with."""
    relations = [interval.relation for interval in wanted]
    ids = [interval.interval_id for interval in wanted]
    with conn.transaction():
        conn.execute(
            sql.SQL(
                "update {} set failed = 'it was begun anew', updated_at = now() "
                "where source_id = %s and relation = any(%s::oid[]) and interval_id <> all(%s) "
                "and finished_at is null and failed is null"
            ).format(sql.Identifier(schema, "baselines")),
            [source_id, relations, ids],
        )
        conn.execute(
            sql.SQL(
                'insert into {} (source_id, epoch, interval_id, relation, schema, "table", shape) '
                "select source_id, epoch, interval_id, relation, schema, \"table\", '' "
                "from {} where interval_id = any(%s) and to_position is null "
                "on conflict do nothing"
            ).format(sql.Identifier(schema, "baselines"), sql.Identifier(schema, "intervals")),
            [ids],
        )


def begin(
    conn: psycopg.Connection[Any],
    schema: str,
    source_id: int,
    interval: Interval,
    shape: str,
) -> Baseline:
    """The unfinished baseline of an interval, to go on with, or a new one.

    One of another interval, or of a table that looked otherwise, can't go on. Raises
    `IntervalEndedError`.
    """
    with conn.transaction():
        _hold(conn, schema, interval)
        row = conn.execute(
            sql.SQL(
                "select {}, b.interval_id from {} b where source_id = %s and relation = %s "
                "and finished_at is null and failed is null"
            ).format(_BASELINE, sql.Identifier(schema, "baselines")),
            [source_id, interval.relation],
        ).fetchone()
        if row is not None:
            *found, interval_id = row
            baseline = _baseline(interval, found)
            if interval_id == interval.interval_id and shape == baseline.shape:
                return baseline
            if interval_id == interval.interval_id and not baseline.chunks:
                # It was asked for, without a look at the table.
                conn.execute(
                    sql.SQL("update {} set shape = %s where baseline_id = %s").format(
                        sql.Identifier(schema, "baselines")
                    ),
                    [shape, baseline.baseline_id],
                )
                return msgspec.structs.replace(baseline, shape=shape)
            fail(conn, schema, baseline.baseline_id, "it was begun anew")
        row = conn.execute(
            sql.SQL(
                "insert into {} as b (source_id, epoch, interval_id, relation, schema, "
                '"table", shape) values (%s, %s, %s, %s, %s, %s, %s) returning {}'
            ).format(sql.Identifier(schema, "baselines"), _BASELINE),
            [
                source_id,
                interval.epoch,
                interval.interval_id,
                interval.relation,
                interval.schema,
                interval.table,
                shape,
            ],
        ).fetchone()
        assert row is not None
        return _baseline(interval, row)


def next_chunk(conn: psycopg.Connection[Any], schema: str) -> int:
    """A number that no chunk had, for its context's id."""
    row = conn.execute(
        "select nextval(%s::regclass)",
        [sql.Identifier(schema, "baseline_chunks").as_string(conn)],
    ).fetchone()
    assert row is not None
    return int(row[0])


def copy_changes(
    conn: psycopg.Connection[Any],
    schema: str,
    rows: Sequence[bytes],
    *,
    stretch: bytes | None = None,
) -> None:
    """Encoded rows, and the context that they share, in the caller's transaction."""
    with conn.cursor() as cursor:
        if stretch is not None:
            copy_rows(cursor, schema, "contexts", STRETCH_COLUMNS, [stretch])
        copy_rows(cursor, schema, "row_changes", CHANGE_COLUMNS, rows)


def advance(
    conn: psycopg.Connection[Any],
    schema: str,
    baseline: Baseline,
    *,
    counts: Counts,
    position: Lsn,
    last_key: tuple[bytes, ...] | None,
) -> Baseline:
    """The place behind a chunk, in the transaction that stored its rows.

    Guarantees that no chunk is stored twice, nor by two at once: raises `BemiError` unless the
    baseline is just as this one left it, and `IntervalEndedError` when its interval ended.
    """
    _hold(conn, schema, baseline.interval)
    _outdate(conn, schema, baseline, position)
    row = conn.execute(
        sql.SQL(
            "update {} b set last_key = %s, last_position = %s, chunks = chunks + 1, "
            "rows = rows + %s, created = created + %s, updated = updated + %s, "
            "deleted = deleted + %s, updated_at = now() "
            "where baseline_id = %s and chunks = %s and finished_at is null and failed is null "
            "returning {}"
        ).format(sql.Identifier(schema, "baselines"), _BASELINE),
        [
            None if last_key is None else list(last_key),
            int(position),
            counts.rows,
            counts.created,
            counts.updated,
            counts.deleted,
            baseline.baseline_id,
            baseline.chunks,
        ],
    ).fetchone()
    if row is None:
        raise BemiError(
            f"another process takes the baseline of {baseline.interval.name} as well",
            fix="let one of them do it",
        )
    notices.tell(conn, schema)
    return _baseline(baseline.interval, row)


def _outdate(conn: psycopg.Connection[Any], schema: str, baseline: Baseline, position: Lsn) -> None:
    """Let a gap of what rules left out behind an earlier chunk reach behind this one too.

    It may have touched the rows of that chunk, so that the state is not known at the end either.
    """
    if baseline.last_position is None:
        return
    conn.execute(
        sql.SQL(
            "update {} set to_position = %(behind)s where epoch = %(epoch)s "
            "and relation = %(relation)s and cause = 'ignored' "
            "and to_position > %(last)s and to_position < %(behind)s"
        ).format(sql.Identifier(schema, "gaps")),
        {
            "behind": int(position) + 1,
            "epoch": baseline.interval.epoch,
            "relation": baseline.interval.relation,
            "last": baseline.last_position,
        },
    )


def finish(
    conn: psycopg.Connection[Any], schema: str, baseline: Baseline, *, replaces: bool = False
) -> None:
    """All rows are stored: from the last chunk on, the table's state is known.

    `replaces`: they stand for all rows of before, of a table without a key. So a state that was
    known ends with the interval there and begins with the next one, in the transaction that
    stores the rows: nobody may count them twice.
    """
    position, interval_id = baseline.last_position or 0, baseline.interval.interval_id
    with conn.transaction():
        _hold(conn, schema, baseline.interval)
        if replaces and baseline.interval.state_position is not None:
            anew = begin_anew(conn, schema, interval_id, at=Lsn(position), cause="begun_anew")
            interval_id = interval_id if anew is None else anew
        conn.execute(
            sql.SQL(
                "update {} set state_position = %s, state_by = 'baseline' "
                "where interval_id = %s and state_position is null"
            ).format(sql.Identifier(schema, "intervals")),
            [position, interval_id],
        )
        conn.execute(
            sql.SQL(
                "update {} set finished_at = now(), updated_at = now(), interval_id = %s "
                "where baseline_id = %s"
            ).format(sql.Identifier(schema, "baselines")),
            [interval_id, baseline.baseline_id],
        )
        notices.tell(conn, schema)


def fail(conn: psycopg.Connection[Any], schema: str, baseline_id: int, reason: str) -> None:
    """It will not go on; the next one begins anew."""
    conn.execute(
        sql.SQL("update {} set failed = %s, updated_at = now() where baseline_id = %s").format(
            sql.Identifier(schema, "baselines")
        ),
        [reason, baseline_id],
    )
    notices.tell(conn, schema)


def _hold(conn: psycopg.Connection[Any], schema: str, interval: Interval) -> None:
    """Sees that an interval is open, and keeps it so until the transaction ends."""
    row = conn.execute(
        sql.SQL("select from {} where interval_id = %s and to_position is null for share").format(
            sql.Identifier(schema, "intervals")
        ),
        [interval.interval_id],
    ).fetchone()
    if row is None:
        raise IntervalEndedError(f"{interval.name} is not tracked as it was any more")


def _baseline(interval: Interval, row: Sequence[Any]) -> Baseline:
    baseline_id, shape, last_key, *rest = row
    return Baseline(
        baseline_id, interval, shape, None if last_key is None else tuple(last_key), *rest
    )


def _tables(schema: str) -> dict[str, sql.Identifier]:
    names = ("baselines", "checkpoints", "epochs", "gaps", "intervals")
    return {name: sql.Identifier(schema, name) for name in names}
