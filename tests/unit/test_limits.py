"""How often somebody may ask."""

from contextlib import suppress

from limits import RateLimitItemPerSecond

from bemi.api.limits import Limits
from bemi.api.problems import TooManyError
from tests.support.waiting import until


def test_who_asked_once_is_forgotten() -> None:
    """Else whoever has many addresses fills the memory."""
    limits = Limits(refused=RateLimitItemPerSecond(1))
    for number in range(1000):
        limits.failed(f"2001:db8::{number:x}")

    def forgotten() -> bool:
        with suppress(TooManyError):
            limits.failed("192.0.2.1")
        return limits.counted <= 1

    until(forgotten, 20, "the others are forgotten")
    assert limits.counted <= 1
