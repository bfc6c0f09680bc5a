"""Positions, acknowledgements, crashes: what PostgreSQL does with them, and what Bemi makes of it.

Each test makes PostgreSQL show a fact, mostly on a slot of its own, and then asserts the answer.
"""

import contextlib
import dataclasses
import os
import select
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from bemi import connections
from bemi.capture import preflight, sink, source, worker
from bemi.capture import slot as slots
from bemi.capture.decoder import decode
from bemi.capture.recovery import diagnose
from bemi.capture.setup import InitResult, init
from bemi.capture.teardown import teardown
from bemi.config import Settings
from bemi.embedded import Server, binaries
from bemi.errors import (
    FencedError,
    GapError,
    PassingError,
    ProtocolError,
    SetupError,
)
from bemi.lsn import Lsn
from bemi.rules import Rules, Skip
from bemi.store import checkpoint as checkpoints
from tests.conftest import SETTINGS, MakeDatabase
from tests.integration.conftest import Track
from tests.integration.facts import servers
from tests.integration.facts.proxy import Proxy
from tests.integration.facts.running import Running
from tests.integration.facts.stream import (
    Frame,
    Replication,
    active,
    confirmed,
    free,
    kinds,
    number,
    peek,
    whole,
)
from tests.support.tracked import Tracked
from tests.support.tracking import position, track
from tests.support.waiting import until

Connection = psycopg.Connection[Any]

pytestmark = pytest.mark.timeout(300)

TODOS = "create table todos (id int primary key, title text)"


@pytest.fixture
def raw(tracked: Track) -> tuple[Tracked, str]:
    """A tracked source, and a second slot that only the test reads."""
    at = tracked(TODOS, "create table untracked (n int)")  # it has no key
    return at, second_slot(at)


Open: TypeAlias = Callable[[Settings], Tracked]


@pytest.fixture
def opened() -> Iterator[Open]:
    """Opens connections to both ends of what is tracked already; closed after the test."""
    made: list[Tracked] = []

    def make(settings: Settings) -> Tracked:
        made.append(Tracked(settings))
        return made[-1]

    yield make
    for each in made:
        each.close()


def second_slot(at: Tracked, plugin: str = "pgoutput") -> str:
    name = f"{at.settings.slot}_{plugin}"
    at.source.execute("select pg_create_logical_replication_slot(%s, %s)", [name, plugin])
    return name


def keys(at: Tracked) -> list[str | None]:
    rows = at.query("select primary_key from bemi.changes order by epoch, commit_position, ordinal")
    return [row["primary_key"] for row in rows]


def gaps(at: Tracked) -> list[tuple[str, int, int, bool]]:
    return [
        (row["cause"], row["from_position"], row["to_position"], row["accepted_at"] is not None)
        for row in at.query("select * from bemi.gaps order by gap_id")
    ]


def initialise(settings: Settings, **options: Any) -> InitResult:
    return init(settings, report=lambda _: None, **options)


def commits(frames: list[Frame]) -> list[tuple[int, int]]:
    """The commit's LSN and its end's, for each transaction among them."""
    return [frame.commit for frame in frames if frame.kind == "C"]


# --- positions -------------------------------------------------------------------------------


def test_a_rows_lsn_is_neither_unique_nor_rising(tracked: Track) -> None:
    at = tracked(TODOS)
    with at.source.cursor().copy("copy todos from stdin") as copy:
        for key in (1, 2, 3):
            copy.write_row([key, "copied"])
    other = at.connect()
    with at.source.transaction():
        at.source.execute("insert into todos values (4, 'written first, committed last')")
        other.execute("insert into todos values (5, 'written last, committed first')")
    other.close()
    lsns = [frame.lsn for frame in peek(at.source, at.settings.slot) if frame.kind == "I"]
    assert lsns[0] == lsns[1] == lsns[2]
    assert lsns[3] > lsns[4]

    rows = at.changes()
    assert [row["primary_key"] for row in rows] == ["1", "2", "3", "5", "4"]
    assert [row["position"] for row in rows] == lsns
    places = [(row["epoch"], row["commit_position"], row["ordinal"]) for row in rows]
    assert places == sorted(set(places))
    assert [row["ordinal"] for row in rows] == [1, 2, 3, 1, 1]
    assert len({row["id"] for row in rows}) == 5


def test_the_lsn_in_a_header_is_no_position(tracked: Track) -> None:
    """RELATION and TYPE have 0/0 there, and so has the BEGIN of a transaction with an origin."""
    at = tracked("create type mood as enum ('fine')", "create table t (id int primary key, m mood)")
    name = second_slot(at)
    origin = at.source.info.dbname
    at.source.execute("insert into t values (1, 'fine')")
    at.source.execute("select pg_replication_origin_create(%s)", [origin])
    try:
        with at.connect() as subscriber:
            subscriber.execute("select pg_replication_origin_session_setup(%s)", [origin])
            with subscriber.transaction():
                subscriber.execute("select pg_replication_origin_xact_setup('0/1234', now())")
                subscriber.execute("insert into t values (2, 'fine')")
        with Replication(at.settings.source_url, name) as client:
            frames = whole(client.read("I", 2) + client.read("C"))
    finally:
        at.source.execute("select pg_replication_origin_drop(%s)", [origin])
    of = {kind: [f.lsn for f in frames if f.kind == kind] for kind in "BYROIC"}
    assert of["Y"] == of["R"] == [0]
    assert of["B"][0] > 0
    assert of["B"][1] == 0
    assert len(of["O"]) == 1

    rows = at.changes()
    assert [row["primary_key"] for row in rows] == ["1", "2"]
    assert [row["position"] for row in rows] == of["I"]
    assert [row["commit_position"] for row in rows] == [each for each, _ in commits(frames)]
    assert position(at.settings) >= commits(frames)[-1][1]


def test_the_xid_of_a_transaction_has_32_bits_in_the_stream(
    postgres_bin: Path | None, destination_url: str, opened: Open
) -> None:
    with Server(settings=SETTINGS, bin=postgres_bin) as own:
        own.stop()
        servers.run_as_server(own, "pg_resetwal", "--epoch=3", "-D", own.data)
        own.start()
        at = opened(table_in(own, destination_url))
        with at.source.transaction():
            row = at.source.execute("select pg_current_xact_id()::text::bigint").fetchone()
            at.source.execute("insert into app.todos values (1)")
        assert row is not None
        (begin,) = [frame for frame in peek(at.source, at.settings.slot) if frame.kind == "B"]
        assert row[0] >> 32 == 3
        assert begin.xid == row[0] & 0xFFFFFFFF

        (change,) = at.changes()
        assert change["transaction_id"] == row[0]


# --- what is acknowledged, and when ----------------------------------------------------------


def test_only_the_end_of_a_commit_acknowledges_it(raw: tuple[Tracked, str]) -> None:
    """Its own LSN does not. Acknowledging backwards is ignored, ahead is believed."""
    at, name = raw
    url = at.settings.source_url
    at.source.execute("insert into todos values (1, '')")
    with Replication(url, name) as client:
        ((commit, end),) = commits(client.read("C"))
        client.acknowledge(commit)
        until(lambda: confirmed(at.source, name) >= commit, 60, "the slot moves")
    free(at.source, name)
    with Replication(url, name) as client:
        assert commits(client.read("C")) == [(commit, end)]
        client.acknowledge(end)
        until(lambda: confirmed(at.source, name) >= end, 60, "the slot moves")
        client.acknowledge(commit)
        until(lambda: acknowledged(at.source, client.pid) == commit, 60, "it is taken in")
        assert confirmed(at.source, name) == end
    free(at.source, name)
    at.source.execute("insert into todos values (2, '')")
    with Replication(url, name) as client:
        assert commits(client.read("C"))[0][0] > end
        ahead = number(at.source, "pg_current_wal_lsn()") + (1 << 30)
        client.acknowledge(ahead)
        until(lambda: confirmed(at.source, name) == ahead, 60, "the slot moves ahead")
    free(at.source, name)
    at.source.execute("insert into todos values (3, 'lost')")
    assert peek(at.source, name) == []

    last = commits(peek(at.source, at.settings.slot))[-1]
    assert len(at.changes()) == 3
    until(lambda: confirmed(at.source, at.settings.slot) >= last[1], 60, "the slot moves")
    assert position(at.settings) >= confirmed(at.source, at.settings.slot)


def test_nothing_is_acknowledged_before_the_destination_has_committed_it(
    raw: tuple[Tracked, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A keepalive's position may lie past rows that were received and are not stored."""
    at, name = raw
    monkeypatch.setattr(sink, "IDLE_INTERVAL", 0.1)
    quick(at, "4s")  # so that the worker gives feedback every second
    at.source.execute("insert into todos values (1, '')")
    at.source.execute("insert into untracked select generate_series(1, 100)")
    written = number(at.source, "pg_current_wal_flush_lsn()")
    with Replication(at.settings.source_url, name) as client:
        frames = client.read("C")
        while frames[-1].kind != "k" or frames[-1].lsn < written:
            frames += client.read("k")
        ((_, end),) = commits(whole(frames))
        assert frames[-1].lsn > end

    with Running(at.settings):
        with locked(at, "lock table bemi.row_changes in access exclusive mode"):
            until(lambda: waits_for_lock(at), 60, "the worker waits for the lock")
            at.source.execute("insert into untracked select generate_series(1, 100)")
            pid = holder(at)
            replies(at, pid, 3)
            assert confirmed(at.source, at.settings.slot) < end
            assert (acknowledged(at.source, pid) or 0) < end
        written = number(at.source, "pg_current_wal_flush_lsn()")
        until(lambda: confirmed(at.source, at.settings.slot) >= written, 60, "the slot moves on")
        assert position(at.settings) >= confirmed(at.source, at.settings.slot)
    free(at.source, at.settings.slot)
    at.catch_up()
    assert keys(at) == ["1"]
    assert gaps(at) == []


def test_the_slot_goes_back_when_the_source_crashes(
    postgres_bin: Path | None, destination_url: str, opened: Open
) -> None:
    with Server(settings=SETTINGS, bin=postgres_bin) as own:
        settings = table_in(own, destination_url)
        stored: list[str | None] = []

        def goes_back() -> bool:
            """Not always: now and then a slot is saved."""
            at = opened(settings)
            stored.append(str(len(stored)))
            at.source.execute("insert into app.todos values (%s)", [stored[-1]])
            at.catch_up()
            free(at.source, settings.slot)
            before = confirmed(at.source, settings.slot)
            own.restart("immediate")
            return confirmed(opened(settings).source, settings.slot) < before

        until(goes_back, 200, "the slot goes back")
        at = opened(settings)
        again = commits(peek(at.source, settings.slot))
        assert again
        assert again[0][1] <= position(settings)

        at.source.execute("insert into app.todos values (1000)")
        assert [row["primary_key"] for row in at.changes()] == [*stored, "1000"]
        assert gaps(at) == []


def test_a_slot_ahead_of_the_checkpoint_skips_without_a_word(raw: tuple[Tracked, str]) -> None:
    at, name = raw
    start = confirmed(at.source, name)
    at.source.execute("insert into todos values (1, '')")
    with Replication(at.settings.source_url, name) as client:
        ((_, end),) = commits(client.read("C"))
        client.acknowledge(end)
        until(lambda: confirmed(at.source, name) == end, 60, "the slot moves")
    free(at.source, name)
    at.source.execute("insert into todos values (2, '')")
    with Replication(at.settings.source_url, name, start=start) as client:
        assert len(commits(client.read("C"))) == 1
    at.catch_up()
    free(at.source, at.settings.slot)

    # As if the destination had been restored from a backup.
    at.query("delete from bemi.row_changes where primary_key = '2' returning 1")
    at.query("update bemi.checkpoints set position = %s returning 1", [end])
    slot_at = confirmed(at.source, at.settings.slot)
    with pytest.raises(GapError, match="changes are missing"):
        at.catch_up()
    assert gaps(at) == [("slot_ahead", end, slot_at, False)]
    at.source.execute("insert into todos values (3, '')")
    with pytest.raises(GapError):
        at.catch_up()
    assert keys(at) == ["1"]
    at.catch_up(accept_gap=True)
    assert gaps(at) == [("slot_ahead", end, slot_at, True)]
    assert keys(at) == ["1", "3"]


def test_a_destination_that_commits_lazily_loses_what_it_confirmed(
    tracked: Track, postgres_bin: Path | None, opened: Open
) -> None:
    at = tracked(TODOS)
    settings = {"synchronous_commit": "off", "wal_writer_delay": "10s", "autovacuum": "off"}
    with Server(settings=SETTINGS | settings, bin=postgres_bin) as home:

        def committed_and_crashed() -> bool:
            with psycopg.connect(home.url(), autocommit=True) as conn:
                conn.execute("create table if not exists kept (n int)")
                conn.execute("checkpoint")
                before = conn.execute("select count(*) from kept").fetchone()
            writer = servers.process(home, "walwriter")
            os.kill(writer, signal.SIGSTOP)  # or it might be quicker than this test
            with psycopg.connect(home.url(), autocommit=True) as conn:
                conn.execute("insert into kept values (1)")
            servers.crash(home)
            servers.accepting(home)
            with psycopg.connect(home.url()) as conn:
                return conn.execute("select count(*) from kept").fetchone() == before

        until(committed_and_crashed, 60, "a crash takes a commit along")

        lazy = track(
            at.settings.source_url,
            home.url(),
            schemas=["*"],
            slot=at.settings.slot + "_2",
            publication="second",
        )
        at.source.execute("insert into todos values (1, '')")
        os.kill(servers.process(home, "walwriter"), signal.SIGSTOP)
        worker.run(lazy, stop=threading.Event(), until_caught_up=True)
        servers.crash(home)
        servers.accepting(home)
        after = opened(lazy)
        assert keys(after) == ["1"]
        assert position(lazy) >= confirmed(at.source, lazy.slot)
        after.catch_up()
        assert gaps(after) == []


def test_wal_sender_timeout_cuts_who_does_not_answer(raw: tuple[Tracked, str]) -> None:
    """A reply is wanted near half of it; one who does not even read is cut as well."""
    at, name = raw
    quick(at, "3s")
    many = "insert into todos select g, repeat('x', 1000) from generate_series(1, 20000) g"
    at.source.execute(many.encode())
    with Replication(at.settings.source_url, name):
        until(lambda: active(at.source, name) is None, 60, "one who does not read is cut")
    with Replication(at.settings.source_url, name) as client:
        asked = client.read("k")
        while not asked[-1].reply_requested:
            asked = client.read("k")
        client.ended()
    free(at.source, name)

    with (
        locked(at, "lock table bemi.row_changes in access exclusive mode"),
        Running(at.settings) as running,
    ):
        until(lambda: waits_for_lock(at), 60, "the worker waits for the lock")
        pid, before = holder(at), confirmed(at.source, at.settings.slot)
        replies(at, pid, 3, apart=7.0)
        assert holder(at) == pid, "more than twice as long as the timeout"
        assert confirmed(at.source, at.settings.slot) == before
        assert running.error is None
        at.destination.execute("select 1")
    at.catch_up()
    assert at.query("select count(*) as n from bemi.row_changes") == [{"n": 20000}]


def test_a_network_that_half_opens_says_nothing(
    raw: tuple[Tracked, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    at, name = raw
    quick(at, "2s")
    with Proxy(at.settings.source_url) as proxy:
        with Replication(proxy.url, name) as client:
            until(lambda: sent(at, client.pid), 60, "it streams")
            proxy.silence()
            at.source.execute("insert into todos values (1, '')")
            written = number(at.source, "pg_current_wal_flush_lsn()")
            until(lambda: sent(at, client.pid) >= written, 60, "the server has sent it")
            # For the client it is as if nothing had happened, for as long as it likes to wait.
            frame = client.next()
            while frame is not None or select.select([client.socket], [], [], 1)[0]:
                assert frame is None or frame.kind != "I"  # it had come before
                frame = client.next()
            free(at.source, name)  # the server gives it up in time
            assert client.next() is None

        monkeypatch.setattr(source, "_SILENCE", 2.0)
        settings = dataclasses.replace(at.settings, source_url=proxy.url)
        with Running(settings) as running:
            until(lambda: keys(at) == ["1"], 60, "the worker captures")
            proxy.silence()
            at.source.execute("insert into todos values (2, '')")
            until(lambda: keys(at) == ["1", "2"], 60, "the worker has found out and come back")
            assert running.error is None
    assert gaps(at) == []


@pytest.mark.parametrize("what", ["source", "destination", "replication"])
def test_connections_notice_a_peer_that_is_gone(at_urls: dict[str, str], what: Any) -> None:
    """The kernel's own timeouts, which a proxy can't show: its kernel confirms what it is sent."""
    with contextlib.ExitStack() as stack:
        if what == "replication":
            stream = stack.enter_context(contextlib.closing(source.Source(at_urls["source"])))
            descriptor = stream.socket
        else:
            conn = stack.enter_context(connections.connect(at_urls[what], what=what))
            descriptor = conn.fileno()
        with socket.socket(fileno=os.dup(descriptor)) as peer:
            assert peer.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                assert peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000
                assert peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 20


@pytest.fixture
def at_urls(source_url: str, destination_url: str) -> dict[str, str]:
    return {"source": source_url, "destination": destination_url}


# --- who may read, and when ------------------------------------------------------------------


def test_a_busy_slot_is_free_when_its_client_has_died(
    raw: tuple[Tracked, str], caplog: pytest.LogCaptureFixture
) -> None:
    at, name = raw
    with Replication(at.settings.source_url, name):
        with pytest.raises(psycopg.errors.ObjectInUse) as caught:
            Replication(at.settings.source_url, name)
        assert caught.value.sqlstate == "55006"
    free(at.source, name)
    with Replication(at.settings.source_url, name):
        pass

    at.source.execute("insert into todos values (1, '')")
    with Replication(at.settings.source_url, at.settings.slot) as stranger:
        impatient = dataclasses.replace(at.settings, slot_wait=0.5)
        with Running(impatient) as running:
            error = running.ends()
        assert isinstance(error, SetupError)
        assert not isinstance(error, PassingError)
        assert str(stranger.pid) in str(error)
        assert '"a test"' in str(error)
        assert active(at.source, at.settings.slot) == stranger.pid, "it was left alone"
        caplog.clear()
        with Running(at.settings):
            until(lambda: any("in use" in reason for reason in reasons(caplog)), 60, "it waits")
            stranger.__exit__(None, None, None)
            until(lambda: keys(at) == ["1"], 60, "it takes the slot when that is free")


def test_states_that_pass_are_waited_for_and_wrong_settings_are_not(
    postgres_bin: Path | None, make_database: MakeDatabase, destination_url: str, opened: Open
) -> None:
    """Too many connections, starting up, recovering, refused; at start as well."""
    settings = {"max_connections": "20", "hot_standby": "off", "autovacuum": "off"}
    with Server(settings=SETTINGS | settings, bin=postgres_bin) as own:
        tracked_there = table_in(own, destination_url)

        def refused(words: str) -> None:
            with pytest.raises(psycopg.OperationalError, match=words):
                psycopg.connect(own.url())
            with pytest.raises(PassingError, match=words):
                connections.connect(own.url(), what="source")

        crowd: list[Connection] = []
        with contextlib.suppress(psycopg.OperationalError):
            while len(crowd) <= 20:
                crowd.append(psycopg.connect(own.url()))
        refused("too many clients")
        with Running(tracked_there) as running:
            # Started in a bad moment, and going on when that is over.
            for each in crowd:
                each.close()
            with psycopg.connect(tracked_there.source_url, autocommit=True) as conn:
                conn.execute("insert into app.todos values (1)")
            at = opened(tracked_there)
            until(lambda: keys(at) == ["1"], 60, "it captures")

            # A standby that takes no sessions stays in recovery for as long as a test likes.
            servers.crash(own, (own.data / "standby.signal").touch)
            until(lambda: in_recovery(own), 60, "the server is in recovery")
            refused("not accepting connections|starting up|not yet accepting")
            assert running.error is None
            own.stop()
            refused("refused")
            (own.data / "standby.signal").unlink()
            own.start()
            with psycopg.connect(tracked_there.source_url, autocommit=True) as conn:
                conn.execute("insert into app.todos values (2)")
            at = opened(tracked_there)
            until(lambda: keys(at) == ["1", "2"], 60, "it captures again")
        with pytest.raises(SetupError, match="does not exist"):
            connections.connect(own.url("nowhere"), what="source")


def test_a_worker_that_lost_its_slot_still_has_its_destination(tracked: Track) -> None:
    """The slot is one process's at a time; a transaction in the destination outlives that."""
    at = tracked(TODOS)
    at.catch_up()
    old = psycopg.connect(at.settings.destination_url)
    held = checkpoints.read(old, "bemi", at.settings.source)
    assert held is not None
    held = checkpoints.claim(old, "bemi", held.source_id)
    old.commit()
    with Replication(at.settings.source_url, at.settings.slot) as first:
        old.execute("create table bemi.what_the_old_one_wrote ()")
        at.source.execute("select pg_terminate_backend(%s)", [first.pid])
        free(at.source, at.settings.slot)
        with Replication(at.settings.source_url, at.settings.slot):
            assert old.execute("select to_regclass('bemi.what_the_old_one_wrote')").fetchone()
            assert old.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS

    free(at.source, at.settings.slot)
    with psycopg.connect(at.settings.destination_url) as new:
        checkpoints.claim(new, "bemi", held.source_id)
    with pytest.raises(FencedError):
        checkpoints.advance(old.cursor(), "bemi", held, position=Lsn(held.position + 1))
    old.rollback()
    old.close()
    assert at.query("select to_regclass('bemi.what_the_old_one_wrote') as t") == [{"t": None}]
    at.source.execute("insert into todos values (1, '')")
    assert [row["primary_key"] for row in at.changes()] == ["1"]


# --- transactions ----------------------------------------------------------------------------


def test_a_huge_transaction_comes_whole_after_its_commit(raw: tuple[Tracked, str]) -> None:
    at, name = raw
    other = at.connect()
    with at.source.transaction():
        for start in (0, 15_000):
            at.source.execute(
                "insert into todos select %s + g, repeat('x', 200) "
                "from generate_series(1, 15000) g",
                [start],
            )
            other.execute("insert into todos values (%s, 'between')", [-1 - start])
        assert kinds(peek(other, name)) == "BIC" * 2, "nothing of it yet"
    other.close()
    assert kinds(peek(at.source, name)) == "BIC" * 2 + "B" + 30_000 * "I" + "C"

    at.catch_up()
    rows = at.query(
        "select commit_position, count(*) as n, count(distinct xmin::text) as stored_in "
        "from bemi.row_changes group by 1 order by 1"
    )
    assert [(row["n"], row["stored_in"]) for row in rows] == [(1, 1), (1, 1), (30_000, 1)]


def test_an_empty_transaction_is_omitted_or_moves_on(
    raw: tuple[Tracked, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of untracked tables: before 15 BEGIN and COMMIT are sent, from then on nothing."""
    at, name = raw
    monkeypatch.setattr(sink, "IDLE_INTERVAL", 0.1)
    at.source.execute("insert into untracked values (1)")
    old = at.source.info.server_version < 150000
    assert kinds(peek(at.source, name)) == ("BC" if old else "")

    with Running(at.settings):
        written = number(at.source, "pg_current_wal_flush_lsn()")
        until(lambda: confirmed(at.source, at.settings.slot) >= written, 60, "the slot moves on")
    assert position(at.settings) >= written
    assert at.query("select from bemi.contexts") == []
    assert at.changes() == []


def test_an_open_transaction_that_is_streamed_has_what_was_rolled_back(
    raw: tuple[Tracked, str],
) -> None:
    """Protocol 2: a context that never was arrives like one that counts."""
    at, name = raw
    other = at.connect()
    with at.source.transaction():
        at.source.execute("insert into todos values (1, '')")
        at.source.execute("savepoint s")
        at.source.execute("select pg_logical_emit_message(true, '_bemi', '{\"user\": \"nobody\"}')")
        at.source.execute(
            "insert into todos select g, repeat('x', 500) from generate_series(2, 2000) g"
        )
        other.execute("set logical_decoding_work_mem = '64kB'")
        other.execute("insert into untracked values (1)")  # its commit flushes the log
        streamed = peek(other, name, version=2, streaming="on")
        assert "S" in {frame.kind for frame in streamed}
        messages = [frame.data for frame in streamed if frame.kind == "M"]
        assert any(b"nobody" in message for message in messages)
        at.source.execute("rollback to savepoint s")
    other.close()
    assert kinds(peek(at.source, name)).strip("BC") == "I"

    begin = next(frame for frame in streamed if frame.kind == "S")
    with pytest.raises(ProtocolError, match="protocol"):
        decode(begin.data, "utf-8")
    (row,) = at.changes()
    assert (row["primary_key"], row["context"]) == ("1", {})


def test_a_prepared_transaction_comes_at_commit_prepared(raw: tuple[Tracked, str]) -> None:
    at, name = raw
    gid = at.source.info.dbname
    with at.source.transaction():
        at.source.execute("insert into todos values (1, '')")
        at.source.execute(sql.SQL("prepare transaction {}").format(sql.Literal(gid)))
    assert peek(at.source, name) == []
    at.catch_up()
    assert keys(at) == []
    at.source.execute(sql.SQL("commit prepared {}").format(sql.Literal(gid)))
    assert kinds(peek(at.source, name), of="I") == "I"

    assert [row["primary_key"] for row in at.changes()] == ["1"]
    found = slots.read(at.source, at.settings.slot)
    assert found is not None
    assert not found.two_phase


# --- slots -----------------------------------------------------------------------------------


def test_making_a_slot_waits_for_every_open_writer_of_the_cluster(
    source_url: str, destination_url: str, make_database: MakeDatabase
) -> None:
    elsewhere = make_database()
    with psycopg.connect(source_url, autocommit=True) as conn, psycopg.connect(elsewhere) as writer:
        conn.execute(TODOS)
        writer.execute("create table t (n int)")
        conn.execute("set statement_timeout = 200")
        with pytest.raises(psycopg.errors.QueryCanceled):
            conn.execute("select pg_create_logical_replication_slot('never', 'pgoutput')")
        conn.execute("reset statement_timeout")
        query = "select count(*) from pg_replication_slots where slot_name = %s"
        assert conn.execute(query, ["never"]).fetchone() == (0,)

        settings = Settings(source_url=source_url, destination_url=destination_url, slot_wait=2.5)
        said: list[str] = []
        with pytest.raises(SetupError, match=str(writer.info.backend_pid)):
            init(settings, report=said.append)
        assert any(f"PID {writer.info.backend_pid}" in line for line in said)
        assert conn.execute(query, [settings.slot]).fetchone() == (0,)
        writer.rollback()
        assert initialise(settings).position > 0


def test_a_slot_is_invalidated_when_it_keeps_too_much(
    postgres_bin: Path | None, destination_url: str, opened: Open
) -> None:
    settings = {"max_slot_wal_keep_size": "1MB", "min_wal_size": "32MB", "max_wal_size": "1GB"}
    with Server(settings=SETTINGS | settings, bin=postgres_bin) as own:
        at = opened(table_in(own, destination_url))
        at.source.execute("insert into app.todos values (1)")
        at.catch_up()
        free(at.source, at.settings.slot)
        name = second_slot(at)
        at.source.execute("insert into app.todos values (2)")
        with Replication(at.settings.source_url, name) as client:
            client.read("C")
            for _ in range(3):
                at.source.execute("select pg_switch_wal()")
                at.source.execute("insert into app.todos select max(id) + 1 from app.todos")
            row = at.source.execute(
                "select wal_status, safe_wal_size < 0 from pg_replication_slots "
                "where slot_name = %s",
                [at.settings.slot],
            ).fetchone()
            assert row == ("unreserved", True)
            warned = {each.check: each for each in preflight.diagnose(at.settings)}["slot"]
            assert (warned.level, "about to be lost" in warned.message) == ("warning", True)

            at.source.execute("checkpoint")
            assert client.ended().sqlstate == "57P01"
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
            Replication(at.settings.source_url, name)
        found = slots.read(at.source, at.settings.slot)
        assert found is not None
        assert found.wal_status == "lost"

        with pytest.raises(SetupError, match="is lost"):
            at.catch_up()
        ends = position(at.settings)
        assert "lost" in (initialise(at.settings).gap or "")
        with pytest.raises(GapError):
            at.catch_up()
        at.source.execute("insert into app.todos values (1000)")
        at.catch_up(accept_gap=True)
        assert keys(at) == ["1", "1000"]
        ((cause, begin, end, accepted),) = gaps(at)
        assert (cause, begin, accepted) == ("slot_ahead", ends, True)
        assert begin < end <= position(at.settings)


def test_a_slot_does_not_follow_a_failover_before_17(
    postgres_bin: Path | None, destination_url: str, opened: Open
) -> None:
    """The promoted server has the same system identifier, and another timeline."""
    with Server(settings=SETTINGS, bin=postgres_bin) as primary:
        settings = table_in(primary, destination_url)
        at = opened(settings)
        follows = at.source.info.server_version >= 170000
        wanted = {}
        if follows:
            at.source.execute("select pg_create_physical_replication_slot('standby')")
            wanted = {"primary_slot_name": "standby", "hot_standby_feedback": "on"}
            wanted["sync_replication_slots"] = "on"
        with servers.standby_of(primary, postgres_bin, **wanted) as standby:
            database = conninfo_to_dict(settings.source_url)["dbname"]
            promoted = opened(dataclasses.replace(settings, source_url=standby.url(str(database))))
            at.source.execute("insert into app.todos values (1)")
            at.catch_up()
            if follows:

                def is_synced() -> bool:
                    # A slot that began behind what the standby has kept of the log is not taken
                    # over before it has moved on, which takes somebody who reads it.
                    at.source.execute("select pg_log_standby_snapshot()")
                    at.catch_up()
                    free(at.source, settings.slot)
                    return synced(promoted, settings.slot)

                until(is_synced, 100, "the slot is on the standby")
            at.source.execute("insert into app.todos values (2)")
            written = number(at.source, "pg_current_wal_flush_lsn()")
            replayed = "pg_last_wal_replay_lsn()"
            until(lambda: number(promoted.source, replayed) >= written, 60, "it has replayed")
            before = identity(settings)
            primary.stop("immediate")
            promoted.source.execute("select pg_promote()")
            after = identity(promoted.settings)
            assert after[0] == before[0]
            assert after[1] == before[1] + 1
            row = promoted.source.execute(
                "select count(*) from pg_replication_slots where slot_name = %s", [settings.slot]
            ).fetchone()
            assert row == (int(follows),)

            promoted.source.execute("insert into app.todos values (3)")
            if not follows:
                with pytest.raises(SetupError, match=settings.slot):
                    promoted.catch_up()
                assert initialise(promoted.settings).gap
                assert kinds(peek(promoted.source, settings.slot)) == "", "2 and 3 are lost"
            with pytest.raises(GapError, match="timeline"):
                promoted.catch_up()
            assert [(each[0], each[3]) for each in gaps(promoted)] == [("epoch_changed", False)]
            promoted.catch_up(accept_gap=True)
            promoted.source.execute("insert into app.todos values (4)")
            promoted.catch_up()
            assert keys(promoted) == (["1", "2", "3", "4"] if follows else ["1", "4"])
            epochs = promoted.query("select timeline from bemi.epochs order by epoch")
            assert [row["timeline"] for row in epochs] == [before[1], after[1]]


@pytest.mark.parametrize("recovers", [False, True], ids=["same timeline", "new timeline"])
def test_positions_go_back_when_the_source_is_restored(
    postgres_bin: Path | None, destination_url: str, recovers: bool, opened: Open
) -> None:
    with Server(settings=SETTINGS, bin=postgres_bin) as own, servers.folder() as place:
        settings = table_in(own, destination_url)
        at = opened(settings)
        at.source.execute("insert into app.todos values (1)")
        at.catch_up()
        at.source.close()
        before = identity(settings)
        own.stop()
        servers.copy_data(own, place / "backup")
        own.start()
        at = opened(settings)
        at.source.execute("insert into app.todos select generate_series(2, 1000)")
        at.catch_up()
        stored = position(settings)
        own.stop()
        servers.put_back(own, place / "backup")
        if recovers:
            (own.data / "recovery.signal").touch()
            own.settings |= {"restore_command": "false"}
        own.start()
        at = opened(settings)
        until(lambda: not recovering(at.source), 60, "it has recovered")
        at.source.execute("insert into app.todos values (7000)")
        after = identity(settings)
        assert after == (before[0], before[1] + recovers)
        (end,) = [each for _, each in commits(peek(at.source, settings.slot))][-1:]
        assert end < stored, "taken for stored, if positions were all that counted"

        with pytest.raises(GapError, match="restored"):
            at.catch_up()
        assert [each[0] for each in gaps(at)] == ["epoch_changed"]
        at.catch_up(accept_gap=True)
        # A slot that was not saved before the copy was made begins earlier: 1 comes once more then.
        rows = at.query("select primary_key from bemi.changes where epoch = 2")
        assert {row["primary_key"] for row in rows} - {"1"} == {"7000"}


def test_a_restored_source_may_have_written_past_the_history(
    postgres_bin: Path | None, destination_url: str, opened: Open
) -> None:
    """No number tells: the server, the timeline are the same, and the log is longer than before."""
    with Server(settings=SETTINGS, bin=postgres_bin) as own, servers.folder() as place:
        settings = table_in(own, destination_url)
        at = opened(settings)
        at.source.execute("insert into app.todos values (1)")
        at.catch_up()
        at.source.close()
        before = identity(settings)
        own.stop()
        servers.copy_data(own, place / "backup")
        own.start()
        at = opened(settings)
        at.source.execute("insert into app.todos values (2)")
        at.catch_up()
        stored = position(settings)
        own.stop()
        servers.put_back(own, place / "backup")
        own.start()
        at = opened(settings)
        at.source.execute("insert into app.todos values (7000)")
        at.source.execute("insert into app.todos select generate_series(7001, 9000)")
        assert identity(settings) == before
        assert number(at.source, "pg_current_wal_flush_lsn()") > stored
        first, *_ = [end for _, end in commits(peek(at.source, settings.slot)) if end < stored]
        assert first, "7000 would be taken for stored, if positions were all that counted"

        for _ in range(2):
            with pytest.raises(GapError, match="restored"):
                at.catch_up()
        assert [(each[0], each[1], each[3]) for each in gaps(at)] == [("restored", stored, False)]
        assert diagnose(settings).gap is not None
        assert keys(at) == ["1", "2"]

        at.catch_up(accept_gap=True)
        assert [(each[0], each[3]) for each in gaps(at)] == [("restored", True)]
        assert diagnose(settings).gap is None
        rows = at.query("select primary_key::int as key from bemi.changes where epoch = 2")
        assert {row["key"] for row in rows} - {1} == {*range(7000, 9001)}
        at.source.execute("insert into app.todos values (9001)")
        at.catch_up()
        assert keys(at)[-1] == "9001"


def test_a_crash_that_takes_back_the_slot_is_not_taken_for_a_restore(
    postgres_bin: Path | None, destination_url: str, opened: Open
) -> None:
    """What is sent again is what the history has, though rules would leave it out by now."""
    with Server(settings=SETTINGS, bin=postgres_bin) as own:
        at = opened(table_in(own, destination_url))
        at.source.execute("insert into app.todos values (1)")
        at.source.execute("insert into app.todos values (2)")
        at.catch_up()
        own.stop("immediate")
        own.start()
        again = opened(dataclasses.replace(at.settings, rules=Rules(skip=(Skip(("app.todos",)),))))
        again.catch_up()
        assert keys(again) == ["1", "2"]
        assert gaps(again) == []


def test_pg_upgrade_before_17_loses_slots_without_a_word(
    postgres_bin: Path | None, destination_url: str, opened: Open
) -> None:
    newest = binaries.find()
    with Server(settings=SETTINGS, bin=postgres_bin) as old:
        settings = table_in(old, destination_url)
        at = opened(settings)
        version = at.source.info.server_version // 10000
        at.source.execute("insert into app.todos values (1)")
        at.catch_up()
        old.stop()
        with Server(settings=SETTINGS, bin=newest) as new:
            with psycopg.connect(new.url()) as conn:
                to = conn.info.server_version // 10000
            if version >= to:
                pytest.skip("needs a PostgreSQL older than the embedded one: make test-matrix")
            upgrade(old, new)
            new.start()
            database = str(conninfo_to_dict(settings.source_url)["dbname"])
            upgraded = dataclasses.replace(settings, source_url=new.url(database))
            at = opened(upgraded)
            keeps = version >= 17
            row = at.source.execute("select count(*) from pg_replication_slots").fetchone()
            assert row == (int(keeps),)
            at.source.execute("insert into app.todos values (2)")

            if not keeps:
                with pytest.raises(SetupError, match=settings.slot):
                    at.catch_up()
                assert initialise(upgraded).gap
            with pytest.raises(GapError, match=r"another (server|database)"):
                at.catch_up()
            assert [each[0] for each in gaps(at)] == ["epoch_changed"]
            at.catch_up(accept_gap=True)
            at.source.execute("insert into app.todos values (3)")
            at.catch_up()
            assert keys(at) == (["1", "2", "3"] if keeps else ["1", "3"])


def test_a_source_with_a_slot_does_not_start_with_a_lower_wal_level(
    postgres_bin: Path | None, destination_url: str
) -> None:
    with (
        servers.folder() as place,
        Server(data=place / "server", settings=SETTINGS, bin=postgres_bin) as own,
    ):
        settings = table_in(own, destination_url)
        own.stop()
        own.settings["wal_level"] = "replica"
        with pytest.raises(SetupError, match="wal_level"):
            own.start()
        own.settings["wal_level"] = "logical"
        own.start()

        teardown(settings, history=False, report=lambda _: None)
        own.stop()
        own.settings["wal_level"] = "replica"
        own.start()
    guide = Path(__file__).parents[3] / "docs" / "how-to" / "tear-down.md"
    assert "wal_level" in guide.read_text(encoding="utf-8")


# --- what the tests share --------------------------------------------------------------------


def table_in(server: Server, destination_url: str) -> Settings:
    """Tracks a table in a new database of the server."""
    url = server.create_database("shop")
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("create schema app; create table app.todos (id int primary key)")
    return track(url, destination_url)


def quick(at: Tracked, timeout: str) -> None:
    """Set wal_sender_timeout for sessions to come."""
    database = sql.Identifier(at.source.info.dbname)
    statement = sql.SQL("alter database {} set wal_sender_timeout to {}")
    at.source.execute(statement.format(database, sql.Literal(timeout)))


@contextlib.contextmanager
def locked(at: Tracked, statement: str) -> Iterator[None]:
    """A lock in the destination that somebody else holds."""
    with psycopg.connect(at.settings.destination_url) as conn:
        conn.execute(statement.encode())
        yield
        conn.rollback()


def reasons(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What workers have said that they wait for."""
    return [str(getattr(record, "reason", "")) for record in list(caplog.records)]


def waits_for_lock(at: Tracked) -> bool:
    """Whether the worker waits for a lock in the destination, not only who counts beside it."""
    rows = at.query(
        "select from pg_stat_activity where datname = current_database() "
        "and wait_event_type = 'Lock' and query !~ 'upkeep|uncounted|count_changes'"
    )
    return bool(rows)


def holder(at: Tracked) -> int:
    """The walsender of Bemi's slot."""
    pid = active(at.source, at.settings.slot)
    assert pid is not None
    return pid


def acknowledged(conn: Connection, pid: int) -> int | None:
    """What the client of a walsender has said last."""
    found: int | None = _of_walsender(conn, pid, "(flush_lsn - '0/0')::bigint")
    return found


def sent(at: Tracked, pid: int) -> int:
    """How far a walsender has sent."""
    return int(_of_walsender(at.source, pid, "sent_lsn - '0/0'") or 0)


def replies(at: Tracked, pid: int, count: int, *, apart: float = 0.0) -> None:
    """Waits until a walsender got so many replies, the last `apart` seconds after the first."""
    found: list[float] = []

    def enough() -> bool:
        reply = _of_walsender(at.source, pid, "coalesce(extract(epoch from reply_time), 0)::float8")
        assert reply is not None, "it does not stream any more"
        if reply and reply not in found:
            found.append(reply)
        return len(found) > count and found[-1] - found[0] >= apart

    until(enough, 60, "the worker goes on answering")


def _of_walsender(conn: Connection, pid: int, expression: str) -> Any:
    statement = f"select {expression} from pg_stat_replication where pid = %s"
    row = conn.execute(statement.encode(), [pid]).fetchone()
    return None if row is None else row[0]


def identity(settings: Settings) -> tuple[str, int]:
    """System identifier and timeline, as a replication connection tells them."""
    with psycopg.connect(settings.source_url, autocommit=True, replication="database") as conn:
        row = conn.execute("IDENTIFY_SYSTEM").fetchone()
    assert row is not None
    return str(row[0]), int(row[1])


def recovering(conn: Connection) -> bool:
    row = conn.execute("select pg_is_in_recovery()").fetchone()
    assert row is not None
    return bool(row[0])


def in_recovery(server: Server) -> bool:
    """Of one that takes no sessions: by what it answers."""
    try:
        psycopg.connect(server.url()).close()
    except psycopg.OperationalError as error:
        return "not accepting connections" in str(error)
    return False


def synced(at: Tracked, slot: str) -> bool:
    """Whether the standby has the slot, ready to be taken over."""
    row = at.source.execute(
        "select synced and not temporary from pg_replication_slots where slot_name = %s", [slot]
    ).fetchone()
    return row is not None and bool(row[0])


def upgrade(old: Server, new: Server) -> None:
    """pg_upgrade of a stopped server; the new one, of a higher version, has its databases then."""
    new.stop()
    password = (old.folder / "password").read_text(encoding="ascii")
    # The new cluster takes over the roles with their passwords.
    (new.folder / "password").write_text(password, encoding="ascii")
    new._password = password
    shutil.rmtree(new.data)
    servers.run_as_server(
        new,
        "initdb",
        *["--username=postgres", f"--pwfile={new.folder / 'password'}"],
        *["--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-sync"],
        *(["--no-data-checksums"] if new_has_checksums(new) else []),
        *["-D", new.data],
    )
    shutil.copy(old.data / "bemi.conf", new.data / "bemi.conf")
    with (new.data / "postgresql.conf").open("a", encoding="utf-8") as conf:
        conf.write("include 'bemi.conf'\n")
    servers.own(new.data, new)
    servers.run_as_server(
        new,
        "pg_upgrade",
        *["-U", "postgres", "-b", old._server_bin, "-B", new._server_bin],
        *["-d", old.data, "-D", new.data, "-p", old.port, "-P", new.port, "-s", new.folder],
        env={**os.environ, "PGPASSWORD": password, "LC_ALL": "C", "HOME": str(new.folder)},
    )


def new_has_checksums(new: Server) -> bool:
    """From 18 on a new cluster has checksums unless told otherwise."""
    done = subprocess.run(
        [new.bin("postgres"), "--version"], capture_output=True, text=True, check=True
    )
    return int(done.stdout.split()[2].split(".")[0]) >= 18
