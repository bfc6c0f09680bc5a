"""Random reverts, judged by a re-run of the workload without what they revert.

Where each operation that stays does in the re-run just what it did, the revert must succeed, and
the database must be what the re-run makes of it. Anywhere else it may refuse, with nothing
written, or come to the same. Some are made twice, where the second one finds nothing to do. Then
the revert is reverted, and later ones may be of the same rows.
BEMI_TEST_REVERTS says how many.
"""

import os
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

import bemi
from bemi.capture import worker
from bemi.errors import ConflictError
from bemi.history.plan import Applied
from bemi.history.planning import Plan
from tests.conftest import MakeDatabase
from tests.support import company
from tests.support.baselines import take
from tests.support.logged_work import (
    BADGES,
    KEYLESS,
    LoggedWork,
    Outcome,
    Record,
    Transaction,
    contents,
    differences,
)
from tests.support.tracked import Tracked
from tests.support.tracking import track
from tests.support.waiting import until

REVERTS: Final = int(os.environ.get("BEMI_TEST_REVERTS", "24"))
TRANSACTIONS: Final = 40
USERS: Final = 20
OF_A_STATE: Final = 25
"""Reverts that are tried out on one database before the next one is made."""

AGAIN: Final = 0.25
"""How many are made twice, and how many may be of rows that were reverted before."""

ROUNDS: Final = 5
KILLS: Final = int(os.environ.get("BEMI_TEST_REVERTS_KILLED", "2"))

Without = dict[str, Collection[tuple[Any, ...]] | None]


@dataclass(frozen=True)
class Choice:
    """What is to be reverted, in the words of the history and in those of the re-run."""

    kind: str
    filters: Mapping[str, Any]
    without: Without
    record: Record | None = None

    def __str__(self) -> str:
        return f"{dict(self.filters)} (operations {sorted(self.without)})"


@dataclass
class Judgement:
    """How many reverts there were of each sort, and those that were wrong."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    """The kinds of the conflicts of those that were refused."""

    def __str__(self) -> str:
        return f"{dict(self.counts)}; kinds of conflicts: {dict(self.refused)}"


class Business:
    """A tracked database that was worked on, its history, and the copy where all is run again."""

    def __init__(self, make_database: MakeDatabase, chance: random.Random, *, full: bool) -> None:
        self.url = make_database()
        with psycopg.connect(self.url, autocommit=True) as conn:
            conn.execute((company.TYPES + company.TABLES + company.FIRST_ROWS + BADGES).encode())
            if full:
                conn.execute(company.full_identity().encode())
        copy = make_database(template=str(conninfo_to_dict(self.url)["dbname"]))
        self._copy = psycopg.connect(copy, autocommit=True)
        settings = track(self.url, make_database(), schemas=["app"])
        take(settings)
        self.chance = chance
        self.work = LoggedWork(self._copy, chance)
        self.at = Tracked(settings)
        self.history = bemi.History(settings.destination_url)
        self._stop = threading.Event()
        self._worker = threading.Thread(
            target=worker.run, args=[settings], kwargs={"stop": self._stop}, daemon=True
        )

    def close(self) -> None:
        self._stop.set()
        if self._worker.ident is not None:
            self._worker.join()
        self.history.close()
        self.at.close()
        self._copy.close()

    def go_on(self, transactions: int) -> Outcome:
        """Work, and have it captured; from then on a worker is there."""
        done = len(self.work.transactions)
        self.work.make_up(transactions, users=USERS)
        for each in self.work.transactions[done:]:
            with self.at.source.transaction():
                context = f'{{"user_id": {each.user}, "request_id": "{each.request}"}}'
                row = self.at.source.execute(
                    "select pg_current_xact_id()::text::bigint,"
                    " pg_logical_emit_message(true, '_bemi', %s)",
                    [context],
                ).fetchone()
                assert row is not None
                each.xid = row[0]
                for operation in each.operations:
                    self.at.source.execute(*operation.statement())
        self.captured(self.work.transactions[-1].xid)
        outcome = self.work.run()
        assert not outcome.failed
        assert not differences(contents(self.at.source), outcome.contents)
        return outcome

    def captured(self, xid: int) -> None:
        if self._worker.ident is None:
            self._worker.start()
        until(
            lambda: self.at.query(
                "select from bemi.changes where transaction_id = %s limit 1", [xid]
            ),
            60,
            f"transaction {xid} is captured",
        )

    def choose(self, base: Outcome) -> Choice:
        chance, transactions = self.chance, self.work.transactions
        kind = chance.choice(["record", "transaction", "request", "user"])
        if kind == "record":
            record = chance.choice(sorted(self._records(base)))
            return self._of_record(record, base)
        one = chance.choice(transactions)
        sorts: dict[str, tuple[dict[str, Any], list[Transaction]]] = {
            "transaction": ({"transaction": one.xid}, [one]),
            "request": (
                {"context": {"request_id": one.request}},
                [each for each in transactions if each.request == one.request],
            ),
            "user": (
                {"context": {"user_id": one.user}},
                [each for each in transactions if each.user == one.user],
            ),
        }
        filters, chosen = sorts[kind]
        without: Without = {
            each.name(at): None for each in chosen for at in range(len(each.operations))
        }
        return Choice(kind, filters, without)

    def _records(self, base: Outcome) -> set[Record]:
        """Those of which an operation can be taken away without anything else that it did."""
        found: set[Record] = set()
        tied: set[Record] = set()
        for transaction in self.work.transactions:
            for at, operation in enumerate(transaction.operations):
                effects = base.effects[transaction.name(at)]
                records = {
                    record
                    for effect in effects
                    for record in effect.records(self.work.keys[effect.table])
                    if effect.table not in KEYLESS
                }
                found |= records
                if len(effects) != len(operation.rows):
                    tied |= records
        return found - tied

    def _of_record(self, record: Record, base: Outcome) -> Choice:
        table, key = record
        without: Without = {}
        for transaction in self.work.transactions:
            for at, operation in enumerate(transaction.operations):
                name = transaction.name(at)
                for effect in base.effects[name]:
                    if record in effect.records(self.work.keys[effect.table]):
                        gone = [
                            row
                            for row in operation.rows
                            if tuple(map(str, row)) == self._key(effect.was or effect.came, table)
                        ]
                        without[name] = gone if len(operation.rows) > 1 else None
        filters = {"table": f"app.{table}", "key": key[0] if len(key) == 1 else key}
        return Choice("record", filters, without, record)

    def _key(self, image: Mapping[str, Any] | None, table: str) -> tuple[str, ...]:
        assert image is not None
        return tuple(str(image[name]) for name in self.work.keys[table])

    def must_succeed(self, choice: Choice, base: Outcome, rerun: Outcome) -> bool:
        """Whether all that stays does the same in the re-run."""
        if rerun.failed:
            return False
        for transaction in self.work.transactions:
            for at, operation in enumerate(transaction.operations):
                name = transaction.name(at)
                if name in choice.without and choice.without[name] is None:
                    continue
                # What the record has to do with it is gone with the choice; anything else is not.
                had = Counter(
                    effect.essence(operation.values)
                    for effect in base.effects[name]
                    if choice.record is None
                    or choice.record not in effect.records(self.work.keys[effect.table])
                )
                has = Counter(
                    effect.essence(operation.values) for effect in rerun.effects.get(name, [])
                )
                if had != has:
                    return False
        return True

    def revert(self, **filters: Any) -> tuple[Plan, Applied | None]:
        plan = self.history.plan_revert(self.url, **filters)
        try:
            done = plan.apply(by="somebody")
        except ConflictError:
            return plan, None
        if done.transaction_id is not None:
            self.captured(done.transaction_id)
        return plan, done

    def try_out(self, choice: Choice, base: Outcome, judged: Judgement) -> None:
        """Revert, compare with the re-run, and revert the revert."""
        before = contents(self.at.source)
        if any(table in KEYLESS for table, _ in self.touched(choice, base)):
            judged.counts["of rows without a key"] += 1
        rerun = self.work.run(choice.without)
        must = self.must_succeed(choice, base, rerun)
        plan, done = self.revert(**choice.filters)
        after = contents(self.at.source)
        if done is None:
            judged.counts["refused"] += 1
            judged.refused.update({conflict.kind for conflict in plan.conflicts})
            if must:
                judged.counts["false conflicts"] += 1
                print(f"refused: {choice}: {plan.conflicts}")
            if not plan.conflicts:
                judged.wrong.append(f"refused, but the plan had no conflict: {choice}")
            if after != before:
                judged.wrong.append(f"refused, but written: {choice}")
            return
        judged.counts["applied"] += 1
        judged.counts["applied, as they must be" if must else "applied, though not bound to"] += 1
        judged.counts["came to another state"] += after != before
        found = differences(after, rerun.contents)
        if found:
            judged.counts["wrong states"] += 1
            judged.wrong.append(f"{choice}: {found} (must: {must}; failed: {rerun.failed})")
        if done.transaction_id is None:
            judged.counts["nothing to write"] += 1
            return
        if self.chance.random() < AGAIN:
            judged.counts["made twice"] += 1
            plan, again = self.revert(**choice.filters)
            if again is None or again.transaction_id is not None:
                judged.wrong.append(f"done twice: {choice}: {plan.conflicts}, {again}")
        plan, back = self.revert(transaction=done.transaction_id)
        if back is None:
            judged.wrong.append(f"the revert is not reverted: {choice}: {plan.conflicts}")
        elif found := differences(contents(self.at.source), before):
            judged.wrong.append(f"the revert of the revert: {choice}: {found}")

    def choices(self, base: Outcome, number: int) -> Iterator[Choice]:
        """Most of other rows than those before."""
        seen: set[Record] = set()
        for _ in range(20 * number):
            choice = self.choose(base)
            records = self.touched(choice, base)
            if number and (not records & seen or self.chance.random() < AGAIN / 4):
                number -= 1
                seen |= records
                yield choice

    def touched(self, choice: Choice, base: Outcome) -> set[Record]:
        return {
            record
            for name in choice.without
            for effect in base.effects[name]
            for record in effect.records(self.work.keys[effect.table])
        }


@pytest.mark.parametrize("identity", ["full", "default"])
def test_random_reverts(make_database: MakeDatabase, seed: int, identity: str) -> None:
    judged, chance, left = Judgement(), random.Random(f"{seed}/{identity}"), REVERTS // 2
    while left > 0:
        with closing(Business(make_database, chance, full=identity == "full")) as business:
            base = business.go_on(TRANSACTIONS)
            for choice in business.choices(base, min(left, OF_A_STATE)):
                left -= 1
                business.try_out(choice, base, judged)
    print(f"{identity}: {judged}")
    assert not judged.wrong, "\n".join(judged.wrong)
    # Of a few, anything may be.
    assert judged.counts["applied"] >= (0.6 if REVERTS >= 200 else 0.2) * (REVERTS // 2)
    assert judged.counts["came to another state"] > 0
    assert judged.counts["false conflicts"] == 0


@pytest.fixture
def business(make_database: MakeDatabase) -> Iterator[Business]:
    with closing(Business(make_database, random.Random(1), full=False)) as made:
        yield made


class Mistake:
    """A transaction that gave all rows of two tables the same values, and went on from there."""

    STATEMENTS: Final = (
        "update app.products set name = 'wrong {n}'",
        "update app.people set note = 'wrong {n}'",
        "delete from app.invoices where id = {n}",
        "insert into app.labels values (9{n}, 'wrong {n}')",
    )

    def __init__(self, business: Business, n: int = 1) -> None:
        self.business = business
        self.before = contents(business.at.source)
        with business.at.source.transaction():
            row = business.at.source.execute("select pg_current_xact_id()::text::bigint").fetchone()
            assert row is not None
            self.xid: int = row[0]
            for statement in self.STATEMENTS:
                business.at.source.execute(statement.format(n=n).encode())
        self.after = contents(business.at.source)
        business.captured(self.xid)


def waiting(conn: psycopg.Connection[Any]) -> bool:
    """Whether some session waits for a lock."""
    row = conn.execute(
        "select exists (select from pg_locks l join pg_database d on d.oid = l.database"
        " where not granted and datname = current_database())"
        " or exists (select from pg_locks l join pg_stat_activity a using (pid)"
        " where not granted and a.datname = current_database())"
    ).fetchone()
    return row == (True,)


MEANWHILE: Final = (
    ("update app.products set price = price + 1 where sku = 's1'", True),
    ("update app.products set name = 'better' where sku = 's2'", False),
    ("delete from app.products where sku = 's3'", False),
    ("update app.products set sku = 's44' where sku = 's4'", False),
    ("insert into app.task_labels values (1, 4, 95, 'a child of what has to go')", False),
)
"""What another session does to a row that is about to be reverted, and whether that may go on."""


def test_who_writes_while_a_revert_is_applied_loses_nothing(business: Business) -> None:
    """The revert waits for who holds a row, and then looks again."""
    for n, (statement, goes_on) in enumerate(MEANWHILE, 1):
        mistake = Mistake(business, n)
        plan = business.history.plan_revert(business.url, transaction=mistake.xid)
        assert not plan.conflicts
        found: list[ConflictError | None] = []
        with business.at.connect() as other:
            thread = threading.Thread(target=apply, args=[plan, found])
            with other.transaction():
                other.execute(statement.encode())
                expected = contents(other)
                thread.start()
                until(partial(waiting, other), 20, "the revert waits for the row")
            thread.join()
            assert [each is None for each in found] == [goes_on]
            if goes_on:
                other.execute("update app.products set price = price - 1 where sku = 's1'")
                expected = mistake.before
            assert not differences(contents(other), expected)


def apply(plan: Plan, found: list[ConflictError | None]) -> None:
    try:
        plan.apply(by="somebody")
    except ConflictError as error:
        found.append(error)
    else:
        found.append(None)


def test_concurrent_writers_lose_no_update(business: Business) -> None:
    """Three writers count in rows that are reverted to and fro: each of their steps stays."""
    mistake = Mistake(business)
    stop = threading.Event()
    counted: list[int] = []

    def write(chance: random.Random) -> None:
        done = 0
        with business.at.connect() as conn:
            while not stop.is_set():
                conn.execute(
                    "update app.products set price = price + 1 where sku = %s",
                    [f"s{chance.randint(1, 8)}"],
                )
                done += 1
                stop.wait(0.002)
        counted.append(done)

    def prices() -> Any:
        return business.at.source.execute("select sum(price) from app.products").fetchone()

    ((began,), xid) = prices(), mistake.xid
    threads = [threading.Thread(target=write, args=[random.Random(number)]) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(ROUNDS):
            _, done = business.revert(transaction=xid)
            assert done is not None
            assert done.transaction_id is not None
            xid = done.transaction_id
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert prices() == (began + sum(counted),)
    names = business.at.source.execute(
        "select distinct name = 'wrong' from app.products"
    ).fetchall()
    assert names == [(ROUNDS % 2 == 0,)]


APPLY: Final = """
import sys, bemi
with bemi.History(sys.argv[1]) as history:
    plan = history.plan_revert(sys.argv[2], transaction=int(sys.argv[3]))
    print("planned", flush=True)
    plan.apply(by="who is killed")
    print("applied", flush=True)
"""


@contextmanager
def applying(business: Business, xid: int) -> Iterator[subprocess.Popen[bytes]]:
    """A process that reverts a transaction; killed when it is left."""
    settings = business.at.settings
    process = subprocess.Popen(
        [sys.executable, "-c", APPLY, settings.destination_url, business.url, str(xid)],
        stdout=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def alone(conn: psycopg.Connection[Any], before: int) -> None:
    """Wait until no more sessions are there than before."""
    until(lambda: sessions(conn) <= before, 20, "the killed process's session has ended")


def sessions(conn: psycopg.Connection[Any]) -> int:
    row = conn.execute(
        "select count(*) from pg_stat_activity where datname = current_database()"
        " and backend_type = 'client backend'"
    ).fetchone()
    assert row is not None
    return int(row[0])


def test_who_is_killed_while_it_applies_has_written_all_or_nothing(
    business: Business, seed: int
) -> None:
    """In the middle of its writes, where something holds one of them up; then at any moment."""
    mistake, conn = Mistake(business), business.at.source
    conn.execute(
        "create function app.wait() returns trigger language plpgsql as $$"
        " begin perform pg_advisory_xact_lock(1); return new; end $$;"
        "create trigger wait before update on app.products for each row"
        " when (old.sku = 's5') execute function app.wait()"
    )
    before = sessions(conn)
    with business.at.connect() as other:
        other.execute("select pg_advisory_lock(1)")
        with applying(business, mistake.xid):
            until(lambda: waiting(conn), 60, "the revert is in the middle of its writes")
    alone(conn, before)
    assert not differences(contents(conn), mistake.after)
    chance, outcomes = random.Random(seed), Counter[str]()
    for _ in range(KILLS):
        with applying(business, mistake.xid) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"planned\n"
            with suppress(subprocess.TimeoutExpired):
                process.wait(chance.uniform(0, 0.3))
        alone(conn, before)
        left = contents(conn)
        if differences(left, mistake.after):
            assert not differences(left, mistake.before)
            outcomes["all"] += 1
            mistake = Mistake(business, 1 + outcomes.total())
        else:
            outcomes["nothing"] += 1
    print(dict(outcomes))
