"""What the tests of the whole capture path share."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import psycopg
import pytest

from tests.conftest import MakeDatabase
from tests.support import databases
from tests.support.tracked import Tracked
from tests.support.tracking import track


class Track(Protocol):
    def __call__(
        self,
        *statements: str,
        full: Sequence[str] = (),
        schemas: Sequence[str] = ("*",),
        encoding: str | None = None,
        locale: str | None = None,
    ) -> Tracked: ...


@pytest.fixture
def tracked(make_database: MakeDatabase) -> Iterator[Track]:
    """Runs `statements` in a new source, which is then tracked into a new destination.

    `full`: globs of tables to set to REPLICA IDENTITY FULL.
    """
    closing: list[Callable[[], None]] = []

    def make(
        *statements: str,
        full: Sequence[str] = (),
        schemas: Sequence[str] = ("*",),
        encoding: str | None = None,
        locale: str | None = None,
    ) -> Tracked:
        source_url = make_database(
            databases.unused_name("source"), encoding=encoding, locale=locale
        )
        with psycopg.connect(source_url, autocommit=True, client_encoding="utf-8") as source:
            for statement in statements:
                source.execute(statement.encode())
        destination_url = make_database(databases.unused_name("destination"))
        found = Tracked(track(source_url, destination_url, schemas=schemas, full=full))
        closing.append(found.close)
        return found

    yield make
    for close in closing:
        close()
