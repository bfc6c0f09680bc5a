"""What a large history answers, and how fast: ten changes of each record, of which all are known.

The changes are written into the store's own layout, as a worker and autovacuum leave them: ten
rows and one context a transaction, over two months. The goals are those for ten million changes.
"""

import os
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, Final

import psycopg
from psycopg import sql

from bemi.embedded import Server
from bemi.history.history import History
from bemi.history.state import Asked, asked, rows
from bemi.lsn import Lsn
from bemi.store import hourly, migrate, reader
from bemi.store.filters import Filters

BEGIN: Final = datetime(2026, 1, 5, tzinfo=UTC)
DAYS: Final = 60
_EACH: Final = 10
_ASKED: Final = 200
_AT_ONCE: Final = 1_000_000
# No checkpoint in the middle; vacuum is done by hand, when all is written.
SETTINGS: Final = {
    "shared_buffers": "1GB",
    "max_wal_size": "16GB",
    "checkpoint_timeout": "1h",
    "autovacuum": "off",
    "fsync": "off",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """Milliseconds as the client sees them, of so many questions; `cpu`: what one took the server
    on the average, which other work on the machine does not lengthen much."""

    question: str
    asked: int
    median: float
    p95: float
    cpu: float | None
    goal: float
    """For the 95th percentile."""


@dataclass(frozen=True, slots=True)
class Streamed:
    """Seconds for all rows of a table as they were, and how many of them the server computed; the
    client's memory grew by so many MB."""

    what: str
    rows: int
    seconds: float
    cpu: float
    grown: float
    goal: float
    """Seconds for a million rows."""


# A record's number is multiplied by one that has no divisor in common with their count: each gets
# its tenth change before any gets its eleventh, and neighbours in the log are none in the table.
_CHANGES: Final = """
insert into bemi.row_changes (committed_at, commit_position, position, context_id, id, ordinal,
    epoch, relation, operation, schema, "table", primary_key, after, changed)
select
    s.at, 1000000 + t * 1000, 1000000 + t * 1000 - 500 + o,
    (((s.at at time zone 'UTC')::date - date '2000-01-01')::bigint << 44) | (1::bigint << 32) | t,
    (substr(p.h, 1, 12) || '8' || substr(p.h, 13, 3)
        || to_hex(128 + ('x' || substr(p.h, 16))::bit(4)::int * 4)
        || lpad(to_hex(o), 3, '0') || lpad(to_hex(t), 11, '0'))::uuid,
    o, 1, 16385, case when s.n < %(records)s then 'CREATE' else 'UPDATE' end, 'public', 'todo',
    k.k::text,
    jsonb_build_object('id', k.k, 'task', 'todo of ' || s.n, 'done', s.n %% 2 = 0,
        'price', s.n / 100.0, 'owner', s.n %% 1000, 'created_at', '2026-01-05 10:00:00+00',
        'updated_at', s.at),
    case when s.n >= %(records)s then '{"task": "todo of before", "done": true}'::jsonb end
from generate_series(%(first)s::bigint, %(last)s) t, generate_series(1, 10) o,
    lateral (select t * 10 + o - 1 as n, %(begin)s + t * %(pause)s::interval as at) s,
    lateral (select s.n * 7919 %% %(records)s as k) k,
    lateral (select lpad(to_hex(1000000 + t * 1000), 16, '0') as h) p
"""

_CONTEXTS: Final = """
insert into bemi.contexts (id, transaction_id, queued_at, context)
select
    (((s.at at time zone 'UTC')::date - date '2000-01-01')::bigint << 44) | (1::bigint << 32) | t,
    700 + t, s.at,
    case when t %% 7 = 0 then '{}'::jsonb else jsonb_build_object('user_id', hashint8(t) & 1023,
        'endpoint', '/todo/' || t %% 5, 'request_id', 'r' || t) end
from generate_series(%(first)s::bigint, %(last)s) t,
    lateral (select %(begin)s + t * %(pause)s::interval as at) s
"""

_BOOKS: Final = """
insert into bemi.sources (name, database, slot, publication) values ('shop', 'shop', 's', 'p');
insert into bemi.epochs (source_id, system_identifier, timeline, database_oid, database,
    started_position) values (1, '7', 1, 5, 'shop', 0);
insert into bemi.relation_names (source_id, epoch, relation, from_position, schema, "table")
    values (1, 1, 16385, 0, 'public', 'todo');
insert into bemi.intervals (source_id, epoch, relation, schema, "table", membership, from_position,
    verified_position, state_position, state_by, opened)
    values (1, 1, 16385, 'public', 'todo', 1, 0, 0, 0, 'empty', 'begun');
insert into bemi.table_versions (source_id, epoch, relation, from_position, from_ordinal, schema,
    "table", columns, primary_key, replica_identity, filenode, read_position, inferred)
select 1, 1, 16385, 0, 0, 'public', 'todo', jsonb_agg(jsonb_build_object('name', name, 'number',
    n, 'type', type, 'type_oid', type::regtype::oid::bigint, 'stamp', 0)), '{id}', 'f', 1, 0, false
from (values (1, 'id', 'bigint'), (2, 'task', 'text'), (3, 'done', 'boolean'),
    (4, 'price', 'numeric'), (5, 'owner', 'integer'),
    (6, 'created_at', 'timestamp with time zone'), (7, 'updated_at', 'timestamp with time zone')
) c (n, name, type);
"""


def measure(changes: int) -> Iterator[Answer | Streamed]:
    """Fills a history of its own, and asks it."""
    with Server(settings=SETTINGS) as server:
        url = server.create_database("history")
        with psycopg.connect(url, autocommit=True) as conn:
            fill(conn, changes)
        with psycopg.connect(url, autocommit=True) as conn:
            yield from _answers(conn, changes)
            yield from _streams(conn, changes)
            with History(url) as history:
                history.travel(_time(changes, 1.0))
            yield _stream(
                "whole table, typed: the view of `bemi travel`",
                conn,
                "select * from bemi_travel.todo",
                goal=20,
            )


def fill(conn: psycopg.Connection[Any], changes: int, begin: datetime = BEGIN) -> None:
    """From `begin` on, as many changes in the days that there are, and what the worker counts."""
    migrate.migrate(conn, "bemi")
    conn.execute(_BOOKS.encode())
    conn.execute("select bemi.ensure_partitions(%s, %s)", [begin, begin + timedelta(days=DAYS)])
    transactions = changes // _EACH
    for first in range(0, transactions, _AT_ONCE // _EACH):
        given = {
            "first": first,
            "last": min(first + _AT_ONCE // _EACH, transactions) - 1,
            "records": changes // 10,
            "begin": begin,
            "pause": timedelta(days=DAYS) / transactions,
        }
        conn.execute(_CONTEXTS, given)
        conn.execute(_CHANGES, given)
    conn.execute(
        "insert into bemi.checkpoints"
        " (source_id, epoch, position, committed_at, uncounted_since) values (1, 1, %s, %s, %s)",
        [1_000_000 + transactions * 1000, begin + timedelta(days=DAYS), begin],
    )
    # Partitions are autovacuum's, the tables above them the store's own upkeep's.
    for (partition,) in conn.execute(
        "select inhrelid::regclass::text from pg_inherits where inhparent in "
        "('bemi.row_changes'::regclass, 'bemi.contexts'::regclass)"
    ).fetchall():
        conn.execute(f"vacuum (analyze) {partition}".encode())
    conn.execute("analyze bemi.contexts (id)")
    conn.execute("analyze bemi.row_changes (context_id, epoch)")
    hourly.count(conn, "bemi", "shop")


def _time(changes: int, part: float) -> datetime:
    """When so much of it all had been committed."""
    return BEGIN + timedelta(days=DAYS) * part * (1 - _EACH / changes)


def _answers(conn: psycopg.Connection[Any], changes: int) -> Iterator[Answer]:
    rng = Random(5)
    records = changes // 10

    def page(**filters: Any) -> None:
        for _ in reader.changes(conn, "bemi", Filters(limit=50, **filters)):
            pass

    def record_at() -> None:
        conn.execute(
            "select * from bemi.row_at('todo', %s, %s)",
            [str(rng.randrange(records)), _time(changes, rng.uniform(0.3, 1))],
        ).fetchall()

    def day() -> None:
        until = _time(changes, rng.uniform(0.3, 1))
        page(table="todo", operation=("UPDATE",), since=until - timedelta(days=1), until=until)

    questions: dict[str, tuple[float, Callable[[], None]]] = {
        "one record's history": (10, lambda: page(table="todo", key=str(rng.randrange(records)))),
        "one record as of a time": (10, record_at),
        "page 1: a table": (30, lambda: page(table="todo")),
        "page 1: table, operation, day": (30, day),
        "page 1: a changed column": (30, lambda: page(table="todo", changed="done")),
        "context: request_id": (
            50,
            lambda: page(context=(("request_id", f"r{rng.randrange(changes // _EACH)}"),)),
        ),
        "context: user_id": (
            50,
            lambda: page(context=(("user_id", str(rng.randrange(1024))),)),
        ),
        "context: endpoint": (
            50,
            lambda: page(context=(("endpoint", f"/todo/{rng.randrange(5)}"),)),
        ),
    }
    for name, (goal, ask) in questions.items():
        found = []
        spent = _cpu(conn, helped=False)
        for _ in range(_ASKED):
            began = time.perf_counter()
            ask()
            found.append((time.perf_counter() - began) * 1000)
        spent = (_cpu(conn, helped=False) - spent) * 1000 / _ASKED
        yield Answer(
            name,
            _ASKED,
            round(statistics.median(found), 2),
            round(sorted(found)[int(_ASKED * 0.95)], 2),
            round(spent, 2),
            goal,
        )


def _streams(conn: psycopg.Connection[Any], changes: int) -> Iterator[Streamed]:
    """As of the end, and of a time at which half of all changes had happened."""
    for name, part in (("the end", 1.0), ("half of it", 0.5)):
        position = Lsn(1_000_000 + int((changes // _EACH - 1) * part) * 1000)
        question = asked(conn, "bemi", "shop", "public.todo", position)
        yield _stream(f"whole table as jsonb, at {name}", conn, question.query, goal=5)
    yield _counted("the same as rows of Python", conn, _python(conn, question), goal=5)


def _python(conn: psycopg.Connection[Any], question: Asked) -> Iterator[int]:
    with conn.transaction():
        for _ in rows(conn, question):
            yield 1


def _stream(what: str, conn: psycopg.Connection[Any], query: str, goal: float) -> Streamed:
    return _counted(what, conn, _copied(conn, query), goal)


def _copied(conn: psycopg.Connection[Any], query: str) -> Iterator[int]:
    statement = sql.SQL("copy ({}) to stdout").format(sql.SQL(query))
    with conn.cursor() as cursor, cursor.copy(statement) as copied:
        for block in copied:
            yield bytes(block).count(b"\n")


def _counted(
    what: str, conn: psycopg.Connection[Any], counts: Iterator[int], goal: float
) -> Streamed:
    before, spent, began = _memory(), _cpu(conn, helped=True), time.perf_counter()
    count = sum(counts)
    seconds = time.perf_counter() - began
    spent = _cpu(conn, helped=True) - spent
    return Streamed(what, count, round(seconds, 2), round(spent, 2), _memory() - before, goal)


def _cpu(conn: psycopg.Connection[Any], *, helped: bool) -> float:
    """Seconds that the session's process has computed; `helped`: with all that ended meanwhile, as
    those do that it has beside it. Not told but by Linux."""
    try:
        told = _stat(conn.info.backend_pid)
        ended = _stat(int(told[1])) if helped else []  # that which all are children of
    except OSError:
        return float("nan")
    return sum(map(int, (*told[11:13], *ended[13:15]))) / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str]:
    """What Linux tells of a process, behind its name."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _memory() -> float:
    """The most that this process ever held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
