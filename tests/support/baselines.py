"""Takes baselines in this process, and compares what the history says with what the tables hold."""

import functools
import json
import re
import threading
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import set_json_loads

from bemi.capture.alongside import Alongside
from bemi.capture.look import Limits
from bemi.capture.pace import Pace
from bemi.capture.results import Result, StoppedError
from bemi.capture.snapshot import Snapshot, begin_coverage
from bemi.config import Settings
from bemi.history.state import state
from bemi.lsn import Lsn
from bemi.store.baselines import Interval

Row = dict[str, Any]


class Recorder:
    """Hears how a baseline goes; `on_rows` is called behind each chunk that is stored."""

    def __init__(self, on_rows: Callable[[str, int], None] = lambda _name, _rows: None) -> None:
        self.begun: list[tuple[str, int]] = []
        self.reasons: list[str] = []
        self._on_rows = on_rows

    def table(self, name: str, done: int, estimate: int) -> None:
        self.begun.append((name, done))

    def rows(self, done: int) -> None:
        self._on_rows(self.begun[-1][0], done)

    def waiting(self, reason: str) -> None:
        self.reasons.append(reason)

    def finished(self, result: Result) -> None:
        pass


def lacks(interval: Interval) -> bool:
    return interval.lacks_baseline


def take(
    settings: Settings,
    *,
    chosen: Callable[[Interval], bool] = lacks,
    rows: int = 10_000,
    rate: int | None = None,
    recorder: Recorder | None = None,
    stop: threading.Event | None = None,
    before: Callable[[Settings, Callable[[], None], threading.Event], None] | None = None,
) -> list[Result]:
    """What `bemi snapshot` does, with a worker alongside where there is none."""
    stop = stop or threading.Event()
    with Alongside(settings, accept_gap=before is not None) as alongside:
        if before is not None:
            before(settings, alongside.look, stop)
        snapshot = Snapshot(
            settings,
            chosen=chosen,
            pace=Pace(Limits(rows=rows), rate),
            reports=recorder or Recorder(),
            captures=alongside.look,
            stop=stop,
        )
        assert begin_coverage(settings, lambda _: None) == ()
        try:
            snapshot.run()
        except StoppedError:
            assert stop.is_set()
    return snapshot.results


def stop_after(rows: int) -> tuple[Recorder, threading.Event]:
    """A recorder that stops the baseline once so many rows of a table are stored."""
    stop = threading.Event()

    def look(_name: str, done: int) -> None:
        if done >= rows:
            stop.set()

    return Recorder(look), stop


def history(url: str, source: str | None = None) -> list[Row]:
    """All stored changes of a source in order, with their relations; numbers exactly."""
    with psycopg.connect(url, row_factory=dict_row) as conn:
        set_json_loads(functools.partial(json.loads, parse_float=Decimal), conn)
        return conn.execute(
            "select r.*, c.transaction_id, s.name as source, "
            "coalesce(r.before, r.after || r.changed) as was from bemi.row_changes r "
            "join bemi.epochs e using (epoch) join bemi.sources s using (source_id) "
            "left join bemi.contexts c on c.id = r.context_id "
            "where %(source)s::text is null or s.name = %(source)s "
            "order by r.epoch, r.commit_position, r.ordinal",
            {"source": source},
        ).fetchall()


def states(url: str, source: str | None = None) -> dict[int, Counter[str]]:
    """The rows of each table by its OID, as its open interval tells them; each known whole.

    A value that was not sent is that of the image before.
    """
    with psycopg.connect(url) as conn:
        found = conn.execute(
            "select relation::bigint, epoch, from_position, state_position, state_by "
            "from bemi.intervals where to_position is null and state_position is not null"
        ).fetchall()
    starts = {relation: (epoch, start) for relation, epoch, start, _, _ in found}
    # Without a key, what came before the baseline is in it.
    whole = {relation: (epoch, state) for relation, epoch, _, state, by in found if by != "empty"}
    keyed: dict[int, dict[str, Row]] = {relation: {} for relation in starts}
    keyless: dict[int, Counter[str]] = {relation: Counter() for relation in starts}
    for change in history(url, source):
        relation = int(change["relation"])
        start = starts.get(relation)
        if start is None or (change["epoch"], change["commit_position"]) < start:
            continue
        if change["operation"] == "TRUNCATE":
            keyed[relation].clear()
            keyless[relation].clear()
        elif change["primary_key"] is None:
            if (change["epoch"], change["commit_position"]) < whole.get(relation, start):
                continue
            if change["was"] is not None:
                keyless[relation][spelled(change["was"])] -= 1
            if change["after"] is not None:
                keyless[relation][spelled(change["after"])] += 1
        else:
            rows = keyed[relation]
            last = rows.pop(change["previous_key"] or change["primary_key"], {})
            if change["operation"] == "DELETE":
                rows.pop(change["primary_key"], None)
                continue
            after = dict(change["after"])
            for flag in change["flags"] or ():
                if flag.startswith("unchanged:"):
                    column = flag.removeprefix("unchanged:")
                    after[column] = last.get(column, "?")
            rows[change["primary_key"]] = after
    return {
        relation: Counter(map(spelled, keyed[relation].values())) + +keyless[relation]
        if all(count >= 0 for count in keyless[relation].values())
        else Counter({"a row went that never was": 1})
        for relation in starts
    }


def present(conn: psycopg.Connection[Any], relation: str) -> tuple[int, Counter[str]]:
    """The table's OID and its own rows, as `states` spells them."""
    with conn.cursor() as cursor:
        set_json_loads(functools.partial(json.loads, parse_float=Decimal), cursor)
        oid = cursor.execute("select %s::regclass::oid::bigint", [relation]).fetchone()
        assert oid is not None
        rows = cursor.execute(
            sql.SQL("select to_jsonb(t) from only {} t").format(
                sql.Identifier(*relation.split("."))
            )
        )
        return int(oid[0]), Counter(spelled(row[0]) for row in rows)


def assert_same(settings: Settings, *relations: str) -> None:
    """The history's states are what the tables hold."""
    found = states(settings.destination_url, settings.source)
    with psycopg.connect(settings.source_url, autocommit=True) as source:
        for relation in relations:
            oid, rows = present(source, relation)
            assert oid in found, f"the state of {relation} is not known"
            assert_equal(relation, rows, found[oid])


def assert_state(settings: Settings, *tables: str) -> None:
    """What `bemi.history.state` says of the tables, partitions together, is what they hold."""
    loads = functools.partial(json.loads, parse_float=Decimal)
    with (
        psycopg.connect(settings.source_url, autocommit=True) as source,
        psycopg.connect(settings.destination_url) as destination,
    ):
        set_json_loads(loads, source)
        (end,) = destination.execute(
            "select position from bemi.checkpoints join bemi.sources using (source_id)"
            " where name = %s",
            [settings.source],
        ).fetchone() or (0,)
        for table in tables:
            found = Counter(
                spelled(loads(bytes(row.image)))
                for row in state(destination, "bemi", settings.source, table, Lsn(end - 1))
            )
            rows = Counter(
                spelled(row[0])
                for row in source.execute(
                    sql.SQL("select to_jsonb(t) from {} t").format(
                        sql.Identifier(*table.split("."))
                    )
                )
            )
            assert_equal(table, rows, found)


def assert_equal(name: str, rows: Counter[str], found: Counter[str]) -> None:
    different = [
        f"{kind} {shortened(row)} × {count}"
        for kind, rows in (("missing", rows - found), ("extra", found - rows))
        for row, count in sorted(rows.items())[:10]
    ]
    assert not different, f"{name}: " + "; ".join(different)


def shortened(row: str) -> str:
    return re.sub(r"(.{20}).{30,}?(.{5})\"", r'\1…\2"', row)


def spelled(row: Row) -> str:
    return json.dumps(row, sort_keys=True, default=str)
