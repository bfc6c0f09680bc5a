"""Waiting for a condition with a deadline: the only way that tests wait."""

import time
from collections.abc import Callable
from typing import TypeVar

Seen = TypeVar("Seen")

# Short against what is waited for, long against what asking costs.
PAUSE = 0.02


def until(predicate: Callable[[], Seen], seconds: float, what: str) -> Seen:
    """Asks until the answer is true, and returns that answer; fails the test after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (seen := predicate()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(PAUSE)
    return seen
