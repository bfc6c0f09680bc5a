"""Turns the times that people type into instants: a strict, small grammar, and no guessing.

    now · today · yesterday · today 09:30 · 15m · 2h30m · 3d ago · 2026-05-03 · 2026-05-03 14:02Z

Pure: the clock is handed in. A time without an offset is in UTC, as everything that is shown.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

EXAMPLES: Final = "15m, 2h, 3d, today, yesterday 14:30, 2026-05-03, 2026-05-03T14:02:07+02:00"

_CLOCK: Final = r"(?P<hour>\d\d):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:\.(?P<fraction>\d{1,6}))?)?"
_OFFSET: Final = r"\s?(?P<zone>Z|UTC|(?P<sign>[+-])(?P<hours>\d\d)(?::?(?P<minutes>\d\d))?)"
_DAY: Final = re.compile(rf"(?P<day>today|yesterday)(?:\s+{_CLOCK}(?:{_OFFSET})?)?", re.IGNORECASE)
_DATE: Final = re.compile(
    rf"(?P<date>\d{{4}}-\d\d-\d\d)(?:[T\s]{_CLOCK}(?:{_OFFSET})?)?", re.IGNORECASE
)
_AGO: Final = re.compile(r"(?P<parts>\d{1,6}[smhdw](?:\s?\d{1,6}[smhdw])*)(?:\s+ago)?")
_PART: Final = re.compile(r"(\d+)([smhdw])")
_UNITS: Final = {
    "w": timedelta(weeks=1),
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
}


def parse(text: str, *, now: datetime) -> datetime:
    """The instant that `text` means, in UTC. `now` is aware.

    A duration counts back from now; a date alone is its first moment. Raises ValueError, with
    examples, for everything else.
    """
    now = now.astimezone(UTC)
    words = text.strip()
    try:
        if words.lower() == "now":
            return now
        if match := _AGO.fullmatch(words):
            return now - _duration(match["parts"])
        if match := _DAY.fullmatch(words):
            today = now.replace(hour=0, minute=0, second=0, microsecond=0)
            back = timedelta(days=1 if match["day"].lower() == "yesterday" else 0)
            return _at(today - back, match)
        if match := _DATE.fullmatch(words):
            return _at(datetime.fromisoformat(match["date"]).replace(tzinfo=UTC), match)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{text!r} is no time: {error}") from error
    raise ValueError(f"{text!r} is not a time that can be understood; write one like {EXAMPLES}")


def spell(moment: datetime) -> str:
    """An instant as people read it, exact to what it has: `2026-05-03 14:02:07.25 UTC`."""
    moment = moment.astimezone(UTC)
    fraction = f".{moment.microsecond:06}".rstrip("0") if moment.microsecond else ""
    # isoformat, since strftime does not pad years everywhere
    return f"{moment.replace(microsecond=0, tzinfo=None).isoformat(' ')}{fraction} UTC"


def _duration(parts: str) -> timedelta:
    found = _PART.findall(parts)
    order = [list(_UNITS).index(unit) for _, unit in found]
    if order != sorted(set(order)):
        raise ValueError("units go from the largest to the smallest, each once, as in 2d4h")
    return sum((int(count) * _UNITS[unit] for count, unit in found), timedelta())


def _at(midnight: datetime, match: re.Match[str]) -> datetime:
    if match["hour"] is None:
        return midnight
    moment = midnight.replace(
        hour=int(match["hour"]),
        minute=int(match["minute"]),
        second=int(match["second"] or 0),
        microsecond=int((match["fraction"] or "0").ljust(6, "0")),
    )
    if match["sign"] is None:
        return moment
    hours, minutes = int(match["hours"]), int(match["minutes"] or 0)
    # PostgreSQL's own bounds. https://www.postgresql.org/docs/current/datatype-datetime.html
    if hours > 15 or minutes > 59:
        raise ValueError("its offset is not between -15:59 and +15:59")
    offset = timedelta(hours=hours, minutes=minutes)
    return moment - offset if match["sign"] == "+" else moment + offset
