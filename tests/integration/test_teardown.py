"""`teardown`: the source is as before `init`, and the history goes only when asked."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from bemi.capture import publication, setup, slot
from bemi.capture.teardown import TeardownResult
from bemi.capture.teardown import teardown as tear_down
from bemi.config import Settings
from bemi.errors import SetupError
from bemi.store import sources
from tests.conftest import MakeDatabase
from tests.support.waiting import until

Connection = psycopg.Connection[Any]


@pytest.fixture
def source(source_url: str) -> Iterator[Connection]:
    with psycopg.connect(source_url, autocommit=True) as conn:
        yield conn


@pytest.fixture
def destination(destination_url: str) -> Iterator[Connection]:
    with psycopg.connect(destination_url, autocommit=True) as conn:
        yield conn


@pytest.fixture
def settings(source: Connection, source_url: str, destination_url: str) -> Settings:
    source.execute(
        "create table a (id int primary key); create table keyless (x int);"
        " create table indexed (x int not null); create unique index i on indexed (x);"
        " alter table indexed replica identity using index i;"
        " create table silent (x int); alter table silent replica identity nothing"
    )
    return Settings(source_url=source_url, destination_url=destination_url)


def init(settings: Settings, **options: Any) -> None:
    setup.init(settings, report=lambda line: None, **options)


def teardown(settings: Settings, *, history: bool = False) -> TeardownResult:
    return tear_down(settings, history=history, report=lambda line: None)


def test_no_trace_is_left_on_the_source(settings: Settings, source: Connection) -> None:
    before = _catalogs(source)
    init(settings)
    assert _catalogs(source) != before
    result = teardown(settings)
    assert _catalogs(source) == before
    assert result.set_back == ()


def test_no_trace_is_left_where_source_and_destination_are_one(
    settings: Settings, source: Connection, source_url: str
) -> None:
    before = _catalogs(source)
    both = Settings(source_url=source_url)
    init(both)
    teardown(both, history=True)
    assert _catalogs(source) == before


def test_replica_identities_are_told_and_left(settings: Settings, source: Connection) -> None:
    before = _catalogs(source)
    init(settings, full=["*"])
    result = teardown(settings)
    assert _catalogs(source) != before
    for statement in result.set_back:
        source.execute(statement.encode())
    assert _catalogs(source) == before
    # What was set back since is not told again.
    assert teardown(settings).set_back == ()


def test_the_history_stays_readable(settings: Settings, destination: Connection) -> None:
    init(settings)
    assert teardown(settings).history_kept
    assert destination.execute("select * from bemi.changes").fetchall() == []


def test_a_source_without_a_slot_is_removed_until_it_is_set_up_again(
    settings: Settings, destination: Connection
) -> None:
    def removed() -> bool:
        stored = sources.read(destination, settings.schema, settings.source)
        assert stored is not None
        return stored.removed_at is not None

    init(settings)
    for _ in range(2):
        teardown(settings)
        assert removed()
    init(settings)
    assert not removed()


def test_the_history_goes_when_asked(settings: Settings, destination: Connection) -> None:
    before = _catalogs(destination)
    init(settings)
    assert not teardown(settings, history=True).history_kept
    assert _catalogs(destination) == before


def test_twice(settings: Settings) -> None:
    init(settings)
    assert teardown(settings, history=True).changed
    assert teardown(settings, history=True).changed == ()


def test_names_that_are_not_the_sources_do_not_remove_it(
    settings: Settings, destination: Connection
) -> None:
    """Its worker would let it go, and its slot would stay."""
    init(settings)
    mistyped = dataclasses.replace(settings, slot="not_made", publication="not_made")
    with pytest.raises(SetupError, match="the history knows the source"):
        teardown(mistyped)
    stored = sources.read(destination, "bemi", settings.source)
    assert stored is not None
    assert stored.removed_at is None


def test_a_source_that_was_never_set_up(settings: Settings, source: Connection) -> None:
    before = _catalogs(source)
    assert teardown(settings).changed == ()
    assert _catalogs(source) == before


def test_a_worker_that_runs_keeps_everything(settings: Settings, source: Connection) -> None:
    init(settings)
    before = _catalogs(source)
    worker = psycopg.connect(
        settings.source_url, replication="database", application_name="bemi", autocommit=True
    )
    try:
        command = (
            f"START_REPLICATION SLOT {settings.slot} LOGICAL 0/0"
            " (proto_version '1', publication_names '\"bemi\"')"
        )
        worker.pgconn.exec_(command.encode())
        pid = worker.info.backend_pid
        with pytest.raises(SetupError, match=rf'process {pid} on the source \("bemi"\)') as caught:
            teardown(settings, history=True)
        assert caught.value.fix == "stop that worker first"
        assert _catalogs(source) == before
    finally:
        worker.close()

    def idle() -> bool:
        found = slot.read(source, settings.slot)
        return found is not None and found.active_pid is None

    until(idle, 10, "the slot is free")
    assert teardown(settings).changed


def test_what_is_not_ours_stays(settings: Settings, source: Connection) -> None:
    source.execute("create publication bemi for all tables")
    source.execute(
        "select pg_create_logical_replication_slot(%s, 'test_decoding')", [settings.slot]
    )
    result = teardown(settings)
    assert result.changed == ()
    assert len(result.notes) == 2
    assert publication.read(source, "bemi") is not None
    assert slot.read(source, settings.slot) is not None


def test_a_destination_that_is_gone_does_not_hold_the_source(
    settings: Settings, source: Connection, source_url: str, server: Any
) -> None:
    init(settings)
    lost = Settings(source_url=source_url, destination_url=server.url("gone_for_good"))
    before_notes = teardown(lost)
    assert len(before_notes.changed) == 2
    assert "not known which tables" in before_notes.notes[0]
    with pytest.raises(SetupError, match="does not exist"):
        teardown(lost, history=True)


def test_another_sources_history_is_not_dropped(
    settings: Settings, destination: Connection, source: Connection, make_database: MakeDatabase
) -> None:
    init(settings)
    other = Settings(source_url=make_database(), destination_url=settings.destination_url)
    init(other)
    before = _catalogs(source)
    with pytest.raises(SetupError, match=f"also holds the history of: {settings.source}"):
        teardown(other, history=True)
    assert _catalogs(source) == before
    assert destination.execute("select count(*) from bemi.sources").fetchone() == (2,)


def test_views_that_others_built_on_the_history_are_not_dropped(
    settings: Settings, destination: Connection, source: Connection
) -> None:
    init(settings)
    destination.execute("create view report as select count(*) from bemi.changes")
    with pytest.raises(SetupError, match="views outside the history depend on it: report"):
        teardown(settings, history=True)
    assert slot.read(source, settings.slot) is not None


def test_a_publication_of_another_role_names_its_owner(
    settings: Settings, source: Connection
) -> None:
    init(settings)
    name = f"weak_{source.info.dbname}"
    role = sql.Identifier(name)
    source.execute(sql.SQL("create role {} login replication password 'x'").format(role))
    try:
        weak = Settings(
            source_url=psycopg.conninfo.make_conninfo(settings.source_url, user=name, password="x"),
            destination_url=settings.destination_url,
        )
        with pytest.raises(SetupError, match='belongs to "postgres"') as caught:
            teardown(weak)
        assert 'drop publication "bemi"' in (caught.value.fix or "")
        source.execute("drop publication bemi")
        assert teardown(weak).changed == (f'dropped the replication slot "{settings.slot}"',)
    finally:
        source.execute(sql.SQL("drop role {}").format(role))


def _catalogs(conn: Connection) -> list[Any]:
    """All that describes the database: objects, their settings and rights, slots."""
    queries = [
        (
            "select oid, relname, relkind, relreplident, relacl::text, reloptions, relowner"
            " from pg_class where relnamespace::regnamespace::text !~ '^pg_' order by 1"
        ),
        "select * from pg_publication order by 1",
        "select * from pg_publication_rel order by 1",
        "select oid, nspname, nspacl::text from pg_namespace where nspname !~ '^pg_t' order by 1",
        (
            "select oid, proname from pg_proc where pronamespace::regnamespace::text !~ '^pg_'"
            " and pronamespace::regnamespace::text <> 'information_schema' order by 1"
        ),
        "select tgrelid, tgname from pg_trigger order by 1, 2",
        "select oid, evtname from pg_event_trigger order by 1",
        "select oid, extname from pg_extension order by 1",
        "select * from pg_seclabel",
        "select * from pg_description where objoid >= 16384",
        "select * from pg_db_role_setting",
        "select slot_name, plugin from pg_replication_slots where database = current_database()",
        "select oid, rolname from pg_roles where oid >= 16384 order by 1",
    ]
    return [conn.execute(query.encode()).fetchall() for query in queries]
