"""What leaving a source costs, and until when a worker has left it: its slot."""

import contextlib
import time
from typing import TYPE_CHECKING, Final

from bemi.config import Settings
from bemi.errors import BemiError

if TYPE_CHECKING:
    from bemi.capture.progress import Report
    from bemi.capture.slot import Slot
    from bemi.store.sources import StoredSource

_LEAVING: Final = 60.0
"""Seconds that a worker may take to let a removed source go; it stores what it has read first."""
_PAUSE: Final = 0.2


def slot_of(settings: Settings | None, stored: "StoredSource") -> "Slot | None":
    from bemi.capture import slot
    from bemi.connections import connect

    if settings is None or settings.slot != stored.slot:
        return None
    with contextlib.suppress(BemiError):
        with connect(settings.source_url, what="source") as conn:
            return slot.read(conn, settings.slot)
    return None


def price(slot: "Slot | None") -> str:
    from bemi.cli import output

    if slot is None or slot.retained is None:
        return "meanwhile its slot keeps the source's WAL: watch the room on its disk"
    kept = f"its slot keeps {output.size(slot.retained)} of WAL on the source's disk"
    if slot.safe_wal_size is None:
        return f"{kept}, and all that is written from now on: without a limit, the disk fills up"
    return f"{kept}, and is lost after {output.size(slot.safe_wal_size)} more"


def wait_until_left(settings: Settings, report: "Report") -> None:
    """Until the worker has let the slot go, as it does by itself; others make `teardown` fail."""
    from bemi.capture import slot
    from bemi.connections import connect

    until = time.monotonic() + _LEAVING
    told = False
    with connect(settings.source_url, what="source") as conn:
        while time.monotonic() < until:
            found = slot.read(conn, settings.slot)
            if found is None or found.active_pid is None:
                return
            if not told:
                report("waiting for the worker to let it go")
                told = True
            time.sleep(_PAUSE)
