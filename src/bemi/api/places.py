"""What only some may do at once, and of those each only some: nobody takes all places, and who gets
none is told to come back, and waits in nobody's memory."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from bemi.api.problems import BusyError


class Places:
    """`most` in all, `most_of_one` of one person or program, of `what`, as in `exports`."""

    def __init__(self, what: str, most: int, most_of_one: int) -> None:
        self._what = what
        self.most = most
        self.most_of_one = most_of_one
        self._taken: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def taken(self) -> int:
        return self._taken.total()

    def take(self, owner: str) -> None:
        """To be given back. Raises `BusyError`."""
        with self._lock:
            if self._taken[owner] >= self.most_of_one:
                raise BusyError(
                    f"you have {self.most_of_one} {self._what} at once already",
                    fix="wait until one has ended",
                )
            if self.taken >= self.most:
                raise BusyError(
                    f"there are as many {self._what} at once as there may be",
                    fix="try again when one has ended",
                )
            self._taken[owner] += 1

    def give_back(self, owner: str) -> None:
        with self._lock:
            self._taken[owner] -= 1
            self._taken += Counter()  # forgets who has none

    @contextmanager
    def held(self, owner: str) -> Iterator[None]:
        """Raises `BusyError`."""
        self.take(owner)
        try:
            yield
        finally:
            self.give_back(owner)
