"""Whatever is known of a table that was just written, its states are read in one pass.

PostgreSQL has no statistics of fresh partitions, and those of older ones may be of other times.
Plans are judged by the rows that they read.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import psycopg
import pytest

from bemi.embedded import Server
from bemi.history import state, travel
from bemi.history.comparing import Compared, compare
from bemi.history.moments import Moment
from bemi.lsn import Lsn
from bemi.store import migrate
from tests.support import databases
from tests.support.plans import judge, nodes, plan

pytestmark = pytest.mark.xdist_group("state_plans")

ROWS = 10_000
MOVED = ROWS // 50
AT_ONCE = 3000
END = 30_000_000

# A table whose rows were written one by one, of which some got other keys, and then many in one
# commit; one with a row that is changed all the time; one without a key; one that was renamed; and
# one alone in its month, in two commits.
_LOAD = f"""
select bemi.ensure_partitions('2026-01-05', '2026-03-05');
insert into bemi.sources (name, database, slot, publication) values ('shop', 'shop', 's', 'p');
insert into bemi.epochs (source_id, system_identifier, timeline, database_oid, database,
    started_position) values (1, '7', 1, 5, 'shop', 0);
insert into bemi.checkpoints (source_id, epoch, position, committed_at)
    values (1, 1, {END + 1}, '2026-03-05');
insert into bemi.relation_names (source_id, epoch, relation, from_position, schema, "table")
values (1, 1, 1, 0, 'public', 'todo'), (1, 1, 2, 0, 'public', 'hot'), (1, 1, 3, 0, 'public', 'log'),
    (1, 1, 4, 0, 'public', 'before'), (1, 1, 4, 5000000, 'public', 'after'),
    (1, 1, 5, 0, 'public', 'bulk');
insert into bemi.intervals (source_id, epoch, relation, schema, "table", membership, from_position,
    verified_position, state_position, state_by, opened)
select 1, 1, n, 'public', name, 1, 0, 0, 0, 'empty', 'begun'
from (values (1, 'todo'), (2, 'hot'), (3, 'log'), (4, 'after'), (5, 'bulk')) of_them (n, name);
insert into bemi.table_versions (source_id, epoch, relation, from_position, from_ordinal, schema,
    "table", columns, primary_key, replica_identity, filenode, read_position, inferred)
select 1, 1, n, 0, 0, 'public', name, jsonb_build_array(
    jsonb_build_object('name', 'id', 'number', 1, 'type', 'text', 'type_oid', 25, 'stamp', 0),
    jsonb_build_object('name', 'n', 'number', 2, 'type', 'integer', 'type_oid', 23, 'stamp', 0)
), '{{id}}', 'f', 1, 0, false
from (values (1, 'todo'), (2, 'hot'), (4, 'after'), (5, 'bulk')) of_them (n, name);
alter table bemi.row_changes_2026_01 set (autovacuum_enabled = off);
alter table bemi.row_changes_2026_02 set (autovacuum_enabled = off);
alter table bemi.row_changes_2026_03 set (autovacuum_enabled = off);
insert into bemi.row_changes (committed_at, commit_position, position, context_id, id, ordinal,
    epoch, relation, operation, schema, "table", primary_key, previous_key, after)
select '2026-01-05'::timestamptz + position * interval '200 ms', position, position, 1,
    gen_random_uuid(), ordinal, 1, relation, operation, 'public', name, key, previous,
    jsonb_build_object('id', key, 'n', i)
from (
    select 1000 + i * 10 as position, 1 as ordinal, 1 as relation, 'CREATE' as operation,
        'todo' as name, i::text as key, null as previous, i
    from generate_series(1, {ROWS}) i
    union all
    select 500000 + i * 10, 1, 1, 'UPDATE', 'todo', (-i)::text, (i * 50)::text, i
    from generate_series(1, {MOVED}) i
    union all
    select 900000, i, 1, 'CREATE', 'todo', 'more ' || i, null, i
    from generate_series(1, {AT_ONCE}) i
    union all
    select 1000000 + i * 2000, 1, 2, case i when 1 then 'CREATE' else 'UPDATE' end, 'hot', '1',
        null, i
    from generate_series(1, {ROWS}) i
    union all
    select 2000001, i, 3, 'CREATE', 'log', null, null, i from generate_series(1, {AT_ONCE}) i
    union all
    select 3000003 + i * 1000, 1, 4, 'CREATE', case when i <= 2000 then 'before' else 'after' end,
        i::text, null, i
    from generate_series(1, 4000) i
    union all
    select 24000000 + n, i, 5, case n when 1 then 'CREATE' else 'UPDATE' end, 'bulk', i::text, null,
        i
    from generate_series(1, 2) n, generate_series(1, {AT_ONCE}) i
) each;
"""


class Stored(NamedTuple):
    conn: psycopg.Connection[Any]

    def asked(self, table: str, **only: Any) -> state.Asked:
        return state.asked(self.conn, "bemi", "shop", f"public.{table}", Lsn(END), **only)

    def read(self) -> int:
        """How many changes this transaction has read so far, outside of indexes."""
        row = self.conn.execute(
            "select sum(seq_tup_read + idx_tup_fetch) from pg_stat_xact_user_tables"
            " where relname like 'row_changes%'"
        ).fetchone()
        assert row is not None
        return int(row[0] or 0)


@pytest.fixture(scope="module")
def fresh(server: Server) -> Iterator[str]:
    name = databases.unused_name("states")
    url = server.create_database(name)
    try:
        with psycopg.connect(url, autocommit=True) as conn:
            migrate.migrate(conn, "bemi")
            conn.execute("set synchronous_commit to off")
            conn.execute(_LOAD.encode())
        yield url
    finally:
        databases.drop(server, name)


@pytest.fixture(scope="module", params=["without statistics", "with statistics"])
def stored(fresh: str, request: pytest.FixtureRequest) -> Iterator[Stored]:
    with psycopg.connect(fresh, autocommit=True) as conn:
        if request.param == "with statistics":
            conn.execute("analyze bemi.row_changes_2026_01")
            conn.execute("analyze bemi.row_changes_2026_02")
            conn.execute("analyze bemi.row_changes_2026_03")
        yield Stored(conn)


@pytest.mark.parametrize(
    ("table", "rows", "changes"),
    [
        ("todo", ROWS + AT_ONCE, ROWS + MOVED + AT_ONCE),
        ("hot", 1, ROWS),
        ("log", AT_ONCE, AT_ONCE),
        ("after", 4000, 4000),
        ("bulk", AT_ONCE, 2 * AT_ONCE),
    ],
)
@pytest.mark.parametrize("of_a_cursor", [0.1, 1])
def test_a_whole_table(
    stored: Stored, table: str, rows: int, changes: int, of_a_cursor: float
) -> None:
    query = stored.asked(table).query
    with stored.conn.transaction():
        stored.conn.execute(f"set local cursor_tuple_fraction to {of_a_cursor}".encode())
        stored.conn.execute(f"declare asked cursor for {query}".encode())
        before = stored.read()
        found = stored.conn.execute("fetch all from asked").fetchall()
        assert len(found) == rows
        assert stored.read() - before <= 5 * changes + 1000


@pytest.mark.parametrize(
    ("table", "key", "rows"),
    [
        ("todo", "49", 1),
        ("todo", "50", 0),
        ("todo", "-1", 1),
        ("todo", f"more {AT_ONCE}", 1),
        ("todo", "more", 0),
        ("hot", "1", 1),
        ("after", "1", 1),
        ("after", "4000", 1),
    ],
)
def test_a_row(stored: Stored, table: str, key: str, rows: int) -> None:
    judge(plan(stored.conn, stored.asked(table, key=key).query), rows=rows, read=30)


@pytest.mark.parametrize("table", ["todo", "hot", "after", "bulk"])
def test_what_is_proven_first(stored: Stored, table: str) -> None:
    with stored.conn.transaction():
        before = stored.read()
        stored.asked(table, key="1")
        stored.asked(table)
        assert stored.read() - before <= 100


def test_travelled_tables_are_joined_in_one_pass(stored: Stored) -> None:
    with stored.conn.transaction(force_rollback=True):
        travel.build(stored.conn, "bemi", Lsn(END), into="travelled", tables=["todo", "after"])
        row = stored.conn.execute(
            "explain (analyze, timing off, format json)"
            " select count(*) from travelled.todo join travelled.after using (n)"
        ).fetchone()
    assert row is not None
    for node in nodes(row[0][0]["Plan"]):
        removed = node.get("Rows Removed by Join Filter", 0) * node["Actual Loops"]
        assert removed <= 10 * ROWS, node["Node Type"]


def test_what_came_later_is_not_looked_through(stored: Stored) -> None:
    """Where all changes of a partition are behind the position that is asked for."""

    def blocks(position: int) -> int:
        query = f"select * from bemi.rows_query('hot', commit_position => {position}, key => '1')"
        read = 0
        for _ in range(2):  # the first one reads the catalog
            row = stored.conn.execute(
                f"explain (analyze, buffers, format json) {query}".encode()
            ).fetchone()
            assert row is not None
            top = row[0][0]["Plan"]
            read = top["Shared Hit Blocks"] + top["Shared Read Blocks"]
        return read

    assert blocks(1_100_000) <= blocks(END) + 10


@pytest.mark.parametrize("name", ["rows_query", "rows_at", "row_at", "tables_at"])
def test_no_question_is_compiled(stored: Stored, name: str) -> None:
    """Which took a second or two of each, where PostgreSQL has LLVM: that of the tests has none."""
    rows = stored.conn.execute("select proconfig from pg_proc where proname = %s", [name])
    assert all("jit=off" in settings for (settings,) in rows)


def test_what_is_proven_of_a_table_without_a_key(stored: Stored) -> None:
    """That all that went had come takes the changes."""
    with stored.conn.transaction():
        before = stored.read()
        stored.asked("log")
        assert stored.read() - before <= 5 * AT_ONCE


@pytest.mark.parametrize(
    ("start", "rows"), [(10, ROWS + AT_ONCE), (800_000, AT_ONCE)], ids=["whole tables", "by keys"]
)
def test_a_difference_of_rows_that_all_differ(stored: Stored, start: int, rows: int) -> None:
    asked = Compared("public.todo", Moment("shop", 1, Lsn(start)), Moment("shop", 1, Lsn(END)))
    with stored.conn.transaction():
        before = stored.read()
        assert len([*compare(stored.conn, "bemi", asked)]) == rows
        assert stored.read() - before <= 15 * (ROWS + MOVED + AT_ONCE)


def test_a_large_table_is_read_in_two_halves_at_once(stored: Stored) -> None:
    """Where PostgreSQL can have processes for that; what is special of rows is told in these."""
    conn = stored.conn
    query = stored.asked("todo").query
    with conn.transaction(force_rollback=True):
        conn.execute(
            "update bemi.row_changes set flags = '{unchanged:n}', after = after - 'n'"
            " where relation = 1 and previous_key is not null"
        )
        halves = [conn.execute(half.encode()).fetchall() for half in query.split("\nunion all\n")]
        assert len(halves) == 2
        assert min(map(len, halves)) > 0
        # Cheap processes, and none that sorts what an index has in order.
        for setting in ("parallel_setup_cost = 0", "parallel_tuple_cost = 0", "enable_sort = off"):
            conn.execute(f"set local {setting}".encode())
        conn.execute("set local parallel_leader_participation = off")
        row = conn.execute(f"explain (format json) {query}".encode()).fetchone()
        assert row is not None
        gather, append, *_ = nodes(row[0][0]["Plan"])
        assert (gather["Node Type"], append["Node Type"]) == ("Gather", "Append")
        assert len(append["Plans"]) == 2
        found = {key: (image["n"], flags) for key, image, flags in conn.execute(query.encode())}
    assert found == {key: (image["n"], flags) for half in halves for key, image, flags in half}
    assert len(found) == ROWS + AT_ONCE
    assert found["-1"] == (50, None)


@pytest.mark.parametrize("stored", ["with statistics"], indirect=True)
def test_some_rows_of_a_large_table_are_found_by_their_keys(stored: Stored) -> None:
    """The condition of a query around it reaches the index."""
    query = stored.asked("todo").query
    some = f"select key, image, flags from ({query}) q where key = any(array['-1', '49', '50'])"
    judge(plan(stored.conn, some), rows=2, read=40)
