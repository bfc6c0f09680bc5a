"""A worker as people run it: in a process of its own."""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from bemi.config import Settings


@contextlib.contextmanager
def running(settings: Settings) -> Iterator[int]:
    """`bemi run` until the block ends; its process id."""
    environment = {
        **os.environ,
        "BEMI_SOURCE_URL": settings.source_url,
        "BEMI_DESTINATION_URL": settings.destination_url,
        "BEMI_SOURCE": settings.source,
        "BEMI_SCHEMA": settings.schema,
        "BEMI_SLOT": settings.slot,
    }
    command = [sys.executable, "-m", "bemi", "run", "--log-format", "json"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            yield process.pid
        finally:
            process.terminate()
            process.wait(30)


def peak_memory(pid: int) -> float:
    """The most that was resident, in MB; 0 where the system does not tell (not Linux)."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except FileNotFoundError:
        return 0.0
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0
