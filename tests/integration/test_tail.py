"""`bemi tail` and `bemi at --wait` as their users call them."""

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Track
from tests.support.asked import Asked
from tests.support.tracked import Tracked
from tests.support.tracking import environment
from tests.support.waiting import until
from tests.support.workers import Worker

TODO = "create table todo (id int primary key, task text)"


@contextmanager
def started(
    at: Tracked, *arguments: str, stdout: int = subprocess.PIPE
) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "bemi", *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(at.settings),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def waiting(at: Tracked, asked: str = "pg_locks") -> list[dict[str, Any]]:
    """Sessions that have looked how far the history is, and wait for more."""
    return at.query(
        "select pid from pg_stat_activity where datname = current_database() and state = 'idle'"
        " and pid <> pg_backend_pid() and query like %s",
        [f"%{asked}%"],
    )


@pytest.fixture
def written(asked: Asked) -> Asked:
    asked.write(
        "insert into todo (id, task) values (1, '\x1b]0;owned\x07')",
        user_id=7,
        note="[\x1b[31m\u202e]",
    )
    asked.write("update todo set task = repeat('long', 100)")
    asked.write("delete from todo")
    asked.ready()
    return asked


def test_each_change_is_a_line(written: Asked) -> None:
    code, out, err = written.bemi("tail", "--from", "beginning", "--until-caught-up")
    create, update, delete = out.splitlines()
    assert code == 0
    assert re.fullmatch(
        r"[\d-]{10} [\d:]{8}  CREATE    todo 1  id 1, data null, task \\x1b\]0;owned\\x07,"
        r" price null  \[note \[\\x1b\[31m\\u202e\], user_id 7\]",
        create,
    )
    assert re.fullmatch(
        r"[\d-]{10} [\d:]{8}  UPDATE    todo 1  task \\x1b\]0;owned\\x07 → (long)+l?o?n?…", update
    )
    assert "DELETE    todo 1  id 1" in delete
    (cursor,) = re.findall(r"goes on with --from '(.*)'", err)
    behind = ("tail", "--until-caught-up", "--from")
    assert written.bemi(*behind, cursor)[:2] == (0, "")
    code, out, _ = written.bemi(*behind, "beginning", "--operation", "delete", "--key", "1")
    assert (code, len(out.splitlines())) == (0, 1)


def test_each_change_is_a_line_for_programs(written: Asked) -> None:
    code, out, _ = written.bemi("tail", "--from", "beginning", "--limit", "2", "--ndjson")
    found = [json.loads(line) for line in out.splitlines()]
    assert (code, [each["operation"] for each in found]) == (0, ["CREATE", "UPDATE"])
    behind = ("tail", "--until-caught-up", "--from")
    _, out, _ = written.bemi(*behind, found[0]["id"], "--ndjson")
    assert [json.loads(line)["operation"] for line in out.splitlines()] == ["UPDATE", "DELETE"]
    assert [each["operation"] for each in written.json(*behind, found[1]["id"])] == ["DELETE"]
    _, out, _ = written.bemi(*behind, "beginning", "--csv")
    operations = [row["operation"] for row in csv.DictReader(io.StringIO(out))]
    assert operations == ["CREATE", "UPDATE", "DELETE"]


def test_wrong_use_is_refused(asked: Asked) -> None:
    for arguments in (
        ["--from", "someday"],
        ["--from", "a=b"],
        ["--from", "'; drop table x; --"],
        ["--limit", "0"],
        ["--ndjson", "--csv"],
        ["--from-position", "x"],
        ["--since", "1h", "--until", "2h"],
    ):
        code, out, err = asked.bemi("tail", *arguments)
        assert (code, out) == (2, ""), arguments
        assert "error: " in err
    code, out, _ = asked.bemi("tail", "--json")
    assert (code, "needs an end" in json.loads(out)["error"]) == (2, True)
    code, _, err = asked.bemi("tail", "--table", "nothing\x1b[31m", "--until-caught-up")
    assert code == 0
    assert "the history has no public.nothing\\x1b[31m" in err


def test_it_goes_on_until_ctrl_c(tracked: Track, tmp_path: Path) -> None:
    at = tracked(TODO)
    with Worker(at.settings, tmp_path) as worker, started(at, "tail") as process:
        assert process.stdout is not None
        worker.ready()
        until(lambda: waiting(at), 30, "it waits")
        at.source.execute("insert into todo values (1, 'x')")
        assert "CREATE    todo 1" in process.stdout.readline()
        (session,) = until(lambda: waiting(at), 30, "it waits again")
        at.query("select pg_terminate_backend(%s)", [session["pid"]])
        at.source.execute("insert into todo values (2, 'x')")
        assert "CREATE    todo 2" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert re.fullmatch("waiting: .*\nconnected again\ngoes on with --from '.*'\n", err), err


def test_who_has_seen_enough_ends_it(tracked: Track) -> None:
    at = tracked(TODO)
    at.source.execute("insert into todo select g, 'x' from generate_series(1, 20000) g")
    at.catch_up()
    read, write = os.pipe()
    with started(at, "tail", "--from", "beginning", stdout=write) as process:
        os.close(write)
        assert b"CREATE" in os.read(read, 100)
        os.close(read)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Traceback" not in err


def test_a_state_that_is_not_captured_yet_is_waited_for(tracked: Track) -> None:
    at = tracked(TODO)
    at.source.execute("insert into todo values (1, 'x')")
    at.catch_up()
    at.source.execute("insert into todo values (2, 'x')")
    row = at.source.execute("select pg_current_wal_insert_lsn()::text").fetchone()
    assert row is not None
    question = ("at", row[0], "todo", "2", "--json")
    with started(at, *question) as process:
        assert "not captured yet" in process.communicate(timeout=30)[1]
    assert process.returncode == 1
    with started(at, *question, "--wait") as process:
        until(lambda: waiting(at, "ROLLBACK"), 30, "it was refused, and waits")
        at.source.execute("insert into todo values (3, 'x')")
        at.catch_up()
        out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert json.loads(out) == {"id": 2, "task": "x"}
