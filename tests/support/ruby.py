"""The gem of packages/ruby, and the Ruby that runs it."""

import functools
import subprocess
from pathlib import Path

from tests.support import programs
from tests.support.parts import missing, require

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "packages" / "ruby"
run = functools.partial(programs.run, cwd=PACKAGE)
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
