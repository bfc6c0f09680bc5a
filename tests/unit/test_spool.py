"""Two states beside each other, on disk."""

import resource

import msgspec
import pytest

from bemi.errors import BemiError
from bemi.history.spool import Spool
from bemi.history.state import StateRow


def test_a_full_disk_is_told() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    image = msgspec.Raw(b'{"a": "' + b"x" * 10_000 + b'"}')
    rows = (StateRow(str(n), image, frozenset()) for n in range(2_000))
    with Spool() as spool:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
        try:
            with pytest.raises(BemiError, match="temporary file"):
                spool.before(rows)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
