"""Values of a context that are found out only when something is written."""

import threading
from collections.abc import Callable


class Lazy:
    """A function that is called once, when its value is first wanted, by whichever thread.

    `settles`: None is an answer too; otherwise it is asked again.
    """

    __slots__ = ("_asked", "_function", "_known", "_lock", "_settles", "_value")

    def __init__(self, function: Callable[[], object], *, settles: bool = True) -> None:
        self._function = function
        self._settles = settles
        self._lock = threading.RLock()
        self._known = self._asked = False
        self._value: object = None

    def __call__(self) -> object:
        """Raises what the function raises, and RuntimeError where it needs the value itself."""
        if self._known:
            return self._value
        with self._lock:
            if self._asked:
                raise RuntimeError("a value of the context is found out by writing with it")
            if not self._known:
                self._asked = True
                try:
                    self._value = self._function()
                    self._known = self._settles or self._value is not None
                finally:
                    self._asked = False
            return self._value
