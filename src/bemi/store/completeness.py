"""The read side of the coverage: per table what is complete, what is missing, and why.

Puts the stretches that `bemi.store.coverage` wrote together with the gaps. Only reads; what a cause
means in words is for who shows it.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import translate
from typing import Any

import msgspec
import psycopg
from psycopg import sql

from bemi.lsn import Lsn
from bemi.store import moments, recorded
from bemi.store.extent import (
    CONTINUED,
    GONE,
    NEW_EPOCH,
    Baseline,
    Missing,
    SourceCoverage,
    Span,
    State,
    Stretch,
    TableCoverage,
)
from bemi.store.moments import Place, Times
from bemi.store.recorded import Gap, Interval


class _Checkpoint(msgspec.Struct, frozen=True):
    epoch: int
    position: int


def read(
    conn: psycopg.Connection[Any],
    schema: str,
    *,
    sources: Sequence[str] = (),
    glob: str | None = None,
) -> list[SourceCoverage]:
    """The coverage of each source, or of those with these names, as of one moment.

    `glob`: of the tables that it names, by the name of a partition or of its root; without a
    schema in public.
    """
    with conn.transaction():
        conn.execute("set transaction isolation level repeatable read, read only")
        return [
            _read_source(conn, schema, source_id, name, glob)
            for source_id, name in conn.execute(
                sql.SQL(
                    "select source_id, name from {} "
                    "where cardinality(%(names)s::text[]) = 0 or name = any(%(names)s) "
                    "order by name"
                ).format(sql.Identifier(schema, "sources")),
                {"names": list(sources)},
            ).fetchall()
        ]


def _read_source(
    conn: psycopg.Connection[Any], schema: str, source_id: int, name: str, glob: str | None
) -> SourceCoverage:
    intervals = recorded.intervals(conn, schema, source_id)
    gaps = recorded.gaps(conn, schema, source_id)
    baselines = _read_baselines(conn, schema, source_id)
    started = dict(
        conn.execute(
            sql.SQL("select epoch, started_position from {} where source_id = %s").format(
                sql.Identifier(schema, "epochs")
            ),
            [source_id],
        ).fetchall()
    )
    row = conn.execute(
        sql.SQL("select epoch, position from {} where source_id = %s").format(
            sql.Identifier(schema, "checkpoints")
        ),
        [source_id],
    ).fetchone()
    held = None if row is None else _Checkpoint(*row)
    spans = _spans(intervals, gaps, started, held)
    chosen: dict[int, list[Interval]] = {}
    for interval in intervals:
        chosen.setdefault(interval.relation, []).append(interval)
    if glob is not None:
        # `fnmatch` itself would keep the patterns of all who ask.
        pattern = re.compile(translate(glob if "." in glob else f"public.{glob}"))
        chosen = {
            relation: found for relation, found in chosen.items() if _is_called(found[-1], pattern)
        }
    times = _read_times(conn, schema, spans, chosen.values(), gaps, held)
    tables = [
        _table(found, gaps, baselines.get(relation), held, times, list(started))
        for relation, found in chosen.items()
    ]
    return SourceCoverage(
        source=name,
        spans=spans,
        start=times.start(spans[0].epoch, spans[0].start) if spans else None,
        end=times.end(spans[-1].epoch, spans[-1].end) if spans else None,
        missing=tuple(_missing(gap, times, list(started)) for gap in gaps if gap.relation is None),
        tables=tuple(sorted(tables, key=lambda each: (each.root, each.partition or ""))),
    )


def _is_called(interval: Interval, pattern: re.Pattern[str]) -> bool:
    names = [f"{interval.schema}.{interval.table}", interval.partition]
    return any(name is not None and pattern.match(name) for name in names)


# --- what is read ----------------------------------------------------------------------------


def _read_baselines(
    conn: psycopg.Connection[Any], schema: str, source_id: int
) -> dict[int, Baseline]:
    """The last one of each table."""
    rows = conn.execute(
        sql.SQL(
            "select distinct on (relation) relation::bigint, started_at, finished_at, rows, failed "
            "from {} where source_id = %s order by relation, baseline_id desc"
        ).format(sql.Identifier(schema, "baselines")),
        [source_id],
    )
    return {relation: Baseline(*rest) for relation, *rest in rows}


def _read_times(
    conn: psycopg.Connection[Any],
    schema: str,
    spans: Sequence[Span],
    tables: Iterable[Sequence[Interval]],
    gaps: Sequence[Gap],
    held: _Checkpoint | None,
) -> Times:
    starts: set[Place] = set()
    ends: set[Place] = set()
    for span in spans:
        starts.add((span.epoch, span.start))
        ends.add((span.epoch, span.end))
    for interval in (each for table in tables for each in table):
        starts.add((interval.epoch, interval.from_position))
        ends.add((interval.epoch, interval.from_position))  # of one that was never stored
        if interval.state_position is not None:
            starts.add((interval.epoch, interval.state_position))
        if interval.to_position is not None:
            ends.add((interval.epoch, interval.to_position))
    epochs = sorted({span.epoch for span in spans})
    for gap in gaps:
        starts.add((_epoch_behind(gap, epochs), gap.to_position))
        ends.add((gap.epoch, gap.from_position))
    if held is not None:
        ends.add((held.epoch, held.position))
    return moments.read(conn, schema, starts=starts, ends=ends)


# --- what is made of it ----------------------------------------------------------------------


def _spans(
    intervals: Sequence[Interval],
    gaps: Sequence[Gap],
    started: Mapping[int, int],
    held: _Checkpoint | None,
) -> tuple[Span, ...]:
    """Each epoch from where the history of it begins to where it ends."""
    found: dict[int, list[int]] = {epoch: [position] for epoch, position in started.items()}
    for interval in intervals:
        found[interval.epoch].append(interval.from_position)
        if interval.to_position is not None:
            found[interval.epoch].append(interval.to_position)
    for gap in gaps:
        found[gap.epoch].append(gap.from_position)
    if held is not None:
        found[held.epoch].append(held.position)
    return tuple(
        # What was accepted or closed ahead of the checkpoint is not captured yet.
        Span(
            epoch,
            Lsn(min(positions)),
            Lsn(
                max(min(positions), held.position)
                if held is not None and held.epoch == epoch
                else max(positions)
            ),
        )
        for epoch, positions in sorted(found.items())
    )


def _table(
    intervals: Sequence[Interval],
    gaps: Sequence[Gap],
    baseline: Baseline | None,
    held: _Checkpoint | None,
    times: Times,
    epochs: Sequence[int],
) -> TableCoverage:
    last = intervals[-1]
    own = [gap for gap in gaps if gap.relation == last.relation]
    missing = [_missing(gap, times, epochs) for gap in own]
    for before, behind in zip(intervals, [*intervals[1:], None], strict=True):
        if before.to_position is None or before.closed in CONTINUED:
            continue
        if behind is None and before.closed in GONE:
            continue
        missing.append(
            Missing(
                start=times.end(before.epoch, before.to_position),
                end=None if behind is None else times.start(behind.epoch, behind.from_position),
                cause=before.closed or "",
                detail="",
            )
        )
    missing.sort(key=lambda each: (each.start.epoch, each.start.position))
    return TableCoverage(
        relation=last.relation,
        schema=last.schema,
        table=last.table,
        partition=last.partition,
        stretches=tuple(_stretch(each, held, times) for each in intervals),
        missing=tuple(missing),
        state=_state(intervals, gaps, baseline, held),
        baseline=baseline,
    )


def _stretch(interval: Interval, held: _Checkpoint | None, times: Times) -> Stretch:
    to = interval.to_position
    if to is None:
        to = interval.from_position
        if held is not None and held.epoch == interval.epoch:
            to = max(to, held.position)
    state = interval.state_position
    return Stretch(
        start=times.start(interval.epoch, interval.from_position),
        end=times.end(interval.epoch, to),
        open=interval.to_position is None,
        verified=Lsn(interval.verified_position),
        state=None if state is None else times.start(interval.epoch, state),
        state_by=interval.state_by,
        opened=interval.opened,
        opened_at=interval.opened_at,
        closed=interval.closed,
        closed_at=interval.closed_at,
    )


def _missing(gap: Gap, times: Times, epochs: Sequence[int]) -> Missing:
    return Missing(
        start=times.end(gap.epoch, gap.from_position),
        end=times.start(_epoch_behind(gap, sorted(epochs)), gap.to_position),
        cause=gap.cause,
        detail=gap.detail,
        columns=tuple(gap.columns or ()),
        changes=gap.changes,
        accepted=gap.accepted_at is not None,
    )


def _epoch_behind(gap: Gap, epochs: Sequence[int]) -> int:
    """The epoch that `to_position` is of."""
    if gap.cause not in NEW_EPOCH:
        return gap.epoch
    return min((epoch for epoch in epochs if epoch > gap.epoch), default=gap.epoch)


def _state(
    intervals: Sequence[Interval],
    gaps: Sequence[Gap],
    baseline: Baseline | None,
    held: _Checkpoint | None,
) -> State:
    last = intervals[-1]
    if last.to_position is not None:
        return "ended"
    if last.state_position is not None:
        outdated = any(
            gap.relation in (None, last.relation)
            and not gap.columns
            and gap.epoch == last.epoch
            and last.from_position <= gap.from_position
            and gap.to_position > last.state_position
            # One that begins where the history ends is yet to be decided on.
            and (held is None or gap.from_position < held.position)
            for gap in gaps
        )
        return "outdated" if outdated else "known"
    if baseline is not None and baseline.started_at >= last.opened_at:
        if baseline.failed is not None:
            return "baseline_failed"
        if baseline.finished_at is None:
            return "baseline_running"
    if last.opened in CONTINUED:
        return "begun_anew"
    return "behind_gap" if len(intervals) > 1 else "no_baseline"
