"""`bemi run`, `bemi status` and `bemi changes` as they are typed."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from bemi.capture import worker
from bemi.cli import app
from bemi.config import Settings
from bemi.lsn import Lsn
from bemi.store import checkpoint
from tests.support import databases
from tests.support.tracking import environment, track

EMIT = "select pg_logical_emit_message(true, '_bemi', %s)"


class Todo:
    """A tracked source with a history of three transactions."""

    def __init__(
        self, source_url: str, destination_url: str, output: pytest.CaptureFixture[str]
    ) -> None:
        self._output = output
        self.source = psycopg.connect(source_url, autocommit=True)
        self.source.execute("create table todo (id int primary key, task text, price numeric)")
        self.settings: Settings = track(
            source_url, destination_url, tables=("todo",), full=("public.todo",), source="todo"
        )
        self.write(
            "insert into todo values (1, '[bold]milk\x1b[31m', 1.10), (2, 'x', 2)", user_id=7
        )
        self.write("update todo set task = 'oat milk' where id = 1", user_id=8, job="mail")
        self.write("delete from todo where id = 2")
        worker.run(self.settings, stop=threading.Event(), until_caught_up=True)
        self.destination = psycopg.connect(destination_url, autocommit=True)

    def write(self, statement: str, **context: object) -> None:
        with self.source.transaction():
            if context:
                self.source.execute(EMIT, [json.dumps(context)])
            self.source.execute(statement.encode())

    def bemi(self, *arguments: str, **environ: str) -> tuple[int, str, str]:
        """In this process: to start Python takes longer than most of what is asked."""
        self._output.readouterr()
        with pytest.MonkeyPatch.context() as patch:
            for name in os.environ.keys() - environment(self.settings).keys():
                patch.delenv(name)
            for name, value in {**environment(self.settings), "COLUMNS": "120", **environ}.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as caught:
                app.main(arguments)
        out, err = self._output.readouterr()
        assert "Traceback" not in err, err
        assert isinstance(caught.value.code, int)
        return caught.value.code, out, err

    def run(self, *arguments: str, **environ: str) -> tuple[int, str, str]:
        """`bemi run`, in a process of its own."""
        done = subprocess.run(
            [sys.executable, "-m", "bemi", "run", *arguments],
            check=False,
            capture_output=True,
            text=True,
            env={**environment(self.settings), **environ},
            timeout=60,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout, done.stderr

    def status(self) -> tuple[int, Any]:
        code, out, _ = self.bemi("status", "--json")
        return code, json.loads(out)


@pytest.fixture
def todo(
    source_url: str, destination_url: str, capfd: pytest.CaptureFixture[str]
) -> Iterator[Todo]:
    made = Todo(source_url, destination_url, capfd)
    yield made
    made.source.close()
    made.destination.close()


def test_changes_are_a_table_for_people(todo: Todo) -> None:
    code, out, err = todo.bemi("changes", "--table", "todo")
    assert (code, err) == (0, "")
    operations = [word for word in out.split() if word in ("CREATE", "UPDATE", "DELETE")]
    assert operations == ["DELETE", "UPDATE", "CREATE", "CREATE"]
    assert "task [bold]milk\\x1b[31m" in out
    assert "2 unchanged" in out
    assert "user_id 8" in out
    assert "\x1b" not in out


def test_changes_are_json_with_whole_rows_and_exact_numbers(todo: Todo) -> None:
    code, out, _ = todo.bemi("changes", "--operation", "update", "--json")
    assert code == 0
    (change,) = json.loads(out, parse_float=str)
    assert change["before"] == {"id": 1, "task": "[bold]milk\x1b[31m", "price": "1.10"}
    assert change["after"] == {"id": 1, "task": "oat milk", "price": "1.10"}
    assert change["context"] == {"user_id": 8, "job": "mail"}
    assert (change["source"], change["primary_key"], change["flags"]) == ("todo", "1", None)


def test_changes_stream_as_lines_of_json(todo: Todo) -> None:
    code, out, _ = todo.bemi("changes", "--ndjson", "--limit", "3")
    assert code == 0
    assert [json.loads(line)["operation"] for line in out.splitlines()] == [
        "DELETE",
        "UPDATE",
        "CREATE",
    ]


def test_changes_are_filtered(todo: Todo) -> None:
    for flags, found in (
        ("--key 1", ["UPDATE", "CREATE"]),
        ("--context user_id=7", ["CREATE", "CREATE"]),
        ("--context user_id=8 --context job=mail", ["UPDATE"]),
        ("--context user_id=7 --context job=mail", []),
        ("--changed task", ["UPDATE"]),
        ("--changed price", []),
        ("--operation create --operation delete", ["DELETE", "CREATE", "CREATE"]),
        ("--since 1h --until now --source todo --limit 2", ["DELETE", "UPDATE"]),
        ("--until yesterday", []),
        ("--table app.todo", []),
    ):
        code, out, _ = todo.bemi("changes", *flags.split(), "--json")
        assert code == 0
        assert [change["operation"] for change in json.loads(out)] == found, flags


def test_a_change_is_shown_whole(todo: Todo) -> None:
    (update,) = json.loads(todo.bemi("changes", "--operation", "update", "--json")[1])
    code, out, _ = todo.bemi("show", update["id"])
    assert code == 0
    assert "\x1b" not in out
    for told in ("UPDATE", "todo 1", "oat milk", "context user_id", "transaction", update["id"]):
        assert told in out
    assert json.loads(todo.bemi("show", update["id"], "--json")[1]) == update
    nobody = "00000000-0000-0000-0000-000000000000"
    assert todo.bemi("show", nobody)[0] == 1
    assert todo.bemi("show", "7")[0] == 2


def test_a_row_has_its_history(todo: Todo) -> None:
    code, out, _ = todo.bemi("history", "todo", "1", "--ndjson")
    assert code == 0
    assert [json.loads(line)["operation"] for line in out.splitlines()] == ["UPDATE", "CREATE"]
    _, out, _ = todo.bemi("history", "todo", "1", "--oldest-first", "--limit", "1", "--json")
    assert [change["operation"] for change in json.loads(out)] == ["CREATE"]
    assert "no changes match" in todo.bemi("history", "todo", "3")[1]


def test_each_column_has_its_author(todo: Todo) -> None:
    code, out, _ = todo.bemi("blame", "todo", "1")
    assert code == 0
    assert "\x1b" not in out
    assert "1.10" in out
    found = json.loads(todo.bemi("blame", "todo", "1", "--json")[1], parse_float=str)
    told = {each["column"]: (each["value"], each["change"]["context"]["user_id"]) for each in found}
    assert told == {"id": (1, 7), "task": ("oat milk", 8), "price": ("1.10", 7)}
    code, _, err = todo.bemi("blame", "todo", "3")
    assert (code, "no change of todo 3" in err) == (1, True)


def test_a_table_as_it_was(todo: Todo) -> None:
    create = json.loads(todo.bemi("changes", "--oldest-first", "--limit", "1", "--json")[1])[0]
    code, out, _ = todo.bemi("at", create["id"], "todo")
    assert code == 0
    assert "\x1b" not in out
    assert "1.10" in out
    _, out, _ = todo.bemi("at", create["id"], "todo", "--json")
    assert [row["id"] for row in json.loads(out)] == [1, 2]
    assert json.loads(todo.bemi("at", create["id"], "todo", "2", "--json")[1])["task"] == "x"
    assert json.loads(todo.bemi("at", create["id"], "todo", "3", "--json")[1]) is None
    code, _, err = todo.bemi("at", "2020-01-01", "todo")
    assert (code, "begins after" in err) == (1, True)
    assert todo.bemi("at", "once", "todo")[0] == 2


def test_a_request_leaves_a_trace(todo: Todo) -> None:
    todo.write("update todo set price = 3; delete from todo", request_id="r-1")
    worker.run(todo.settings, stop=threading.Event(), until_caught_up=True)
    _, out, _ = todo.bemi("trace", "r-1", "--json")
    assert [change["operation"] for change in json.loads(out)] == ["UPDATE", "DELETE"]
    assert "no changes match" in todo.bemi("trace", "r-2")[1]


def test_pages_follow_each_other(todo: Todo) -> None:
    code, out, _ = todo.bemi("changes", "--limit", "2")
    assert code == 0
    cursor = out.split("--behind ")[1].split()[0]
    _, out, _ = todo.bemi("changes", "--behind", cursor, "--json")
    assert [change["operation"] for change in json.loads(out)] == ["CREATE", "CREATE"]
    for form in ("--json", "--ndjson"):
        _, out, err = todo.bemi("changes", "--limit", "2", form)
        assert cursor in err
        assert cursor not in out
    assert todo.bemi("changes", "--behind", "page2")[0] == 2
    assert todo.bemi("changes", "--from-position", "here")[0] == 2


def test_times_that_were_typed_are_echoed(todo: Todo) -> None:
    _, _, err = todo.bemi("changes", "--since", "2026-05-03 14:02+02:00", "--json")
    assert err == "since 2026-05-03 12:02:00 UTC\n"


def test_a_table_of_another_schema_is_pointed_out(todo: Todo) -> None:
    todo.destination.execute("update bemi.row_changes set schema = 'app'")
    code, out, _ = todo.bemi("changes", "--table", "todo")
    assert (code, out) == (0, "no changes match\ndid you mean app.todo?\n")


def test_a_table_that_the_history_does_not_know_is_pointed_out(todo: Todo) -> None:
    for name in ("tood", "app.tood"):
        code, out, _ = todo.bemi("changes", "--table", name)
        assert code == 0
        assert out == "no changes match\nthe history has no change of a table tood\n"


def test_a_history_without_changes_says_what_is_missing(todo: Todo) -> None:
    todo.destination.execute("delete from bemi.row_changes")
    code, out, _ = todo.bemi("changes", "--table", "todo")
    assert code == 0
    assert out.startswith("the history has no changes yet; `bemi run` captures them")


def test_a_glob_that_matches_no_table_is_pointed_out(todo: Todo) -> None:
    code, _, err = todo.bemi("init", "--table", "tood", "--table", "todo", "--schema", "shop")
    assert code == 0
    assert err == (
        "note: --schema shop matches no table yet\nnote: --table tood matches no table yet\n"
    )


def test_a_rule_that_matches_nothing_is_pointed_out(todo: Todo, tmp_path: Path) -> None:
    file = tmp_path / "bemi.toml"
    file.write_text('rules.mask = ["todo.task", "todo.tsak"]', encoding="utf-8")
    code, _, err = todo.bemi("init", "--config", str(file))
    assert (code, err) == (
        0,
        "note: rules.mask[1] 'todo.tsak' matches no column of a tracked table\n",
    )


def test_globs_of_an_earlier_init_are_shown(todo: Todo) -> None:
    """Else nobody sees why `bemi init` does not track a table."""
    code, out, _ = todo.bemi("init", "--table", "nothing*")
    assert code == 0
    assert "an earlier run" not in out
    code, out, _ = todo.bemi("init", BEMI_TABLES="")
    assert code == 0
    assert "as an earlier run was told: --table 'public.nothing*'; `bemi init --schema '*'`" in out
    code, out, _ = todo.bemi("init", "--json", BEMI_TABLES="")
    assert json.loads(out)["remembered"] == ["--table 'public.nothing*'"]


def test_what_is_printed_has_no_blanks_around_it(todo: Todo) -> None:
    for command in ("changes", "doctor", "status"):
        _, out, _ = todo.bemi(command)
        lines = out.splitlines()
        assert lines[0]
        assert lines == [line.rstrip() for line in lines]


def test_who_only_reads_needs_only_the_destination(todo: Todo) -> None:
    code, out, _ = todo.bemi("changes", "--json", BEMI_SOURCE_URL="")
    assert code == 0
    assert len(json.loads(out)) == 4
    code, out, _ = todo.bemi("status", "--json", BEMI_SOURCE_URL="")
    assert code == 0
    assert [source["live"] for source in json.loads(out)["sources"]] == [None]


def test_status_of_a_healthy_source(todo: Todo) -> None:
    code, status = todo.status()
    assert code == 0
    assert status["findings"] == []
    (source,) = status["sources"]
    assert source["source"] == "todo"
    assert Lsn.parse(source["position"]) > 0
    assert source["committed_at"].endswith("Z")
    live = source["live"]
    assert (live["slot_active"], live["wal_status"], live["tracked"]) == (False, "reserved", 1)
    code, out, _ = todo.bemi("status")
    assert code == 0
    assert "not connected: `bemi run` starts one" in out


def test_status_shows_tables_that_are_not_tracked_and_why(todo: Todo) -> None:
    todo.source.execute("create table keyless (x int)")
    environ = {"BEMI_TABLES": "", "BEMI_SCHEMAS": "public"}
    code, out, _ = todo.bemi("status", "--json", **environ)
    assert code == 0
    (untracked,) = json.loads(out)["sources"][0]["live"]["untracked"]
    assert untracked["table"] == "public.keyless"
    assert untracked["reason"] == "it has no primary key"
    assert "alter table" in untracked["fix"]
    _, out, _ = todo.bemi("status", **environ)
    assert "public.keyless: it has no primary key\n    fix: alter table" in out
    # Without rules of its own, it goes by those that `init` was given.
    _, out, _ = todo.bemi("status", BEMI_TABLES="")
    assert "keyless" not in out


def test_a_gap_that_nobody_accepted_is_a_finding(todo: Todo) -> None:
    held = checkpoint.read(todo.destination, "bemi", "todo")
    assert held is not None
    for accepted, code in ((False, 1), (True, 0)):
        checkpoint.record_gap(
            todo.destination,
            "bemi",
            held,
            to=Lsn(held.position + 1),
            cause="slot_ahead",
            detail="",
            accepted=accepted,
        )
        seen, status = todo.status()
        assert seen == code
        assert len(status["sources"][0]["gaps"]) == 1
        assert any("--accept-gap" in finding for finding in status["findings"]) is not accepted


def test_a_slot_that_is_gone_is_a_finding(todo: Todo) -> None:
    databases.drop_slot(todo.source, todo.settings.slot)
    code, out, _ = todo.bemi("status")
    assert code == 1
    assert "is gone from the source" in out


def test_a_table_whose_updates_fail_is_a_finding(todo: Todo) -> None:
    todo.source.execute("alter table todo replica identity nothing")
    code, status = todo.status()
    assert code == 1
    assert "public.todo is published, but" in status["findings"][0]


def test_a_source_that_does_not_answer_is_a_finding(todo: Todo) -> None:
    code, out, _ = todo.bemi("status", BEMI_SOURCE_URL="postgresql://a:s3cret@127.0.0.1:1/todo")
    assert code == 1
    assert "can't connect to the source" in out
    assert "last change" in out
    assert "s3cret" not in out


def test_status_and_changes_say_when_there_is_no_history_yet(source_url: str) -> None:
    environ = environment(Settings(source_url=source_url))
    for name in ("status", "changes"):
        done = subprocess.run(
            [sys.executable, "-m", "bemi", name],
            check=False,
            capture_output=True,
            text=True,
            env=environ,
            timeout=60,
        )
        assert done.returncode == 1
        assert "fix: run `bemi init`" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, None])
def test_run_ends_in_order_when_it_is_told_to(todo: Todo, number: signal.Signals | None) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "bemi", "run", "--log-format", "json", "--stop-with-stdin"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(todo.settings),
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        for line in process.stderr:
            if json.loads(line)["message"] == "capturing":
                break
        if number is None:
            process.stdin.close()
        else:
            process.send_signal(number)
        rest = process.stderr.read()
        assert process.wait(60) == 0
    assert all(json.loads(line)["level"] == "info" for line in rest.splitlines())


def test_run_until_caught_up_ends_by_itself(todo: Todo) -> None:
    todo.write("insert into todo values (3, 'later', 0)", user_id=9)
    code, out, _ = todo.run("--until-caught-up")
    assert (code, out) == (0, "")
    _, out, _ = todo.bemi("changes", "--context", "user_id=9", "--json")
    assert len(json.loads(out)) == 1


def test_run_says_what_must_be_put_right_first(todo: Todo) -> None:
    code, out, err = todo.run(BEMI_SLOT="not_made")
    assert (code, out) == (1, "")
    assert "error: " in err
    assert "fix: " in err
