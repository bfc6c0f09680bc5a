"""A worker in a thread of the test, so that tests can shorten its waits and see its error."""

import threading
from types import TracebackType
from typing import Self

from bemi.capture import worker
from bemi.config import Settings
from tests.support.waiting import until


class Running:
    """Captures while it is entered. `error` is what ended it, if something did."""

    def __init__(self, settings: Settings, *, accept_gap: bool = False) -> None:
        self._stop = threading.Event()
        self.error: BaseException | None = None

        def run() -> None:
            try:
                worker.run(settings, stop=self._stop, accept_gap=accept_gap)
            except BaseException as error:  # noqa: BLE001 - the test looks at it
                self.error = error

        self._thread = threading.Thread(target=run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join(60)
        if error is None:
            assert not self._thread.is_alive(), "the worker does not end"

    def ends(self, seconds: float = 60.0) -> BaseException:
        """Waits until it ends by itself; its error."""
        until(lambda: not self._thread.is_alive(), seconds, "the worker ends")
        assert self.error is not None
        return self.error
