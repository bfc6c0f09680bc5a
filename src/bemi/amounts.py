"""Amounts as people read them. Pure."""


def count(number: int, noun: str) -> str:
    """`1 gap`, `2 gaps`."""
    return f"{number:,} {noun if number == 1 else noun + 's'}"


def size(number: float) -> str:
    """Bytes: `512 B`, `1.5 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(number) < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def span(seconds: float) -> str:
    """A time: `0.4 s`, `12 s`, `5 min`, `3 h`, `2 days`."""
    if seconds < 1:
        return f"{seconds:.1f} s"
    for limit, unit, divisor in ((90, "s", 1), (5400, "min", 60), (129_600, "h", 3600)):
        if seconds < limit:
            return f"{seconds / divisor:.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"
