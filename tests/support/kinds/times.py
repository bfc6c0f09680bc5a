"""Dates, times and intervals."""

from datetime import timedelta, timezone
from typing import Final

from hypothesis import strategies as st

from tests.support.kinds.kind import Kind

_DATES: Final = (
    "4713-01-01 BC",
    "5874897-12-31",
    "infinity",
    "-infinity",
    "0044-03-15 BC",
    "0001-01-01",
    "9999-12-31",
    "10000-01-01",
    "2000-02-29",
)
_MOMENTS: Final = (
    "4713-01-01 00:00:00 BC",
    "294276-12-31 23:59:59.999999",
    "infinity",
    "-infinity",
    "0044-03-15 12:00:00.5 BC",
    "0001-01-01 00:00:00",
    "10000-01-01 00:00:00.000001",
    "1999-12-31 23:59:60",
    "2000-02-29 24:00:00",
)
_ZONED: Final = (
    *(moment if "infinity" in moment else f"{moment}+00" for moment in _MOMENTS[1:4]),
    *(f"{moment}+00" for moment in _MOMENTS[5:]),
    "4713-01-01 00:00:00+00 BC",
    "2020-03-29 02:30:00 Europe/Berlin",
    "2020-10-25 02:30:00+01",
    "1890-01-01 00:00:00 Europe/Amsterdam",
    "2020-01-01 00:00:00-15:59:59",
    "2020-01-01 00:00:00+15:59:59",
)
_OFFSETS: Final = st.integers(-15 * 60, 15 * 60).map(
    lambda minutes: timezone(timedelta(minutes=minutes))
)
_INTERVALS: Final = (
    "0",
    "178000000 years",
    "-178000000 years",
    "-178000000 years 11 mons 2147483647 days 2147483647:59:59.999999",
    "1 mon -1 day",
    "-1 mon +1 day -00:00:00.000001",
    "-1 years -2 mons +3 days -04:05:06.7",
    "2147483647 days",
    "-2147483648 days",
    "2147483647:59:59.999999",
    "-2147483647:59:59.999999",
    "-00:00:01",
    "24:00:00",
    "1 day 24:00:00",
)


def _clock(microseconds: int) -> str:
    seconds, rest = divmod(abs(microseconds), 10**6)
    sign = "-" if microseconds < 0 else ""
    return f"{sign}{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}.{rest:06}"


TIMES: Final = (
    Kind("date", "date", _DATES, st.dates().map(str)),
    Kind(
        "time",
        "time",
        ("00:00", "24:00", "23:59:59.999999", "23:59:60", "00:00:00.000001"),
        st.times().map(str),
    ),
    Kind("time(0)", "time(0)", ("23:59:59.999999", "00:00"), st.times().map(str)),
    Kind(
        "timetz",
        "timetz",
        ("24:00:00-15:59", "00:00:00+15:59:59", "23:59:59.999999+00", "00:00:00-04"),
        st.times(timezones=_OFFSETS).map(str),
    ),
    Kind("timestamp", "timestamp", _MOMENTS, st.datetimes().map(str)),
    Kind("timestamp(2)", "timestamp(2)", _MOMENTS[2:6], st.datetimes().map(str)),
    Kind("timestamptz", "timestamptz", _ZONED, st.datetimes(timezones=_OFFSETS).map(str)),
    Kind(
        "interval",
        "interval",
        _INTERVALS,
        st.builds(
            "{} mons {} days {}".format,
            st.integers(-(1 << 31), (1 << 31) - 1),
            st.integers(-(1 << 31), (1 << 31) - 1),
            st.integers(-(1 << 62), 1 << 62).map(_clock),
        ),
    ),
    # PostgreSQL 14 writes such long ones, but does not read them.
    Kind(
        "interval beyond 2^31 h",
        "interval",
        ("2562047788:00:54.775807", "-2562047788:00:54.775807"),
        st.integers(1 << 62, (1 << 63) - 1).map(_clock),
        since=15,
    ),
    Kind(
        "infinite interval",
        "interval",
        ("infinity", "-infinity"),
        st.sampled_from(["infinity", "-infinity"]),
        since=17,
    ),
    Kind(
        "interval day to second(3)",
        "interval day to second(3)",
        ("1 day", "-1 day +00:00:01.5"),
        st.integers(-(1 << 40), 1 << 40).map(_clock),
    ),
)
