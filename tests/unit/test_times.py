"""Times that people type: what is clear is exact, what is not is refused."""

import contextlib
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bemi import times

NOW = datetime(2026, 5, 3, 14, 2, 7, 250_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("now", "2026-05-03 14:02:07.25 UTC"),
        ("15m", "2026-05-03 13:47:07.25 UTC"),
        ("2h30m", "2026-05-03 11:32:07.25 UTC"),
        ("3d ago", "2026-04-30 14:02:07.25 UTC"),
        ("1w 2d", "2026-04-24 14:02:07.25 UTC"),
        ("90s", "2026-05-03 14:00:37.25 UTC"),
        ("today", "2026-05-03 00:00:00 UTC"),
        ("Today 09:30", "2026-05-03 09:30:00 UTC"),
        ("yesterday", "2026-05-02 00:00:00 UTC"),
        ("yesterday 23:59:59.5", "2026-05-02 23:59:59.5 UTC"),
        ("yesterday 14:30 +02:00", "2026-05-02 12:30:00 UTC"),
        ("2026-05-01", "2026-05-01 00:00:00 UTC"),
        ("2026-05-01 12:00", "2026-05-01 12:00:00 UTC"),
        ("2026-05-01T12:00:07.123456Z", "2026-05-01 12:00:07.123456 UTC"),
        ("2026-05-01 12:00:00 UTC", "2026-05-01 12:00:00 UTC"),
        ("2026-05-01T12:00-0530", "2026-05-01 17:30:00 UTC"),
        ("2026-05-01T12:00+02", "2026-05-01 10:00:00 UTC"),
        (" 15m ", "2026-05-03 13:47:07.25 UTC"),
    ],
)
def test_what_is_clear_is_exact(text: str, moment: str) -> None:
    assert times.spell(times.parse(text, now=NOW)) == moment


@pytest.mark.parametrize(
    "text",
    [
        "", "9", "may", "03/05/2026", "2026-5-3", "20260503", "tomorrow", "1y", "1.5h", "-1h",
        "1h 2h", "30m 2h", "2026-02-30", "2026-05-03 25:00", "2026-05-03T14", "yesterday 9:30",
        "2026-05-03 14:02 CET", "2026-05-03 14:02+16", "9999999d", "999999w", "last week",
        "2026-W18", "15m15m", "now now",
    ],
)  # fmt: skip
def test_what_is_not_clear_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="time"):
        times.parse(text, now=NOW)


def test_the_refusal_gives_examples() -> None:
    with pytest.raises(ValueError, match="yesterday 14:30"):
        times.parse("last week", now=NOW)


def test_the_clock_may_be_in_any_zone() -> None:
    # 23:30 on 3 May in UTC, already 4 May where the clock is.
    clock = datetime(2026, 5, 4, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    assert times.spell(times.parse("today", now=clock)) == "2026-05-03 00:00:00 UTC"


@given(st.datetimes(timezones=st.just(UTC)))
def test_what_is_shown_can_be_typed_again(moment: datetime) -> None:
    assert times.parse(times.spell(moment), now=NOW) == moment


@given(st.text(alphabet="0123456789-:T +Zsmhd.aygotdnw", max_size=30))
def test_nothing_but_a_time_or_a_refusal_comes_out(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert times.parse(text, now=NOW).tzinfo is UTC
