"""A page of changes by their context is what the plain query gives, and reads little for it."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, NamedTuple

import psycopg
import pytest
from psycopg.rows import class_row

from bemi.embedded import Server
from bemi.store import migrate, pages, reader
from bemi.store.filters import Filters
from bemi.store.query import compiled
from bemi.store.reader import StoredChange
from bemi.store.rows import baseline_context_id, context_id
from tests.support import databases

pytestmark = pytest.mark.xdist_group("pages")

BEGIN = datetime(2025, 1, 3, tzinfo=UTC)
DAYS = 300
CONTEXTS = 20_000
EACH = 3
ORIGIN = datetime(2000, 1, 1, tzinfo=UTC)
_SOURCES = """
insert into bemi.sources (name, database, slot, publication) values ('shop', 'shop', 's', 'p'),
    ('blog', 'blog', 'b', 'p');
insert into bemi.epochs (source_id, system_identifier, timeline, database_oid, database,
    started_position) values (1, '7', 1, 5, 'shop', 0), (2, '8', 1, 5, 'blog', 0),
    (1, '7', 2, 5, 'shop', 0);
"""
# A twentieth of the contexts is of one user, and as many are of a job that ended long ago.
_LOAD = f"""
create temporary table transactions as
select t, at,
    (((at at time zone 'UTC')::date - date '2000-01-01')::bigint << 44) | (1::bigint << 32) | t
        as context_id
from generate_series(0, {CONTEXTS - 1}) t, lateral (
    select '{BEGIN.isoformat()}'::timestamptz + t * interval '{DAYS * 86400 / CONTEXTS} seconds'
) s (at);
select bemi.ensure_partitions(min(at), max(at)) from transactions;
do $$ declare partition regclass; begin
    for partition in select inhrelid::regclass from pg_inherits where inhparent in
        ('bemi.row_changes'::regclass, 'bemi.contexts'::regclass)
    loop
        execute format('alter table %s set (autovacuum_enabled = off)', partition);
    end loop;
end $$;
insert into bemi.contexts (id, transaction_id, queued_at, context)
select context_id, 700 + t, at, jsonb_build_object('user_id', t % 20, 'path', '/' || t % 3)
    || case when t < {CONTEXTS // 10} and t % 2 = 0 then '{{"job": "old"}}' else '{{}}' end::jsonb
from transactions;
insert into bemi.row_changes (committed_at, commit_position, position, context_id, id, ordinal,
    epoch, relation, operation, schema, "table", primary_key, after)
select at, 1000 + t * 10, 1000 + t * 10, context_id, gen_random_uuid(), ordinal, 1, 1, 'CREATE',
    'public', 'todo', t::text, '{{"done": false}}'
from transactions, generate_series(1, {EACH}) ordinal;
"""
_CONTEXT = "copy bemi.contexts (id, transaction_id, queued_at, context) from stdin"
_CHANGE = """
copy bemi.row_changes (committed_at, commit_position, position, context_id, id, ordinal, epoch,
    relation, operation, schema, "table", primary_key, after) from stdin
"""
_READ = """
select sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))::int
from pg_stat_xact_user_tables where schemaname = 'bemi'
"""


class Months(NamedTuple):
    conn: psycopg.Connection[Any]
    known: bool


USER = Filters(context=(("user_id", "7"),), limit=50)


@pytest.fixture
def stored(server: Server) -> Iterator[psycopg.Connection[Any]]:
    with _database(server) as conn:
        yield conn


@pytest.fixture(scope="module", params=[True, False], ids=["known", "unknown"])
def months(server: Server, request: pytest.FixtureRequest) -> Iterator[Months]:
    """Ten months of changes, of which the server knows how many have what, or nothing at all."""
    with _database(server) as conn:
        conn.execute(_LOAD.encode())
        if request.param:
            conn.execute("vacuum (analyze) bemi.contexts, bemi.row_changes")
        yield Months(conn, request.param)


@contextmanager
def _database(server: Server) -> Iterator[psycopg.Connection[Any]]:
    name = databases.unused_name("pages")
    url = server.create_database(name)
    try:
        with psycopg.connect(url, autocommit=True) as conn:
            migrate.migrate(conn, "bemi")
            conn.execute("set synchronous_commit to off")
            conn.execute(_SOURCES.encode())
            yield conn
    finally:
        databases.drop(server, name)


def test_a_page_reads_few_rows(months: Months) -> None:
    """Of a thousand contexts of a user."""
    conn, known = months
    middle = _plain(conn, replace(USER, limit=1500))[-1].place
    asked = [USER, replace(USER, until=middle.committed_at), replace(USER, since=BEGIN)]
    asked += [replace(each, oldest_first=True) for each in asked]
    asked += [replace(each, behind=middle) for each in (USER, replace(USER, oldest_first=True))]
    asked += [replace(USER, table="todo"), replace(USER, operation=("CREATE",), source="shop")]
    asked += [replace(USER, context=(("job", "old"),)), replace(USER, context=(("job", "none"),))]
    for filters in asked:
        found, read = _counted(conn, filters, _asked)
        assert found == _plain(conn, filters)
        assert len(found) == (0 if ("job", "none") in filters.context else 50)
        # Between times it may be a walk along all contexts there, where nothing is known of them.
        walked = not known and {filters.since, filters.until, filters.behind} != {None}
        assert read <= (CONTEXTS + 700 if walked else 1700), (filters, read)
    if known:
        assert _counted(conn, USER, _plain)[1] > 3000, "nothing was saved"


def test_what_many_contexts_have_is_met_along_the_feed(months: Months) -> None:
    filters = replace(USER, context=(("path", "/2"),))
    middle = _plain(months.conn, replace(filters, limit=9000))[-1].place
    for asked in (filters, replace(filters, behind=middle)):
        for wanted in (asked, replace(asked, oldest_first=True)):
            for _ in range(12):  # the server may keep a plan by then
                found, read = _counted(months.conn, wanted, _asked)
            assert len(found) == 50
            assert found == _plain(months.conn, wanted)
            # As little as there is in a month here may be sorted, where nothing is known of it.
            assert read <= 1000 or (asked.behind and not months.known), (wanted, read)


def test_a_page_of_which_little_is_left_costs_little_more(months: Months) -> None:
    """Where other filters drop nearly all, the plain query is asked behind a few contexts."""
    for filters in (replace(USER, operation=("DELETE",)), replace(USER, after=(("done", "true"),))):
        found, read = _counted(months.conn, filters, _asked)
        assert found == []
        _, plain = _counted(months.conn, filters, _plain)
        assert read <= plain + 100 + 1000 + 4 * 50 * (EACH + 1), (filters, read, plain)


def _counted(
    conn: psycopg.Connection[Any],
    filters: Filters,
    ask: Callable[[psycopg.Connection[Any], Filters], Iterable[StoredChange]],
) -> tuple[list[StoredChange], int]:
    """The changes, and how many rows of the store were read for them."""
    with conn.transaction():
        before = _read(conn)  # what went before may not have been reported yet
        return [*ask(conn, filters)], _read(conn) - before


def _read(conn: psycopg.Connection[Any]) -> int:
    row = conn.execute(_READ.encode()).fetchone()
    assert row is not None
    return int(row[0])


def _asked(conn: psycopg.Connection[Any], filters: Filters) -> Iterable[StoredChange]:
    return reader.changes(conn, "bemi", filters)


def _plain(conn: psycopg.Connection[Any], filters: Filters) -> list[StoredChange]:
    """What the one query gives that looks nowhere first."""
    query, parameters = compiled("bemi", filters, StoredChange.__struct_fields__)
    with conn.transaction(), conn.cursor("plain", row_factory=class_row(StoredChange)) as cursor:
        for name in ("json", "jsonb"):
            cursor.adapters.register_loader(name, reader.JsonAsItIs)
        cursor.execute(query, parameters)
        return cursor.fetchall()


def test_first_days_are_whole(seed: int) -> None:
    rng = Random(seed)
    for _ in range(200):
        days = sorted((rng.randrange(-3, 9) for _ in range(rng.randrange(40))), reverse=True)
        contexts = [day << 44 | number for number, day in enumerate(days)]
        changes = rng.randrange(12)
        found = pages.first_days(contexts, changes)
        assert contexts[: len(found)] == found
        taken = {id >> 44 for id in found}
        assert not taken & {id >> 44 for id in contexts[len(found) :]}
        assert len(found) <= 4 * changes or len(taken) <= 1
        assert bool(found) == bool(contexts)
    assert pages.first_days([*range(1001)], 50) == []
    assert pages.first_days([*range(1000), 1 << 44], 50) == [*range(1000)]


@pytest.mark.parametrize("analysed", [True, False])
def test_pages_are_those_of_the_plain_query(
    stored: psycopg.Connection[Any], seed: int, analysed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = Random(seed)
    times = _random_history(stored, rng)
    if analysed:
        stored.execute("vacuum (analyze) bemi.contexts, bemi.row_changes")
    ways: Counter[bool] = Counter()
    page = pages.page

    def seen(*asked: Any) -> list[Any] | None:
        found = page(*asked)
        ways[found is not None] += 1
        return found

    monkeypatch.setattr(pages, "page", seen)
    behind = 0
    for _ in range(40):
        # So that all of these bounds are met.
        monkeypatch.setattr(pages, "_LOOKED_AT", rng.choice([1, 10, 100, 2000]))
        monkeypatch.setattr(pages, "_LISTED", rng.choice([3, 30, 5000]))
        monkeypatch.setattr(pages, "_OF_A_DAY", rng.choice([1, 10, 1000]))
        monkeypatch.setattr(pages, "_FOR_EACH", rng.choice([0, 1, 4]))
        filters = _random_filters(rng, times)
        plain = _plain(stored, filters)
        asked = replace(filters, limit=rng.choice([1, 7, 50, 200]))
        for number in range(4):
            given = [*reader.changes(stored, "bemi", asked)]
            assert asked.limit is not None
            at = number * asked.limit
            assert given == plain[at : at + asked.limit], asked
            if not given:
                break
            behind += number > 0
            asked = replace(asked, behind=given[-1].place)
    assert behind > 15
    assert min(ways[True], ways[False]) > 5, ways


def _random_history(conn: psycopg.Connection[Any], rng: Random) -> list[datetime]:
    """Some contexts in a few crowded days, others far apart, some at the very edge of a day."""
    times = []
    for _ in range(1500):
        day = BEGIN + timedelta(days=rng.choice([rng.randrange(DAYS), rng.randrange(5), 200]))
        times.append(
            rng.choice(
                [
                    day,
                    day - timedelta(microseconds=1),
                    day + timedelta(seconds=rng.randrange(86400)),
                ]
            )
        )
    times.append(datetime(1999, 12, 31, 23, 59, tzinfo=UTC))
    for month in {each.replace(day=1) for each in times}:
        conn.execute("select bemi.ensure_partitions(%s, %s)", [month, month])
    contexts, changes = [], []
    for number, at in enumerate(times):
        epoch = rng.choice([1, 2, 3])
        since = (at - ORIGIN) // timedelta(microseconds=1)
        numbered = rng.choice([context_id, context_id, baseline_context_id])
        id = numbered(since, 2 if epoch == 2 else 1, number)
        user, path = rng.choice([1, 1, 2, 3, 4, rng.randrange(100)]), rng.randrange(2)
        context = f'{{"user_id": {user}, "path": "/{path}", "request_id": "r{rng.randrange(40)}"}}'
        contexts.append((id, 700 + number, at, context))
        for ordinal in range(1, rng.choice([2, 2, 3, 30])):
            operation = rng.choice(["CREATE", "UPDATE", "DELETE"])
            table, key = rng.choice(["todo", "todo", "note"]), str(rng.randrange(9))
            change = f"{number:024x}{ordinal:08x}"
            after = f'{{"done": {rng.choice(["true", "false"])}}}'
            place = (at, 1000 + rng.randrange(5) + number * 5)
            change_row = [*place, place[1], id, change, ordinal, epoch, 1, operation]
            changes.append([*change_row, "public", table, key, after])
    for statement, rows in ((_CONTEXT, contexts), (_CHANGE, changes)):
        with conn.cursor() as cursor, cursor.copy(statement.encode()) as copied:
            for row in rows:
                copied.write_row(row)
    return times


def _random_filters(rng: Random, times: list[datetime]) -> Filters:
    given: dict[str, Any] = {"oldest_first": rng.random() < 0.5}
    paths = [("user_id", str(rng.choice([1, 2, 3, 4, 50]))), ("path", f"/{rng.randrange(2)}")]
    given["context"] = tuple(rng.sample(paths, rng.choice([1, 1, 2])))
    if rng.random() < 0.2:
        given["context"], given["trace"] = (), f"r{rng.randrange(45)}"
    if rng.random() < 0.4:
        since, until = sorted(rng.sample(times, 2))
        given |= rng.choice([{"since": since}, {"until": until}, {"since": since, "until": until}])
    if rng.random() < 0.2:
        given["source"] = rng.choice(["shop", "blog", "none"])
    if rng.random() < 0.1:
        given["by_log"] = True
    further: list[dict[str, Any]] = [
        {"table": "note"},
        {"table": "todo", "key": str(rng.randrange(9))},
        {"operation": ("DELETE", "UPDATE")},
        {"after": (("done", "true"),)},
        {"transaction": 700 + rng.randrange(len(times))},
    ]
    for each in rng.sample(further, rng.choice([0, 0, 1, 2])):
        given |= each
    return Filters(**given)
