"""`bemi demo` shows what it promises and leaves nothing behind, however it ends."""

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest

from tests.support.waiting import until

DEADLINE = 60.0
READY = b"Ctrl-C; in another window"


def _heeds_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Demo:
    """`bemi demo` in a temporary folder of its own, which shows what is left behind."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.temporary = folder / "tmp"
        self.temporary.mkdir(mode=0o777)
        # Where tests run as root, the server runs as another user, who must come through.
        self.temporary.chmod(0o777)
        self.output = folder / "output"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "bemi", "demo", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={
                    **os.environ,
                    "TMPDIR": str(self.temporary),
                    "BEMI_SLOT": "Not Valid",
                    "COLUMNS": "100",
                },
                # Whoever runs the tests in the background ignores it, and so would the demo.
                preexec_fn=_heeds_ctrl_c,  # noqa: PLW1509 - before exec, and there it is safe
            )

    def text(self) -> str:
        return self.output.read_text(encoding="utf-8")

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def becomes_ready(self) -> list[psutil.Process]:
        """Waits for `--keep` to say so; returns all processes below it."""
        until(lambda: READY in self.output.read_bytes(), DEADLINE, "the demo stays up")
        family = self.family()
        assert any("run" in process.cmdline() for process in family)
        return family

    def assert_nothing_is_left(self, family: list[psutil.Process]) -> None:
        _, alive = psutil.wait_procs(family, timeout=20)
        assert alive == []
        until(lambda: not any(self.temporary.iterdir()), 20, "temporary folders are gone")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not pytest's, which only this user may enter."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_it_shows_changes_with_before_after_and_context_and_ends(folder: Path) -> None:
    demo = Demo(folder)
    assert demo.process.wait(DEADLINE) == 0, demo.text()
    text = demo.text()
    for word in (
        "CREATE", "UPDATE", "DELETE", "before", "after", "context",
        "user_id 42", "user_id 7", "endpoint /todos/1", "method PUT", "request_id req-3",
        "task Write it up", "job cleanup", "captured, from the write-ahead log: 6 changes",
    ):  # fmt: skip
        assert word in text, text
    assert max(map(len, text.splitlines())) <= 100
    assert "\x1b" not in text
    demo.assert_nothing_is_left([])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_keep_stays_until_it_is_told_to_end(folder: Path, number: signal.Signals) -> None:
    demo = Demo(folder, "--keep")
    family = demo.becomes_ready()
    found = re.search(r"BEMI_SOURCE_URL=(\S+)", demo.text())
    assert found is not None
    with psycopg.connect(found[1], autocommit=True) as conn:
        conn.execute("insert into todo (task) values ('Look around')")

        def captured() -> bool:
            row = conn.execute(
                "select count(*) from bemi.changes where after ->> 'task' = 'Look around'"
            ).fetchone()
            return row == (1,)

        until(captured, DEADLINE, "what others write is captured too")
    demo.process.send_signal(number)
    assert demo.process.wait(DEADLINE) == 0, demo.text()
    demo.assert_nothing_is_left(family)
    assert "Traceback" not in demo.text()


def test_serve_shows_it_in_the_browser_until_it_is_told_to_end(folder: Path) -> None:
    demo = Demo(folder, "--serve")
    until(lambda: b"sign-in?link=" in demo.output.read_bytes(), DEADLINE, "it is served")
    found = re.search(r"(http://\S+)/sign-in\?link=(\S+)", demo.text())
    assert found is not None
    family = demo.family()
    with httpx.Client(base_url=found[1], headers={"Sec-Fetch-Site": "same-origin"}) as browser:
        assert browser.post("/sign-in", data={"link": found[2]}).status_code == 303
        page = browser.get("/", params={"trace": "req-3"}).text
        assert "changed" in page
        assert "Write it up" in browser.get("/record", params={"table": "todo", "key": "1"}).text
        plan = browser.post("/api/v1/reverts/plan", json={"trace": "req-4"}).json()
        assert [row["key"] for row in plan["rows"]] == ["2"]
    demo.process.send_signal(signal.SIGINT)
    assert demo.process.wait(DEADLINE) == 0, demo.text()
    demo.assert_nothing_is_left(family)
    assert "Traceback" not in demo.text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted_in_the_middle_it_leaves_nothing(folder: Path, number: signal.Signals) -> None:
    demo = Demo(folder)
    until(lambda: len(demo.family()) >= 2, DEADLINE, "PostgreSQL is starting")
    family = demo.family()
    demo.process.send_signal(number)
    code = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[number]
    assert demo.process.wait(DEADLINE) == code, demo.text()
    demo.assert_nothing_is_left(family)
    assert "Traceback" not in demo.text()


def test_killed_while_it_stays_up_its_worker_and_server_end_too(folder: Path) -> None:
    demo = Demo(folder, "--keep")
    family = demo.becomes_ready()
    demo.process.kill()
    demo.process.wait(DEADLINE)
    demo.assert_nothing_is_left(family)
