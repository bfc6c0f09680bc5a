"""Values of a context that are found out only when something is written."""

from collections.abc import Callable


class Lazy:
    """A function that is called once, when its value is first wanted."""

    __slots__ = ("_asked", "_function", "_known", "_value")

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function
        self._known = self._asked = False
        self._value: object = None

    def __call__(self) -> object:
        """Raises what the function raises, and RuntimeError where it needs the value itself."""
        if not self._known:
            if self._asked:
                raise RuntimeError("a value of the context is found out by writing with it")
            self._asked = True
            try:
                self._value, self._known = self._function(), True
            finally:
                self._asked = False
        return self._value
