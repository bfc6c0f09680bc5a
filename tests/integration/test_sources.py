"""Several sources of one file: added, paused, resumed and removed while the others run."""

import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import psycopg
import pytest

from bemi import config
from bemi.capture import decisions, fleet, worker
from bemi.capture.fleet import SOURCE, Fleet
from bemi.cli import app, leaving
from bemi.cli.logs import _Named
from bemi.cli.reload import SettingsWatch
from bemi.errors import BemiError, ConfigError, SetupError
from tests.conftest import MakeDatabase
from tests.support import databases
from tests.support.several import Several
from tests.support.waiting import until

WAIT = 30.0


@pytest.fixture
def several(
    make_database: MakeDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Several:
    """`shop` and `crm`, which nobody has set up yet."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("BEMI_"):
            monkeypatch.delenv(name)
    # Nothing here depends on how long these are.
    monkeypatch.setattr(fleet, "_LOOK", 0.1)
    monkeypatch.setattr(decisions, "INTERVAL", 0.1)
    urls = {name: make_database(databases.unused_name(name)) for name in ("shop", "crm")}
    return Several(tmp_path, make_database(databases.unused_name("history")), urls)


class Bemi(Protocol):
    def __call__(self, *arguments: str, code: int = 0) -> str: ...


@pytest.fixture
def bemi(capsys: pytest.CaptureFixture[str]) -> Bemi:
    """A command in this process; what it prints, its error first."""

    def call(*arguments: str, code: int = 0) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            app.main(arguments)
        out, err = capsys.readouterr()
        assert caught.value.code == code, f"{err}\n{out}"
        return err + out if code else out

    return call


def run(*arguments: str, code: int = 0) -> str:
    """`bemi run` as a process, since it takes over signals and the log; what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "bemi", "run", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == code, done.stderr
    return done.stderr


class _Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record)


class Running:
    """A fleet in a thread, as `bemi run` has it; and its log."""

    def __init__(self, watch: SettingsWatch, **options: Any) -> None:
        self.fleet = Fleet(watch.settings, refresh=watch.look, **options)
        self.outcome: bool | BaseException | None = None
        self._handler = _Lines()
        self._handler.addFilter(_Named(SOURCE))
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self.outcome = self.fleet.run()
        except BemiError as error:
            self.outcome = error

    def start(self) -> None:
        log = logging.getLogger("bemi")
        log.addHandler(self._handler)
        log.setLevel(logging.INFO)
        self._thread.start()

    def stop(self) -> bool | BaseException | None:
        self.fleet.stop()
        return self.end()

    def end(self) -> bool | BaseException | None:
        """Wait for it to end by itself."""
        self._thread.join(WAIT)
        assert not self._thread.is_alive()
        logging.getLogger("bemi").removeHandler(self._handler)
        return self.outcome

    def said(self, message: str, source: str | None = None) -> list[logging.LogRecord]:
        return [
            line
            for line in self._handler.lines
            if message in f"{line.getMessage()} {getattr(line, 'reason', '')}"
            and source in (None, getattr(line, "source", None))
        ]

    def says(self, message: str, source: str | None = None, times: int = 1) -> None:
        until(
            lambda: len(self.said(message, source)) >= times,
            WAIT,
            f"{source}: {message!r}, in {[line.getMessage() for line in self._handler.lines]}",
        )


@pytest.fixture
def start(several: Several) -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def make(*names: str, **options: Any) -> Running:
        watch = SettingsWatch(several.file, lambda: config.load_all(None, {}, sources=names))
        made = Running(watch, **options)
        started.append(made)
        made.start()
        return made

    yield make
    for each in started:
        each.stop()


Start = Callable[..., Running]


def test_each_source_has_its_own_slot_and_checkpoint(several: Several, bemi: Bemi) -> None:
    listed = json.loads(bemi("source", "list", "--json"))
    assert [(each["source"], each["standing"]) for each in listed] == [
        ("crm", "not added"),
        ("shop", "not added"),
    ]
    bemi("source", "add", "shop", "--json")
    bemi("source", "add", "crm", "--json")
    listed = json.loads(bemi("source", "list", "--json"))
    assert [(each["source"], each["standing"]) for each in listed] == [
        ("crm", "active"),
        ("shop", "active"),
    ]
    assert len({each["slot"] for each in listed}) == 2
    for number, name in enumerate(("shop", "crm", "shop")):
        several.write(name, number)
    run("--until-caught-up")
    assert several.stored("shop") == [0, 2]
    assert several.stored("crm") == [1]
    again = json.loads(bemi("source", "add", "shop", "--json"))
    assert again["changed"] == []
    sources = json.loads(bemi("status", "--json"))["sources"]
    assert [(each["source"], each["live"]["tracked"]) for each in sources] == [
        ("crm", 1),
        ("shop", 1),
    ]


@pytest.fixture
def added(several: Several, bemi: Bemi) -> Several:
    for name in several.urls:
        bemi("source", "add", name, "--json")
    return several


def test_a_paused_source_waits_while_the_others_go_on(
    added: Several, bemi: Bemi, start: Start
) -> None:
    running = start()
    running.says("capturing", "shop")
    running.says("capturing", "crm")
    paused = json.loads(bemi("source", "pause", "shop", "--json"))
    assert (paused["standing"], paused["changed"]) == ("paused", True)
    assert paused["kept_bytes"] >= 0
    running.says("paused, and the source keeps its WAL", "shop")
    until(lambda: added.slot_is_active("shop") is False, WAIT, "the slot is free")
    added.write("shop", 1)
    added.write("crm", 1)
    until(lambda: added.stored("crm") == [1], WAIT, "the other one goes on")
    assert added.stored("shop") == []
    assert "shop is paused, and was before" in bemi("source", "pause", "shop")
    assert "not connected" in bemi("status", "--source", "shop")
    listed = json.loads(bemi("source", "list", "--json"))
    assert [each["standing"] for each in listed] == ["active", "paused"]
    (_, shop) = json.loads(bemi("status", "--json"))["sources"]
    assert listed[1]["paused_at"] == shop["paused_at"]

    assert json.loads(bemi("source", "resume", "shop", "--json"))["changed"]
    until(lambda: added.stored("shop") == [1], WAIT, "what came meanwhile is captured")
    assert "was not paused" in bemi("source", "resume", "shop")
    assert running.stop() is True


def test_pausing_says_what_it_costs(added: Several, bemi: Bemi) -> None:
    said = bemi("source", "pause", "shop")
    assert "of WAL on the source's disk" in said
    assert "without a limit" in said
    # Who is not in the file any more can be paused all the same; its slot can't be asked.
    added.write_file(but=["crm"])
    assert "watch the room on its disk" in bemi("source", "pause", "crm")


def test_a_worker_that_starts_while_its_source_is_paused_waits(
    added: Several, bemi: Bemi, start: Start
) -> None:
    bemi("source", "pause", "shop")
    added.write("shop", 1)
    running = start("shop")
    running.says("paused, and the source keeps its WAL", "shop")
    assert not running.said("capturing")
    bemi("source", "resume", "shop")
    until(lambda: added.stored("shop") == [1], WAIT, "it is captured")
    assert running.stop() is True


def test_of_several_sources_a_fix_names_its_own(added: Several, bemi: Bemi) -> None:
    with psycopg.connect(added.urls["shop"], autocommit=True) as conn:
        conn.execute("create table unkeyed (n int)")
        conn.execute("drop publication bemi")
    told = bemi("status", code=1)
    assert "`bemi recover --source shop` makes it anew" in told
    assert "`bemi run --source crm` starts one" in told
    assert "`bemi snapshot --source crm`" not in told
    added.write("crm", 1)
    with psycopg.connect(added.urls["crm"], autocommit=True) as conn:
        conn.execute("create table old (id int primary key)")
        conn.execute("insert into old values (1)")
    bemi("init", "--source", "crm")
    told = bemi("status", "--coverage")
    assert "`bemi snapshot --source crm` takes its baseline" in told


def test_a_source_that_is_not_in_the_file_is_marked(added: Several, bemi: Bemi) -> None:
    added.write_file(but=["crm"])
    told = bemi("status")
    assert told.count("not in them") == 1
    crm = told[told.index("crm\n") : told.index("shop\n")]
    assert "settings      not in them, so its worker is not of these; its slot keeps WAL" in crm
    assert "not in them" not in bemi("status", "--source", "shop")


def test_catching_up_with_a_paused_source_is_refused(added: Several, bemi: Bemi) -> None:
    bemi("source", "pause", "shop")
    with pytest.raises(SetupError, match="the source shop is paused"):
        worker.run(added.settings("shop"), stop=threading.Event(), until_caught_up=True)
    # Of several, the others catch up.
    added.write("crm", 1)
    assert "the source shop is paused" in run("--until-caught-up", code=1)
    assert added.stored("crm") == [1]


def test_a_removed_source_leaves_no_trace_but_its_history(
    added: Several, bemi: Bemi, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "_TRY_AGAIN", 0.2)
    running = start()
    added.write("shop", 1)
    until(lambda: added.stored("shop") == [1], WAIT, "it is captured")
    removed = json.loads(bemi("source", "remove", "shop", "--json"))
    assert len(removed["changed"]) == 2
    running.says("source let go, since it was removed", "shop")
    assert added.slot_is_active("shop") is None
    assert publications(added.urls["shop"]) == 0
    assert added.stored("shop") == [1]
    added.write("crm", 1)
    until(lambda: added.stored("crm") == [1], WAIT, "the other one goes on")
    assert json.loads(bemi("source", "remove", "shop", "--json"))["changed"] == []
    status = json.loads(bemi("status", "--json"))
    assert status["findings"] == []
    assert [each["removed_at"] is None for each in status["sources"]] == [True, False]
    assert "was removed, so there is nothing to pause" in bemi("source", "pause", "shop", code=1)

    # Added again: what changed meanwhile is a gap, which an operator accepts.
    added.write("shop", 2)
    assert json.loads(bemi("source", "add", "shop", "--json"))["gap"]
    running.says("changes are missing", "shop")
    run("--source", "shop", "--accept-gap", "--until-caught-up")
    added.write("shop", 3)
    until(lambda: added.stored("shop") == [1, 3], WAIT, "it is captured again")
    assert running.stop() is True


def publications(url: str) -> int:
    with psycopg.connect(url, autocommit=True) as conn:
        row = conn.execute("select count(*) from pg_publication").fetchone()
    assert row is not None
    return int(row[0])


def test_a_removed_source_alone_ends_its_worker(added: Several, bemi: Bemi, start: Start) -> None:
    running = start("shop")
    running.says("capturing", "shop")
    bemi("source", "remove", "shop", "--yes")
    error = running.end()
    assert isinstance(error, SetupError)
    assert "was removed" in str(error)


def test_a_slot_that_others_hold_keeps_it_from_being_removed(
    added: Several, bemi: Bemi, monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    monkeypatch.setattr(leaving, "_LEAVING", 0.2)
    # A worker that does not look, not even once at its start.
    monkeypatch.setattr(decisions, "watched", lambda *_: contextlib.nullcontext())
    running = start("shop")
    running.says("capturing", "shop")
    said = bemi("source", "remove", "shop", "--yes", code=1)
    assert "is in use by process" in said
    assert "run `bemi source remove shop` again" in said
    running.stop()
    monkeypatch.setattr(leaving, "_LEAVING", WAIT)
    bemi("source", "remove", "shop", "--yes")
    assert added.slot_is_active("shop") is None


def test_one_source_that_fails_leaves_the_others_going_and_is_tried_again(
    several: Several, bemi: Bemi, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "_TRY_AGAIN", 0.2)
    bemi("source", "add", "shop", "--json")
    running = start()
    running.says("failed", "crm", times=2)
    (first, *_) = running.said("failed", "crm")
    assert "bemi init" in first.__dict__["fix"]
    several.write("shop", 1)
    until(lambda: several.stored("shop") == [1], WAIT, "the other one goes on")
    assert running.stop() is False


def test_what_is_added_is_picked_up_at_once(several: Several, bemi: Bemi, start: Start) -> None:
    bemi("source", "add", "shop", "--json")
    running = start()
    running.says("failed", "crm")
    bemi("source", "add", "crm", "--json")
    several.write("crm", 1)
    until(lambda: several.stored("crm") == [1], fleet._TRY_AGAIN / 2, "long before it is due")
    assert running.stop() is True


def test_one_source_alone_ends_with_its_error(several: Several, start: Start) -> None:
    running = start("crm")
    error = running.end()
    assert isinstance(error, SetupError)
    assert "bemi init" in (error.fix or "")
    assert not running.said("failed")


def test_a_bug_in_one_source_leaves_the_others_going(
    added: Several, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture = worker.Worker._capture

    def broken(self: worker.Worker) -> bool:
        if self._settings.source == "crm":
            raise ZeroDivisionError("a bug")
        return capture(self)

    monkeypatch.setattr(worker.Worker, "_capture", broken)
    running = start()
    running.says("a bug", "crm")
    added.write("shop", 1)
    until(lambda: added.stored("shop") == [1], WAIT, "the other one goes on")
    assert running.stop() is False


def test_sources_come_and_go_with_the_file(added: Several, start: Start) -> None:
    added.write_file(but=["crm"])
    running = start()
    running.says("capturing", "shop")
    added.write("crm", 1)
    added.write_file()
    until(lambda: added.stored("crm") == [1], WAIT, "the new one is captured")
    added.write_file(but=["shop"])
    running.says("stopped", "shop")
    until(lambda: added.slot_is_active("shop") is False, WAIT, "the slot is free")
    added.write("shop", 1)
    added.write("crm", 2)
    until(lambda: added.stored("crm") == [1, 2], WAIT, "the other one goes on")
    assert added.stored("shop") == []
    assert running.stop() is True


def test_changed_settings_of_one_source_leave_the_others_alone(
    added: Several, start: Start
) -> None:
    running = start()
    running.says("capturing", "shop")
    running.says("capturing", "crm")
    added.write("shop", 1, "secret")
    until(lambda: added.stored("shop") == [1], WAIT, "it is captured")
    added.own["shop"] = 'rules.mask = ["note.text"]'
    added.write_file()
    running.says("capturing", "shop", times=2)
    added.write("shop", 2, "secret")
    until(lambda: added.stored("shop") == [1, 2], WAIT, "it goes on")
    with psycopg.connect(added.destination_url) as conn:
        rows = conn.execute(
            "select after ->> 'text', rules from bemi.changes order by primary_key"
        ).fetchall()
    assert [row[0] for row in rows] == ["secret", "***"]
    assert rows[0][1] != rows[1][1]
    assert len(running.said("capturing", "crm")) == 1
    assert running.stop() is True


def test_a_bad_file_changes_nothing(added: Several, start: Start) -> None:
    running = start()
    running.says("capturing", "shop")
    good = added.file.read_text(encoding="utf-8")
    added.file.write_text(good + "\nmaks = 1", encoding="utf-8")
    running.says("the old settings stay")
    (told,) = running.said("the old settings stay")
    assert "sources.crm.maks in" in told.__dict__["reason"]
    added.file.unlink()
    running.says("there is no file")
    added.write("shop", 1)
    until(lambda: added.stored("shop") == [1], WAIT, "it goes on")
    assert len(running.said("capturing")) == 2
    assert running.stop() is True


class TestSettingsWatch:
    """When the file is read again."""

    @pytest.fixture
    def reads(self) -> list[str]:
        return []

    @pytest.fixture
    def watch(self, several: Several, reads: list[str]) -> SettingsWatch:
        def read() -> tuple[config.Settings, ...]:
            found = config.load_all(None, {}, several.file)
            reads.append("read")
            return found

        return SettingsWatch(several.file, read)

    def test_not_while_it_is_as_it_was(self, watch: SettingsWatch, reads: list[str]) -> None:
        assert [watch.look(False) for _ in range(3)] == [None] * 3
        assert reads == ["read"]

    def test_only_when_it_is_written_to_its_end(
        self, several: Several, watch: SettingsWatch
    ) -> None:
        good = several.file.read_text(encoding="utf-8")
        several.common = "slot_wait = 7"
        several.write_file()
        new = several.file.read_text(encoding="utf-8")
        several.file.write_text(good[:40], encoding="utf-8")
        assert watch.look(False) is None
        several.file.write_text(new, encoding="utf-8")
        assert watch.look(False) is None
        found = watch.look(False)
        assert found is not None
        assert [each.slot_wait for each in found] == [7.0, 7.0]

    def test_at_once_when_it_is_asked_for(self, several: Several, watch: SettingsWatch) -> None:
        several.common = "slot_wait = 7"
        several.write_file()
        found = watch.look(True)
        assert found is not None
        assert found[0].slot_wait == 7.0
        assert watch.look(False) is None

    def test_a_file_that_is_gone_takes_no_rules_away(
        self, several: Several, watch: SettingsWatch, reads: list[str]
    ) -> None:
        several.file.unlink()
        assert [watch.look(asked) for asked in (False, False, True, False)] == [None] * 4
        assert reads == ["read"]
        several.write_file()
        assert [watch.look(False) is None for _ in range(3)] == [True, False, True]

    def test_a_file_that_was_bad_at_the_start_is_an_error(self, several: Several) -> None:
        several.file.write_text("x", encoding="utf-8")
        with pytest.raises(ConfigError):
            SettingsWatch(several.file, lambda: config.load_all(None, {}, several.file))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pause", "shpo"], "the history has no source shpo\nfix: did you mean shop?"),
        (["pause", "x"], "fix: its sources: shop, crm"),
        (["resume", "x"], "the history has no source x"),
        (["add", "x"], "has no source x"),
        (["remove", "x", "--yes"], "has no source x"),
    ],
)
def test_a_name_that_nobody_knows_is_told(
    added: Several, bemi: Bemi, arguments: list[str], message: str
) -> None:
    assert message in bemi("source", *arguments, code=1)


def test_a_source_with_another_slot_is_not_the_one_to_remove(added: Several, bemi: Bemi) -> None:
    added.own["shop"] = 'slot = "other"'
    added.write_file()
    assert "the history knows the source shop with slot" in bemi(
        "source", "remove", "shop", "--yes", code=1
    )
    assert json.loads(bemi("source", "list", "--json"))[1]["standing"] == "active"


@pytest.fixture
def alone(added: Several, monkeypatch: pytest.MonkeyPatch) -> Several:
    """`shop` and `crm` are set up; now variables say what is meant, and it is the database shop."""
    added.file.unlink()
    monkeypatch.setenv("BEMI_SOURCE_URL", added.urls["shop"])
    monkeypatch.setenv("BEMI_DESTINATION_URL", added.destination_url)
    return added


@pytest.mark.parametrize(
    "arguments", [("source", "remove", "shpo"), ("teardown", "--source", "shpo")]
)
def test_a_mistyped_name_takes_no_slot_from_the_source_that_is_meant(
    alone: Several, bemi: Bemi, arguments: tuple[str, ...]
) -> None:
    said = bemi(*arguments, "--yes", code=1)
    assert "has no source shpo" in said
    assert "shop" in said.partition("fix: ")[2]
    assert alone.slot_is_active("shop") is False
    assert publications(alone.urls["shop"]) == 1


@pytest.mark.parametrize(
    "arguments", [("source", "remove", "shop"), ("teardown", "--source", "shop")]
)
def test_a_slot_that_another_source_has_by_now_stays(
    alone: Several, bemi: Bemi, arguments: tuple[str, ...]
) -> None:
    bemi("source", "remove", "shop", "--yes")
    bemi("init", "--source", "till", "--json")
    said = bemi(*arguments, "--yes", code=1)
    assert "is by now that of the source till" in said
    assert alone.slot_is_active("shop") is False
    assert publications(alone.urls["shop"]) == 1


def test_teardown_keeps_what_another_history_may_need(
    alone: Several, bemi: Bemi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEMI_SCHEMA", "other")
    said = bemi("teardown", "--source", "shop", "--yes", code=1)
    assert 'the history in schema "other" has no source shop' in said
    assert alone.slot_is_active("shop") is False
    assert publications(alone.urls["shop"]) == 1


def test_a_worker_for_a_name_that_is_not_set_up_says_so_before_it_waits_for_the_slot(
    alone: Several, start: Start
) -> None:
    """The slot, which it would have, is held by the worker of the source that is meant."""
    alone.write_file()
    running = start("shop")
    running.says("capturing", "shop")
    alone.file.unlink()
    said = run("--source", "shpo", code=1)
    assert 'the source "shpo" is not registered' in said
    assert "name one of those that are: shop, crm" in said
    assert "waiting" not in said
    running.stop()


def test_changes_show_their_source_where_there_are_several(added: Several, bemi: Bemi) -> None:
    added.write("shop", 1)
    added.write("crm", 2)
    run("--until-caught-up")
    heading, _, *rows = bemi("changes").splitlines()
    assert heading.split()[:4] == ["time", "(UTC)", "source", "change"]
    assert {row.split()[1] for row in rows if "CREATE" in row} == {"shop", "crm"}
    assert "source" not in bemi("changes", "--source", "shop")


def test_a_gap_is_accepted_for_one_source_at_a_time(added: Several) -> None:
    assert "--accept-gap is for one source at a time" in run("--accept-gap", code=1)


def test_which_source_an_init_is_for_is_asked(several: Several, bemi: Bemi) -> None:
    assert "has several sources: crm, shop" in bemi("init", code=1)
    bemi("init", "--source", "crm", "--json")
    assert several.slot_is_active("crm") is False
    assert several.slot_is_active("shop") is None


def test_a_history_from_before_there_were_pauses_is_read(added: Several) -> None:
    """`init` looks at the sources before it migrates."""
    from bemi.store import sources

    with psycopg.connect(added.destination_url, autocommit=True) as conn:
        conn.execute("alter table bemi.sources drop paused_at, drop removed_at")
        assert [each.paused_at for each in sources.read_all(conn, "bemi")] == [None, None]
        assert sources.standing(conn, "bemi", "shop") == "active"
        assert sources.standing(conn, "bemi", "x") == "unknown"
        assert sources.standing(conn, "nowhere", "shop") == "unknown"
