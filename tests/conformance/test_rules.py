"""The rules of sending contexts, each with each library, against what is in the log.

The first line of a test's docstring is the rule, as the table at the end has it.
"""

import contextlib
import functools
import json
import os
import random
import re
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import bemi
from bemi.context import notice
from tests.conformance.clients.client import Client, Session
from tests.support.wal import Log

INSERT = "insert into todo (task) values ({})"
ANN = {"user_id": "ann"}
RUNS = 50 if os.environ.get("BEMI_TEST_FULL") else 10


def test_one_message_before_the_first_write(client: Client, log: Log) -> None:
    """one message per transaction, before its first write"""
    with client.open(log.url) as session, bemi.context(ANN):
        for _ in range(2):
            session.run("select 1")
            session.run(INSERT, ["a"])
            session.run("update todo set n = 1")
            session.run("delete from todo")
            session.commit()
    assert log.seen() == [[ANN, "insert", "update", "delete"]] * 2


def test_blocks_are_transactions(client: Client, log: Log) -> None:
    """each block of a transaction has its own"""
    with client.open(log.url, autocommit=True) as session, bemi.context(ANN):
        for _ in range(3):
            with session.block():
                session.run(INSERT, ["a"])
                session.run(INSERT, ["b"])
    assert log.seen() == [[ANN, "insert", "insert"]] * 3


def test_reading_sends_nothing(client: Client, log: Log) -> None:
    """nothing for what only reads"""
    with client.open(log.url) as session, bemi.context(ANN):
        session.run("select * from todo")
        session.run("with x as (select 1) select * from todo for update")
        session.commit()
        with session.block():
            session.run("select 'insert into todo', \"task\" from todo -- ; delete from todo")
    rows = log.conn.execute("select pg_current_xact_id()").fetchone()
    assert rows is not None
    assert log.seen() == []


def test_no_context_sends_nothing(client: Client, log: Log) -> None:
    """nothing where there is no context"""
    with client.open(log.url) as session:
        session.run(INSERT, ["a"])
        session.commit()
    assert log.seen() == [["insert"]]


def test_again_when_it_changed(client: Client, log: Log) -> None:
    """again when the context changed"""
    with client.open(log.url) as session, bemi.context(ANN):
        session.run(INSERT, ["a"])
        with bemi.context(job="mail"):
            session.run(INSERT, ["b"])
            session.run(INSERT, ["c"])
        session.run(INSERT, ["d"])
        session.commit()
    mail = {**ANN, "job": "mail"}
    assert log.seen() == [[ANN, "insert", mail, "insert", "insert", ANN, "insert"]]


def test_an_earlier_one_ends(client: Client, log: Log) -> None:
    """an empty context ends the one before"""
    with client.open(log.url) as session:
        with bemi.context(ANN):
            session.run(INSERT, ["a"])
        session.run(INSERT, ["b"])
        session.commit()
    assert log.seen() == [[ANN, "insert", {}, "insert"]]


def test_after_a_savepoint(client: Client, log: Log) -> None:
    """again when a savepoint took it along"""
    with client.open(log.url) as session, bemi.context(ANN):
        session.run("savepoint a")
        session.run(INSERT, ["lost"])
        session.run("rollback to savepoint a")
        session.run(INSERT, ["a"])
        session.run("savepoint b")
        session.run(INSERT, ["b"])
        session.run("rollback to b")
        session.run(INSERT, ["c"])
        session.commit()
    assert log.seen() == [[ANN, "insert", "insert"]]
    assert log.tasks() == ["a", "c"]


def test_after_a_nested_block(client: Client, log: Log) -> None:
    """again when a nested block took it along"""
    with client.open(log.url, autocommit=True) as session, bemi.context(ANN), session.block():
        with pytest.raises(ZeroDivisionError):
            _write_and_fail(session)
        with session.block():
            session.run(INSERT, ["a"])
        session.run(INSERT, ["b"])
    assert log.seen() == [[ANN, "insert", "insert"]]


def test_after_a_failed_statement(client: Client, log: Log) -> None:
    """again after a statement that failed"""
    with client.open(log.url) as session, bemi.context(ANN):
        with pytest.raises(Exception, match="division by zero"):
            session.run("insert into todo (n) values (1 / 0)")
        session.rollback()
        session.run(INSERT, ["a"])
        session.commit()
    with client.open(log.url, autocommit=True) as session, bemi.context(ANN):
        with pytest.raises(Exception, match="division by zero"):
            session.run("insert into todo (n) values (1 / 0)")
        session.run(INSERT, ["b"])
    assert log.seen() == [[ANN, "insert"]] * 2


def test_every_way_of_writing(client: Client, log: Log) -> None:
    """CTE, MERGE, COPY and bulk writes count"""
    merge = log.conn.info.server_version >= 150000
    with client.open(log.url) as session, bemi.context(ANN):
        ways: list[tuple[str, list[str]]] = [
            ("with x as (insert into todo (task) values ('a') returning id) select id from x", []),
            ("/* first */ with x as (select 1) insert into todo (task) select 'b' from x", []),
            ("insert into todo (task) values ({}) on conflict do nothing", ["c"]),
        ]
        if merge:
            merging = (
                "merge into todo t using (select 'd' as task) s on t.task = s.task "
                "when not matched then insert (task) values (s.task)"
            )
            ways.append((merging, []))
        for statement, parameters in ways:
            session.run(statement, parameters)
            session.commit()
        session.many(INSERT, [["e"], ["f"]])
        session.commit()
        if client.copies:
            session.copy("todo (task)", [["g"], ["h"]])
            session.commit()
    bulk = [[ANN, "insert", "insert"]] * (2 if client.copies else 1)
    assert log.seen() == [[ANN, "insert"]] * len(ways) + bulk


def test_autocommit_is_one_transaction(client: Client, log: Log) -> None:
    """autocommit: one transaction with its write"""
    with client.open(log.url, autocommit=True) as session, bemi.context(ANN):
        session.run(INSERT, ["a"])
        session.run("update todo set n = 1")
        session.many(INSERT, [["b"], ["c"]])
        if client.copies:
            session.copy("todo (task)", [["d"], ["e"]])
        session.run("select count(*) from todo")
    seen = log.seen()
    assert seen[:2] == [[ANN, "insert"], [ANN, "update"]]
    assert all(each[0] == ANN and {*each[1:]} == {"insert"} for each in seen[2:]), seen
    assert sum(len(each) - 1 for each in seen[2:]) == (4 if client.copies else 2)


def test_results_are_what_they_were(client: Client, log: Log) -> None:
    """results, counts and errors are unchanged, and each statement runs once"""
    statements: list[tuple[str, list[Any]]] = [
        ("insert into todo (task, n) values ({}, 1), ('b', 2) returning task, n", ["a"]),
        ("update todo set n = n + 1 returning n", []),
        ("insert into todo (id) values (-1), (-1)", []),
        ("insert into nowhere values (1)", []),
        ("insert into todo (n) values ('x')", []),
        ("with x as (delete from todo where n = 3 returning task) select task from x", []),
        ("insert into todo (task) select 'c' from generate_series(1, 5)", []),
        ("select count(*), sum(n) from todo", []),
        ("truncate todo", []),
        ("create temp table scratch (n int)", []),
        ("vacuum todo", []),
    ]

    def play(session: Session) -> Iterator[object]:
        for statement, parameters in statements:
            try:
                yield session.run(statement, parameters)
            except Exception as error:  # noqa: BLE001 - what it is is what is compared
                yield type(error), str(error).splitlines()[0]
        for statement, parameters in statements[:2]:
            yield session.count(statement, parameters)

    with client.open_plain(log.url, autocommit=True) as session:
        expected = [*play(session)]
    log.conn.execute("truncate todo restart identity")
    log.seen()
    with client.open(log.url, autocommit=True) as session, bemi.context(ANN):
        assert [*play(session)] == expected
    assert all(each[0] == ANN for each in log.seen())


def test_statements_that_need_no_block_pass_untouched(client: Client, log: Log) -> None:
    """what can't run in a transaction block runs"""
    with client.open(log.url, autocommit=True) as session, bemi.context(ANN):
        session.run("create index concurrently on todo (task)")
        session.run("vacuum todo")
        session.run("create procedure p() language plpgsql as 'begin commit; end'")
        session.run("call p()")


@functools.cache
def _hostile() -> tuple[str, ...]:
    """10,000 texts, drawn once for all libraries of this process: that costs more than to write
    them."""
    pieces = ["*/", "%", "%s", "%(a)s", ":x", "$1", "?", "'", '"', "\\", "\0", "\u2028", "😀", "{}"]
    texts = st.one_of(st.text(), st.lists(st.sampled_from(pieces)).map("".join))
    found: list[str] = []

    # Without `unique` most of them would be the empty text and its like.
    @settings(max_examples=100, phases=[Phase.generate], database=None)
    @given(st.lists(texts, min_size=100, max_size=100, unique=True))
    def draw(some: list[str]) -> None:
        found.extend(some)

    draw()
    return tuple(found[:10_000])


def test_hostile_values(client: Client, log: Log) -> None:
    """any text is data: 10,000 random ones"""
    texts = _hostile()
    assert len(texts) == 10_000
    at = 0
    contexts = []
    with client.open(log.url) as session:
        # Alone, since a `%` in one of them may change how the others are treated; then together.
        for size in [1] * 500 + [10] * 100 + [100] * 85:
            some = texts[at : at + size]
            at += size
            tasks = [text.replace("\0", "") for text in some]  # which PostgreSQL has not
            with bemi.context(_named(some)):
                session.run("insert into todo (task) values " + ", ".join(["({})"] * size), tasks)
            contexts.append(_named([text.replace("\0", "\ufffd") for text in some]))
        session.commit()
    assert at == len(texts)
    assert log.tasks() == [text.replace("\0", "") for text in texts]
    (seen,) = log.seen()
    sent = [each for each in seen if isinstance(each, dict)]
    for each in sent:
        each.pop("_bemi", None)  # which of them had a NUL
    assert sent == contexts


def _named(texts: Sequence[str]) -> dict[str, str]:
    """Each as a value, and in its name, which does not end as that of a secret."""
    return {f"{number} {text} it is": text for number, text in enumerate(texts)}


def test_special_values(client: Client, log: Log) -> None:
    """2 MB, bytes and NaN are cut or replaced, and said to be"""
    context = {"large": "x" * 2_000_000, "bytes": b"\0\xff", "nan": float("nan"), "password": "p"}
    with client.open(log.url) as session, bemi.context(context):
        session.run(INSERT, ["a"])
        session.commit()
    ((sent, write),) = log.seen()
    assert write == "insert"
    assert len(json.dumps(sent)) <= 1 << 20
    assert (sent["nan"], sent["password"]) == ("NaN", "***")
    assert sent["_bemi"] == {
        "truncated": ["large"],
        "replaced": ["bytes"],
        "redacted": ["password"],
    }


def test_functions_that_are_named(client: Client, log: Log) -> None:
    """functions that are named count as writes"""
    if "functions" not in client.options:
        pytest.skip("it has no such option")
    log.conn.execute(
        "create function add_one() returns void language sql as "
        "$$ insert into todo (task) values ('f') $$"
    )
    with client.open(log.url, functions=["add_one"]) as session, bemi.context(ANN):
        session.run("select add_one()")
        session.commit()
    assert log.seen() == [[ANN, "insert"]]


def test_what_nobody_saw_write(client: Client, log: Log) -> None:
    """a check at COMMIT finds what nobody saw write"""
    if "check_at_commit" not in client.options:
        pytest.skip("it has no such option")
    log.conn.execute(
        "create function add_one() returns void language sql as "
        "$$ insert into todo (task) values ('f') $$"
    )
    with client.open(log.url, check_at_commit=True) as session, bemi.context(ANN):
        for statement in ("select add_one()", "select 1", INSERT.format("'a'")):
            session.run(statement)
            session.commit()
        with session.block():
            session.run("select add_one()")
        with pytest.raises(ZeroDivisionError):
            _write_and_fail(session)
        with bemi.context(user_id="bob"):
            session.run("savepoint a")
            session.run("select add_one()")
            session.commit()
        session.run("select add_one()")
        session.rollback()
    bob = {"user_id": "bob"}
    assert log.seen() == [["insert", ANN], [ANN, "insert"], ["insert", ANN], ["insert", bob]]


def test_sql_on_request(client: Client, log: Log) -> None:
    """each statement's text, where it is asked for"""
    if "sql" not in client.options:
        pytest.skip("it has no such option")
    with client.open(log.url, sql=True) as session, bemi.context(ANN):
        session.run(INSERT, ["secret"])
        session.run("update todo set n = 1")
        session.commit()
    ((first, _, second, _),) = log.seen()
    assert first["SQL"].startswith("insert into todo (task) values (")
    value = "…" if client.values_in_text else "1"
    assert second == {**ANN, "SQL": f"update todo set n = {value}"}
    assert "secret" not in str(first)


def test_a_role_that_may_not_send(
    client: Client, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """a role that may not send is told of once, and writes on"""
    monkeypatch.setattr(notice, "_told", set())
    with log.not_allowed() as url:
        with pytest.warns(RuntimeWarning, match="grant execute on function") as caught:
            _write_twice(client, url)
        assert len(caught) == 1
        assert {write for each in log.seen() for write in each} == {"insert"}
        assert len(log.tasks()) == 4


def test_a_role_that_is_set_later(
    client: Client, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """a role that SET ROLE brings is asked for anew"""
    monkeypatch.setattr(notice, "_told", set())
    with log.not_allowed() as url, client.open(log.url) as session, bemi.context(ANN):
        session.run(INSERT, ["a"])
        session.commit()
        session.run(f"set role {psycopg.conninfo.conninfo_to_dict(url)['user']}")
        with pytest.warns(RuntimeWarning, match="grant execute on function"):
            session.run(INSERT, ["b"])
        session.commit()
        session.run("reset role")
        session.run(INSERT, ["c"])
        session.commit()
    assert log.seen() == [[ANN, "insert"], ["insert"], [ANN, "insert"]]


def test_after_a_failure_in_another_context(client: Client, log: Log) -> None:
    """again after a failure, whether the server has seen it or not"""
    with client.open(log.url) as session, bemi.context(ANN):
        session.run(INSERT, ["a"])
        with bemi.context(job="mail"):
            with pytest.raises(Exception):  # noqa: B017, PT011 - each library has its own
                session.run(INSERT, [object()])
            session.run("savepoint a")
            with pytest.raises(Exception, match="division by zero"):
                session.run("insert into todo (n) values (1 / 0)")
            session.run("rollback to a")
        session.run(INSERT, ["b"])
        session.commit()
    assert log.attributed() == [(ANN, "a"), (ANN, "b")]


@pytest.mark.parametrize("autocommit", [False, True], ids=["", "autocommit"])
def test_in_any_order(client: Client, log: Log, seed: int, autocommit: bool) -> None:
    """whatever is done in whatever order, all is as without, and each row has its context"""
    wrong: list[object] = []
    for number in range(RUNS):
        results, rows = [], []
        for opens in (client.open_plain, client.open):
            with opens(log.url, autocommit=autocommit) as session:
                results.append(_play(session, random.Random(seed + number), autocommit))
            rows.append(log.tasks())
            attributed = log.attributed()
            log.conn.execute("truncate todo")
            log.seen()
        (plain, tracked), (plain_rows, tracked_rows) = results, rows
        if tracked != plain or tracked_rows != plain_rows:
            wrong.append((seed + number, plain, tracked, plain_rows, tracked_rows))
        for context, task in attributed:
            if (context or {}).get("user_id", "nobody") != task.partition(" ")[0]:
                wrong.append((seed + number, context, task, tracked))
    assert not wrong, wrong[0]


def _play(session: Session, chance: random.Random, autocommit: bool) -> list[object]:
    """What came of 20 steps, of which the tasks that are written tell whose they are."""
    told: list[object] = []
    with bemi.context():
        for step in range(20):
            task = f"{bemi.current_context().get('user_id', 'nobody')} {step}"
            doing = chance.choice(STEPS)
            name = chance.choice("ab")
            try:
                told.append((doing, _step(session, doing, task, name, autocommit)))
            except Exception as error:  # noqa: BLE001 - what it is is what is compared
                said = re.sub(r" at 0x\w+", "", str(error)).splitlines()[:1]
                told.append((doing, type(error), said))
        with contextlib.suppress(Exception):  # of libraries where none is open
            session.rollback()
    return told


STEPS = (
    *["insert"] * 4, "cte", "fail", "client", "read", "savepoint", "rollback to", "release",
    "commit", "rollback", "user", "user", "nobody", "block", "lost block", "nested",
)  # fmt: skip


def _step(session: Session, doing: str, task: str, name: str, autocommit: bool) -> object:
    match doing:
        case "insert":
            return session.run(INSERT, [task])
        case "cte":
            cte = "with x as (insert into todo (task) values ({}) returning n) select n from x"
            return session.run(cte, [task])
        case "fail":
            return session.run("insert into todo (n) values (1 / 0)")
        case "client":
            return session.run(INSERT, [object])
        case "read":
            return session.run("select 1 from todo limit 1")
        case "savepoint" | "rollback to" | "release":
            return session.run(f"{doing} {name}")
        case "commit" if not autocommit:
            session.commit()
        case "rollback" if not autocommit:
            session.rollback()
        case "user":
            bemi.set_context(user_id=name)
        case "nobody":
            bemi.clear_context()
        case "block":
            with session.block():
                return session.run(INSERT, [task])
        case "lost block":
            with session.block():
                session.run(INSERT, [task])
                raise ZeroDivisionError
        case "nested":
            with session.block():
                with contextlib.suppress(ZeroDivisionError), session.block():
                    session.run(INSERT, [task])
                    raise ZeroDivisionError
                return session.run(INSERT, [task])
    return None


def _write_and_fail(session: Session) -> None:
    with session.block():
        session.run(INSERT, ["lost"])
        raise ZeroDivisionError


def _write_twice(client: Client, url: str) -> None:
    for autocommit in (False, True):
        with client.open(url, autocommit=autocommit) as session, bemi.context(ANN):
            session.run(INSERT, ["a"])
            session.run(INSERT, ["b"])
            if not autocommit:
                session.commit()
