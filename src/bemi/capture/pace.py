"""How fast a baseline reads, so that the source has time for others."""

import time

import msgspec

from bemi.capture.look import Limits


class Pace(msgspec.Struct, frozen=True):
    """How fast rows are read; `rate`: rows per second at most."""

    limits: Limits = Limits()
    rate: int | None = None

    @property
    def chunk(self) -> Limits:
        """Of one chunk, which is not to have the rows of more than a second."""
        if self.rate is None:
            return self.limits
        return msgspec.structs.replace(self.limits, rows=min(self.limits.rows, self.rate))

    def pause(self, began: float, rows: int) -> float:
        """Seconds to wait behind `rows` that were read since `began`, on the monotonic clock."""
        return 0.0 if self.rate is None else max(0.0, began + rows / self.rate - time.monotonic())
