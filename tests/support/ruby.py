"""The gem of packages/ruby, and the Ruby that runs it."""

import functools
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.support.parts import missing, require

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "packages" / "ruby"
LIBRARIES = ("active_record", "pg", "rails", "rspec", "sequel", "sidekiq")
"""What the gem is tested with: Debian has them as ruby-NAME."""


def ruby() -> str:
    """Its path. Skips the test where there is no Ruby, or one of the libraries is missing."""
    path = require("ruby")
    for name in _missing_libraries(path):
        missing(f"the Ruby library {name}")
    return path


@functools.cache
def _missing_libraries(path: str) -> tuple[str, ...]:
    program = "ARGV.each { |name| begin; require name; rescue LoadError; puts name; end }"
    found = subprocess.run(
        [path, "-e", program, *LIBRARIES], capture_output=True, text=True, check=True
    )
    return tuple(found.stdout.split())


def run(
    command: Sequence[str],
    *,
    cwd: Path = PACKAGE,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """What a command says; the test fails where the command does."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.fail(f"{' '.join(map(str, command))}\n{done.stdout}", pytrace=False)
    return done.stdout
