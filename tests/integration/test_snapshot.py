"""`bemi snapshot` and `bemi init --snapshot` as their users call them."""

import json
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import psycopg

from bemi.config import Settings
from tests.integration.conftest import Track
from tests.support.baselines import assert_same, assert_state, history
from tests.support.tracked import Tracked
from tests.support.tracking import environment
from tests.support.waiting import until
from tests.support.workers import Worker

PEOPLE = (
    "create table people (id int primary key, name text)",
    "insert into people select g, 'name ' || g from generate_series(1, 300) g",
)


def bemi(settings: Settings, *arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "bemi", *arguments],
        check=False,
        capture_output=True,
        text=True,
        env={**environment(settings), "COLUMNS": "120"},
        timeout=100,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


def stored(settings: Settings) -> int:
    with psycopg.connect(settings.destination_url) as conn:
        row = conn.execute("select coalesce(sum(rows), 0)::int from bemi.baselines").fetchone()
    assert row is not None
    return int(row[0])


def test_it_tells_what_it_stored(tracked: Track) -> None:
    t = tracked(*PEOPLE, "create table q (id int primary key)", "insert into q values (1)")
    code, out, err = bemi(t.settings, "snapshot")
    # What autovacuum may have counted by now, and the worker's own transactions may be in the way.
    out = re.sub(r", of about 300|waiting: .*\n", "", out)
    assert (code, out, err) == (
        0,
        (
            "public.people: begins\npublic.people: 300 rows\npublic.q: begins\n"
            "public.q: 1 row\nbaselines of 2 tables stored, 301 rows\n"
        ),
        "",
    )
    assert bemi(t.settings, "snapshot")[:2] == (
        0,
        "every table that is tracked has its baseline\n",
    )
    assert_same(t.settings, "public.people", "public.q")


def test_a_table_without_a_key_is_stored_anew_once(tracked: Track) -> None:
    t = tracked("create table notes (n int)", full=("notes",))
    t.source.execute("insert into notes values (5)")
    assert bemi(t.settings, "snapshot", "--again")[0] == 0
    assert_state(t.settings, "public.notes")


def test_globs_choose_and_json_is_for_programs(tracked: Track) -> None:
    t = tracked(
        *PEOPLE,
        "create schema s",
        "create table s.q (id int primary key)",
        "insert into s.q values (1)",
        "create table p (id int primary key) partition by range (id)",
        "create table p_1 partition of p for values from (0) to (10)",
        "insert into p values (1), (2)",
    )
    for arguments, tables in (
        (("--table", "p"), {"public.p_1": 2}),
        (("--schema", "s"), {"s.q": 1}),
        (("--table", "peop*"), {"public.people": 300}),
    ):
        code, out, _ = bemi(t.settings, "snapshot", "--json", *arguments)
        told = json.loads(out)
        assert (code, told["complete"]) == (0, True)
        assert {each["table"]: each["rows"] for each in told["tables"]} == tables


def test_of_tables_that_were_not_chosen_nothing_is_said(tracked: Track) -> None:
    t = tracked(*PEOPLE, "create table q (id int primary key)")
    _, out, _ = bemi(t.settings, "snapshot", "--table", "q")
    assert out == "every table that is chosen has its baseline\n"
    assert stored(t.settings) == 0


def test_what_matches_nothing_that_is_tracked_is_an_error(tracked: Track) -> None:
    t = tracked(*PEOPLE, "create table nokey (n int)")
    for arguments, flag in (
        (("--table", "nosuch"), "--table nosuch"),
        (("--table", "people", "--table", "nokey"), "--table nokey"),
        (("--schema", "nosuch", "--json"), "--schema nosuch"),
        (("--table", "nosuch", "--again"), "--table nosuch"),
    ):
        code, _, err = bemi(t.settings, "snapshot", *arguments)
        assert code == 1
        assert f"{flag} matches no tracked table" in err
        assert "`bemi init`" in err
    assert stored(t.settings) == 0


def lose(t: Tracked, cause: str, table: str = "people") -> None:
    """Changes of a table are missing behind its baseline."""
    t.source.execute(f"update {table} set id = id".encode())
    t.catch_up()
    t.query(
        "insert into bemi.gaps (source_id, epoch, relation, from_position, to_position, cause) "
        "select i.source_id, i.epoch, i.relation, i.state_position + 1, k.position - 1, %s "
        'from bemi.intervals i join bemi.checkpoints k using (source_id) where i."table" = %s '
        "and i.to_position is null returning 1",
        [cause, table],
    )


def test_tables_whose_rows_are_not_known_any_more_are_named(tracked: Track) -> None:
    t = tracked(*PEOPLE)
    assert bemi(t.settings, "snapshot")[0] == 0
    lose(t, "ignored")
    code, out, _ = bemi(t.settings, "snapshot")
    assert code == 0
    assert out == (
        "public.people: its rows are not known since changes are missing:"
        " `bemi snapshot --again --table 'public.people'`\n"
    )
    _, out, _ = bemi(t.settings, "snapshot", "--json")
    assert json.loads(out) == {"tables": [], "unknown": ["public.people"], "complete": False}
    assert bemi(t.settings, "snapshot", "--again", "--table", "public.people")[0] == 0
    code, out, _ = bemi(t.settings, "snapshot")
    assert (code, out) == (0, "every table that is tracked has its baseline\n")


def test_what_fails_is_an_exit_code_with_its_fix(tracked: Track, tmp_path: Path) -> None:
    t = tracked(*PEOPLE)
    t.source.execute("create role narrow login superuser password 'x'")
    t.source.execute("alter role narrow nosuperuser replication")
    t.source.execute("grant all on database postgres to narrow")
    narrow = psycopg.conninfo.make_conninfo(t.settings.source_url, user="narrow", password="x")
    try:
        with Worker(t.settings, tmp_path) as worker:
            worker.ready()
            code, out, err = bemi(t.settings, "snapshot", "--source-url", narrow)
        assert code == 1
        assert "error: public.people: the role narrow may not read public.people" in err
        assert "fix: grant select on public.people to narrow;" in err
        assert "baselines of" not in out
    finally:
        t.source.execute("drop owned by narrow; drop role narrow")


def test_without_a_slot_it_names_recover(tracked: Track) -> None:
    t = tracked(*PEOPLE)
    t.source.execute("select pg_drop_replication_slot(%s)", [t.settings.slot])
    code, _, err = bemi(t.settings, "snapshot")
    assert code == 1
    assert "`bemi recover`" in err


def test_it_goes_on_after_a_kill_and_repeats_nothing(tracked: Track) -> None:
    t = tracked(*PEOPLE)
    process = subprocess.Popen(
        [sys.executable, "-m", "bemi", "snapshot", "--rate", "40", "--json"],
        env=environment(t.settings),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until(lambda: stored(t.settings) >= 80, 60, "two chunks are stored")
    process.kill()
    process.wait()
    done = stored(t.settings)
    assert done < 300
    code, out, _ = bemi(t.settings, "snapshot")
    assert code == 0
    assert f"public.people: goes on behind {done} rows" in out
    keys = Counter(row["primary_key"] for row in history(t.settings.destination_url))
    assert len(keys) == 300
    assert set(keys.values()) == {1}
    assert_same(t.settings, "public.people")


def test_ctrl_c_keeps_what_is_stored_and_says_how_to_go_on(tracked: Track) -> None:
    t = tracked(*PEOPLE)
    process = subprocess.Popen(
        [sys.executable, "-m", "bemi", "snapshot", "--rate", "40"],
        env=environment(t.settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: stored(t.settings) >= 40, 60, "a chunk is stored")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped after 0 tables; what is stored stays" in out
    assert "Traceback" not in err
    assert bemi(t.settings, "snapshot", "--chunk-rows", "50")[0] == 0
    assert_same(t.settings, "public.people")


def test_again_goes_on_where_it_was_stopped(tracked: Track) -> None:
    """With the tables that were not begun, too, and without those that were done."""
    t = tracked(
        *PEOPLE,
        "create table a (id int primary key)",
        "insert into a values (1)",
        "create table z (id int primary key)",
        "insert into z values (1)",
    )
    assert bemi(t.settings, "snapshot")[0] == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "bemi", "snapshot", "--again", "--rate", "40"],
        env=environment(t.settings),
        stdout=subprocess.PIPE,
        text=True,
    )
    until(lambda: stored(t.settings) >= 302 + 1 + 40, 60, "a chunk is stored once more")
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped after 1 table; what is stored stays: `bemi snapshot` goes on" in out
    done = stored(t.settings) - 303
    code, out, _ = bemi(t.settings, "snapshot")
    assert code == 0
    assert f"public.people: goes on behind {done} rows" in out
    assert "public.z: 1 row" in out
    assert "public.a:" not in out
    assert bemi(t.settings, "snapshot")[1] == "every table that is tracked has its baseline\n"
    keys = Counter(
        (row["table"], row["primary_key"]) for row in history(t.settings.destination_url)
    )
    assert len(keys) == 302
    assert set(keys.values()) == {2}


def test_init_takes_it_and_lets_the_worker_go_on(source_url: str, destination_url: str) -> None:
    with psycopg.connect(source_url, autocommit=True) as conn:
        for statement in PEOPLE:
            conn.execute(statement.encode())
    settings = Settings(source_url=source_url, destination_url=destination_url)
    code, out, err = bemi(settings, "init", "--snapshot")
    assert (code, err) == (0, "")
    assert "baselines of 1 table stored, 300 rows" in out
    assert_same(settings, "public.people")
    code, out, _ = bemi(settings, "init", "--snapshot", "--json")
    assert code == 0
    assert json.loads(out)["baselines"] == []
    with psycopg.connect(destination_url) as conn:
        row = conn.execute("select setup -> 'snapshot' from bemi.sources").fetchone()
    assert row == (True,)


def test_it_works_beside_a_worker(tracked: Track, tmp_path: Path) -> None:
    t = tracked(*PEOPLE)
    with Worker(t.settings, tmp_path) as worker:
        worker.ready()
        assert bemi(t.settings, "snapshot", "--chunk-rows", "40")[0] == 0
        assert worker.running
    assert_same(t.settings, "public.people")
