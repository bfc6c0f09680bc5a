"""`verify` finds the changes that are missing in the history, and nothing else."""

import dataclasses
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from bemi.config import Settings
from bemi.rules import Rules, Skip
from bemi.store import chain
from bemi.store.chain import Chain
from bemi.store.link_rows import Scope
from bemi.store.links import Finding
from tests.conftest import MakeDatabase
from tests.integration.conftest import Track
from tests.support import workload
from tests.support.baselines import assert_same
from tests.support.tracked import Tracked
from tests.support.tracking import environment, track

TABLE = "create table app.t (id int primary key, a int, b text, c text)"


@pytest.fixture
def one(tracked: Track) -> Tracked:
    """A table with REPLICA IDENTITY FULL, tracked since it was empty."""
    return tracked("create schema app", TABLE, full=["app.*"])


def verify(
    tracked: Tracked,
    scope: Scope = Scope(),  # noqa: B008 - frozen
    *,
    chunk: int = chain.CHUNK,
) -> list[Finding]:
    with psycopg.connect(tracked.settings.destination_url, autocommit=True) as conn:
        (source,) = chain.sources(conn, tracked.settings.schema)
        steps = Chain(conn, tracked.settings.schema, source, chunk=chunk).steps(scope)
        return [finding for step in steps for finding in step.findings]


def links(tracked: Tracked) -> list[Finding]:
    """Of the rows' chains alone."""
    return [each for each in verify(tracked) if each.problem != "hole"]


def remove(tracked: Tracked, condition: str) -> None:
    rows = tracked.query(f"delete from bemi.row_changes where {condition} returning id")
    assert rows, condition


def run(tracked: Tracked, *statements: str) -> None:
    for statement in statements:
        tracked.source.execute(statement.encode())
    tracked.catch_up()


# --- it never cries wolf ---------------------------------------------------------------------


@pytest.fixture
def worked(make_database: MakeDatabase) -> Iterator[Tracked]:
    """The history of the crash tests' application, whole."""
    source, destination = make_database(), make_database()
    settings, _ = workload.prepare(source, destination)
    with workload.Workload(source, seed=3, transactions=500, rate=1e9) as load:
        load.join()
    found = Tracked(settings)
    found.catch_up()
    yield found
    found.close()


def test_a_whole_history_has_no_findings(worked: Tracked) -> None:
    counts = worked.query('select "table", operation, count(*) from bemi.row_changes group by 1, 2')
    seen = {(row["table"], row["operation"]) for row in counts}
    for table in ("accounts", "items", "visits", "events"):
        assert (table, "CREATE") in seen
    operations = {operation for table, operation in seen if table != "notes"}
    assert operations == {"CREATE", "UPDATE", "DELETE", "TRUNCATE"}
    keys = "select count(*) as n from bemi.row_changes where previous_key is not null"
    assert worked.query(keys)[0]["n"]
    assert verify(worked) == []
    # However it is cut.
    for chunk in (7, 100, 1999):
        assert verify(worked, chunk=chunk) == []


def test_every_change_that_a_chain_can_show_is_found(worked: Tracked) -> None:
    """And those that it can't show are the ones that it should not."""
    chance = random.Random(11)
    rows = worked.query(
        "select id, relation::bigint, operation, primary_key, previous_key, commit_position, "
        "ordinal, coalesce(before, after || changed, '{}') as before, "
        "coalesce(after, '{}') as after from bemi.row_changes order by commit_position, ordinal"
    )
    later: dict[tuple[int, str], list[int]] = {}
    emptied: dict[int, list[int]] = {}
    for at, row in enumerate(rows):
        for key in {row["primary_key"], row["previous_key"]} - {None}:
            later.setdefault((row["relation"], key), []).append(at)
        if row["operation"] == "TRUNCATE":
            emptied.setdefault(row["relation"], []).append(at)
    # Some of each kind, however many of it this run of the workload has; a TRUNCATE has no key.
    kinds: dict[tuple[str, bool], list[int]] = {}
    for at, row in enumerate(rows):
        if row["operation"] == "TRUNCATE":
            continue
        expected = _shown(row, at, rows, later, emptied)
        kinds.setdefault((row["operation"], expected), []).append(at)
    told: dict[tuple[str, bool], int] = {}
    for at in (at for each in kinds.values() for at in chance.sample(each, min(10, len(each)))):
        row = rows[at]
        expected = _shown(row, at, rows, later, emptied)
        with psycopg.connect(worked.settings.destination_url, autocommit=True) as conn:
            (source,) = chain.sources(conn, "bemi")
            with conn.transaction(force_rollback=True):
                conn.execute(
                    "delete from bemi.row_changes where commit_position = %s and ordinal = %s",
                    [row["commit_position"], row["ordinal"]],
                )
                steps = Chain(conn, "bemi", source).steps(
                    Scope(relations=frozenset([row["relation"]])), ordinals=False
                )
                found = [finding for step in steps for finding in step.findings]
        assert bool(found) == expected, row
        told[row["operation"], expected] = told.get((row["operation"], expected), 0) + 1
        for finding in found:
            assert finding.relation == row["relation"]
            assert finding.from_position <= row["commit_position"] <= finding.to_position
    assert {("CREATE", True), ("CREATE", False)} <= told.keys(), told


def _shown(
    row: dict[str, Any],
    at: int,
    rows: list[dict[str, Any]],
    later: dict[tuple[int, str], list[int]],
    emptied: dict[int, list[int]],
) -> bool:
    """Whether what comes later for its keys says that the change was there."""
    relation, operation = row["relation"], row["operation"]
    if operation == "TRUNCATE" or row["primary_key"] is None:
        return False  # taken on its own elsewhere
    if operation == "UPDATE" and row["before"] == row["after"]:
        return False  # it changed nothing
    end = next((place for place in emptied.get(relation, ()) if place > at), len(rows))
    for key in {row["primary_key"], row["previous_key"]} - {None}:
        following = [place for place in later[relation, key] if at < place < end]
        if following:
            return True
    return False


def test_a_truncate_that_is_missing_shows_when_a_key_comes_again(one: Tracked) -> None:
    run(one, "insert into app.t values (1), (2)", "truncate app.t", "insert into app.t values (2)")
    assert verify(one) == []
    remove(one, "operation = 'TRUNCATE'")
    (finding,) = links(one)
    assert finding.problem == "living"


def test_after_a_truncate_all_rows_are_known(tracked: Track) -> None:
    """Also where it is not known what the table held before."""
    found = tracked("create schema app", TABLE, "insert into app.t values (1)", full=["app.*"])
    run(found, "update app.t set a = 1", "truncate app.t", "insert into app.t values (1), (2)")
    run(found, "update app.t set a = 2")
    assert verify(found) == []
    remove(found, "operation = 'CREATE' and primary_key = '2'")
    (finding,) = links(found)
    assert finding.problem == "never"


@pytest.mark.parametrize("full", [True, False])
def test_ddl_that_the_worker_sees_late_is_no_missing_change(tracked: Track, full: bool) -> None:
    """The catalog is read when it has changed already; what a table was then is guessed."""
    found = tracked(
        "create schema app",
        TABLE,
        "create table app.u (id int primary key, code text not null, n int)",
        full=["app.*"] if full else [],
    )
    for number in (1, 2):
        for statement in (
            "insert into app.t select g, g, 'b', 'c' from generate_series(1, 9) g",
            "alter table app.t alter a type int using a + 100",
            "update app.t set b = b || 'x' where id < 5",
            "alter table app.t rename b to d",
            "alter table app.t rename c to b",
            "update app.t set a = a + 1",
            "alter table app.t drop column d",
            "alter table app.t add column d text default 'new'",
            "update app.t set a = a + 1",
            "alter table app.t rename b to c",
            "alter table app.t rename d to b",
            "alter table app.t alter a type bigint",
            "delete from app.t where id % 2 = 0",
            "alter table app.t alter a type int",
            "update app.t set a = 0",
            "alter table app.t rename to v",
            "update app.v set a = 1",
            "alter table app.v rename to t",
            "delete from app.t",
            # Another key, and rows whose new key was not one before.
            "insert into app.u select g, 'same', g from generate_series(1, 4) g",
            "update app.u set n = n + 1",
            "update app.u set code = id::text",
            "alter table app.u drop constraint u_pkey, add primary key (code)",
            "update app.u set n = n + 1",
            "delete from app.u",
            "insert into app.u values (1, 'same', 1), (2, 'other', 1)",
            "alter table app.u drop constraint u_pkey, add primary key (id)",
            "update app.u set code = 'same'",
            "delete from app.u",
        ):
            found.source.execute(statement.encode())
            if number == 2:
                found.catch_up()
        found.catch_up()
        assert verify(found) == []


@pytest.mark.parametrize(
    "statements",
    [
        # Rewritten by a statement that leaves type and name as they are.
        (
            "insert into app.t values (1, 1), (2, 2)",
            "alter table app.t alter a type int using a + 100",
            "update app.t set b = 'x'",
        ),
        # A key that is rewritten, so that rows are called by what they never were.
        (
            "insert into app.t values (1, 1), (2, 2)",
            "alter table app.t alter id type int using id + 100",
            "update app.t set b = 'x'",
        ),
        # Another key, whose values were not unique before it was one.
        (
            "insert into app.t values (1, 1), (2, 1)",
            "update app.t set a = id",
            "alter table app.t drop constraint t_pkey, add primary key (a)",
            "update app.t set b = 'x'",
        ),
        # The same, of a column that never was null.
        (
            "insert into app.t (id, a, d) values (1, 1, 1), (2, 1, 1)",
            "update app.t set d = id",
            "alter table app.t drop constraint t_pkey, add primary key (d)",
            "update app.t set b = 'x'",
        ),
        # Another column of the same name.
        (
            "insert into app.t values (1, 1), (2, 1)",
            "alter table app.t drop column a, add column a int default 7",
            "update app.t set b = 'x'",
        ),
    ],
)
def test_what_was_altered_before_the_worker_came_proves_nothing(
    one: Tracked, statements: tuple[str, ...]
) -> None:
    run(one, "alter table app.t add d int not null default 0")
    for statement in statements:
        one.source.execute(statement.encode())
    one.catch_up()
    assert verify(one) == []


def test_a_key_that_is_rewritten_while_the_worker_looks_proves_nothing(one: Tracked) -> None:
    for statement in (
        "insert into app.t values (1, 1), (2, 2)",
        "alter table app.t alter id type int using id + 100",
        "update app.t set b = 'x'",
    ):
        run(one, statement)
    assert verify(one) == []


def test_labels_that_are_renamed_change_rows_that_nobody_wrote(tracked: Track) -> None:
    found = tracked(
        "create schema app",
        "create type app.mood as enum ('good', 'bad')",
        "create type app.pair as (x int, y int)",
        "create table app.t (id int primary key, mood app.mood, moods app.mood[], pair app.pair,"
        " rel regclass)",
        "create table app.k (mood app.mood primary key, n int)",
        full=["app.*"],
    )
    run(
        found,
        "insert into app.t values (1, 'good', '{good}', '(1,2)', 'app.k')",
        "insert into app.k values ('good', 1)",
        "alter type app.mood rename value 'good' to 'fine'",
        "alter type app.pair add attribute z int",
        "alter table app.k rename to l",
        "update app.t set id = 2",
        "update app.l set n = 2",
        "update app.l set n = 3",
    )
    assert verify(found) == []
    with psycopg.connect(found.settings.destination_url) as conn:
        (source,) = chain.sources(conn, "bemi")
        tables = {table.name: table.unchecked for table in Chain(conn, "bemi", source).tables}
    assert tables["app.t"] is None
    assert "app.mood" in (tables["app.l"] or "")


def test_keys_that_wait_for_the_commit_may_be_there_twice(tracked: Track) -> None:
    """Such a key is none, but histories have some from before it was."""
    found = tracked(
        "create schema app",
        "create table app.t (id int primary key deferrable initially deferred, a int)",
        full=["app.*"],
    )
    run(
        found,
        "insert into app.t values (1, 10), (2, 20), (3, 30)",
        "update app.t set id = 3 - id where id < 3",
        "update app.t set a = a + 1",
        "begin; insert into app.t values (3, 99); delete from app.t where a = 31; commit",
        "update app.t set a = a + 1",
        "delete from app.t",
    )
    found.query("update bemi.table_versions set primary_key = '{id}' returning 1")
    found.query(
        "update bemi.row_changes set primary_key = coalesce(after, before) ->> 'id',"
        " previous_key = changed ->> 'id' returning 1"
    )
    assert verify(found) == []
    remove(found, "primary_key = '1' and changed ? 'a'")
    assert links(found)


def test_long_keys_are_followed_by_their_digests(tracked: Track) -> None:
    found = tracked("create schema app", "create table app.t (id text primary key, a int)")
    found.source.execute("alter table app.t alter id set storage external")
    for statement in (
        "insert into app.t values (repeat('a', 2100), 1), (repeat('b', 2100), 1)",
        "update app.t set a = 2",
        "update app.t set id = id || 'x'",
        "update app.t set a = 3",
    ):
        run(found, statement)
    assert verify(found) == []
    remove(found, "operation = 'UPDATE' and previous_key is not null")
    assert {finding.problem for finding in links(found)} == {"never"}


def test_values_in_other_forms_prove_nothing(one: Tracked) -> None:
    one.source.execute("alter table app.t add j jsonb, add f float, add g int[]")
    run(
        one,
        "insert into app.t (id, j, f, g) values (1, null, 0, '{1}')",
        "update app.t set j = 'null'",
        "update app.t set f = '-0'",
        "update app.t set f = 1, g = '[2:2]={1}'",
        "update app.t set j = null, g = null",
        "update app.t set b = repeat('x', 100000)",
        "update app.t set a = 1",
        "delete from app.t",
    )
    assert verify(one) == []


# --- what rules leave out and replace --------------------------------------------------------


def _under(tracked: Tracked, **changed: Any) -> Tracked:
    tracked.settings = dataclasses.replace(tracked.settings, **changed)
    return tracked


@pytest.mark.parametrize("full", [True, False])
def test_rules_that_come_and_go_make_no_findings(tracked: Track, full: bool) -> None:
    found = tracked("create schema app", TABLE, full=["app.*"] if full else [])
    key = "0123456789abcdef"
    rules = [
        Rules(),
        Rules(ignore=("app.t.a",)),
        Rules(mask=("app.t.b",)),
        Rules(exclude=("app.t.b",), mask=("app.t.c",)),
        Rules(hash=("app.t.b", "app.t.id")),
        Rules(mask=("app.t.id",)),
        Rules(skip=(Skip(tables=("app.t",), operations=("update",)),)),
        Rules(skip=(Skip(tables=("app.t",), operations=("create",)),)),
        Rules(),
    ]
    for number, rule in enumerate(rules):
        _under(found, rules=rule, hash_key=f"{key}{number}")
        run(
            found,
            f"insert into app.t values ({number}, 0, 'b', 'c'), ({number + 100}, 0, 'b', 'c')",
            "update app.t set a = a + 1",
            f"update app.t set b = b || '{number}'",
            f"update app.t set a = a + 1, c = c || '{number}'",
            f"update app.t set id = id + 1000 where id = {number + 100}",
            f"delete from app.t where id = {number}",
        )
        assert verify(found) == [], rule


def test_columns_that_rules_replace_are_compared_under_the_same_rules(one: Tracked) -> None:
    _under(one, rules=Rules(hash=("app.t.b",), mask=("app.t.c",)), hash_key="0123456789abcdef")
    run(one, "insert into app.t values (1, 0, 'b', 'c')")
    for value in "xyz":
        run(one, f"update app.t set b = '{value}', c = '{value}'")
    assert verify(one) == []
    changes = one.query("select id from bemi.row_changes order by commit_position")
    remove(one, f"id = '{changes[2]['id']}'")
    (finding,) = links(one)
    # A mask is the same for all values; a digest is not.
    assert finding.columns == ("b",)


@pytest.mark.parametrize(
    ("rules", "left_out"),
    [
        (Rules(skip=(Skip(operations=("delete",)),)), "delete from app.t where id = 1"),
        (Rules(ignore=("app.t.a",)), "update app.t set a = 7 where id = 1"),
        (Rules(exclude=("app.t.a",)), "update app.t set a = 7 where id = 1"),
    ],
    ids=["skip", "ignore", "exclude"],
)
def test_ordinals_have_holes_where_rules_leave_changes_out(
    one: Tracked, rules: Rules, left_out: str
) -> None:
    _under(one, rules=rules)
    run(
        one,
        f"begin; insert into app.t values (1), (2); {left_out};"
        "insert into app.t values (3); commit",
    )
    holes = "select ordinal from bemi.row_changes order by ordinal"
    assert [row["ordinal"] for row in one.query(holes)] == [1, 2, 4]
    assert verify(one) == []


# --- what is missing is found ----------------------------------------------------------------


def test_an_update_that_is_missing(one: Tracked) -> None:
    run(one, "insert into app.t values (1, 0, 'b', 'c')")
    for statement in ("update app.t set a = 1", "update app.t set b = 'x'", "delete from app.t"):
        run(one, statement)
    first, missing, last, _ = one.changes()
    remove(one, f"id = '{missing['id']}'")
    (finding,) = links(one)
    assert (finding.problem, finding.columns) == ("differs", ("a",))
    assert (finding.change, finding.last) == (str(last["id"]), str(first["id"]))
    assert finding.from_position == first["commit_position"]
    assert finding.to_position == last["commit_position"]


@pytest.mark.parametrize(
    ("missing", "problem"),
    [
        ("operation = 'CREATE' and ordinal = 1 and primary_key = '1'", "never"),
        ("operation = 'DELETE' and primary_key = '1'", "living"),
        ("previous_key = '2'", "never"),
        ("operation = 'CREATE' and primary_key = '4'", "dead"),
    ],
)
@pytest.mark.parametrize("full", [True, False])
def test_a_change_that_is_missing(tracked: Track, missing: str, problem: str, full: bool) -> None:
    one = tracked("create schema app", TABLE, full=["app.*"] if full else [])
    for statement in (
        "insert into app.t values (1), (2)",
        "delete from app.t where id = 1",
        "insert into app.t values (1)",
        "update app.t set id = 3 where id = 2",
        "update app.t set a = 7 where id = 3",
        "insert into app.t values (5)",
        "delete from app.t where id = 5",
        "insert into app.t values (4)",
    ):
        run(one, statement)
    run(one, "update app.t set id = 6 where id = 4", "insert into app.t values (4)")
    run(one, "delete from app.t where id = 4")
    assert verify(one) == []
    if problem == "dead":
        missing += " and commit_position = (select max(commit_position) from bemi.row_changes"
        missing += " where operation = 'CREATE')"
    remove(one, missing)
    assert [finding.problem for finding in links(one)] == [problem]


def test_of_a_row_whose_beginning_is_not_known_only_what_follows_is_compared(
    tracked: Track,
) -> None:
    one = tracked("create schema app", TABLE, "insert into app.t values (1), (2)", full=["app.*"])
    run(one, "update app.t set a = 1", "update app.t set a = 2", "delete from app.t where id = 2")
    assert verify(one) == []
    remove(one, "operation = 'UPDATE' and (after ->> 'a') = '1' and primary_key = '1'")
    assert links(one) == []
    remove(one, "operation = 'UPDATE' and (after ->> 'a') = '2' and primary_key = '2'")
    assert [finding.problem for finding in links(one)] == ["differs"]


def test_with_a_baseline_all_rows_are_known(tracked: Track) -> None:
    one = tracked("create schema app", TABLE, "insert into app.t values (1), (2)", full=["app.*"])
    run(one, "update app.t set a = 1 where id = 1")
    subprocess.run(
        [sys.executable, "-m", "bemi", "snapshot"],
        env=environment(one.settings),
        capture_output=True,
        check=True,
    )
    run(one, "update app.t set a = 2", "insert into app.t values (3)", "delete from app.t")
    assert verify(one) == []
    remove(one, "operation = 'SNAPSHOT' and primary_key = '2'")
    assert [finding.problem for finding in links(one)] == ["never"]


def test_a_known_gap_is_no_finding(one: Tracked) -> None:
    run(one, "insert into app.t values (1)")
    for number in range(4):
        run(one, f"update app.t set a = {number}")
    changes = one.changes()
    remove(one, f"id = '{changes[2]['id']}'")
    assert len(links(one)) == 1
    one.query(
        "insert into bemi.gaps (source_id, epoch, relation, from_position, to_position, cause) "
        "select 1, epoch, relation, %s, %s, 'ignored' from bemi.row_changes limit 1 returning 1",
        [changes[2]["commit_position"], changes[2]["commit_position"] + 1],
    )
    assert links(one) == []


def test_a_hole_in_a_transaction(one: Tracked) -> None:
    run(one, "insert into app.t select g from generate_series(1, 5) g", "delete from app.t")
    assert verify(one) == []
    remove(one, "operation = 'DELETE' and primary_key = '3'")
    (finding,) = verify(one)
    assert (finding.problem, finding.relation, finding.change) == ("hole", None, None)
    assert (
        finding.from_position
        == finding.to_position
        == one.query("select max(commit_position) as place from bemi.row_changes")[0]["place"]
    )


def test_changes_behind_the_checkpoint(one: Tracked) -> None:
    run(one, "insert into app.t values (1)")
    one.query(
        "update bemi.checkpoints set position = (select max(commit_position) from bemi.row_changes)"
        " returning 1"
    )
    assert [finding.problem for finding in verify(one)] == ["beyond"]


def test_since_compares_with_all_that_came_before(one: Tracked) -> None:
    run(one, "insert into app.t values (1), (2)", "update app.t set a = 1")
    run(one, "update app.t set a = 2", "update app.t set a = 3 where id = 1")
    *_, last = one.changes()
    remove(one, "(after ->> 'a') = '1' and primary_key = '1'")
    remove(one, "(after ->> 'a') = '2' and primary_key = '1'")
    assert len(links(one)) == 1
    whole = Scope(since=last["committed_at"])
    assert [f.to_position for f in verify(one, whole)] == [last["commit_position"]]
    assert len([f for f in verify(one, Scope(until=last["committed_at"])) if f.change]) == 1
    before = last["committed_at"] - timedelta(microseconds=1)
    assert not [f for f in verify(one, Scope(until=before)) if f.change]


# --- the command -----------------------------------------------------------------------------


def command(settings: Settings, *arguments: str) -> tuple[int, str, str]:
    return bemi(settings, "verify", *arguments)


def bemi(settings: Settings, *arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "bemi", *arguments],
        env=environment(settings),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_findings_are_recorded_once_and_may_be_accepted(tracked: Track) -> None:
    found = tracked(
        "create schema app",
        TABLE,
        "create table app.keyless (n int)",
        full=["app.*"],
    )
    run(found, "insert into app.t values (1, 0, 'secret')", "insert into app.keyless values (1)")
    run(found, "update app.t set b = 'hidden'")
    run(found, "update app.t set c = 'x'")
    code, text, _ = command(found.settings)
    assert code == 0, text
    assert "nothing is missing" in text
    assert "app.keyless" in text
    assert "it has no key" in text
    remove(found, "after ->> 'b' = 'hidden' and after ->> 'c' is null")
    for _ in range(2):
        code, text, _ = command(found.settings)
        assert code == 1
        gaps = found.query("select * from bemi.gaps where cause = 'chain'")
        assert len(gaps) == 1
    assert gaps[0]["detail"].endswith("left (b)")
    assert gaps[0]["columns"] is None
    assert gaps[0]["accepted_at"] is None
    code, out, _ = command(found.settings, "--json")
    assert code == 1
    (source,) = json.loads(out)
    (finding,) = source["findings"]
    assert finding["table"] == "app.t"
    assert finding["columns"] == ["b"]
    assert {each["table"]: each["checked"] for each in source["tables"]} == {
        "app.t": True,
        "app.keyless": False,
    }
    assert "secret" not in text + out
    assert "hidden" not in text + out
    assert command(found.settings, "--table", "app.keyless")[0] == 0
    assert command(found.settings, "--table", "app.t")[0] == 1
    assert command(found.settings, "--since", "2199-01-01")[0] == 0
    code, _, error = command(found.settings, "--table", "app.nothing")
    assert code == 1
    assert "no table app.nothing" in error
    code, _, error = command(found.settings, "--source", "nothing")
    assert code == 1
    assert "no source nothing" in error
    assert command(found.settings, "--accept")[0] == 0
    code, text, _ = command(found.settings)
    assert code == 0
    assert "1 finding accepted" in text


@pytest.mark.parametrize("mends", ["recover", "snapshot"])
def test_what_is_missing_is_mended_from_the_tables(tracked: Track, mends: str) -> None:
    """Once, for each table that it may have been of: a hole does not say of which."""
    found = tracked("create schema app", TABLE, "create table app.other (id int primary key)")
    run(
        found, "insert into app.t values (1, 1), (2, 2), (3, 3)", "insert into app.other values (1)"
    )
    run(found, "delete from app.t where id < 3", "insert into app.t values (1, 5)")
    remove(found, "operation = 'DELETE' and primary_key = '1'")
    code, text, _ = command(found.settings)
    assert code == 1
    assert "2 findings, recorded as gaps" in text
    assert bemi(found.settings, "verify", "--accept")[0] == 0
    code, text, error = bemi(found.settings, mends)
    assert (code, error) == (0, "")
    assert "app.t: 2 rows" in text
    assert "app.other: 1 row" in text
    assert_same(found.settings, "app.t", "app.other")
    assert "2 tables complete with every row" in bemi(found.settings, "status")[1]
    again = {"recover": (1, "nothing is wrong"), "snapshot": (0, "every table that is tracked has")}
    code, text, _ = bemi(found.settings, mends)
    assert code == again[mends][0]
    assert text.startswith(again[mends][1])


def test_it_runs_beside_a_worker(make_database: MakeDatabase) -> None:
    """What is stored meanwhile is not judged by what was known when it began."""
    source, destination = make_database(), make_database()
    with psycopg.connect(source, autocommit=True) as conn:
        conn.execute("create schema app")
        conn.execute(TABLE.encode())
    found = Tracked(track(source, destination, full=["app.*"]))
    try:
        run(found, "insert into app.t select g, 0 from generate_series(1, 50) g")
        with psycopg.connect(destination, autocommit=True) as conn:
            (read,) = chain.sources(conn, "bemi")
            steps = Chain(conn, "bemi", read, chunk=20).steps(Scope())
            findings = []
            for number, step in enumerate(steps):
                findings += step.findings
                if number < 3:
                    run(found, "truncate app.t", "insert into app.t select generate_series(1, 50)")
                    run(found, "update app.t set a = 1")
            # The checkpoint is asked last, of what is there then.
            assert findings == []
    finally:
        found.close()
