"""What the server may ask sources themselves, which whoever starts it gives to it: the read side
knows no capture."""

from collections.abc import Sequence
from typing import Protocol

from bemi.observed import Seen
from bemi.store.completeness import SourceCoverage
from bemi.store.reader import SourceStatus
from bemi.store.sources import Setup


class Connector(Protocol):
    """The sources of the server's own settings; see `bemi.capture.connector`."""

    @property
    def names(self) -> Sequence[str]: ...

    def look(self, source: SourceStatus, covered: SourceCoverage, setup: Setup | None) -> Seen: ...
