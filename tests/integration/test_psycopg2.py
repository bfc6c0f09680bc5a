"""What psycopg2 has and other libraries have not: its extras, cursors, pools, two-phase commits."""

import contextlib
import functools
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg2
import pytest
from psycopg2 import extensions, extras, sql
from psycopg2.pool import ThreadedConnectionPool

import bemi
from bemi.context import notice
from bemi.integrations.psycopg2 import Connection, install
from tests.support.wal import Log

ANN = {"user_id": "ann"}
INSERT = "insert into todo (task) values ('a')"


@pytest.fixture
def log(log: Log) -> Log:
    bemi.set_context(ANN)
    return log


@pytest.fixture(params=["factory", "installed"])
def conn(request: pytest.FixtureRequest, log: Log) -> Iterator[Any]:
    """In autocommit mode."""
    factory = Connection if request.param == "factory" else None
    made = psycopg2.connect(log.url, connection_factory=factory)
    made.autocommit = True
    if factory is None:
        install(made)
    yield made
    made.close()


def test_values_in_bulk(log: Log, conn: Any) -> None:
    cursor = conn.cursor()
    rows = [("%s */ ; --",), ("b",), ("c",)]
    insert = "insert into todo (task) values %s returning task"
    assert extras.execute_values(cursor, insert, rows, page_size=2, fetch=True) == rows
    extras.execute_batch(cursor, "update todo set n = %s where task = %s", [(1, "b"), (2, "c")])
    assert log.seen() == [[ANN, "insert", "insert"], [ANN, "insert"], [ANN, "update", "update"]]
    assert log.tasks() == [task for (task,) in rows]


def test_many_are_transactions_of_their_own(log: Log, conn: Any) -> None:
    """In autocommit mode: what was written before a failure stays."""
    cursor = conn.cursor()
    cursor.executemany("insert into todo (n) values (%s)", [[1], [2], [3]])
    assert (cursor.rowcount, cursor.description) == (3, None)
    with pytest.raises(psycopg2.errors.DivisionByZero):
        cursor.executemany("insert into todo (n) values (1 / %s)", [[1], [0], [1]])
    assert conn.get_transaction_status() == extensions.TRANSACTION_STATUS_IDLE
    assert log.seen() == [[ANN, "insert"]] * 4


def test_copies(log: Log, conn: Any) -> None:
    cursor = conn.cursor()
    cursor.copy_from(io.StringIO("a\nb\n"), "todo", columns=["task"])
    assert cursor.rowcount == 2
    cursor.copy_expert(sql.SQL("copy {} (task) from stdin").format(sql.Identifier("todo")),
                       io.StringIO("c\n"))  # fmt: skip
    out = io.StringIO()
    cursor.copy_expert("copy todo (task) to stdout", out)
    cursor.copy_to(out, "todo", columns=["task"])
    assert out.getvalue() == "a\nb\nc\n" * 2
    assert log.seen() == [[ANN, "insert", "insert"], [ANN, "insert"]]


def test_an_error_is_at_the_place_where_it_was(log: Log, conn: Any) -> None:
    cursor = conn.cursor()
    with pytest.raises(psycopg2.errors.UndefinedColumn) as caught:
        cursor.execute("insert into todo (nothing) values (%s)", ["a"])
    assert caught.value.diag.statement_position == "19"
    assert str(caught.value).splitlines()[1].startswith("LINE 1: insert into todo (nothing)")
    cursor.execute(INSERT + " returning task")
    assert (cursor.query, cursor.statusmessage) == (f"{INSERT} returning task".encode(),
                                                    "INSERT 0 1")  # fmt: skip
    assert log.seen() == [[ANN, "insert"]]


def test_a_constraint_that_waits_for_the_commit(log: Log, conn: Any) -> None:
    """Its error comes from the statement, as ever."""
    log.conn.execute("alter table todo add unique (n) deferrable initially deferred")
    cursor = conn.cursor()
    cursor.execute("insert into todo (n) values (1)")
    with pytest.raises(psycopg2.errors.UniqueViolation):
        cursor.execute("insert into todo (n) values (1)")
    assert conn.get_transaction_status() == extensions.TRANSACTION_STATUS_IDLE
    cursor.execute("insert into todo (n) values (2)")
    assert log.seen() == [[ANN, "insert"]] * 2


@pytest.mark.parametrize(
    "factory", [extras.DictCursor, extras.RealDictCursor, extras.NamedTupleCursor]
)
def test_cursors_of_other_kinds(log: Log, factory: type[Any]) -> None:
    with psycopg2.connect(log.url, connection_factory=Connection, cursor_factory=factory) as conn:
        cursor = conn.cursor()
        assert isinstance(cursor, factory)
        cursor.execute(INSERT + " returning task")
        (row,) = cursor.fetchall()
        assert getattr(row, "task", None) == "a" or row["task"] == "a"
        conn.cursor(cursor_factory=extensions.cursor).execute(INSERT)
    conn.close()
    assert log.seen() == [[ANN, "insert", "insert"]]


def test_named_cursors(log: Log, conn: Any) -> None:
    conn.autocommit = False
    writer = conn.cursor()
    writer.execute("insert into todo (n) select generate_series(1, 3)")
    with conn.cursor("named") as cursor:
        cursor.itersize = 2
        cursor.execute("select n from todo order by n")
        assert [*cursor] == [(1,), (2,), (3,)]
    conn.commit()
    with conn.cursor("read") as cursor:
        cursor.execute("select n from todo")
    conn.commit()
    assert log.seen() == [[ANN, "insert", "insert", "insert"]]


def test_a_pool(log: Log) -> None:
    pool = ThreadedConnectionPool(1, 2, log.url, connection_factory=Connection)
    for user in (1, 2):
        with bemi.context(user_id=user):
            conn = pool.getconn()
            with conn, conn.cursor() as cursor:
                cursor.execute(INSERT)
            pool.putconn(conn)
    pool.closeall()
    assert log.seen() == [[{"user_id": user}, "insert"] for user in (1, 2)]


def test_two_phase_commits(log: Log) -> None:
    conn = psycopg2.connect(log.url, connection_factory=Connection)
    cursor = conn.cursor()
    for number in range(2):
        conn.tpc_begin(f"{log.conn.info.dbname} {number}")
        cursor.execute(INSERT)
        conn.tpc_prepare()
        conn.tpc_commit()
    conn.close()
    assert log.seen() == [[ANN, "insert"]] * 2


def test_functions_that_are_called(log: Log, conn: Any) -> None:
    log.conn.execute(
        "create function add_one(a int) returns int language sql as "
        "$$ insert into todo (n) values (a) returning n $$"
    )
    install(conn, functions=["add_one"])
    cursor = conn.cursor()
    cursor.callproc("add_one", [7])
    assert cursor.fetchall() == [(7,)]
    assert log.seen() == [[ANN, "insert"]]


def test_the_text_of_a_statement_has_no_values(log: Log, conn: Any) -> None:
    """Also where psycopg2 has put them into it."""
    install(conn, sql=True)
    cursor = conn.cursor()
    extras.execute_values(cursor, 'insert into "todo" (n, task) values %s', [(41, "secret")])
    cursor.execute(sql.SQL("update todo set task = {}").format(sql.Literal("secret")))
    secret = sql.SQL("update todo set task = {} where n = %s").format(sql.Literal("secret"))
    cursor.execute(secret, [41])
    texts = [context["SQL"] for context, _ in log.seen()]
    assert texts == [
        'insert into "todo" (n, task) values (…',
        "update todo set task = %s",
        "update todo set task = %s where n = %s",
    ]


def test_emit_by_hand(log: Log) -> None:
    conn = psycopg2.connect(log.url)
    with conn, conn.cursor() as cursor:
        bemi.emit(conn)
        cursor.execute(INSERT)
    conn.autocommit = True
    with pytest.warns(RuntimeWarning, match="autocommit"):
        bemi.emit(conn)
    conn.close()
    assert log.seen() == [[ANN, "insert"]]


def test_asynchronous_connections_are_refused(log: Log) -> None:
    with pytest.raises(TypeError, match="asynchronous"):
        psycopg2.connect(log.url, connection_factory=Connection, async_=True)


def test_round_trips(log: Log, conn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the documentation says that it costs: each call of psycopg2's own cursor is one."""
    from bemi.integrations import psycopg2 as integration

    ours: list[str] = []
    execute = integration._execute

    def counted(connection: Any, statement: str, *rest: Any) -> Any:
        ours.append(statement.split()[0])
        return execute(connection, statement, *rest)

    cursor = conn.cursor()
    cursor.execute(INSERT)  # which has asked whether the role may
    monkeypatch.setattr(integration, "_execute", counted)
    cursor.execute(INSERT)
    assert ours == ["begin;", "commit"]
    ours.clear()
    conn.autocommit = False
    cursor.execute("select 1")
    cursor.execute(INSERT)
    cursor.execute(INSERT)
    conn.commit()
    assert ours == ["select"]


def test_threads_that_share_a_connection(log: Log, conn: Any) -> None:
    """Between a message and its write nobody comes in, nor does a failure take others along."""

    def write(user: str) -> None:
        for number in range(40):
            with (
                bemi.context(user_id=user),
                contextlib.suppress(psycopg2.errors.DivisionByZero),
                conn.cursor() as cursor,
            ):
                insert = "insert into todo (task, n) values (%s, 10 / %s)"
                cursor.execute(insert, [f"{user} {number}", number % 4])

    with ThreadPoolExecutor(3) as pool:
        [*pool.map(write, "abc")]
    written = log.attributed()
    assert len(written) == 90
    assert all(context["user_id"] == task[0] for context, task in written)


def test_what_was_sent_by_hand_is_known(log: Log, conn: Any) -> None:
    conn.autocommit = False
    cursor = conn.cursor()
    cursor.execute(INSERT)
    with bemi.context(job="mail"):
        bemi.emit(conn)
        cursor.execute(INSERT)
    cursor.execute(INSERT)
    conn.commit()
    mail = {**ANN, "job": "mail"}
    assert log.seen() == [[ANN, "insert", mail, "insert", ANN, "insert"]]


def test_what_psycopg2_refuses_begins_no_transaction(log: Log, conn: Any) -> None:
    conn.autocommit = False
    with pytest.raises(psycopg2.ProgrammingError, match="can't adapt"):
        conn.cursor().execute("insert into todo (task) values (%s)", [object()])
    assert conn.get_transaction_status() == extensions.TRANSACTION_STATUS_IDLE


def test_cursors_that_are_made_by_a_function_go_on_without(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notice, "_told", set())
    with contextlib.closing(psycopg2.connect(log.url, connection_factory=Connection)) as conn:
        with pytest.warns(RuntimeWarning, match="is no class of cursors"):
            cursor = conn.cursor(cursor_factory=functools.partial(extensions.cursor))
        cursor.execute(INSERT)
        conn.commit()
    assert log.seen() == [["insert"]]


def test_the_last_row_is_what_it_was(log: Log, conn: Any) -> None:
    """PostgreSQL gives rows no OIDs any more, so psycopg2 says 0."""
    with contextlib.closing(psycopg2.connect(log.url)) as plain:
        expected = plain.cursor()
        expected.execute(INSERT)
        cursor = conn.cursor()
        cursor.execute(INSERT)
        assert (cursor.lastrowid, cursor.rowcount) == (expected.lastrowid, expected.rowcount)
        assert cursor.statusmessage == expected.statusmessage
