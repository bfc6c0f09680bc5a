"""What the tests of the whole capture path share."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import psycopg
import pytest

from bemi.capture.catalog import Catalog
from bemi.capture.messages import Relation
from bemi.change import Table
from bemi.embedded import Server
from bemi.store.migrate import migrate
from tests.conftest import MakeDatabase
from tests.support import databases
from tests.support.asked import Asked
from tests.support.covered import Cover, Covered
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


@pytest.fixture(scope="session")
def empty_history(server: Server) -> str:
    """A database with the schema of a history, to make others from: `bemi init` finds its work
    done by half."""
    name = databases.unused_name("history")
    with psycopg.connect(server.create_database(name)) as conn:
        migrate(conn, "bemi")
    return name


@pytest.fixture
def tracked(make_database: MakeDatabase, empty_history: str) -> Iterator[Track]:
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
        destination_url = make_database(
            databases.unused_name("destination"), template=empty_history
        )
        found = Tracked(track(source_url, destination_url, schemas=schemas, full=full))
        closing.append(found.close)
        return found

    yield make
    for close in closing:
        close()


@pytest.fixture
def asked(
    tracked: Track, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Asked]:
    """The table `todo`, with whole old rows in the log."""
    table = "create table todo (id int primary key, task text, price numeric, data jsonb)"
    made = Asked(tracked(table, full=("public.todo",)), capfdbinary, monkeypatch)
    yield made
    made.close()


@pytest.fixture
def source_and_destination(make_database: MakeDatabase, empty_history: str) -> tuple[str, str]:
    return make_database(), make_database(template=empty_history)


@pytest.fixture
def cover(source_and_destination: tuple[str, str]) -> Iterator[Cover]:
    """Runs `statements` in the source, which is then tracked; `full` as for `track`."""
    with contextlib.ExitStack() as closing:

        def cover(*statements: str, full: Sequence[str] = ()) -> Covered:
            with psycopg.connect(source_and_destination[0], autocommit=True) as conn:
                for statement in statements:
                    conn.execute(statement.encode())
            found = Covered(track(*source_and_destination, schemas=["public"], full=full))
            closing.callback(found.close)
            return found

        yield cover


@pytest.fixture
def others_write(
    source_and_destination: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[], None]:
    """Lets the source's log go on between two readings of its catalog."""
    described = Catalog.describe

    def describe(catalog: Catalog, relation: Relation) -> Table:
        with psycopg.connect(source_and_destination[0], autocommit=True) as conn:
            conn.execute("select pg_logical_emit_message(false, 'others', 'x')")
        return described(catalog, relation)

    return lambda: monkeypatch.setattr(Catalog, "describe", describe)
