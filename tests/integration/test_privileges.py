"""The least privileges that docs/how-to/privileges.md grants are enough, and are the least."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

import bemi
from bemi.capture import worker
from bemi.capture.setup import init
from bemi.config import Settings
from bemi.embedded import Server
from bemi.errors import GapError, SetupError
from bemi.store.grants import READABLE
from tests.support import databases
from tests.support.documents import blocks

PAGE = Path(__file__).parents[2] / "docs/how-to/privileges.md"
COVERAGE = Path(__file__).parents[2] / "docs/explanation/coverage.md"
GRANTS = [block.text for block in blocks(PAGE.read_text()) if block.language == "sql"]

# What is done beside the stream, where a failure is only logged: seen by what is there after it.
BESIDE = (
    *("bemi.upkeep", "bemi.mark_uncounted"),
    *("bemi.intervals", "bemi.sources", "bemi.baseline_chunks"),
)


@pytest.fixture
def own_server(postgres_bin: Path | None) -> Iterator[Server]:
    """One of its own: the page's role has a fixed name."""
    with Server(settings={"fsync": "off"}, bin=postgres_bin) as running:
        yield running


def test_a_worker_with_the_least_privileges(
    own_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    source, destination = own_server.create_database("shop"), own_server.create_database("bemi")
    owner = Settings(source_url=source, destination_url=destination)
    with psycopg.connect(source, autocommit=True) as conn:
        conn.execute("create table a (id int primary key); create role auditor")
        init(owner, report=lambda line: None)
        conn.execute(GRANTS[0].encode())
        with psycopg.connect(destination, autocommit=True) as history:
            history.execute(GRANTS[1].encode())
            conn.execute("insert into a values (1), (2)")
            conn.execute("create table later (id int primary key)")
            least = Settings(source_url=_as_worker(source), destination_url=_as_worker(destination))
            _catch_up(least)
            assert history.execute("select count(*) from bemi.changes").fetchone() == (2,)
            assert not [line for line in caplog.messages if "can't look" in line]

            with psycopg.connect(least.destination_url, autocommit=True) as conn_as_worker:
                for statement in (
                    "delete from bemi.row_changes",
                    "update bemi.contexts set context = '{}'",
                    "truncate bemi.row_changes",
                    "drop view bemi.changes",
                    "create table bemi.mine ()",
                ):
                    with pytest.raises(psycopg.errors.InsufficientPrivilege):
                        conn_as_worker.execute(statement.encode())

            # The functions are also called beside the stream, where a failure is only logged.
            for call in (
                *("ensure_partitions(now(), now())", "upkeep()"),
                *("mark_uncounted('shop')", "count_changes('shop')"),
            ):
                with psycopg.connect(least.destination_url, autocommit=True) as conn_as_worker:
                    conn_as_worker.execute(f"select bemi.{call}".encode())

            # Each grant is needed.
            for line in GRANTS[1].strip().splitlines():
                if any(name in line for name in BESIDE):
                    continue
                revoked = line.replace("grant ", "revoke ", 1).replace(" to ", " from ", 1)
                history.execute(revoked.encode())
                conn.execute("insert into a select max(id) + 1 from a")
                with pytest.raises(
                    SetupError, match=r"a privilege is missing on the destination|may not write"
                ):
                    _catch_up(least)
                history.execute(line.encode())
            _catch_up(least)

            # A gap, accepted with the grants for that.
            history.execute(GRANTS[2].encode())
            databases.drop_slots(conn, "shop")
            conn.execute("insert into a select max(id) + 1 from a")
            init(owner, report=lambda line: None)
            with pytest.raises(GapError):
                _catch_up(least)
            _catch_up(least, accept_gap=True)
            assert history.execute("select count(*) from bemi.gaps").fetchone() == (1,)


def test_a_reader_that_is_let_in_and_out(own_server: Server) -> None:
    url = own_server.create_database("shop")
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("create role auditor")
        init(Settings(source_url=url), readers=["auditor"], report=lambda line: None)
        conn.execute("set role auditor")
        for view in READABLE:
            conn.execute(f"select * from bemi.{view}".encode())
        for table in ("row_changes", "contexts", "baselines", "rules", "table_versions"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(f"select * from bemi.{table}".encode())
        conn.execute("reset role")
        conn.execute(GRANTS[3].encode())
        conn.execute("set role auditor")
        for view in READABLE:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(f"select * from bemi.{view}".encode())
        conn.execute(sql.SQL("reset role"))


def test_what_a_reader_asks_on_the_command_line_and_in_sql(own_server: Server) -> None:
    """`changes`, `status` and the queries of the page on coverage are for every reader."""
    source, destination = own_server.create_database("shop"), own_server.create_database("bemi")
    owner = Settings(source_url=source, destination_url=destination)
    with psycopg.connect(source, autocommit=True) as conn:
        conn.execute("create table todo (id int primary key)")
        conn.execute("create role auditor login password 'read-me'")
        done: list[str] = []
        for _ in range(2):
            init(owner, readers=["auditor"], report=done.append)
        assert done.count('let role "auditor" read the history') == 1
        with conn.transaction(), bemi.context(user_id=7):
            bemi.emit(conn)
            conn.execute("insert into todo values (1)")
        _catch_up(owner)
    as_reader = psycopg.conninfo.make_conninfo(destination, user="auditor", password="read-me")
    with psycopg.connect(destination) as conn:
        row = conn.execute("select max(id::text) from bemi.changes").fetchone()
    assert row is not None
    (last,) = row
    environ = {name: value for name, value in os.environ.items() if not name.startswith("BEMI_")}
    for arguments in (
        ["changes"],
        ["changes", "--table", "todo"],
        ["history", "todo", "1"],
        ["blame", "todo", "1", "--json"],
        ["at", last, "todo"],
        ["status"],
        ["status", "--coverage"],
    ):
        told = subprocess.run(
            [sys.executable, "-m", "bemi", *arguments],
            env={**environ, "BEMI_DESTINATION_URL": as_reader},
            cwd=PAGE.parent,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (told.returncode, told.stderr) == (0, ""), arguments
        assert "todo" in told.stdout or arguments[0] in ("status", "at")
    with bemi.History(as_reader) as history:
        (change,) = history.changes()
        assert history.change(change.id) == change
        assert [*history.trace("r-1")] == []
        assert [*history.changes(context={"user_id": 7}, source="shop", limit=5)] == [change]
    for start, expected in (("beginning", [change.id]), ("1h", [change.id]), (change.id, [])):
        with bemi.stream(as_reader, start=start, until_caught_up=True) as stream:
            assert [each.id for each in stream] == expected
    with psycopg.connect(as_reader, autocommit=True) as reader:
        queries = [block.text for block in blocks(COVERAGE.read_text()) if block.language == "sql"]
        _, complete = [reader.execute(query.encode()).fetchall() for query in queries]
    assert complete == [(True,)]


def _as_worker(url: str) -> str:
    return psycopg.conninfo.make_conninfo(url, user="bemi_worker", password="change-me")


def _catch_up(settings: Settings, **options: Any) -> None:
    worker.run(settings, stop=threading.Event(), until_caught_up=True, **options)
