"""What asyncpg has and other libraries have not: its cursors, prepared statements and pools; and
what becomes of a statement whose transaction is ours."""

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import pytest

import bemi
from bemi.integrations.asyncpg import Connection, connection_class, install
from tests.support.wal import Log

ANN = {"user_id": "ann"}
INSERT = "insert into todo (task) values ('a')"


@pytest.fixture
def log(log: Log) -> Log:
    bemi.set_context(ANN)
    return log


def use(log: Log, act: Callable[[Any], Awaitable[None]], kind: Any = Connection) -> None:
    async def used() -> None:
        conn = await asyncpg.connect(log.url, connection_class=kind)
        try:
            await act(conn)
        finally:
            await conn.close()

    asyncio.run(used())


def each_write(conn: Any, tell: Callable[[], None]) -> None:
    """Tells of everything that is sent: asyncpg writes once for each round trip."""
    write = conn._transport.write

    def written(data: bytes) -> None:
        write(data)
        tell()

    conn._transport.write = written


def test_prepared_statements(log: Log) -> None:
    async def act(conn: Any) -> None:
        insert = await conn.prepare("insert into todo (n) values ($1) returning n")
        assert isinstance(insert, asyncpg.prepared_stmt.PreparedStatement)
        assert await insert.fetchval(1) == 1
        assert (await insert.fetchrow(2))["n"] == 2
        async with conn.transaction():
            assert len(await insert.fetch(3)) == 1
            assert insert.get_statusmsg() == "INSERT 0 1"
            await insert.executemany([(4,), (5,)])
            assert len(await insert.fetchmany([(6,)])) == 1
        await insert.explain(7, analyze=True)

    use(log, act)
    assert log.seen() == [[ANN, "insert"], [ANN, "insert"], [ANN, *["insert"] * 4]]


def test_one_users_statement_is_anothers_later(log: Log) -> None:
    async def act(conn: Any) -> None:
        insert = await conn.prepare(INSERT)
        for user in ("ann", "bob"):
            with bemi.context(user_id=user):
                await insert.fetch()
                await conn.fetch(INSERT)

    use(log, act)
    bob = {"user_id": "bob"}
    assert log.seen() == [[ANN, "insert"]] * 2 + [[bob, "insert"]] * 2


def test_cursors(log: Log) -> None:
    async def act(conn: Any) -> None:
        insert = "insert into todo (n) select generate_series(1, 3) returning n"
        async with conn.transaction():
            assert [row["n"] async for row in conn.cursor(insert, prefetch=2)] == [1, 2, 3]
        prepared = await conn.prepare(insert)
        async with conn.transaction():
            cursor = await prepared.cursor()
            assert (await cursor.fetchrow())["n"] == 1
        async with conn.transaction():
            cursor = await conn.cursor("select * from todo")
            assert len(await cursor.fetch(9)) == 6
        with pytest.raises(asyncpg.NoActiveSQLTransactionError):
            await conn.cursor(insert)
        with pytest.raises(asyncpg.NoActiveSQLTransactionError):
            await anext(aiter(conn.cursor(insert)))

    use(log, act)
    assert log.seen() == [[ANN, "insert", "insert", "insert"]] * 2


def test_copies(log: Log) -> None:
    log.conn.execute('create table "to" (n int)')

    async def act(conn: Any) -> None:
        lines = io.BytesIO(b"a\nb\n")
        assert await conn.copy_to_table("todo", source=lines, columns=["task"]) == "COPY 2"
        records = {"records": [(7,)], "columns": ["n"], "schema_name": "public"}
        assert await conn.copy_records_to_table("to", **records) == "COPY 1"
        copied = io.BytesIO()
        insert = "insert into todo (n) values (1) returning n"
        assert await conn.copy_from_query(insert, output=copied) == "COPY 1"
        assert copied.getvalue() == b"1\n"
        await conn.copy_from_table("todo", output=io.BytesIO())

        async def failing() -> AsyncIterator[tuple[str]]:
            yield ("c",)
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await conn.copy_records_to_table("todo", records=failing(), columns=["task"])
        assert await conn.fetchval("select count(*) from todo") == 3

    use(log, act)
    assert log.seen() == [[ANN, "insert", "insert"], [ANN, "insert"], [ANN, "insert"]]


def test_several_statements_in_one_text(log: Log) -> None:
    async def act(conn: Any) -> None:
        assert await conn.execute(f"{INSERT}; update todo set n = 1") == "UPDATE 1"
        assert await conn.fetchmany("insert into todo (n) values ($1) returning n", [(1,), (2,)])

    use(log, act)
    assert log.seen() == [[ANN, "insert", "update"], [ANN, "insert", "insert"]]


def test_a_pool_resets_its_connections(log: Log) -> None:
    """A block that a task left open is rolled back; the next user's writes are theirs."""

    async def act() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        async with asyncpg.create_pool(
            log.url, connection_class=Connection, min_size=1, max_size=1
        ) as pool:
            async with pool.acquire() as conn:
                await conn.execute("begin")
                await conn.execute(INSERT)
            with bemi.context(user_id="bob"):
                async with pool.acquire() as conn, conn.transaction():
                    await conn.execute(INSERT)
                stale = None
                async with pool.acquire() as conn:
                    stale = await conn.prepare(INSERT)
                with pytest.raises(asyncpg.InterfaceError, match="released back to the pool"):
                    await stale.fetch()
            await pool.execute(INSERT)
            await pool.executemany("insert into todo (n) values ($1)", [(1,), (2,)])

    asyncio.run(act())
    assert log.seen() == [
        [{"user_id": "bob"}, "insert"],
        [ANN, "insert"],
        [ANN, "insert", "insert"],
    ]


def test_a_pool_whose_connections_are_installed(log: Log) -> None:
    async def init(conn: Any) -> None:
        install(conn, sql=True)

    async def act() -> None:
        async with asyncpg.create_pool(log.url, init=init, min_size=1, max_size=1) as pool:
            await pool.execute(INSERT)
            async with pool.acquire() as conn:
                install(conn)
                await conn.execute(INSERT)

    asyncio.run(act())
    assert log.seen() == [[{**ANN, "SQL": INSERT}, "insert"], [ANN, "insert"]]


def test_what_it_costs(log: Log) -> None:
    """One round trip in a transaction, two for a write in autocommit, none for reading."""

    async def act(conn: Any) -> None:
        writes: list[None] = []
        each_write(conn, lambda: writes.append(None))

        async def trips(statement: str) -> int:
            writes.clear()
            await conn.fetch(statement)
            return len(writes)

        update = "update todo set n = 1"
        for _ in range(2):
            await conn.fetch(update)  # asked, and prepared
        assert await trips(update) == 1 + 2
        async with conn.transaction():
            assert [await trips(update) for _ in range(3)] == [1 + 1, 1, 1]
        await conn.fetch("select 1")
        assert await trips("select 1") == 1
        bemi.clear_context()
        assert await trips(update) == 1

    use(log, act)


def test_a_statement_that_was_prepared_before_its_table_was_altered(log: Log) -> None:
    """asyncpg prepares it anew and tries again, in our transaction as without it."""

    async def act(conn: Any) -> None:
        insert = "insert into todo (task) values ('a') returning *"
        await conn.fetch(insert)
        log.conn.execute("alter table todo add column more int")
        (row,) = await conn.fetch(insert)
        assert "more" in row.keys()  # noqa: SIM118 - a Record is no mapping
        assert not conn.is_in_transaction()

    use(log, act)
    assert log.seen() == [[ANN, "insert"]] * 2


def test_an_answer_that_can_not_be_decoded(log: Log) -> None:
    """What the server has done stands, as it does without us."""

    def fail(text: str) -> None:
        raise ZeroDivisionError

    async def act(conn: Any) -> None:
        await conn.set_type_codec("int4", schema="pg_catalog", encoder=str, decoder=fail)
        with pytest.raises(ZeroDivisionError):
            await conn.fetch("insert into todo (n) values (1) returning n")
        assert not conn.is_in_transaction()

    use(log, act)
    assert log.seen() == [[ANN, "insert"]]


def test_codecs_of_the_application_do_not_touch_the_context(log: Log) -> None:
    async def act(conn: Any) -> None:
        await conn.set_type_codec(
            "text", schema="pg_catalog", encoder=lambda text: "wrong", decoder=lambda text: "wrong"
        )
        await conn.execute(INSERT)

    use(log, act)
    assert log.seen() == [[ANN, "insert"]]


@pytest.mark.parametrize("cancelled", [True, False])
def test_a_statement_that_is_given_up(log: Log, cancelled: bool) -> None:
    async def act(conn: Any) -> None:
        slow = "insert into todo (task) select 'a' from pg_sleep(100)"
        if cancelled:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(conn.execute(slow), 0.1)
        else:
            with pytest.raises(TimeoutError):
                await conn.execute(slow, timeout=0.1)
        await conn.execute(INSERT)
        assert not conn.is_in_transaction()

    use(log, act)
    assert log.seen() == [[ANN, "insert"]]


@pytest.mark.parametrize("steps", range(4))
@pytest.mark.parametrize("at", [1, 2, 3])
def test_it_can_be_given_up_at_any_point(log: Log, at: int, steps: int) -> None:
    """Cancelled behind any of what it sends, it leaves no transaction open and no half of one."""

    async def act(conn: Any) -> None:
        await conn.execute(INSERT)
        task: Any = None
        sent = 0

        async def cancel() -> None:
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()

        def sending() -> None:
            nonlocal sent
            sent += 1
            if sent == at:
                cancelling.append(asyncio.ensure_future(cancel()))

        cancelling: list[Any] = []
        each_write(conn, sending)
        task = asyncio.ensure_future(conn.execute(INSERT))
        with contextlib.suppress(asyncio.CancelledError):  # it may have been quicker
            await task
        await conn.execute("update todo set n = n")
        assert not conn.is_in_transaction()

    use(log, act)
    first, *second, update = log.seen()
    assert first == [ANN, "insert"]
    assert second in ([], [[ANN, "insert"]])
    assert update == [ANN, *["update"] * (1 + len(second))]


def test_statements_at_the_same_time_are_refused(log: Log) -> None:
    """As asyncpg does; and what was first is committed."""

    async def act(conn: Any) -> None:
        await conn.execute(INSERT)
        first = asyncio.ensure_future(conn.execute(INSERT))
        refused = 0
        while not first.done():
            await asyncio.sleep(0)
            if not first.done():
                with pytest.raises(asyncpg.InterfaceError, match="another operation is in prog"):
                    await conn.execute(INSERT)
                refused += 1
        await first
        assert refused > 3
        assert not conn.is_in_transaction()

    use(log, act)
    assert log.seen() == [[ANN, "insert"]] * 2


def test_a_constraint_that_is_checked_at_the_end(log: Log) -> None:
    log.conn.execute("alter table todo add unique (n) deferrable initially deferred")

    async def act(conn: Any) -> None:
        twice = "insert into todo (n) values (1), (1)"
        with pytest.raises(asyncpg.UniqueViolationError):
            await conn.execute(twice)
        await conn.execute(INSERT)

    use(log, act)
    assert log.seen() == [[ANN, "insert"]]


def test_a_transaction_that_failed_speaks_for_itself(log: Log) -> None:
    async def act(conn: Any) -> None:
        await conn.execute("begin")
        with pytest.raises(asyncpg.DivisionByZeroError):
            await conn.execute("select 1 / 0")
        with pytest.raises(asyncpg.InFailedSQLTransactionError):
            await conn.execute(INSERT)
        assert await conn.execute("commit") == "ROLLBACK"
        await conn.execute(INSERT)

    use(log, act, connection_class(check_at_commit=True))
    assert log.seen() == [[ANN, "insert"]]


def test_a_standby_gets_no_context(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a standby refuses is the write, as ever; and the connection lives to see it promoted."""
    from bemi.context.sender import Sender

    checked = Sender.checked
    answers = [(True, True, "", True), (True, True, "", True), (False, True, "", True)]

    def of_a_standby(self: Sender, answer: Any) -> bool:
        assert answer[0] is False
        return checked(self, answers.pop(0))

    monkeypatch.setattr(Sender, "checked", of_a_standby)

    async def act(conn: Any) -> None:
        await conn.execute(INSERT)
        async with conn.transaction():
            await conn.execute(INSERT)
        await conn.execute(INSERT)

    use(log, act)
    assert log.seen() == [["insert"], ["insert"], [ANN, "insert"]]


def test_a_closed_connection_says_so(log: Log) -> None:
    async def act(conn: Any) -> None:
        await conn.close()
        with pytest.raises(asyncpg.InterfaceError, match="connection is closed"):
            await conn.execute(INSERT)

    use(log, act)


def test_a_connection_that_is_lost(log: Log) -> None:
    log.conn.execute(INSERT.encode())

    async def act(conn: Any) -> None:
        with pytest.raises(asyncpg.ConnectionDoesNotExistError):
            await conn.execute("delete from todo where pg_terminate_backend(pg_backend_pid())")

    for kind in (asyncpg.Connection, Connection):
        use(log, act, kind)
    assert log.tasks() == ["a"]


def test_emitting_by_hand(log: Log) -> None:
    async def act(conn: Any) -> None:
        with pytest.warns(RuntimeWarning, match="outside of a transaction") as caught:
            await bemi.emit(conn)
        assert caught[0].filename == __file__
        async with conn.transaction():
            await bemi.emit(conn)
            await conn.execute(INSERT)
            with contextlib.suppress(asyncpg.DivisionByZeroError):
                async with conn.transaction():
                    await conn.execute("select 1 / 0")
            with bemi.context(job="*/ ' $1 木 😀"):
                await bemi.emit(conn)
            await conn.execute(INSERT)
        with contextlib.suppress(asyncpg.DivisionByZeroError):
            async with conn.transaction():
                with contextlib.suppress(asyncpg.DivisionByZeroError):
                    await conn.execute("select 1 / 0")
                await bemi.emit(conn)
                raise asyncpg.DivisionByZeroError

    use(log, act, asyncpg.Connection)
    assert log.seen() == [[ANN, "insert", {**ANN, "job": "*/ ' $1 木 😀"}, "insert"]]


def test_a_database_in_another_encoding(make_database: Any) -> None:
    log = Log(make_database("asyncpg_latin1", encoding="LATIN1", locale="C"))

    async def act(conn: Any) -> None:
        with bemi.context(user="木 😀 é"):
            await conn.execute(INSERT)

    with contextlib.closing(log):
        use(log, act)
        assert log.seen() == [[{"user": "木 😀 é"}, "insert"]]
