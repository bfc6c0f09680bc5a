"""Databases for whole runs of Bemi, on a server that also tells when each transaction committed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bemi.embedded import Server
from tests.conftest import SETTINGS as COMMON
from tests.support import databases

SETTINGS = {
    **COMMON,
    "track_commit_timestamp": "on",
    # The workload's clients meet in the same rows.
    "deadlock_timeout": "100ms",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
}


@pytest.fixture(scope="session")
def server(postgres_bin: Path | None) -> Iterator[Server]:
    """One PostgreSQL for these tests of this process."""
    with Server(settings=SETTINGS, bin=postgres_bin) as running:
        databases.connect_quickly(running)
        yield running
