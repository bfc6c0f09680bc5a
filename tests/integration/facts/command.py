"""The command line as people call it."""

import subprocess
import sys

from bemi.config import Settings
from tests.support.tracking import environment


def bemi(settings: Settings, *arguments: str) -> str:
    """What `bemi …` prints; it must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", "bemi", *arguments],
        env=environment(settings),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
