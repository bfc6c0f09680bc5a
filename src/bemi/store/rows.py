"""What the encoder and the sink agree on: the columns of COPY's rows, and how ids are built."""

from datetime import UTC, datetime
from typing import Final

from bemi.errors import SetupError
from bemi.lsn import Lsn

COPY_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_TRAILER: Final = b"\xff\xff"

CHANGE_COLUMNS: Final = (
    "committed_at",
    "commit_position",
    "position",
    "context_id",
    "id",
    "ordinal",
    "epoch",
    "operation",
    "relation",
    "schema",
    "table",
    "primary_key",
    "previous_key",
    "flags",
    "after",
    "changed",
    "before",
)
STRETCH_COLUMNS: Final = (
    "id",
    "transaction_id",
    "queued_at",
    "context",
    "dropped",
    "raw",
    "rules",
)

DAY: Final = 86_400_000_000
"""Microseconds."""

DAY_BITS: Final = 44
"""Bits of a context's id behind those of its day."""

_FIRST_DAY: Final = datetime(2000, 1, 1, tzinfo=UTC)
_MAX_DAY: Final = 1 << 19  # what a bigint has room for above these bits

TAIL_BITS: Final = 58
"""Bits of a change's id that tell the changes of one transaction apart."""


_BASELINE: Final = 1 << 31
_COUNTER_MASK: Final = _BASELINE - 1


def context_id(committed_at: int, source_id: int, counter: int) -> int:
    """The id of the context numbered `counter`; unique per source for 2^31 contexts a day.

    It has the day of the commit, counted from 2000-01-01 UTC, in its leading bits, so that
    contexts are partitioned by time as their changes are, though a join needs the id alone;
    then 12 bits of source and 32 of counter. Raises `SetupError` for a day that has no room
    there: from the year 3435 on.
    """
    return _context_id(committed_at, source_id, counter & _COUNTER_MASK)


def baseline_context_id(committed_at: int, source_id: int, chunk: int) -> int:
    """As `context_id`, for a baseline's chunk: counted apart from what the worker counts."""
    return _context_id(committed_at, source_id, chunk & _COUNTER_MASK | _BASELINE)


def _context_id(committed_at: int, source_id: int, counter: int) -> int:
    day = committed_at // DAY
    if not -_MAX_DAY <= day < _MAX_DAY:
        raise SetupError(
            f"a transaction was committed in {2000 + day // 365.2425:.0f} by the source's clock; "
            "the history goes to the year 3435",
            fix="set the source's clock, then `bemi recover --new-slot` begins after it",
        )
    return day << DAY_BITS | source_id << 32 | counter


def context_day(at: datetime) -> int:
    """What the ids of contexts begin with whose changes were committed on that day; of a day which
    no context can be of, the one next to it."""
    return min(max((at - _FIRST_DAY).days, -_MAX_DAY), _MAX_DAY - 1)


def commit_lsn_of(change_id: int) -> Lsn:
    """The commit LSN in the leading bits of a change's id."""
    return Lsn((change_id >> 80) << 16 | (change_id >> 64 & 0xFFF) << 4 | change_id >> 58 & 0xF)
