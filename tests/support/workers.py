"""A worker as operators run it: a process of its own, with its log, to be killed at any moment."""

import importlib.util
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from bemi.config import Settings
from tests.support.tracking import environment
from tests.support.waiting import until

_READY = "capturing"


def _command(broken: str | None) -> list[str]:
    if broken is None and importlib.util.find_spec("bemi.__main__") is not None:
        return ["-m", "bemi", "run"]
    return ["-m", "tests.support.broken_workers", broken or "none"]


class Worker:
    """`bemi run`. `broken` names one of `broken_workers` to run in its place.

    The log goes on from one start to the next; `with` ends the process whatever happens.
    """

    def __init__(
        self, settings: Settings, folder: Path, *arguments: str, broken: str | None = None
    ) -> None:
        self.settings = settings
        self._folder = folder
        self._command = [sys.executable, *_command(broken), *arguments]
        self._log = folder / f"worker-{len(list(folder.glob('worker-*')))}.log"
        self._log.touch()
        self._log_start = 0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self if self._process is not None else self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    def start(self) -> Self:
        assert self._process is None
        self._log_start = self._log.stat().st_size
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment(),
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return self

    def _environment(self) -> dict[str, str]:
        return environment(self.settings)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """What it wrote since it was started last."""
        with self._log.open("rb") as file:
            file.seek(self._log_start)
            return file.read().decode(errors="replace")

    def says(self, pattern: str, seconds: float = 60.0) -> None:
        """Wait until its log has the pattern."""
        until(
            lambda: re.search(pattern, self.log) or not self.running,
            seconds,
            f"the worker says {pattern!r}",
        )
        assert re.search(pattern, self.log), f"the worker ended without it:\n{self.log}"

    def ready(self) -> Self:
        """Wait until it streams."""
        self.says(_READY)
        return self

    @property
    def is_ready(self) -> bool:
        return _READY in self.log

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL: nothing of it runs any more when this returns."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def stop(self) -> int:
        """SIGTERM, as service managers do; its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(30)

    def wait(self, seconds: float = 60.0) -> int:
        """Wait until it ends by itself; its exit code."""
        process, self._process = self._process, None
        assert process is not None
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"the worker did not end:\n{self.log}") from None

    def peak_memory(self) -> int:
        """Bytes that it held at most so far (Linux only; 0 elsewhere)."""
        status = Path(f"/proc/{self.pid}/status")
        if not status.exists():
            return 0
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="ascii"))
        assert found is not None
        return int(found[1]) * 1024


def catch_up(settings: Settings, folder: Path, *arguments: str, seconds: float = 100.0) -> None:
    """Run a worker until all that was committed by now is in the history."""
    worker = Worker(settings, folder, "--until-caught-up", *arguments).start()
    code = worker.wait(seconds)
    assert code == 0, worker.log
