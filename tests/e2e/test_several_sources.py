"""Two sources, one history, one process: killed, reloaded and paused under load, each is whole."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from bemi.config import Settings
from bemi.store import sources
from tests.conftest import MakeDatabase
from tests.support import databases, workload
from tests.support.oracle import Oracle
from tests.support.several import FileWorker, Several
from tests.support.waiting import until

ENDS = 100.0


def write_file(folder: Path, tracked: dict[str, Settings], extra: str = "") -> None:
    lines = [extra]
    for name, settings in tracked.items():
        lines += [
            f"[sources.{name}]",
            f'source_url = "{settings.source_url}"',
            f'destination_url = "{settings.destination_url}"',
            'schemas = ["app"]',
        ]
    new = folder / "new"
    new.write_text("\n".join(lines), encoding="utf-8")
    new.rename(folder / "bemi.toml")


@pytest.mark.timeout(300)
def test_all_are_whole_after_kills_reloads_and_pauses(
    make_database: MakeDatabase, destination_url: str, tmp_path: Path, seed: int
) -> None:
    judged: dict[str, tuple[Settings, Oracle]] = {}
    for name in ("shop", "crm"):
        url = make_database(databases.unused_name(name))
        judged[name] = workload.prepare(url, destination_url, source=name)
    tracked = {name: settings for name, (settings, _) in judged.items()}
    write_file(tmp_path, tracked)

    with contextlib.ExitStack() as stack:
        process = stack.enter_context(FileWorker(tmp_path))
        loads = [
            stack.enter_context(
                workload.Workload(settings.source_url, seed=seed, clients=2, rate=600)
            )
            for settings in tracked.values()
        ]

        def more(rows: int = 800) -> None:
            wanted = [load.rows + rows for load in loads]
            until(
                lambda: all(load.rows >= n for load, n in zip(loads, wanted, strict=True)),
                ENDS,
                "more load",
            )

        def ready(times: int = 1) -> None:
            for name in tracked:
                until(
                    lambda name=name: len(captures(process.log, name)) >= times,  # type: ignore[misc]
                    ENDS,
                    f"{name} is captured: {process.log}",
                )

        ready()
        more()
        process.kill()
        more()
        process.start()
        ready()
        more()
        write_file(tmp_path, tracked, "slot_wait = 80")
        process.signal(signal.SIGHUP)
        ready(times=2)
        more()
        with psycopg.connect(destination_url, autocommit=True) as conn:
            sources.pause(conn, "bemi", "shop")
            process.says("paused, and the source keeps its WAL")
            more()
            process.kill()
            process.start()
            process.says("paused, and the source keeps its WAL")
            more()
            sources.resume(conn, "bemi", "shop")
        ready()
        for load in loads:
            load.stop()
        assert process.stop() == 0

    last = FileWorker(tmp_path, "--until-caught-up").start()
    assert last.wait(ENDS) == 0, last.log
    for name, (settings, oracle) in judged.items():
        findings = oracle.compare(settings)
        print(name, findings)
        assert findings.faults == {}, oracle.examples(settings)
        assert findings.changes > 1000


def captures(log: str, name: str) -> list[str]:
    """Lines of the log, which is JSON; its end may still be being written."""
    lines = [json.loads(line) for line in log.splitlines(keepends=True) if line.endswith("\n")]
    return [
        line["position"]
        for line in lines
        if line["message"] == "capturing" and line["source"] == name
    ]


@pytest.fixture
def several(make_database: MakeDatabase, tmp_path: Path) -> Several:
    """Two that are set up."""
    from bemi.capture.setup import init

    urls = {name: make_database(databases.unused_name(name)) for name in ("shop", "crm")}
    made = Several(tmp_path, make_database(databases.unused_name("history")), urls)
    for name in urls:
        init(made.settings(name), report=lambda _: None)
    return made


def test_each_source_may_have_a_process_of_its_own(several: Several) -> None:
    with (
        FileWorker(several.folder, "--source", "shop") as shop,
        FileWorker(several.folder, "--source", "crm") as crm,
    ):
        for name in several.urls:
            several.write(name, 1)
            until(lambda name=name: several.stored(name) == [1], ENDS, f"{name} is captured")  # type: ignore[misc]
        assert crm.stop() == 0
        several.write("shop", 2)
        until(lambda: several.stored("shop") == [1, 2], ENDS, "the other one goes on")
        assert '"source": "crm"' not in shop.log
        assert shop.stop() == 0


def test_every_line_of_the_log_names_its_source(several: Several) -> None:
    """Those of the threads beside the stream, too."""
    with FileWorker(several.folder) as process:
        process.says("capturing(.|\n)*capturing")
        for url in several.urls.values():
            with psycopg.connect(url, autocommit=True) as conn:
                conn.execute("create table later (id int primary key)")
        process.says("table added(.|\n)*table added")
        assert process.stop() == 0
        lines = [json.loads(line) for line in process.log.splitlines()]
    named = {(line["message"], line.get("source")) for line in lines}
    assert {("table added", "shop"), ("table added", "crm")} <= named
    assert None not in {source for _, source in named}


def test_one_that_fails_makes_the_exit_code(several: Several) -> None:
    with psycopg.connect(several.urls["crm"], autocommit=True) as conn:
        conn.execute("drop publication bemi")
    with FileWorker(several.folder) as process:
        process.says('"message": "failed"')
        several.write("shop", 1)
        until(lambda: several.stored("shop") == [1], ENDS, "the other one goes on")
        assert process.stop() == 1
    several.write("shop", 2)
    last = FileWorker(several.folder, "--until-caught-up").start()
    assert last.wait(ENDS) == 1
    assert several.stored("shop") == [1, 2]


def test_a_wrong_file_is_told_and_the_old_settings_stay(several: Several) -> None:
    with FileWorker(several.folder) as process:
        process.says("capturing(.|\n)*capturing")
        several.common = "slot_wiat = 1"
        several.write_file()
        process.signal(signal.SIGHUP)
        process.says("the old settings stay.*slot_wiat in bemi.toml.*did you mean slot_wait")
        several.write("shop", 1)
        until(lambda: several.stored("shop") == [1], ENDS, "it goes on")
        assert process.stop() == 0


def test_one_source_alone_is_as_it_was_without_a_file(several: Several) -> None:
    """Its error is the process's, and it is not tried again."""
    with psycopg.connect(several.urls["crm"], autocommit=True) as conn:
        conn.execute("drop publication bemi")
    process = FileWorker(several.folder, "--source", "crm").start()
    assert process.wait(ENDS) == 1
    assert "\nfix: " in process.log
    last = FileWorker(several.folder, "--source", "shop", "--until-caught-up").start()
    assert last.wait(ENDS) == 0


def test_a_closed_terminal_ends_it_in_order(several: Several) -> None:
    """SIGHUP reads the settings again, but not when it says that the terminal is gone."""
    ours, its = os.openpty()
    log = several.folder / "terminal.log"
    worker = FileWorker(several.folder)
    # The terminal has to be that of a session, or nobody is told when it is closed.
    takes_it = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)"
    takes_it += "; os.execv(sys.argv[1], sys.argv[1:])"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", takes_it, *worker._command],
            cwd=several.folder,
            env=worker._environment(),
            stdin=its,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    os.close(its)
    try:
        until(lambda: b"capturing" in log.read_bytes(), ENDS, "it captures")
        process.send_signal(signal.SIGHUP)
        until(lambda: b"settings read again" in log.read_bytes(), ENDS, "it reads the settings")
        os.close(ours)
        assert process.wait(ENDS) == 0
        assert b"stopped" in log.read_bytes()
    finally:
        process.kill()
        process.wait()
