"""What is claimed to be complete is; what is lost lies inside of a gap that says why."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Protocol

import psycopg
import pytest
from psycopg import sql

from bemi.capture import event_triggers, worker
from bemi.capture.coverage import Kept
from bemi.capture.setup import init
from bemi.capture.sight import Memory
from bemi.capture.snapshot import begin_coverage
from bemi.embedded import Server
from bemi.errors import GapError, PassingError, UnknownStateError
from bemi.history.moments import Position, resolve
from bemi.history.state import state
from bemi.lsn import Lsn
from bemi.rules import NO_RULES, Rules, Skip
from tests.integration.conftest import Track
from tests.support.baselines import assert_state, take
from tests.support.covered import Cover, Covered
from tests.support.tracked import Row, Tracked
from tests.support.waiting import until

TABLE = "create table t (id int primary key, v text)"


class MakeRole(Protocol):
    def __call__(self, name: str, attributes: str = "") -> str: ...


def altered(kept: Kept) -> tuple[str, ...]:
    """The tables that a look began, ended or waits for."""
    return (*kept.opened, *(name for name, _ in kept.closed), *kept.waiting)


@pytest.fixture
def at(cover: Cover) -> Covered:
    return cover(TABLE)


@pytest.fixture
def keyless(cover: Cover) -> Covered:
    return cover("create table k (x float8)", full=["*.k"])


@pytest.fixture
def make_role(server: Server) -> Iterator[MakeRole]:
    """Makes roles, which are dropped after the test; what they own is in its databases."""
    made: list[str] = []

    def make(name: str, attributes: str = "") -> str:
        with psycopg.connect(server.url(), autocommit=True) as conn:
            conn.execute(
                sql.SQL("create role {} ").format(sql.Identifier(name)) + sql.SQL(attributes)
            )
        made.append(name)
        return name

    yield make
    with psycopg.connect(server.url(), autocommit=True) as conn:
        for name in made:
            conn.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


def test_a_table_that_was_empty_is_covered_from_there(at: Covered) -> None:
    at.source.execute("insert into t values (1, 'a'), (2, 'b')")
    moments = [at.now()]
    at.source.execute("update t set id = 3 where id = 1")
    moments.append(at.now())
    at.source.execute("truncate t")
    at.source.execute("insert into t values (1, 'c')")
    moments.append(at.now())
    at.source.execute("delete from t")
    moments.append(at.now())
    at.catch_up()
    (interval,) = at.intervals()
    assert interval["opened"] == "init"
    assert interval["state_by"] == "empty"
    for position, rows in moments:
        assert at.state(position) == rows
    at.refuses(Lsn(interval["from_position"] - 1), "not tracked then")
    at.refuses(Lsn(at.position() + 10_000_000), "not captured yet")


def test_a_table_that_had_rows_is_unknown_until_its_baseline(cover: Cover) -> None:
    at = cover(TABLE, "insert into t values (1, 'old'), (2, 'old')")
    at.source.execute("insert into t values (3, 'new')")
    before, _ = at.now()
    at.catch_up()
    at.refuses(before, "no baseline")
    take(at.settings)
    at.source.execute("delete from t where id = 1")
    position, rows = at.now()
    at.catch_up()
    assert at.state(position) == rows
    at.refuses(before, "no baseline")


def test_a_table_without_a_key_is_a_multiset(cover: Cover) -> None:
    at = cover(
        "create table t (v text, n numeric)",
        "alter table t replica identity full",
        "insert into t select 'old', 1.50 from generate_series(1, 3)",
    )
    at.source.execute("insert into t values ('new', null), ('new', null)")
    take(at.settings)
    moments = [at.now()]
    at.source.execute("delete from t where ctid in (select min(ctid) from t group by v)")
    at.source.execute("update t set n = 2 where v = 'new'")
    moments.append(at.now())
    at.source.execute("truncate t")
    at.source.execute("insert into t values ('last', 1)")
    moments.append(at.now())
    at.catch_up()
    for position, rows in moments:
        assert at.state(position) == rows


@pytest.mark.parametrize(
    "statements",
    [
        ["insert into k values (5)", "update k set x = '-0'"],
        [
            "insert into k values (5), ('1e20'), ('1e-7'), ('-0'), (0), ('NaN')",
            "update k set x = '-0' where x > 1",
            "update k set x = 5 where x = 0",
            "delete from k where x = 'NaN' or x = '1e-7'",
        ],
        [
            "alter table k add j jsonb",
            "insert into k values (1, 'null'), (1, null), (2, 'null'), (3, '{\"a\": 1.10}')",
            "update k set j = null where x = 2",
            "delete from k where j is null and x = 1",
        ],
        ["insert into k values (5)", "alter table k add y int", "delete from k"],
        [
            "insert into k values (5), (6), (5)",
            "alter table k add y text",
            "alter table k rename x to z",
            "insert into k values (5, null), (5, 'a')",
            "delete from k where z = 5 and y is null",
            "alter table k add x int",
            "alter table k drop z",
            "update k set x = 1 where y = 'a'",
            "delete from k where y is null",
        ],
    ],
)
def test_a_row_without_a_key_is_found_in_any_form_and_shape(
    keyless: Covered, statements: list[str]
) -> None:
    """The form in which a value is stored follows from the change; the columns may be others."""
    moments = []
    for statement in statements:
        keyless.source.execute(statement.encode())
        if not statement.startswith("alter"):
            moments.append(keyless.now("k"))
        keyless.catch_up()
    for position, rows in moments:
        found: Counter[str] = Counter()
        for row, count in keyless.state(position, "public.k").items():
            # As `to_jsonb` has them: here a value that was set to -0, or from it, is text.
            found[row.replace('"-0"', "0").replace('"5"', "5")] += count
        assert found == rows


def test_rows_without_a_key_that_do_not_match_are_refused(keyless: Covered) -> None:
    keyless.settings = replace(keyless.settings, rules=Rules(ignore=("k.seen",)))
    keyless.source.execute("alter table k add seen int")
    keyless.source.execute("insert into k values (5, 1), (6, 1)")
    keyless.catch_up()
    keyless.source.execute("update k set seen = 2")
    keyless.source.execute("delete from k where x = 5")
    lost, _ = keyless.now("k")
    keyless.catch_up()
    keyless.refuses(lost, "which rows went can't be told", "public.k")
    take(keyless.settings, chosen=lambda _: True)
    keyless.source.execute("delete from k")
    position, rows = keyless.now("k")
    keyless.catch_up()
    assert keyless.state(position, "public.k") == rows


@pytest.mark.parametrize("rules", [Rules(mask=("k.x",)), Rules(exclude=("k.x",)), Rules()])
def test_rows_without_a_key_that_are_stored_otherwise_are_unknown(
    keyless: Covered, rules: Rules
) -> None:
    """Where one mask stands for many values, what went is not found by it."""
    masked = replace(keyless.settings, rules=Rules(hash=("k.x",)), hash_key="k" * 20)
    if rules == NO_RULES:
        keyless.settings = masked
    keyless.source.execute("insert into k values (5), (6)")
    known, rows = keyless.now("k")
    keyless.catch_up()
    keyless.settings = replace(keyless.settings, rules=rules)
    keyless.source.execute("delete from k where x = 5; insert into k values (7)")
    lost, _ = keyless.now("k")
    keyless.catch_up()
    assert len(keyless.state(known, "public.k")) == len(rows)
    keyless.refuses(lost, "no baseline", "public.k")


@pytest.mark.parametrize("rules", [Rules(mask=("t.id",)), Rules(exclude=("t.id",))])
def test_rows_whose_key_is_hidden_are_refused_once_one_is_changed(
    at: Covered, rules: Rules
) -> None:
    """Under DEFAULT nothing tells which row an update or a delete was of."""
    at.settings = replace(at.settings, rules=rules)
    at.catch_up()
    at.source.execute("insert into t values (1, 'a'), (2, 'b')")
    known, rows = at.now()
    at.source.execute("update t set v = 'c' where id = 1")
    lost, _ = at.now()
    at.catch_up()
    assert sum(at.state(known).values()) == sum(rows.values())
    at.refuses(lost, "which rows went can't be told")
    take(at.settings, chosen=lambda _: True)
    known, rows = at.now()
    at.source.execute("delete from t where id = 1")
    lost, _ = at.now()
    at.catch_up()
    assert sum(at.state(known).values()) == sum(rows.values())
    at.refuses(lost, "which rows went can't be told")


def test_a_value_without_a_key_that_ddl_may_have_rewritten_is_stale(keyless: Covered) -> None:
    """However new a row that looks the same is."""
    keyless.source.execute("insert into k values (5)")
    keyless.catch_up()
    keyless.source.execute("alter table k alter x type float8 using x + 1")
    keyless.source.execute("insert into k values (5), (6)")
    keyless.source.execute("delete from k where x = 5")
    keyless.catch_up()
    _, rows = keyless.now("k")
    with psycopg.connect(keyless.settings.destination_url) as conn:
        (end,) = conn.execute("select position from bemi.checkpoints").fetchone() or (0,)
        found = [
            (json.loads(bytes(row.image)), row.flags)
            for row in state(conn, "bemi", keyless.settings.source, "public.k", Lsn(end - 1))
        ]
    assert sum(rows.values()) == len(found)
    assert ({"x": 5}, frozenset({"stale:x"})) in found


# --- each cause of a gap: what is lost lies inside of it, and states there are refused


def test_slot_ahead(at: Covered) -> None:
    at.source.execute("insert into t values (1, 'a')")
    known, rows = at.now()
    at.catch_up()
    started = at.position()
    at.source.execute("insert into t values (2, 'lost')")
    at.source.execute("delete from t where id = 1")
    lost, _ = at.now()
    at.skip_ahead()
    with pytest.raises(GapError):
        at.catch_up()
    at.catch_up(accept_gap=True)
    at.source.execute("insert into t values (3, 'c')")
    after, _ = at.now()
    at.catch_up()
    first, second = at.intervals()
    assert first["closed"] == second["opened"] == "slot_ahead"
    assert first["to_position"] <= started < lost <= second["from_position"]
    assert at.state(known) == rows
    at.refuses(Lsn(lost - 1), "slot_ahead")
    at.refuses(after, "no baseline")
    take(at.settings)
    position, rows = at.now()
    at.catch_up()
    assert at.state(position) == rows
    inferred = at.query("select operation from bemi.changes where 'inferred' = any(flags)")
    assert sorted(row["operation"] for row in inferred) == ["CREATE", "DELETE"]


def test_epoch_changed(at: Covered) -> None:
    at.source.execute("insert into t values (1, 'a')")
    at.catch_up()
    at.query("update bemi.epochs set timeline = timeline + 7 returning epoch")
    with pytest.raises(GapError):
        at.catch_up()
    at.catch_up(accept_gap=True)
    at.source.execute("insert into t values (2, 'b')")
    position, _ = at.now()
    at.catch_up()
    first, second = at.intervals()
    assert first["closed"] == second["opened"] == "epoch_changed"
    assert first["epoch"] < second["epoch"]
    at.refuses(position, "no baseline")


def test_untracked(at: Covered) -> None:
    """Out of the publication and in again, between two looks: only its row there tells."""
    at.source.execute("insert into t values (1, 'a')")
    known, rows = at.now()
    at.catch_up()
    at.keep()
    started = at.position()
    at.source.execute("alter publication bemi drop table t")
    at.source.execute("update t set v = 'lost'")
    lost, _ = at.now()
    at.source.execute("alter publication bemi add table t")
    kept = at.keep()
    assert kept.closed == (("public.t", "untracked"),)
    assert kept.opened == ("public.t",)
    at.source.execute("update t set v = 'c'")
    at.catch_up()
    first, second = at.intervals()
    assert first["to_position"] <= started < lost <= second["from_position"]
    assert at.state(known) == rows
    at.refuses(lost, "untracked")
    (change,) = at.query("select * from bemi.changes where operation = 'UPDATE'")
    assert change["before"] == {}
    assert change["flags"] == ["before_unknown"], "no old row is made up from before the gap"


def test_a_stale_image_is_not_used_before_the_next_look(at: Covered) -> None:
    """The worker meets the table's other row in the publication before its watch does."""
    at.source.execute("insert into t values (1, 'a')")
    at.catch_up()
    at.source.execute("alter publication bemi drop table t")
    at.source.execute("update t set v = 'lost'")
    at.source.execute("alter publication bemi add table t")
    at.source.execute("update t set v = 'c'")
    change = at.changes()[-1]
    assert (change["before"], change["flags"]) == ({}, ["before_unknown"])


def test_table_dropped(at: Covered) -> None:
    at.source.execute("insert into t values (1, 'a')")
    known, rows = at.now()
    at.catch_up()
    at.keep()
    at.source.execute("drop table t")
    dropped = at.position()
    assert at.keep().closed == (("public.t", "table_dropped"),)
    at.source.execute("select pg_logical_emit_message(true, 'x', 'x')")
    at.catch_up()
    assert at.state(known) == rows
    at.refuses(dropped, "table_dropped")


def test_ignored_by_rule(at: Covered) -> None:
    settings = replace(at.settings, rules=Rules(skip=(Skip(context={"job": "backfill"}),)))
    at.source.execute("insert into t values (1, 'a'), (2, 'b')")
    known, rows = at.now()
    with at.source.transaction():
        at.source.execute("select pg_logical_emit_message(true, '_bemi', %s)", ['{"job": "x"}'])
        at.source.execute("update t set v = 'kept' where id = 2")
    with at.source.transaction():
        at.source.execute(
            "select pg_logical_emit_message(true, '_bemi', %s)", ['{"job": "backfill"}']
        )
        at.source.execute("update t set v = 'left out'")
    lost, _ = at.now()
    at.source.execute("update t set v = 'c' where id = 1")
    worker.run(settings, stop=threading.Event(), until_caught_up=True)
    (gap,) = at.query("select * from bemi.missing")
    assert (gap["cause"], gap["changes"]) == ("ignored", 2)
    assert known < gap["from_position"] < gap["to_position"] <= lost
    assert at.state(known) == rows
    at.refuses(lost, "ignored")
    updates = at.query(
        "select before, flags from bemi.changes where operation = 'UPDATE' order by commit_position"
    )
    assert [row["flags"] for row in updates] == [None, ["before_unknown"]]
    at.settings = settings


def test_rewritten_by_ddl(at: Covered) -> None:
    at.source.execute("alter table t add n int")
    at.source.execute("insert into t values (1, 'a', 1), (2, 'b', 2)")
    at.catch_up()
    at.source.execute("alter table t alter n type int using n * 100")
    at.source.execute("insert into t values (3, 'c', 3)")
    at.catch_up()
    (gap,) = at.query("select * from bemi.missing where cause = 'rewrite' and columns = '{n}'")
    position = at.position()
    at.source.execute("insert into t values (4, 'd', 4)")
    at.catch_up()
    with psycopg.connect(at.settings.destination_url, autocommit=True) as conn:
        found = {
            row.key: row.flags
            for row in state(conn, "bemi", at.settings.source, "public.t", position)
        }
    assert found["1"] == found["2"] == {"stale:n"}
    assert gap["from_position"] < gap["to_position"]


def test_rewritten_by_ddl_and_renamed_before_anybody_looked(at: Covered) -> None:
    at.source.execute("insert into t values (1, 'a'), (2, 'b')")
    at.catch_up()
    at.source.execute("alter table t alter v type varchar using v || '!'")
    at.source.execute("alter table t rename v to w")
    at.source.execute("update t set w = 'c' where id = 2")
    position = at.position()
    at.catch_up()
    with psycopg.connect(at.settings.destination_url, autocommit=True) as conn:
        found = {
            row.key: row.flags
            for row in state(conn, "bemi", at.settings.source, "public.t", position)
        }
    assert found["1"] == {"stale:w"}
    (update,) = (row for row in at.changes() if row["operation"] == "UPDATE")
    assert (update["before"], update["flags"]) == ({"id": 2}, ["before_unknown:w"])


def test_rewritten_and_of_its_old_type_again_before_anybody_looked(at: Covered) -> None:
    at.source.execute("alter table t add n int")
    at.source.execute("insert into t values (1, 'a', 1), (2, 'b', 2)")
    at.catch_up()
    at.source.execute("alter table t alter n type float using n + 1")
    at.source.execute("update t set n = 0.5 where id = 2")
    position = at.position()
    at.source.execute("alter table t alter n type int using n + 1")
    at.source.execute("insert into t values (3, 'c', 3)")
    at.catch_up()
    with psycopg.connect(at.settings.destination_url, autocommit=True) as conn:
        found = {
            row.key: row.flags
            for row in state(conn, "bemi", at.settings.source, "public.t", position)
        }
    assert found["1"] == {"stale:n"}


def test_rewritten_by_ddl_and_seen_by_a_baseline_first(at: Covered) -> None:
    """The worker finds the version known already, and never tells what was rewritten before it."""
    at.source.execute("alter table t add n int")
    at.source.execute("insert into t values (1, 'a', 1), (2, 'b', 2)")
    at.catch_up()
    at.source.execute("alter table t alter n type int using n * 100")
    altered, _ = at.now()
    take(at.settings, chosen=lambda _: True)
    at.source.execute("insert into t values (3, 'c', 3)")
    position, rows = at.now()
    at.catch_up()
    (gap,) = at.query("select * from bemi.missing")
    assert (gap["cause"], gap["columns"]) == ("rewrite", ["n"])
    assert gap["from_position"] < altered <= gap["to_position"] < position
    with psycopg.connect(at.settings.destination_url, autocommit=True) as conn:
        flags = {
            row.key: row.flags
            for row in state(conn, "bemi", at.settings.source, "public.t", altered)
        }
    assert flags == {"1": {"stale:n"}, "2": {"stale:n"}}
    assert at.state(position) == rows


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_rewritten_twice_before_the_catalog_was_read(
    at: Covered, others_write: Callable[[], None], busy: bool
) -> None:
    """Each is told, whatever the other is, and follows the column to its later names."""
    at.source.execute("insert into t values (1, 'a'), (2, 'b')")
    at.catch_up()
    if busy:
        others_write()
    at.source.execute("alter table t alter v type varchar using v || '!'")
    at.source.execute("insert into t values (3, 'c')")
    at.source.execute("alter table t add n float default random()")
    at.source.execute("insert into t values (4, 'd')")
    last = [at.position()]
    at.catch_up()
    at.source.execute("alter table t rename n to m")
    at.source.execute("insert into t values (5, 'e')")
    last.append(at.position())
    at.catch_up()
    for position, name in zip(last, "nm", strict=True):
        with psycopg.connect(at.settings.destination_url, autocommit=True) as conn:
            flags = {
                row.key: {*(row.flags or ())}
                for row in state(conn, "bemi", at.settings.source, "public.t", position)
            }
        assert flags["1"] == flags["2"] == {"stale:v", f"stale:{name}"}
        assert f"stale:{name}" in flags["3"]


@pytest.fixture
def moods(tracked: Track) -> Tracked:
    return tracked(
        "create type mood as enum ('sad', 'ok')",
        "create type pair as (a int, m mood)",
        "create domain feeling as mood[]",
        "create table t (id int primary key, m mood, p pair, f feeling, n int)",
        "create table k (m mood primary key, n int)",
    )


def test_labels_and_attributes_that_are_altered_outdate_what_rows_said(moods: Tracked) -> None:
    """No row is written by it, and the stream does not tell; no column is said to have changed."""
    moods.source.execute("insert into t values (1, 'sad', row(1, 'ok'), '{sad}', 0)")
    moods.catch_up()

    def update() -> tuple[set[str], list[str] | None]:
        """What is known of the row before; every value of it is as it is now, or was."""
        moods.source.execute("update t set n = n + 1")
        row = moods.changes()[-1]
        assert row["before"].pop("n") + 1 == row["after"].pop("n")
        assert row["before"].items() <= row["after"].items()
        return {*row["before"]}, row["flags"]

    whole = ({"id", "m", "p", "f"}, None)
    assert update() == whole
    moods.source.execute("alter type mood add value 'glad'")
    assert update() == whole
    moods.source.execute("alter type mood rename value 'sad' to 'blue'")
    moods.catch_up()
    assert update() == ({"id"}, [f"before_unknown:{name}" for name in ("m", "p", "f")])
    assert update() == whole
    moods.source.execute("alter type pair rename attribute a to b")
    assert update() == whole
    moods.source.execute("alter type pair add attribute c int")
    moods.catch_up()
    assert update() == ({"id", "m", "f"}, ["before_unknown:p"])
    assert update() == whole
    found = moods.query(
        "select cause, columns from bemi.missing where relation in (select relation"
        " from bemi.coverage where \"table\" = 't') order by from_position"
    )
    assert [(gap["cause"], gap["columns"]) for gap in found] == [
        ("rewrite", ["m", "p", "f"]),
        ("rewrite", ["p"]),
    ]


def test_a_label_that_was_added_and_renamed_later(moods: Tracked) -> None:
    moods.source.execute("alter type mood add value 'glad'")
    moods.source.execute("insert into t values (1, 'ok')")
    moods.catch_up()
    moods.source.execute("alter type mood add value 'proud'")
    moods.catch_up()
    moods.source.execute("update t set m = 'proud'")
    moods.catch_up()
    moods.source.execute("alter type mood rename value 'proud' to 'smug'")
    moods.source.execute("update t set n = 1")
    row = moods.changes()[-1]
    assert (row["before"].get("m"), row["after"]["m"]) == (None, "smug")
    assert "before_unknown:m" in row["flags"]


def test_a_worker_hears_of_renamed_labels_while_it_runs(at: Covered) -> None:
    at.source.execute("create type mood as enum ('sad', 'ok'); alter table t add m mood")
    at.source.execute("insert into t values (1, 'a', 'sad')")
    at.catch_up()
    memory = Memory()
    at.keep(memory=memory)
    stop = threading.Event()
    running = threading.Thread(target=worker.run, args=[at.settings], kwargs={"stop": stop})
    running.start()
    try:

        def updated(v: str) -> Row:
            at.source.execute("update t set v = %s", [v])
            found = "select before, flags from bemi.changes where after ->> 'v' = %s"
            until(lambda: at.query(found, [v]), 60, "the update is stored")
            return at.query(found, [v])[0]

        assert updated("b")["flags"] is None
        at.source.execute("alter type mood rename value 'sad' to 'blue'")
        at.keep(memory=memory)
        assert updated("c")["flags"] == ["before_unknown:m"]
        assert updated("d")["before"] == {"id": 1, "v": "c", "m": "blue"}
    finally:
        stop.set()
        running.join()


def test_a_label_of_a_key_that_is_renamed(moods: Tracked) -> None:
    """The rows are called otherwise from there on: only a new baseline tells which they are."""
    moods.source.execute("insert into k values ('sad', 1), ('ok', 2)")
    moods.catch_up()
    assert_state(moods.settings, "public.k")
    moods.source.execute("alter type mood rename value 'sad' to 'blue'")
    moods.source.execute("update k set n = 3 where m = 'blue'")
    row = moods.source.execute("select pg_current_wal_insert_lsn()::text").fetchone()
    assert row is not None
    moods.catch_up()
    with pytest.raises(UnknownStateError):
        assert_state(moods.settings, "public.k")
    with (
        psycopg.connect(moods.settings.destination_url) as conn,
        pytest.raises(UnknownStateError, match="key"),
    ):
        # Before anybody looked.
        list(state(conn, "bemi", moods.settings.source, "public.k", Lsn.parse(row[0])))
    closed = "select closed from bemi.intervals where \"table\" = 'k' and to_position is not null"
    assert [row["closed"] for row in moods.query(closed)] == ["key_changed"]
    take(moods.settings)
    assert_state(moods.settings, "public.k")


def test_values_that_ddl_rewrote_are_stale_though_no_change_came(at: Covered) -> None:
    at.source.execute("insert into t values (1, 'a')")
    at.catch_up()
    memory = Memory()
    at.keep(memory=memory)
    at.source.execute("alter table t alter v type text using upper(v)")
    at.keep(memory=memory)
    position = at.position()
    at.source.execute("select pg_logical_emit_message(true, 'other', 'so that the log goes on')")
    at.catch_up()
    with psycopg.connect(at.settings.destination_url, autocommit=True) as conn:
        flags = {
            row.key: row.flags
            for row in state(conn, "bemi", at.settings.source, "public.t", position)
        }
    assert flags == {"1": {"stale:v"}}
    at.keep(memory=memory)
    assert len(at.query("select * from bemi.missing where cause = 'rewrite'")) == 1


def test_a_key_that_ddl_rewrote_shows_at_the_next_look(at: Covered) -> None:
    """Changes may be on their way by then."""
    at.source.execute("insert into t values (1, 'a'), (2, 'b')")
    known, rows = at.now()
    at.catch_up()
    memory = Memory()
    at.keep(memory=memory)
    at.source.execute("alter table t alter id type int using id + 1")
    at.source.execute("update t set v = 'c' where id = 2")
    lost, _ = at.now()
    at.keep(memory=memory)
    at.catch_up()
    assert at.state(known) == rows
    at.refuses(lost, "key_changed")
    take(at.settings)
    position, rows = at.now()
    at.source.execute("truncate t")
    at.catch_up()
    at.keep(memory=memory)
    assert at.state(position) == rows


# --- what is not claimed


def test_a_transaction_that_wrote_before_the_table_was_added_is_waited_for(at: Covered) -> None:
    at.source.execute("create table late (id int primary key)")
    with at.connect() as other:
        other.autocommit = False
        other.execute("insert into late values (1)")
        at.source.execute("alter publication bemi add table late")
        other.execute("insert into late values (2)")
        assert at.keep(patience=0.2).waiting == ("public.late",)
        assert at.intervals("late") == []
        other.commit()
    committed = at.position()
    assert at.keep().opened == ("public.late",)
    (interval,) = at.intervals("late")
    assert interval["from_position"] >= committed
    assert interval["state_position"] is None, "half of what that one wrote is lost"
    at.source.execute("insert into late values (3)")
    rows = [row for row in at.changes() if row["table"] == "late"]
    assert [row["primary_key"] for row in rows] == ["2", "3"]
    at.refuses(at.position(), "not captured yet|no baseline", "public.late")


def test_a_look_while_somebody_alters_the_publication_verifies_nothing(at: Covered) -> None:
    at.keep()
    (before,) = at.intervals()
    with at.connect() as other:
        other.autocommit = False
        other.execute("alter publication bemi drop table t")
        at.source.execute("insert into t values (1, 'x')")
        at.keep()
        (during,) = at.intervals()
        assert during["verified_position"] == before["verified_position"]
        other.rollback()
    at.keep()
    (after,) = at.intervals()
    assert after["verified_position"] > before["verified_position"]


def test_a_renamed_table_goes_on_in_its_interval(at: Covered) -> None:
    at.source.execute("insert into t values (1, 'a')")
    at.catch_up()
    at.source.execute("alter table t rename to u")
    at.source.execute("update u set v = 'b'")
    assert not altered(at.keep())
    position, rows = at.now("u")
    at.catch_up()
    assert at.state(position, "public.u") == rows
    update = at.changes()[-1]
    assert (update["before"], update["flags"]) == ({"id": 1, "v": "a"}, None)


def test_partitions_that_come_and_go(at: Covered) -> None:
    """The table above has the rows of those that were its partitions then."""
    at.source.execute("create table p (id int, k int, primary key (id, k)) partition by list (k)")
    at.source.execute("create table p1 partition of p for values in (1)")
    at.source.execute("create table p2 (id int, k int, primary key (id, k))")
    at.source.execute("alter publication bemi add table p1, p2")
    assert at.keep().opened == ("public.p1", "public.p2")
    at.source.execute("insert into p2 values (1, 2)")
    at.source.execute("insert into p values (1, 1)")
    moments = [at.now("p")]
    at.keep()
    at.source.execute("alter table p attach partition p2 for values in (2)")
    at.source.execute("insert into p values (8, 2)")
    between = at.position()
    at.source.execute("delete from p where id = 8")
    assert not altered(at.keep())
    at.source.execute("insert into p values (2, 2)")
    moments.append(at.now("p"))
    at.keep()
    at.source.execute("alter table p detach partition p1")
    at.keep()
    at.source.execute("insert into p1 values (9, 1)")
    moments.append(at.now("p"))
    at.source.execute("update p2 set id = 7 where id = 2")
    moments.append(at.now("p"))
    detached, leaf = at.now("p1"), at.now("p2")
    at.catch_up()
    for position, rows in moments:
        assert at.state(position, "public.p") == rows
    assert at.state(detached[0], "public.p1") == detached[1]
    assert at.state(leaf[0], "public.p2") == leaf[1]
    at.refuses(between, "attached", "public.p")
    assert {row["partition"] for row in at.intervals("p2")} == {"public.p2"}
    assert {row["partition"] for row in at.intervals("p1")} == {None}


def test_a_partition_that_is_not_tracked_makes_the_table_above_unknown(at: Covered) -> None:
    at.source.execute("create table p (id int, k int, primary key (id, k)) partition by list (k)")
    at.source.execute("create table p1 partition of p for values in (1)")
    at.source.execute("alter publication bemi add table p1")
    at.keep()
    at.source.execute("insert into p values (1, 1)")
    known, rows = at.now("p")
    at.keep()
    at.source.execute("create table p2 partition of p for values in (2)")
    at.source.execute("insert into p values (2, 2)")
    at.keep()
    lost, _ = at.now("p")
    alone, leaf = at.now("p1")
    at.keep()
    at.source.execute("drop table p2")
    at.keep()
    again = at.now("p")
    worker.run(
        replace(at.settings, new_tables="warn"), stop=threading.Event(), until_caught_up=True
    )
    assert at.state(known, "public.p") == rows
    at.refuses(lost, "p2 .*was not tracked", "public.p")
    assert at.state(alone, "public.p1") == leaf
    assert at.state(again[0], "public.p") == again[1]


def test_a_partition_published_through_the_table_above(at: Covered) -> None:
    at.source.execute("create table p (id int, k int, primary key (id, k)) partition by list (k)")
    at.source.execute("create table p1 partition of p for values in (1)")
    at.source.execute("alter publication bemi add table p")
    assert at.keep().opened == ("public.p1",)
    at.source.execute("insert into p values (1, 1)")
    position, rows = at.now("p")
    at.source.execute("create table p2 partition of p for values in (2)")
    assert at.keep().opened == ("public.p2",)
    at.source.execute("insert into p values (2, 2)")
    later = at.now("p")
    at.source.execute("select pg_logical_emit_message(true, 'x', 'x')")
    at.keep()
    at.source.execute("alter publication bemi drop table p")
    assert {why for _, why in at.keep().closed} == {"untracked"}
    at.catch_up()
    at.refuses(position, "p2 was made", "public.p")
    assert at.state(later[0], "public.p") == later[1]
    assert at.state(position, "public.p1") == rows


def test_a_table_attached_with_rows_has_them_once_it_has_a_baseline(at: Covered) -> None:
    at.source.execute("create table p (id int, k int, primary key (id, k)) partition by list (k)")
    at.source.execute("create table p1 partition of p for values in (1)")
    at.source.execute("create table old (id int, k int, primary key (id, k))")
    at.source.execute("insert into old values (1, 2), (2, 2)")
    at.source.execute("alter publication bemi add table p1")
    at.keep()
    at.source.execute("alter table p attach partition old for values in (2)")
    at.source.execute("alter publication bemi add table old")
    at.keep()
    unknown = at.position()
    take(at.settings)
    position, rows = at.now("p")
    at.catch_up()
    at.refuses(unknown, "public.old .*no baseline", "public.p")
    assert at.state(position, "public.p") == rows


# --- times


def test_a_time_is_the_last_commit_by_then(at: Covered) -> None:
    def clock() -> datetime:
        row = at.source.execute("select clock_timestamp()").fetchone()
        assert row is not None
        found: datetime = row[0]
        return found

    (interval,) = at.intervals()
    moments = []
    for number in range(4):
        moments.append((clock(), at.now()[1]))
        with at.source.transaction():
            at.source.execute("insert into t values (%s, 'a')", [number])
            at.source.execute("update t set v = 'b' where id = %s", [number])
    at.catch_up()
    after = clock() + timedelta(hours=1)

    def at_time(when: datetime, **options: Any) -> Position:
        with psycopg.connect(at.settings.destination_url, autocommit=True) as conn:
            return resolve(conn, "bemi", at.settings.source, when, **options)

    for when, rows in moments:
        position = at_time(when)
        assert at.state(position.commit) == rows
    (last,) = at.query("select max(committed_at) as time, max(epoch) as epoch from bemi.changes")
    at.refuses(Lsn(at_time(last["time"]).commit + 10_000_000), "not captured yet")
    assert len(at.state(at_time(last["time"]).commit)) == 4
    with pytest.raises(UnknownStateError, match="captured until"):
        at_time(after)
    assert at_time(after, captured=after) == at_time(last["time"])
    with pytest.raises(UnknownStateError, match="begins after"):
        at_time(interval["opened_at"] - timedelta(hours=1))


# --- by what rows are told apart


@pytest.mark.parametrize(
    "alter",
    [
        "alter table t drop constraint t_pkey, add primary key (v)",
        "alter table t drop constraint t_pkey, replica identity full",
        "alter table t alter id type text",
    ],
)
def test_another_key_makes_the_state_unknown_until_a_baseline(at: Covered, alter: str) -> None:
    at.source.execute("insert into t values (1, 'a'), (2, 'b'), (3, 'c')")
    known, rows = at.now()
    at.source.execute(alter.encode())
    at.source.execute("update t set v = 'd' where v = 'b'")
    lost, _ = at.now()
    at.catch_up()
    assert at.state(known) == rows
    at.refuses(lost, "key_changed")
    at.keep()
    first, second = at.intervals()
    assert first["closed"] == second["opened"] == "key_changed"
    assert first["to_position"] == second["from_position"]
    assert at.state(known) == rows
    at.refuses(lost, "no baseline")
    take(at.settings)
    at.source.execute("delete from t where v = 'a'")
    position, rows = at.now()
    at.catch_up()
    assert at.state(position) == rows


@pytest.mark.parametrize("deferrable", ["deferrable", "deferrable initially deferred"])
def test_a_key_that_two_rows_may_have_for_a_while_is_none(cover: Cover, deferrable: str) -> None:
    at = cover(f"create table t (id int primary key {deferrable}, v text)", full=["*.t"])
    at.source.execute("insert into t values (1, 'a'), (2, 'b'), (3, 'c')")
    moments = [at.now()]
    at.source.execute("update t set id = id + 1")
    moments.append(at.now())
    at.source.execute("update t set id = 9 - id where id in (4, 5)")
    at.source.execute("delete from t where id = 2")
    moments.append(at.now())
    at.catch_up()
    for position, rows in moments:
        assert at.state(position) == rows
    assert {row["primary_key"] for row in at.changes()} == {None}
    take(at.settings, chosen=lambda _: True)
    at.source.execute("update t set id = id - 1")
    position, rows = at.now()
    at.catch_up()
    assert at.state(position) == rows


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
@pytest.mark.parametrize(
    ("key", "alter"),
    [
        ("int", "alter table t alter id type int using id + 1"),
        ("numeric(10,2)", "alter table t alter id type numeric(12,4)"),
        ("text", "alter table t alter id type text using 'k' || id"),
    ],
)
def test_a_key_that_is_rewritten_makes_the_state_unknown_until_a_baseline(
    cover: Cover,
    others_write: Callable[[], None],
    key: str,
    alter: str,
    late: bool,
    busy: bool,
) -> None:
    """Its type is what it was, but not what the rows are called by."""
    at = cover(f"create table t (id {key} primary key, v text)")
    if busy:
        others_write()
    at.source.execute("insert into t values (1, 'a'), (2, 'b'), (3, 'c')")
    known, rows = at.now()
    if not late:
        at.catch_up()
        at.source.execute("update t set v = 'd' where v = 'c'")
        known, rows = at.now()
        at.catch_up()
    at.source.execute(alter.encode())
    at.source.execute("update t set v = 'e' where v = 'b'")
    lost, _ = at.now()
    at.catch_up()
    at.refuses(lost, "key_changed")
    at.keep()
    first, second = at.intervals()
    assert first["closed"] == second["opened"] == "key_changed"
    at.refuses(lost, "key_changed|no baseline")
    if late:  # the catalog told of the new keys when the rows of before were read
        at.refuses(known, "key_changed")
    else:
        assert at.state(known) == rows
    take(at.settings)
    at.source.execute("delete from t where v = 'a'")
    position, rows = at.now()
    at.catch_up()
    assert at.state(position) == rows
    at.keep()
    assert len(at.intervals()) == 2, "it is parted once"


@pytest.mark.parametrize("told", [True, False])
def test_a_key_of_another_name_is_the_same(at: Covered, told: bool) -> None:
    """What lies between an alteration and the next change is known where it was told."""
    if told:
        event_triggers.install(at.source)
    at.source.execute("insert into t values (1, 'a'), (2, 'b')")
    before = at.now()
    at.source.execute("alter table t rename id to number")
    at.source.execute("alter table t add n int")
    at.source.execute("update t set v = 'c', n = 1 where number = 2")
    after = at.now()
    at.source.execute("alter table t drop v")
    at.source.execute("insert into t values (3, 3)")
    last = at.now()
    at.catch_up()
    at.keep()
    assert len(at.intervals()) == 1
    if not told:
        for position, _ in (before, after):
            at.refuses(position, "altered")
    for position, rows in (before, after, last) if told else (last,):
        assert at.state(position) == rows, "under the names of then"


def test_a_key_that_is_stored_otherwise_makes_the_state_unknown(at: Covered) -> None:
    settings = replace(at.settings, rules=Rules(hash=("public.t.id",)), hash_key="k" * 20)
    at.source.execute("insert into t values (1, 'a'), (2, 'b')")
    known, rows = at.now()
    at.catch_up()
    at.source.execute("update t set v = 'c' where id = 1")
    lost, _ = at.now()
    worker.run(settings, stop=threading.Event(), until_caught_up=True)
    assert at.state(known) == rows
    at.refuses(lost, "no baseline")
    at.settings = settings
    take(settings)
    position, rows = at.now()
    at.catch_up()
    assert len(at.state(position)) == len(rows)


# --- what else may happen


def test_a_prepared_transaction_is_waited_for(at: Covered) -> None:
    """It is known by another name once it is prepared, and may be committed much later."""
    at.source.execute("create table late (id int primary key)")
    memory = Memory()
    with at.connect() as other:
        other.autocommit = False
        other.execute("insert into late values (1)")
        at.source.execute("alter publication bemi add table late")
        assert at.keep(patience=0, memory=memory).waiting == ("public.late",)
        other.execute("prepare transaction 'late'")
    assert at.keep(patience=0.2, memory=memory).waiting == ("public.late",)
    with at.connect() as other:
        # One that was prepared after the look is not in the way.
        other.autocommit = False
        other.execute("insert into late values (2)")
        other.execute("prepare transaction 'later'")
    at.source.execute("commit prepared 'late'")
    committed = at.position()
    assert at.keep(patience=0, memory=memory).opened == ("public.late",)
    at.source.execute("commit prepared 'later'")
    (interval,) = at.intervals("late")
    assert interval["from_position"] >= committed
    assert interval["state_position"] is None
    assert [row["primary_key"] for row in at.changes() if row["table"] == "late"] == ["2"]


def test_writers_that_follow_each_other_do_not_keep_a_table_waiting(at: Covered) -> None:
    at.source.execute("create table late (id int primary key)")
    memory = Memory()
    with at.connect() as first, at.connect() as second:
        first.autocommit = second.autocommit = False
        first.execute("insert into late values (1)")
        at.source.execute("alter publication bemi add table late")
        assert at.keep(patience=0, memory=memory).waiting == ("public.late",)
        second.execute("insert into late values (2)")
        first.commit()
        assert at.keep(patience=0, memory=memory).opened == ("public.late",)
        second.commit()
    at.source.execute("insert into late values (3)")
    at.catch_up()
    rows = [row["primary_key"] for row in at.changes() if row["table"] == "late"]
    assert rows == ["2", "3"], "all that commits in the interval"


def test_a_table_that_is_locked_is_asked_again_and_then_begun_unknown(at: Covered) -> None:
    at.source.execute("create table late (id int primary key)")
    at.source.execute("alter publication bemi add table late")
    memory = Memory()
    with at.connect() as other:
        other.autocommit = False
        other.execute("lock table late in access exclusive mode")
        assert at.keep(patience=0, memory=memory).waiting == ("public.late",)
    assert at.keep(patience=0, memory=memory).opened == ("public.late",)
    (interval,) = at.intervals("late")
    assert interval["state_by"] == "empty"


@pytest.mark.parametrize("identity", ["primary key", "none"])
def test_a_table_whose_rows_are_all_deleted(at: Covered, identity: str) -> None:
    """It has pages: rows that were there when the interval began may be gone since."""
    key = "primary key" if identity == "primary key" else ""
    at.source.execute(f"create table late (id int {key}, v text)".encode())
    at.source.execute("alter table late replica identity full")
    at.source.execute("insert into late values (1, 'a'), (2, 'b')")
    at.source.execute("delete from late")
    at.source.execute("alter publication bemi add table late")
    assert at.keep().opened == ("public.late",)
    at.source.execute("insert into late values (1, 'c')")
    position, rows = at.now("late")
    at.catch_up()
    (interval,) = at.intervals("late")
    if key:
        assert interval["state_by"] == "empty"
        assert at.state(position, "public.late") == rows
    else:
        assert interval["state_by"] is None
        at.refuses(position, "no baseline", "public.late")


def test_a_role_that_may_not_read_knows_no_state(at: Covered, make_role: MakeRole) -> None:
    at.source.execute("create table late (id int primary key)")
    at.source.execute("alter publication bemi add table late")
    role = make_role("blind")
    at.source.execute(f"set role {role}".encode())
    assert at.keep().opened == ("public.late",)
    at.source.execute("reset role")
    (interval,) = at.intervals("late")
    assert (interval["state_position"], interval["closed"]) == (None, None)


def test_publication_dropped(at: Covered) -> None:
    at.source.execute("insert into t values (1, 'a')")
    known, rows = at.now()
    at.catch_up()
    at.keep()
    started = at.position()
    at.source.execute("drop publication bemi")
    at.source.execute("delete from t")
    lost, _ = at.now()
    assert at.keep().closed == (("public.t", "publication_dropped"),)
    init(at.settings, report=lambda _: None)
    at.catch_up(accept_gap=True)
    take(at.settings)
    after, now = at.now()
    at.catch_up()
    first, *_, last = at.intervals()
    assert first["to_position"] <= started < lost <= last["from_position"]
    assert at.state(known) == rows
    at.refuses(lost, "publication_dropped")
    assert at.state(after) == now


def test_a_publication_that_left_out_deletes_for_a_while(at: Covered) -> None:
    """Between two looks, so that it has no fault at either."""
    at.source.execute("insert into t values (1, 'a')")
    known, rows = at.now()
    at.catch_up()
    at.keep()
    at.source.execute("alter publication bemi set (publish = 'insert')")
    at.source.execute("delete from t")
    lost, _ = at.now()
    at.source.execute("alter publication bemi set (publish = 'insert, update, delete, truncate')")
    kept = at.keep()
    assert kept.closed == (("public.t", "publication_altered"),)
    assert kept.opened == ("public.t",)
    at.catch_up()
    assert at.state(known) == rows
    at.refuses(lost, "publication_altered")


def test_a_publication_with_a_fault_covers_nothing(at: Covered) -> None:
    at.source.execute("alter publication bemi set (publish = 'insert')")
    kept = at.keep()
    assert kept.closed == (("public.t", "publication_altered"),)
    assert at.keep().opened == ()
    at.source.execute("alter publication bemi set (publish = 'insert, update, delete, truncate')")
    assert at.keep().opened == ("public.t",)


def test_a_publication_that_is_given_away_goes_on(at: Covered, make_role: MakeRole) -> None:
    at.keep()
    role = make_role("keeper", "superuser")
    at.source.execute(f"alter publication bemi owner to {role}".encode())
    assert not altered(at.keep())
    at.source.execute("alter publication bemi owner to current_user")
    assert not altered(at.keep())


def test_another_timeline_is_not_written_into_the_epoch(at: Covered) -> None:
    at.query("update bemi.epochs set timeline = timeline + 1 returning epoch")
    at.source.execute("create table late (id int primary key)")
    at.source.execute("alter publication bemi add table late")
    with pytest.raises(PassingError, match="not the one"):
        at.keep()
    assert at.intervals("late") == []


def test_what_rules_left_out_is_told_by_a_new_baseline(at: Covered) -> None:
    at.settings = replace(at.settings, rules=Rules(skip=(Skip(operations=("delete",)),)))
    at.source.execute("insert into t values (1, 'a'), (2, 'b')")
    at.source.execute("delete from t where id = 1")
    lost, _ = at.now()
    at.catch_up()
    at.refuses(lost, "ignored")
    begin_coverage(at.settings, lambda _: None, chosen=lambda _: True)
    first, second = at.intervals()
    assert (first["closed"], second["from_position"]) == ("begun_anew", first["to_position"])
    take(at.settings)
    position, rows = at.now()
    at.catch_up()
    assert at.state(position) == rows
    (inferred,) = at.query(
        "select operation, primary_key from bemi.changes where 'inferred' = any(flags)"
    )
    assert (inferred["operation"], inferred["primary_key"]) == ("DELETE", "1")


def test_an_idle_look_writes_nothing(at: Covered) -> None:
    memory = Memory()
    at.catch_up()
    at.keep(memory=memory)
    before = at.query("select xmin::text, * from bemi.sources")
    before += at.query("select xmin::text, * from bemi.intervals")
    for _ in range(3):
        assert not altered(at.keep(verify=False, memory=memory))
    after = at.query("select xmin::text, * from bemi.sources")
    after += at.query("select xmin::text, * from bemi.intervals")
    assert before == after
