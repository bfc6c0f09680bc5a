"""Parts that pip can't install: tests that need one are skipped by its name where it is missing."""

import os
import shutil
from typing import NoReturn

import pytest


def require(name: str) -> str:
    """The path of a program, such as pgbouncer. Skips the test without it."""
    path = shutil.which(name)
    if path is None:
        missing(name)
    return path


def missing(name: str) -> NoReturn:
    """Skips the test; where BEMI_REQUIRE_ALL is set, as in CI, which installs all, it fails."""
    message = f"{name} is not installed on this machine"
    if os.environ.get("BEMI_REQUIRE_ALL"):
        pytest.fail(f"{message}, and BEMI_REQUIRE_ALL is set", pytrace=False)
    pytest.skip(message)
