"""A PostgreSQL per test process, and fresh databases per test that leave nothing behind."""

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import hypothesis
import pytest

import bemi
from bemi.embedded import Server
from tests.support import databases, scratch
from tests.support.wal import Log

scratch.use_memory()

# A machine busy with other tests is no reason to fail. In CI the examples are always the same.
hypothesis.settings.register_profile("bemi", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("bemi")

# A shell that starts the tests in the background has Ctrl-C ignored, and what they start inherits
# that: then no test could interrupt it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

SETTINGS = {
    "max_replication_slots": "20",
    "max_wal_senders": "20",
    "max_prepared_transactions": "10",
    "max_connections": "100",
    # A restart with -m immediate loses nothing without it; only a crash of the machine would.
    "fsync": "off",
    # Nothing is torn either. Each dropped database costs a checkpoint, which whole pages follow.
    "full_page_writes": "off",
}


class MakeDatabase(Protocol):
    def __call__(
        self,
        name: str | None = None,
        *,
        encoding: str | None = None,
        locale: str | None = None,
        template: str | None = None,
    ) -> str: ...


@pytest.fixture(scope="session")
def postgres_bin() -> Path | None:
    """The PostgreSQL programs to test with; None is the embedded ones."""
    folder = os.environ.get("BEMI_TEST_PG_BIN")
    return Path(folder) if folder else None


@pytest.fixture(scope="session")
def server(postgres_bin: Path | None) -> Iterator[Server]:
    """One PostgreSQL for all tests of this process. Who breaks things starts a Server of its own;
    a restart, on the same port, is fine."""
    with Server(settings=SETTINGS, bin=postgres_bin) as running:
        databases.connect_quickly(running)
        yield running


@pytest.fixture
def make_database(server: Server) -> Iterator[MakeDatabase]:
    """Makes databases that are dropped after the test, with their replication slots."""
    made: list[str] = []

    def make(
        name: str | None = None,
        *,
        encoding: str | None = None,
        locale: str | None = None,
        template: str | None = None,
    ) -> str:
        name = name or databases.unused_name()
        url = server.create_database(name, encoding=encoding, locale=locale, template=template)
        made.append(name)
        return url

    yield make
    server.start()
    for name in reversed(made):
        databases.drop(server, name)


@pytest.fixture
def source_url(make_database: MakeDatabase) -> str:
    return make_database(databases.unused_name("source"))


@pytest.fixture
def destination_url(make_database: MakeDatabase) -> str:
    return make_database(databases.unused_name("destination"))


@pytest.fixture(scope="module")
def log_url(server: Server) -> Iterator[str]:
    """One database for all tests of a module that use `log`: to make one takes longer than most of
    them do."""
    name = databases.unused_name("log")
    yield server.create_database(name)
    server.start()
    databases.drop(server, name)


@pytest.fixture
def log(log_url: str) -> Iterator[Log]:
    """A database with nothing but the table `todo`, and what is in its log; without a context at
    first."""
    bemi.clear_context()
    made = Log(log_url)
    yield made
    made.clear()
    made.close()
    bemi.clear_context()


@pytest.fixture
def seed() -> int:
    """What the randomness of a test starts from; printed, and set by BEMI_TEST_SEED. In CI it is
    always the same, as Hypothesis's examples are: there a change is judged, not a throw of dice."""
    given = os.environ.get("BEMI_TEST_SEED")
    seed = int(given) if given else 1 if "CI" in os.environ else random.randrange(10**6)
    print(f"BEMI_TEST_SEED={seed}")
    return seed
