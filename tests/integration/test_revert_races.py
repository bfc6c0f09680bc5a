"""A revert amid writers: none of their updates is lost, and a kill leaves nothing behind."""

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from bemi.errors import ConflictError, PassingError, SetupError
from tests.integration.conftest import Track
from tests.support import waiting
from tests.support.shop import Shop
from tests.support.tracking import environment

ACCOUNTS = 20


@pytest.fixture
def bank(tracked: Track) -> Iterator[Shop]:
    made = Shop(
        tracked(
            "create table accounts (id int primary key, kind text, balance int, writes int)",
            "create table entries (id serial primary key, account int references accounts"
            " on delete cascade, amount int)",
        )
    )
    made.write(
        f"insert into accounts select n, 'a', 0, 0 from generate_series(1, {ACCOUNTS}) n",
    )
    yield made
    made.close()


def test_no_concurrent_update_is_lost(bank: Shop, seed: int) -> None:
    """Writers count in one column while reverts set another back, in opposite order."""
    stop = threading.Event()

    def write(number: int) -> int:
        chance, done = random.Random(seed + number), 0
        with bank.at.connect() as conn:
            while not stop.wait(0.01):  # busy, not alone
                ids = sorted(chance.sample(range(1, ACCOUNTS + 1), 3), reverse=True)
                try:
                    with conn.transaction():
                        for id in ids:
                            conn.execute(
                                "update accounts set balance = balance + 1, writes = writes + 1"
                                " where id = %s",
                                [id],
                            )
                            conn.execute(
                                "insert into entries (account, amount) values (%s, 1)", [id]
                            )
                except psycopg.errors.DeadlockDetected:
                    continue
                done += 3
        return done

    with ThreadPoolExecutor(2) as pool:
        writers = [pool.submit(write, number) for number in range(2)]
        try:
            for turn in range(3):
                # In one go, as the writers' order is another one.
                number = bank.write(
                    "lock table accounts in exclusive mode",
                    f"update accounts set kind = 'b{turn}'",
                )
                plan = bank.plan(transaction=number)
                assert not plan.conflicts
                applied = plan.apply()
                assert applied.rows == ACCOUNTS
        finally:
            stop.set()
        written = sum(writer.result() for writer in writers)
    row = bank.at.source.execute(
        "select sum(balance), sum(writes), (select count(*) from entries),"
        " bool_and(kind = 'a') from accounts"
    ).fetchone()
    assert row == (written, written, written, True)


def test_a_write_between_plan_and_apply_is_a_conflict(bank: Shop) -> None:
    number = bank.write("update accounts set kind = 'b'")
    plan = bank.plan(transaction=number)
    bank.at.source.execute("update accounts set kind = 'c' where id = 3")
    with pytest.raises(ConflictError, match="by a change that is not in the history") as caught:
        plan.apply()
    assert [conflict.key for conflict in caught.value.conflicts] == ["3"]
    applied = plan.apply(skip_conflicts=True)
    assert (applied.rows, applied.skipped) == (ACCOUNTS - 1, 1)


def test_a_child_that_comes_while_the_parent_goes_is_never_taken_along(bank: Shop) -> None:
    number = bank.write("insert into accounts values (99, 'a', 0, 0)")
    plan = bank.plan(transaction=number)
    with bank.at.connect() as other:
        other.autocommit = False
        other.execute("insert into entries (account, amount) values (99, 1)")
        with ThreadPoolExecutor(1) as pool:
            applying = pool.submit(plan.apply)
            _until_waiting(bank)
            other.commit()
            with pytest.raises(ConflictError, match="1 row refers to it and would go with it"):
                applying.result()
    assert bank.at.source.execute("select amount from entries").fetchall() == [(1,)]


def test_a_column_that_comes_while_the_row_goes_is_seen(bank: Shop) -> None:
    number = bank.write("insert into accounts values (99, 'a', 0, 0)")
    plan = bank.plan(transaction=number)
    with bank.at.connect() as other:
        other.autocommit = False
        other.execute("alter table accounts add owner text")
        other.execute("update accounts set owner = 'ada' where id = 99")
        with ThreadPoolExecutor(1) as pool:
            applying = pool.submit(plan.apply)
            _until_waiting(bank)
            other.commit()
            with pytest.raises(ConflictError, match="owner was added since"):
                applying.result()
    assert "(99,a,0,0,ada)" in bank.rows("accounts")["accounts"]


def test_a_lock_that_is_not_given_ends_in_an_error(bank: Shop) -> None:
    number = bank.write("update accounts set kind = 'b'")
    plan = bank.plan(transaction=number)
    with bank.at.connect() as other:
        other.autocommit = False
        other.execute("update accounts set balance = 7 where id = 5")
        with pytest.raises(PassingError, match="lock timeout"):
            plan.apply(patience=0.05)
        other.rollback()
    assert plan.apply().rows == ACCOUNTS


def test_a_kill_in_the_middle_leaves_nothing(bank: Shop) -> None:
    number = bank.write("update accounts set kind = 'b'")
    before = bank.rows("accounts")
    bank.at.catch_up()
    with bank.at.connect() as other:
        other.autocommit = False
        # The revert writes the first rows' locks, and waits for this one.
        other.execute("select from accounts where id = 9 for update")
        process = subprocess.Popen(
            [sys.executable, "-m", "bemi", "revert", "--transaction", str(number), "--apply"],
            env=environment(bank.at.settings),
            stdout=subprocess.DEVNULL,
        )
        _until_waiting(bank)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        other.rollback()
    assert bank.rows("accounts") == before
    assert bank.plan(transaction=number).apply().rows == ACCOUNTS


def _until_waiting(bank: Shop) -> None:
    """Until some session waits for another one's lock."""
    waiting.until(
        lambda: bank.at.source.execute(
            "select 1 from pg_stat_activity where wait_event_type = 'Lock'"
            " and datname = current_database()"
        ).fetchone(),
        30,
        "a session that waits for a lock",
    )


def test_a_role_that_may_only_write_is_enough(bank: Shop) -> None:
    number = bank.write("update accounts set kind = 'b'")
    bank.at.catch_up()
    role = "bemi_test_writer"
    bank.at.source.execute(f"drop role if exists {role}".encode())
    bank.at.source.execute(f"create role {role} login password 'x'".encode())
    url = make_conninfo(bank.url, user=role, password="x")
    try:
        with pytest.raises(SetupError, match="a privilege is missing on the target"):
            bank.history.plan_revert(url, transaction=number).apply()
        bank.at.source.execute(
            f"grant select, update, insert, delete on accounts, entries to {role}".encode()
        )
        assert bank.history.plan_revert(url, transaction=number).apply().rows == ACCOUNTS
    finally:
        bank.at.source.execute(f"drop owned by {role}".encode())
        bank.at.source.execute(f"drop role {role}".encode())
