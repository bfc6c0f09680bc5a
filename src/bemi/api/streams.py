"""The live streams that are open: each has a thread and a connection, so they have an end."""

import threading
from typing import Final

import anyio
from prometheus_client import Gauge

from bemi.api.places import Places
from bemi.api.problems import BusyError
from bemi.history.feed import Feed

MOST: Final = 50
MOST_OF_ONE: Final = 20


class Streams:
    def __init__(self, gauge: Gauge) -> None:
        gauge.set_function(lambda: self.places.taken)
        self.places = Places("streams", MOST, MOST_OF_ONE)
        self.threads = anyio.CapacityLimiter(MOST)
        """Of their own: who only waits must not keep others from asking."""
        self._open: dict[Feed, str] = {}
        self._closed = False
        self._lock = threading.Lock()

    def reserve(self, owner: str) -> None:
        """A place for one. Raises `BusyError`."""
        if self._closed:
            raise BusyError("the server is about to end", fix="come back in a moment")
        self.places.take(owner)

    def add(self, feed: Feed, owner: str) -> None:
        with self._lock:
            self._open[feed] = owner
            closed = self._closed
        if closed:
            feed.close()

    def drop(self, feed: Feed) -> None:
        with self._lock:
            owner = self._open.pop(feed)
        feed.close()
        self.places.give_back(owner)

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        """Ends all of them, from a signal's handler too: whoever listened comes again elsewhere."""
        self._closed = True
        for feed in list(self._open):
            feed.close()
