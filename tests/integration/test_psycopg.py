"""What psycopg 3 has and other libraries have not: its cursors, pipelines, two-phase commits."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg import sql

import bemi
from bemi.integrations.psycopg import AsyncConnection, Connection, install
from tests.support.wal import Log

ANN = {"user_id": "ann"}
INSERT = "insert into todo (task) values ('a')"


@pytest.fixture
def log(log: Log) -> Log:
    bemi.set_context(ANN)
    return log


@pytest.fixture
def conn(log: Log) -> Iterator[psycopg.Connection[Any]]:
    with Connection.connect(log.url, autocommit=True) as made:
        yield made


def test_a_pipeline_of_ones_own(log: Log, conn: psycopg.Connection[Any]) -> None:
    """A transaction ends where it is synchronised, and its writes have their context."""
    with conn.pipeline() as pipeline:
        conn.execute(INSERT)
        conn.execute(INSERT)
        pipeline.sync()
        conn.execute(INSERT)
        with conn.transaction():
            conn.execute(INSERT)
            conn.execute("update todo set n = 1")
    seen = log.seen()
    assert all(each[0] == ANN for each in seen), seen
    assert [write for each in seen for write in each if isinstance(write, str)] == [
        *["insert"] * 4,
        *["update"] * 4,
    ]


def test_a_deferred_constraint_in_autocommit(log: Log, conn: psycopg.Connection[Any]) -> None:
    """An error at the end of the statement's own transaction is the statement's error, and the
    connection goes on."""
    log.conn.execute("alter table todo add unique (task) deferrable initially deferred")

    async def asynchronously() -> None:
        async with await AsyncConnection.connect(log.url, autocommit=True) as other:
            with pytest.raises(psycopg.errors.UniqueViolation):
                await other.execute("insert into todo (task) values ('a'), ('a')")
            await other.execute("insert into todo (task) values ('b')")

    with pytest.raises(psycopg.errors.UniqueViolation):
        conn.execute("insert into todo (task) values ('a'), ('a')")
    conn.execute(INSERT)
    asyncio.run(asynchronously())
    assert log.seen() == [[ANN, "insert"]] * 2


def test_a_pipeline_that_commits(log: Log, conn: psycopg.Connection[Any]) -> None:
    conn.autocommit = False
    with conn.pipeline():
        for _ in range(2):
            conn.execute(INSERT)
            conn.execute(INSERT)
            conn.commit()
    assert log.seen() == [[ANN, "insert", "insert"]] * 2


@pytest.mark.parametrize("factory", [psycopg.ClientCursor, psycopg.RawCursor])
def test_cursors_of_other_kinds(
    log: Log, conn: psycopg.Connection[Any], factory: type[psycopg.Cursor[Any]]
) -> None:
    conn.cursor_factory = factory
    cursor = conn.execute(INSERT + " returning task")
    assert isinstance(cursor, factory)
    assert cursor.fetchall() == [("a",)]
    assert log.seen() == [[ANN, "insert"]]


def test_a_composed_value_is_not_in_the_statements_text(
    log: Log, conn: psycopg.Connection[Any]
) -> None:
    install(conn, sql=True)
    values = sql.SQL("values ({})").format(sql.Literal("secret"))
    conn.execute(sql.SQL("insert into {} (task) {}").format(sql.Identifier("todo"), values))
    told = {**ANN, "SQL": 'insert into "todo" (task) values (%s)'}
    assert log.seen() == [[told, "insert"]]
    assert log.tasks() == ["secret"]


def test_statements_that_are_composed(log: Log, conn: psycopg.Connection[Any]) -> None:
    name = sql.Identifier("todo")
    conn.execute(sql.SQL("insert into {} (task) values (%s)").format(name), ["%s */ ; --"])
    conn.execute(b"update todo set n = 1")
    assert log.seen() == [[ANN, "insert"], [ANN, "update"]]
    assert log.tasks() == ["%s */ ; --"]


def test_rows_that_are_streamed(log: Log, conn: psycopg.Connection[Any]) -> None:
    rows = conn.cursor().stream("insert into todo (n) select generate_series(1, 3) returning n")
    assert [*rows] == [(1,), (2,), (3,)]
    with conn.transaction(), conn.cursor("named") as cursor:
        cursor.execute("select n from todo")
        assert len(cursor.fetchall()) == 3
    assert log.seen() == [[ANN, "insert", "insert", "insert"]]


def test_two_phase_commits(log: Log, conn: psycopg.Connection[Any]) -> None:
    conn.autocommit = False
    for number in range(2):
        conn.tpc_begin(f"{log.conn.info.dbname} {number}")
        conn.execute(INSERT)
        conn.tpc_prepare()
        conn.tpc_commit()
    assert log.seen() == [[ANN, "insert"]] * 2


def test_an_open_connection(log: Log) -> None:
    with psycopg.connect(log.url) as conn:
        conn.execute(INSERT)
        conn.commit()
        install(conn, redact=False)
        with bemi.context(password="p"):
            conn.execute(INSERT)
    assert log.seen() == [["insert"], [{**ANN, "password": "p"}, "insert"]]


def test_a_standby_gets_no_context(
    log: Log, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a standby refuses is the write, as ever; and the connection lives to see it promoted."""
    from bemi.context.sender import Sender

    checked = Sender.checked
    answers = [(True, True, "", True), (False, True, "", True)]

    def of_a_standby(self: Sender, answer: Any) -> bool:
        assert answer[0] is False
        return checked(self, answers.pop(0))

    monkeypatch.setattr(Sender, "checked", of_a_standby)
    conn.execute(INSERT)
    conn.execute(INSERT)
    assert log.seen() == [["insert"], [ANN, "insert"]]


def test_tasks_that_share_nothing_but_their_code(log: Log) -> None:
    """Each task has its own context, whatever runs between its statements."""

    async def write(user: int) -> None:
        async with await AsyncConnection.connect(log.url) as conn:
            with bemi.context(user_id=user):
                for _ in range(5):
                    await conn.execute("insert into todo (n) values (%s)", [user])
                    await asyncio.sleep(0)
                    await conn.execute("update todo set task = 'x' where n = %s", [user])
                    await conn.commit()

    async def together() -> None:
        await asyncio.gather(*(write(user) for user in range(8)))

    asyncio.run(together())
    seen = log.seen()
    assert len(seen) == 40
    users = [each[0]["user_id"] for each in seen]
    assert sorted(users) == sorted([*range(8)] * 5)


def _write_as(user: str, run: Callable[[str, int], object]) -> None:
    """40 writes of one user, of which each fourth fails."""
    for number in range(40):
        with bemi.context(user_id=user), contextlib.suppress(psycopg.errors.DivisionByZero):
            run(f"{user} {number}", number % 4)


INSERT_OR_FAIL = "insert into todo (task, n) values (%s, 10 / %s)"


def test_threads_that_share_a_connection(log: Log, conn: psycopg.Connection[Any]) -> None:
    """Between a message and its write nobody comes in, nor does a failure take others along."""

    def run(task: str, n: int) -> None:
        conn.execute(INSERT_OR_FAIL, [task, n])

    with ThreadPoolExecutor(3) as pool:
        [*pool.map(lambda user: _write_as(user, run), "abc")]
    written = log.attributed()
    assert len(written) == 90
    assert all(context["user_id"] == task[0] for context, task in written)


def test_tasks_that_share_a_connection(log: Log) -> None:
    async def write(conn: AsyncConnection[Any], user: str) -> None:
        for number in range(40):
            with bemi.context(user_id=user), contextlib.suppress(psycopg.errors.DivisionByZero):
                await conn.execute(INSERT_OR_FAIL, [f"{user} {number}", number % 4])

    async def together() -> None:
        async with await AsyncConnection.connect(log.url, autocommit=True) as conn:
            await asyncio.gather(*(write(conn, user) for user in "abc"))

    asyncio.run(together())
    written = log.attributed()
    assert len(written) == 90
    assert all(context["user_id"] == task[0] for context, task in written)


def test_a_stream_that_nobody_reads_to_its_end_is_written(
    log: Log, conn: psycopg.Connection[Any]
) -> None:
    rows = "insert into todo (n) select i from generate_series(1, 2) i returning n"
    for _ in conn.cursor().stream(rows):
        break
    assert conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE

    async def read() -> None:
        async with await AsyncConnection.connect(log.url, autocommit=True) as conn:
            cursor: Any = conn.cursor()
            async with contextlib.aclosing(cursor.stream(rows)) as stream:
                async for _ in stream:
                    break
            assert conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE

    asyncio.run(read())
    assert log.seen() == [[ANN, "insert", "insert"]] * 2


def test_what_was_sent_by_hand_is_known(log: Log) -> None:
    with Connection.connect(log.url) as conn:
        conn.execute(INSERT)
        with bemi.context(job="mail"):
            bemi.emit(conn)
            conn.execute(INSERT)
        conn.execute(INSERT)
    mail = {**ANN, "job": "mail"}
    assert log.seen() == [[ANN, "insert", mail, "insert", ANN, "insert"]]


def test_a_failure_is_told_of_by_nobody_else(
    conn: psycopg.Connection[Any], caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(20):
        with pytest.raises(psycopg.errors.DivisionByZero):
            conn.execute(INSERT_OR_FAIL, ["a", 0])
    assert caplog.text == ""
