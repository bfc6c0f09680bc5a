"""`init`: what it makes, in which order, twice, half-way, and where it refuses."""

import contextlib
import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from bemi.capture import full_identity, preflight, publication, setup, slot, worker
from bemi.capture.setup import InitResult
from bemi.capture.teardown import teardown
from bemi.config import Settings
from bemi.embedded import Server
from bemi.errors import ConfigError, PassingError, SetupError, StoreVersionError
from bemi.store import checkpoint, migrate, schema_version, sources
from tests.conftest import MakeDatabase
from tests.support.plain_server import MakeServer, plain_servers
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
    """Of a source with two tables that can be tracked and one that can't."""
    source.execute(
        "create table a (id int primary key); create table b (id int primary key);"
        " create table keyless (x int)"
    )
    return Settings(source_url=source_url, destination_url=destination_url)


@pytest.fixture
def role(source: Connection, destination: Connection) -> Iterator[str]:
    """The name of a role without any right, whose password is `secret`."""
    name = f"role_of_{source.info.dbname}"
    role = sql.Identifier(name)
    source.execute(sql.SQL("create role {} login password 'secret'").format(role))
    yield name
    for conn in (source, destination):
        conn.execute(sql.SQL("reassign owned by {} to postgres").format(role))
        conn.execute(sql.SQL("drop owned by {}").format(role))
    source.execute(sql.SQL("drop role {}").format(role))


@pytest.fixture
def make_plain_server(postgres_bin: Path | None) -> Iterator[MakeServer]:
    with plain_servers(postgres_bin) as make:
        yield make


def init(settings: Settings, **options: Any) -> InitResult:
    return setup.init(settings, report=lambda line: None, **options)


def names(states: Any) -> list[str]:
    return [state.qualified for state in states]


def as_user(url: str, user: str, password: str = "secret") -> str:
    return psycopg.conninfo.make_conninfo(url, user=user, password=password)


def test_init_makes_everything_and_the_history_begins_where_the_slot_does(
    settings: Settings, source: Connection, destination: Connection
) -> None:
    result = init(settings)
    assert names(result.tracked) == ["public.a", "public.b"]
    assert [(state.qualified, state.reason) for state in result.untracked] == [
        ("public.keyless", "it has no primary key")
    ]
    assert result.gap is None
    held = checkpoint.read(destination, "bemi", settings.source)
    made = slot.read(source, settings.slot)
    assert held is not None
    assert made is not None
    assert held.position == made.confirmed == result.position
    assert made.fault(source.info.dbname) is None
    preflight.require(source, settings, destination=destination)


def test_the_slot_follows_a_failover_where_it_can(settings: Settings, source: Connection) -> None:
    if source.info.server_version < 170000:
        pytest.skip("slots that follow a failover came with PostgreSQL 17")
    init(settings)
    row = source.execute(
        "select failover, two_phase from pg_replication_slots where slot_name = %s", [settings.slot]
    ).fetchone()
    assert row == (True, False)


def test_init_twice_changes_nothing(
    settings: Settings, source: Connection, destination: Connection, role: str
) -> None:
    first = init(settings, full=["keyless"], readers=[role])
    before = _state(source, destination)
    again = init(settings, full=["keyless"], readers=[role])
    assert again.changed == ()
    assert _state(source, destination) == before
    assert again.position == first.position
    assert names(again.tracked) == ["public.a", "public.b", "public.keyless"]


def test_source_and_destination_may_be_one_database(source: Connection, source_url: str) -> None:
    source.execute("create table a (id int primary key)")
    settings = Settings(source_url=source_url)
    assert names(init(settings).tracked) == ["public.a"]
    assert init(settings).changed == ()


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_source_in_another_encoding(
    make_database: MakeDatabase, destination_url: str, encoding: str
) -> None:
    url = make_database(encoding=encoding, locale="C")
    with psycopg.connect(url, autocommit=True, client_encoding="utf8") as conn:
        conn.execute('create table "größe" (x int)')
    settings = Settings(source_url=url, destination_url=destination_url)
    assert names(init(settings, full=["gr*"]).tracked) == ["public.größe"]
    assert init(settings).changed == ()


def test_a_destination_that_can_not_hold_every_character(
    settings: Settings, source_url: str, make_database: MakeDatabase
) -> None:
    narrow = make_database(encoding="LATIN1", locale="C")
    with pytest.raises(SetupError, match="the destination's encoding is LATIN1"):
        init(Settings(source_url=source_url, destination_url=narrow))


def test_no_table_at_all(source_url: str) -> None:
    """The list is empty until there are some."""
    settings = Settings(source_url=source_url)
    result = init(settings)
    assert (result.tracked, result.untracked) == ((), ())


def test_a_second_run_adds_new_tables(settings: Settings, source: Connection) -> None:
    init(settings)
    source.execute("create table c (id int primary key)")
    result = init(settings)
    assert result.changed == ('added public.c to the publication "bemi"',)


def test_chosen_tables_are_remembered(
    settings: Settings, source: Connection, destination: Connection, source_url: str
) -> None:
    """`init --table a`, then `init` and the worker without that flag: still only a."""
    chosen = Settings(
        source_url=source_url, destination_url=settings.destination_url, tables=("a",)
    )
    assert names(init(chosen).tracked) == ["public.a"]
    again = init(settings)
    assert again.changed == ()
    assert names(again.untracked) == []
    everything = Settings(
        source_url=source_url, destination_url=settings.destination_url, tables=("*.*",)
    )
    assert names(init(everything).tracked) == ["public.a", "public.b"]
    assert names(init(chosen).unwanted) == ["public.b"]
    stored = sources.read(destination, "bemi", settings.source)
    assert stored is not None
    assert stored.setup.tables == ("public.a",)


def test_a_worker_tracks_only_what_init_chose(
    settings: Settings, source: Connection, source_url: str, destination_url: str
) -> None:
    chosen = Settings(source_url=source_url, destination_url=destination_url, tables=("a", "c"))
    init(chosen)
    source.execute("create table c (id int primary key)")
    stop = threading.Event()
    thread = threading.Thread(target=lambda: worker.run(settings, stop=stop))
    thread.start()

    def published() -> set[str]:
        rows = source.execute("select tablename::text from pg_publication_tables").fetchall()
        return {row[0] for row in rows}

    try:
        until(lambda: "c" in published(), 20, "the new table is noticed")
        # All that a look finds is added in one go.
        assert published() == {"a", "c"}
    finally:
        stop.set()
        thread.join(20)


def test_full_is_set_only_where_asked_and_remembered(
    settings: Settings, source: Connection, destination: Connection
) -> None:
    result = init(settings, full=["key*"])
    assert names(result.tracked) == ["public.a", "public.b", "public.keyless"]
    identities = dict(
        source.execute(
            "select relname::text, relreplident::text from pg_class where relname"
            " in ('a', 'b', 'keyless')"
        ).fetchall()
    )
    assert identities == {"a": "d", "b": "d", "keyless": "f"}
    stored = sources.read(destination, "bemi", settings.source)
    assert stored is not None
    assert stored.setup.replica_identity == {
        "public.keyless": 'alter table "public"."keyless" replica identity default;'
    }


def test_full_that_matches_nothing_changes_nothing(
    settings: Settings, source: Connection, destination: Connection
) -> None:
    before = _state(source, destination)
    with pytest.raises(SetupError, match="--full nope matches no table"):
        init(settings, full=["nope"])
    assert _state(source, destination) == before


def test_full_leaves_out_tables_that_would_not_be_tracked_and_says_so(
    settings: Settings, source: Connection
) -> None:
    source.execute("create unlogged table cache (id int primary key)")
    chosen = dataclasses.replace(settings, tables=("public.[bck]*",), exclude_tables=("public.b",))
    result = init(chosen, full=["*"])
    assert names(result.tracked) == ["public.keyless"]
    assert dict(result.left_out) == {
        "public.a": "it is not among the tables that are to be tracked",
        "public.b": "it is not among the tables that are to be tracked",
        "public.cache": "it is unlogged, so its changes never reach the write-ahead log",
    }
    assert result.not_full == ()
    full = source.execute("select relname from pg_class where relreplident = 'f'").fetchall()
    assert full == [("keyless",)]
    # Named by itself, it is a mistake.
    for name, fix in (("a", "--table"), ("cache", "set logged")):
        with pytest.raises(SetupError, match=f"--full {name} matches no table that") as caught:
            init(chosen, full=[name])
        assert fix in (caught.value.fix or "")


def test_full_leaves_out_tables_whose_updates_would_fail(
    settings: Settings, source: Connection
) -> None:
    if source.info.server_version < 180000:
        pytest.skip("virtual generated columns came with PostgreSQL 18")
    source.execute("create table v (id int primary key, x int generated always as (1) virtual)")
    result = init(settings, full=["*"])
    assert [name for name, _ in result.left_out] == ["public.v"]
    assert names(result.untracked) == []
    source.execute("update v set id = 2")


def test_full_on_a_locked_table_is_told_and_the_rest_goes_on(
    settings: Settings, source_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(full_identity, "LOCK_TIMEOUT", "100ms")
    with psycopg.connect(source_url) as other:
        # A reader: it writes nothing, so the slot does not wait for it.
        other.execute("lock table keyless in access share mode")
        result = init(settings, full=["keyless"])
    assert names(result.tracked) == ["public.a", "public.b"]
    assert result.not_full == (("public.keyless", "others kept it locked for 100ms"),)
    assert names(init(settings, full=["keyless"]).tracked)[-1] == "public.keyless"


def test_a_reader_may_read_the_history_and_what_commands_ask_and_nothing_else(
    settings: Settings, destination_url: str, role: str
) -> None:
    init(settings, readers=[role])
    with psycopg.connect(as_user(destination_url, role), autocommit=True) as reader:
        assert reader.execute("select * from bemi.changes").fetchall() == []
        for statement in (
            "select * from bemi.row_changes",
            "select * from bemi.contexts",
            "select * from bemi.baselines",
            "select * from bemi.rules",
            "insert into bemi.sources (name) values ('mine')",
            "update bemi.checkpoints set position = 0",
            "select bemi.ensure_partitions(now(), now())",
            "create table bemi.mine ()",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                reader.execute(statement.encode())


def test_an_unknown_reader_is_refused_before_anything_is_done(
    settings: Settings, source: Connection, destination: Connection
) -> None:
    before = _state(source, destination)
    with pytest.raises(SetupError, match='no role "nobody_at_all"'):
        init(settings, readers=["nobody_at_all"])
    assert _state(source, destination) == before


# --- the slot --------------------------------------------------------------------------------


def test_making_the_slot_says_for_whom_it_waits(
    settings: Settings, source: Connection, source_url: str
) -> None:
    lines: list[str] = []
    result: list[InitResult] = []
    with psycopg.connect(source_url, application_name="long report") as writer:
        writer.execute("insert into a values (1)")
        pid = writer.info.backend_pid
        thread = threading.Thread(
            target=lambda: result.append(setup.init(settings, report=lines.append))
        )
        thread.start()
        until(lambda: any(f"PID {pid}" in line for line in lines), 20, "the writer is named")
        writer.commit()
    thread.join(30)
    assert result
    assert any("long report" in line for line in lines)


def test_a_wait_that_is_too_long_leaves_no_slot_and_the_next_run_completes(
    settings: Settings, source: Connection, source_url: str, destination_url: str
) -> None:
    impatient = Settings(source_url=source_url, destination_url=destination_url, slot_wait=2.5)
    with psycopg.connect(source_url) as writer:
        writer.execute("insert into a values (1)")
        with pytest.raises(SetupError, match=r"was not made within 2\.5 s") as caught:
            init(impatient)
        assert f"PID {writer.info.backend_pid}" in str(caught.value)
        assert "created the publication" in str(caught.value)
        assert "goes on from there" in (caught.value.fix or "")
        assert slot.read(source, settings.slot) is None
    result = init(settings)
    assert [line.split(" at ")[0] for line in result.changed] == [
        f'created the replication slot "{settings.slot}"'
    ]


def test_a_prepared_transaction_is_named_too(
    settings: Settings, source: Connection, source_url: str, destination_url: str
) -> None:
    impatient = Settings(source_url=source_url, destination_url=destination_url, slot_wait=2.5)
    gid = f"left in {source.info.dbname}"
    with psycopg.connect(source_url, autocommit=True) as writer:
        writer.execute("begin; insert into a values (1)")
        writer.execute(sql.SQL("prepare transaction {}").format(sql.Literal(gid)))
    try:
        with pytest.raises(SetupError, match=f"prepared transaction '{gid}'"):
            init(impatient)
    finally:
        source.execute(sql.SQL("rollback prepared {}").format(sql.Literal(gid)))


def test_a_slot_that_is_gone_is_made_again_and_the_gap_is_told(
    settings: Settings, source: Connection
) -> None:
    first = init(settings)
    source.execute("select pg_drop_replication_slot(%s)", [settings.slot])
    source.execute("insert into a values (1)")
    again = init(settings)
    assert again.gap is not None
    assert again.gap.startswith(f"changes between {first.position} and ")
    assert again.position == first.position  # the checkpoint stays: the worker records the gap


def test_a_publication_made_after_the_slot_has_a_new_slot(
    settings: Settings, source: Connection
) -> None:
    """Else decoding fails for ever, at the WAL from before the publication."""
    init(settings)
    source.execute("drop publication bemi")
    source.execute("insert into a values (1)")
    with pytest.raises(SetupError, match='the publication "bemi" does not exist'):
        preflight.require(source, settings)
    assert init(settings).gap is not None
    source.execute("insert into a values (2)")
    assert _decodes(source, settings)


def test_a_transaction_across_the_new_publication_is_waited_for(
    settings: Settings, source: Connection, source_url: str
) -> None:
    """It would be decoded as of its beginning, when there was no publication."""
    init(settings)
    source.execute("drop publication bemi")
    done = threading.Event()
    with psycopg.connect(source_url) as writer:
        writer.execute("insert into a values (1)")

        def run() -> None:
            init(settings)
            done.set()

        thread = threading.Thread(target=run)
        thread.start()
        until(lambda: publication.read(source, "bemi"), 10, "the publication is there")
        assert not done.wait(0.5)
        writer.execute("insert into a values (2)")
    thread.join(30)
    assert done.is_set()
    assert _decodes(source, settings)


def test_a_publication_restored_by_hand_needs_a_new_slot(
    settings: Settings, source: Connection
) -> None:
    init(settings)
    source.execute("drop publication bemi; insert into a values (1)")
    source.execute("create publication bemi for table a, b")
    if not _decodes(source, settings):
        assert init(settings).changed == ()
        assert init(settings, new_slot=True).gap is not None
        source.execute("insert into a values (2)")
        assert _decodes(source, settings)


def test_a_slot_in_use_is_never_dropped(settings: Settings, source: Connection) -> None:
    init(settings)
    with _holding(settings) as pid:
        until(lambda: _active(source, settings), 10, "the slot is held")
        assert init(settings).changed == ()
        with pytest.raises(SetupError, match=f"in use by process {pid}") as caught:
            init(settings, new_slot=True)
        assert "held by a test" in str(caught.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        ("select pg_create_logical_replication_slot('{slot}', 'test_decoding')", "test_decoding"),
        ("select pg_create_physical_replication_slot('{slot}')", "physical"),
        (
            "select pg_create_logical_replication_slot('{slot}', 'pgoutput', false, true)",
            "two_phase",
        ),
    ],
)
def test_a_slot_of_another_kind_is_refused(
    settings: Settings, source: Connection, destination: Connection, make: str, message: str
) -> None:
    source.execute(make.format(slot=settings.slot).encode())
    try:
        before = _state(source, destination)
        with pytest.raises(SetupError, match=message):
            init(settings)
        assert _state(source, destination) == before
    finally:
        source.execute("select pg_drop_replication_slot(%s)", [settings.slot])


def test_a_slot_of_another_database_is_refused(
    settings: Settings, destination: Connection, source_url: str, destination_url: str
) -> None:
    destination.execute("select pg_create_logical_replication_slot('taken', 'pgoutput')")
    with pytest.raises(SetupError, match="belongs to the database"):
        init(Settings(source_url=source_url, destination_url=destination_url, slot="taken"))


def test_a_slot_of_another_source_of_the_history_is_refused(
    settings: Settings, source: Connection, destination: Connection
) -> None:
    """What one of the two acknowledges, the other would never get."""
    init(settings)
    before = _state(source, destination)
    for slot_name, message in (
        (settings.slot, f"the slot {settings.slot} is that of the source {settings.source}"),
        (f"{settings.slot}_2", f"the publication bemi is that of the source {settings.source}"),
    ):
        with pytest.raises(SetupError, match=message) as caught:
            init(dataclasses.replace(settings, source="other", slot=slot_name))
        assert f"--source {settings.source}" in (caught.value.fix or "")
    assert _state(source, destination) == before
    apart = dataclasses.replace(
        settings, source="other", slot=f"{settings.slot}_2", publication="second"
    )
    init(apart)
    assert init(apart).changed == ()
    assert init(settings).changed == ()


def test_the_slot_of_a_source_that_was_torn_down_is_free_for_another(settings: Settings) -> None:
    init(settings)
    teardown(settings, history=False, report=lambda line: None)
    assert init(settings).changed  # set up again, under its own name
    other = dataclasses.replace(settings, source="other")
    with pytest.raises(SetupError, match=f"that of the source {settings.source}"):
        init(other)
    teardown(settings, history=False, report=lambda line: None)
    init(other)
    with pytest.raises(SetupError, match="that of the source other"):
        init(settings)


@pytest.mark.parametrize("elsewhere", ["schema", "destination"])
def test_a_slot_that_another_history_made_is_refused(
    settings: Settings, source: Connection, make_database: MakeDatabase, elsewhere: str
) -> None:
    """Else both would be captured with it, and `teardown` of either would drop it."""
    init(settings)
    other = (
        dataclasses.replace(settings, schema="other")
        if elsewhere == "schema"
        else dataclasses.replace(settings, destination_url=make_database())
    )
    with psycopg.connect(other.destination_url, autocommit=True) as conn:
        with pytest.raises(SetupError, match=r"this history .* did not make it") as caught:
            init(other)
        assert schema_version.current_version(conn, other.schema) == 0
    assert "BEMI_SLOT" in (caught.value.fix or "")
    source.execute("select pg_drop_replication_slot(%s)", [settings.slot])
    assert init(other).changed


# --- publications that are not ours ----------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message", "since"),
    [
        ("create publication bemi for all tables", "FOR ALL TABLES", 140000),
        ("create publication bemi for tables in schema public", "whole schemas", 150000),
        ("create publication bemi for table a where (id > 5)", "row filter", 150000),
        ("create publication bemi for table a (id)", "column list", 150000),
        ("create publication bemi for table a with (publish = 'insert')", "leaves out", 140000),
        (
            "create publication bemi for table a with (publish_via_partition_root)",
            "as their root",
            140000,
        ),
    ],
)
def test_a_publication_that_loses_changes_is_refused(
    settings: Settings,
    source: Connection,
    destination: Connection,
    make: str,
    message: str,
    since: int,
) -> None:
    if source.info.server_version < since:
        pytest.skip("this PostgreSQL has no such publication")
    source.execute(make.encode())
    before = _state(source, destination)
    with pytest.raises(SetupError, match=message) as caught:
        init(settings)
    assert _state(source, destination) == before
    assert caught.value.fix is not None
    with pytest.raises(SetupError, match=message):
        preflight.require(source, settings)
    if caught.value.fix.startswith("alter publication"):
        source.execute(caught.value.fix.encode())
        init(settings)


def test_a_publication_that_an_owner_made_is_taken_as_it_is(
    settings: Settings, source: Connection
) -> None:
    source.execute("create publication bemi for table a")
    assert names(init(settings).tracked) == ["public.a", "public.b"]


def test_stored_generated_columns_are_published(settings: Settings, source: Connection) -> None:
    """A publication from before PostgreSQL 18 does not: updates under FULL would fail."""
    if source.info.server_version < 180000:
        pytest.skip("publications have stored generated columns from PostgreSQL 18 on")
    source.execute(
        "create table g (a int, b int generated always as (a) stored);"
        " alter table g replica identity full; create publication bemi for table g"
    )
    with pytest.raises(psycopg.Error):
        source.execute("delete from g")
    init(settings)
    source.execute("delete from g")


# --- bad beginnings --------------------------------------------------------------------------


def test_wal_level_replica(make_plain_server: MakeServer) -> None:
    url = make_plain_server().create_database("app")
    with pytest.raises(SetupError, match="wal_level of the source is replica") as caught:
        init(Settings(source_url=url))
    assert "wal_level = logical" in (caught.value.fix or "")
    with psycopg.connect(url) as conn, pytest.raises(SetupError, match="wal_level"):
        preflight.require(conn, Settings(source_url=url))


def test_no_replication_right(
    settings: Settings, source: Connection, destination: Connection, source_url: str, role: str
) -> None:
    before = _state(source, destination)
    with pytest.raises(SetupError, match="can't connect to the source") as caught:
        init(
            Settings(source_url=as_user(source_url, role), destination_url=settings.destination_url)
        )
    fix = (caught.value.fix or "").lower()
    assert fix.startswith("alter role")
    assert "replication" in fix
    assert _state(source, destination) == before


def test_wrong_password(source_url: str) -> None:
    with pytest.raises(SetupError, match="password authentication failed") as caught:
        init(Settings(source_url=as_user(source_url, "postgres", "hunter2")))
    assert "hunter2" not in f"{caught.value} {caught.value.fix}"
    assert "BEMI_SOURCE_URL" in (caught.value.fix or "")


def test_unknown_database(server: Server) -> None:
    with pytest.raises(SetupError, match="does not exist"):
        init(Settings(source_url=server.url("no_such_database")))


def test_nobody_listens() -> None:
    with pytest.raises(PassingError, match="can't connect"):
        init(Settings(source_url="postgresql://127.0.0.1:1/app"))


def test_not_a_url() -> None:
    with pytest.raises(ConfigError):
        Settings(source_url="postgres:/nonsense@@")


def test_destination_read_only(
    settings: Settings, source: Connection, destination: Connection
) -> None:
    destination.execute(
        sql.SQL("alter database {} set default_transaction_read_only = on").format(
            sql.Identifier(destination.info.dbname)
        )
    )
    with pytest.raises(SetupError, match="the destination is read-only"):
        init(settings)
    with (
        psycopg.connect(settings.destination_url, autocommit=True) as fresh,
        pytest.raises(SetupError, match="the destination is read-only"),
    ):
        preflight.require_destination(fresh, settings)
    assert slot.read(source, settings.slot) is None


def test_destination_of_a_newer_version(
    settings: Settings, source: Connection, destination: Connection
) -> None:
    migrate.migrate(destination, "bemi")
    destination.execute(
        "insert into bemi.schema_versions (version, name, checksum) values (999, 'later', 'x')"
    )
    with pytest.raises(StoreVersionError, match="newer than this Bemi knows"):
        init(settings)
    assert slot.read(source, settings.slot) is None
    assert publication.read(source, "bemi") is None


def test_a_name_that_another_source_has(
    settings: Settings, source: Connection, make_database: MakeDatabase
) -> None:
    init(settings)
    other = Settings(
        source_url=make_database(),
        destination_url=settings.destination_url,
        source=settings.source,
    )
    with pytest.raises(SetupError, match=f'knows the source "{settings.source}"') as caught:
        init(other)
    assert "BEMI_SOURCE" in (caught.value.fix or "")


def test_two_sources_share_a_destination(
    settings: Settings, destination: Connection, make_database: MakeDatabase
) -> None:
    init(settings)
    other = Settings(source_url=make_database(), destination_url=settings.destination_url)
    init(other)
    assert len(sources.read_all(destination, "bemi")) == 2
    assert init(settings).changed == ()


def test_no_right_to_publish_tells_the_owner_what_to_run(
    settings: Settings, source: Connection, source_url: str, role: str
) -> None:
    source.execute(sql.SQL("alter role {} replication").format(sql.Identifier(role)))
    weak = Settings(source_url=as_user(source_url, role), destination_url=settings.destination_url)
    with pytest.raises(SetupError, match="may not create a publication") as caught:
        init(weak)
    statement = (caught.value.fix or "").removeprefix("as the owner of the tables: ")
    source.execute(statement.split("; then")[0].encode())
    # With the publication made by an owner, the replication right is all it takes.
    assert names(init(weak).tracked) == ["public.a", "public.b"]
    source.execute("create table later (id int primary key)")
    (state,) = [state for state in init(weak).untracked if state.name == "later"]
    assert "belongs to postgres" in (state.reason or "")
    source.execute((state.fix or "").encode())
    assert "public.later" in names(init(weak).tracked)


def test_all_slots_in_use(make_plain_server: MakeServer) -> None:
    server = make_plain_server(wal_level="logical", max_replication_slots="1")
    url = server.create_database("app")
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("select pg_create_logical_replication_slot('other', 'pgoutput')")
        with pytest.raises(SetupError, match="all replication slots of the source are in use"):
            init(Settings(source_url=url))
        conn.execute("select pg_drop_replication_slot('other')")
    assert init(Settings(source_url=url)).changed


def test_a_lost_slot_is_made_again(make_plain_server: MakeServer) -> None:
    server = make_plain_server(
        wal_level="logical", max_slot_wal_keep_size="1MB", min_wal_size="32MB", max_wal_size="32MB"
    )
    settings = Settings(source_url=server.create_database("app"))
    init(settings)
    with psycopg.connect(settings.source_url, autocommit=True) as conn:
        conn.execute("create table a (id int primary key)")
        for _ in range(4):
            conn.execute("select pg_switch_wal()")
            conn.execute("insert into a select coalesce(max(id), 0) + 1 from a")
        conn.execute("checkpoint")
        found = slot.read(conn, settings.slot)
        assert found is not None
        assert found.wal_status == "lost"
        with pytest.raises(SetupError, match="is lost") as caught:
            preflight.require(conn, settings)
        assert (caught.value.fix or "").startswith("`bemi recover`")
        assert init(settings).gap is not None
        preflight.require(conn, settings)


# --- looking ---------------------------------------------------------------------------------


def _state(source: Connection, destination: Connection) -> list[Any]:
    """All that init makes, on both sides."""
    return [
        source.execute("select * from pg_publication").fetchall(),
        source.execute("select * from pg_publication_tables order by 1, 2, 3").fetchall(),
        source.execute(
            "select slot_name, plugin, confirmed_flush_lsn from pg_replication_slots"
            " where database = current_database() or database is null"
        ).fetchall(),
        source.execute(
            "select relname, relreplident from pg_class where relkind = 'r' order by 1"
        ).fetchall(),
        *(
            destination.execute(
                sql.SQL("select * from bemi.{}").format(sql.Identifier(table))
            ).fetchall()
            for table in ("schema_versions", "sources", "epochs", "checkpoints", "gaps")
            if schema_version.current_version(destination, "bemi")
        ),
        destination.execute(
            "select nspname, nspacl::text from pg_namespace where nspname !~ '^pg_' order by 1"
        ).fetchall(),
    ]


def _decodes(source: Connection, settings: Settings) -> bool:
    """Whether the slot's stream can be read to its end."""
    try:
        source.execute(
            "select count(*) from pg_logical_slot_peek_binary_changes(%s, null, null,"
            " 'proto_version', '1', 'publication_names', %s)",
            [settings.slot, f'"{settings.publication}"'],
        )
    except psycopg.errors.UndefinedObject:
        return False
    return True


def _active(source: Connection, settings: Settings) -> bool:
    found = slot.read(source, settings.slot)
    return found is not None and found.active_pid is not None


@contextlib.contextmanager
def _holding(settings: Settings) -> Iterator[int]:
    """Streams from the slot, as a worker does; the walsender's PID."""
    conn = psycopg.connect(
        settings.source_url,
        replication="database",
        application_name="held by a test",
        autocommit=True,
    )
    try:
        command = (
            f"START_REPLICATION SLOT {settings.slot} LOGICAL 0/0"
            f" (proto_version '1', publication_names '\"{settings.publication}\"')"
        )
        conn.pgconn.exec_(command.encode())
        yield conn.info.backend_pid
    finally:
        conn.close()
