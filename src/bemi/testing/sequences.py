"""Where the sequences of a database stand, and setting them back: no transaction and no log does.

https://www.postgresql.org/docs/current/functions-sequence.html
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from bemi.connections import explained
from bemi.testing.session import Session

# As far as the role may see. Not those of the history, which goes on.
_POSITIONS: Final = """
select format('%%I.%%I', schemaname, sequencename), last_value, start_value from pg_sequences
where schemaname <> %s
"""


class Position(msgspec.Struct, frozen=True):
    """`last`: the value that was given out last; None where there was none yet."""

    last: int | None
    start: int


def positions(session: Session) -> dict[str, Position]:
    """By the sequences' quoted names."""
    with explained("source"):
        rows = session.source.execute(_POSITIONS, [session.schema]).fetchall()
    return {name: Position(last, start) for name, last, start in rows}


def moved(was: Mapping[str, Position], now: Mapping[str, Position]) -> list[str]:
    return sorted(name for name, each in now.items() if name in was and each != was[name])


def reset(session: Session, names: list[str], was: Mapping[str, Position]) -> None:
    """Put these where they were."""
    with explained("source"):
        for name in names:
            each = was[name]
            last, called = (each.start, False) if each.last is None else (each.last, True)
            session.source.execute("select setval(%s::regclass, %s, %s)", [name, last, called])
