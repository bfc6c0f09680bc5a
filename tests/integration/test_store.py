"""The destination's schema: migrations, the relation `changes`, partitions, the checkpoint."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from bemi.capture import sink
from bemi.capture.completer import Completer
from bemi.capture.encoder import Encoder
from bemi.capture.proof import Proof
from bemi.capture.sink import Sink
from bemi.capture.writer import Piece, Writer
from bemi.change import Change, Column, Committed, Operation, Stretch, Table, Transaction
from bemi.errors import FencedError, SetupError, StoreVersionError
from bemi.lsn import Lsn
from bemi.rules import NO_RULES
from bemi.store import checkpoint, migrate, schema_version
from bemi.store.checkpoint import Checkpoint
from tests.support.waiting import until

Connection = psycopg.Connection[Any]
EPOCH_START = datetime(2000, 1, 1, tzinfo=UTC)


@pytest.fixture
def conn(destination_url: str) -> Iterator[Connection]:
    with psycopg.connect(destination_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def store(conn: Connection) -> Connection:
    migrate.migrate(conn, "bemi")
    return conn


# --- migrations


def test_migrations_run_once(conn: Connection) -> None:
    assert schema_version.current_version(conn, "bemi") == 0
    with pytest.raises(SetupError) as caught:
        schema_version.require_current(conn, "bemi")
    assert caught.value.fix == "run `bemi init`"
    newest = schema_version.migrations()[-1].version
    assert migrate.migrate(conn, "bemi") == list(range(1, newest + 1))
    assert migrate.migrate(conn, "bemi") == []
    assert schema_version.current_version(conn, "bemi") == newest
    schema_version.require_current(conn, "bemi")


def test_migrations_are_numbered_without_a_hole() -> None:
    versions = [migration.version for migration in schema_version.migrations()]
    assert versions == list(range(1, len(versions) + 1))


def test_migrations_at_the_same_time_run_once(destination_url: str) -> None:
    start = threading.Barrier(4)

    def migrate_once(_: int) -> list[int]:
        with psycopg.connect(destination_url, autocommit=True) as connection:
            start.wait(10)
            return migrate.migrate(connection, "bemi")

    with ThreadPoolExecutor(4) as pool:
        applied = list(pool.map(migrate_once, range(4)))
    assert sorted(map(len, applied)) == [0, 0, 0, len(schema_version.migrations())]


def test_a_schema_of_any_name(conn: Connection) -> None:
    """Two histories in one database don't touch each other."""
    for schema in ("bemi", 'Say "hi" %s 🐘'):
        assert migrate.migrate(conn, schema)
        assert migrate.migrate(conn, schema) == []
        schema_version.require_current(conn, schema)


def test_migrations_need_no_right_to_make_a_schema_that_is_there(conn: Connection) -> None:
    role = f"keeper_{conn.info.dbname}"
    conn.execute(f"create role {role}".encode())
    try:
        conn.execute(f"create schema bemi authorization {role}".encode())
        conn.execute(f"set role {role}".encode())
        assert migrate.migrate(conn, "bemi")
        conn.execute("reset role")
    finally:
        conn.execute(f"drop owned by {role} cascade".encode())
        conn.execute(f"drop role {role}".encode())


def test_a_migration_that_was_changed_is_refused(store: Connection) -> None:
    store.execute("update bemi.schema_versions set checksum = 'other' where version = 1")
    with pytest.raises(StoreVersionError, match=r"migration 1 .*is not the one"):
        migrate.migrate(store, "bemi")


def test_a_newer_schema_is_refused(store: Connection) -> None:
    newer = schema_version.migrations()[-1].version + 1
    store.execute(
        "insert into bemi.schema_versions (version, name, checksum) values (%s, 'later', '')",
        [newer],
    )
    for check in (migrate.migrate, schema_version.require_current):
        with pytest.raises(StoreVersionError, match=f"version {newer}, newer") as caught:
            check(store, "bemi")
        assert "upgrade" in (caught.value.fix or "")


def test_an_older_schema_is_told_to_be_migrated(store: Connection) -> None:
    store.execute("update bemi.schema_versions set version = version - 100")
    older = schema_version.migrations()[-1].version - 100
    with pytest.raises(StoreVersionError, match=f"is at version {older}") as caught:
        schema_version.require_current(store, "bemi")
    assert "bemi init" in (caught.value.fix or "")


def test_a_failed_migration_leaves_nothing(
    conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = schema_version.migrations()
    text = "create table half (a int); select 1/0;"
    broken = schema_version.Migration(len(real) + 1, "broken", text)
    monkeypatch.setattr(migrate, "migrations", lambda: [*real, broken])
    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate.migrate(conn, "bemi")
    assert schema_version.current_version(conn, "bemi") == 0
    assert conn.execute("select to_regnamespace('bemi')").fetchone() == (None,)


# --- the relation `changes`

CONTRACT = {
    "id": "uuid",
    "database": "text",
    "schema": "text",
    "table": "text",
    "primary_key": "text",
    "operation": "text",
    "before": "jsonb",
    "after": "jsonb",
    "context": "jsonb",
    "committed_at": "timestamp with time zone",
    "queued_at": "timestamp with time zone",
    "created_at": "timestamp with time zone",
    "transaction_id": "bigint",
    "position": "bigint",
    "commit_position": "bigint",
    "ordinal": "integer",
    "epoch": "bigint",
    "source": "text",
    "previous_key": "text",
    "flags": "text[]",
    "rules": "integer",
}


def test_changes_has_the_contracts_columns(store: Connection) -> None:
    rows = store.execute(
        "select attname, format_type(atttypid, atttypmod) from pg_attribute "
        "where attrelid = 'bemi.changes'::regclass and attnum > 0 order by attnum"
    ).fetchall()
    assert dict(rows) == CONTRACT
    assert [name for name, _ in rows] == list(CONTRACT)


def test_only_the_owner_may_make_partitions_and_look_after(store: Connection) -> None:
    rows = store.execute(
        "select p.proname, has_function_privilege('pg_monitor', p.oid, 'execute') "
        "from pg_proc p where pronamespace = 'bemi'::regnamespace and prosecdef"
    ).fetchall()
    assert rows
    assert not any(allowed for _, allowed in rows)


# --- partitions


def partitions(conn: Connection, parent: str = "row_changes") -> list[str]:
    rows = conn.execute(
        "select inhrelid::regclass::text from pg_inherits "
        "where inhparent = %s::regclass order by 1",
        [f"bemi.{parent}"],
    ).fetchall()
    return [name.removeprefix("bemi.").removeprefix(f"{parent}_") for (name,) in rows]


def ensure(conn: Connection, since: str, until_: str) -> int:
    row = conn.execute("select bemi.ensure_partitions(%s, %s)", [since, until_]).fetchone()
    assert row is not None
    return int(row[0])


def test_partitions_are_months_in_utc(store: Connection) -> None:
    store.execute("set timezone to 'Pacific/Kiritimati'")  # 14 hours ahead
    assert ensure(store, "2024-01-31 23:30+00", "2024-02-01 00:00+00") == 2
    assert partitions(store) == partitions(store, "contexts") == ["2024_01", "2024_02"]
    assert ensure(store, "2024-01-31 23:30+00", "2024-02-01 00:00+00") == 0
    bounds = store.execute(
        "select pg_get_expr(relpartbound, oid) from pg_class "
        "where oid = 'bemi.row_changes_2024_01'::regclass"
    ).fetchone()
    assert bounds is not None
    assert "2024-01-01 14:00:00+14" in bounds[0]


@pytest.mark.parametrize("year", [1000, 1999, 2000, 2050, 9999])
def test_partitions_of_any_clock(store: Connection, year: int) -> None:
    assert ensure(store, f"{year}-12-31 00:00+00", f"{year}-12-31 00:00+00") == 1


def test_partitions_made_by_several_sessions_at_once(
    destination_url: str, store: Connection
) -> None:
    for year in range(2030, 2036):
        start = threading.Barrier(4)

        def make(_: int, year: int = year, start: threading.Barrier = start) -> int:
            with psycopg.connect(destination_url) as connection:
                start.wait(10)
                return ensure(connection, f"{year}-01-01 00:00+00", f"{year}-12-01 00:00+00")

        with ThreadPoolExecutor(4) as pool:
            assert sorted(pool.map(make, range(4))) == [0, 0, 0, 12]


def test_partitions_made_while_another_session_makes_them(
    destination_url: str, store: Connection
) -> None:
    """One that waited sees what the other made."""
    with psycopg.connect(destination_url) as first, psycopg.connect(destination_url) as second:
        ensure(first, "2030-01-01 00:00+00", "2030-03-01 00:00+00")
        made: list[int] = []
        waiting = threading.Thread(
            target=lambda: made.append(ensure(second, "2030-01-01 00:00+00", "2030-04-01 00:00+00"))
        )
        waiting.start()
        pid = second.info.backend_pid
        until(
            lambda: (
                store.execute("select cardinality(pg_blocking_pids(%s)) > 0", [pid]).fetchone()
                == (True,)
            ),
            10,
            "the second session waits",
        )
        first.commit()
        waiting.join(10)
        second.commit()
    assert made == [1]
    assert partitions(store) == ["2030_01", "2030_02", "2030_03", "2030_04"]


def test_readers_read_on_while_partitions_are_made(destination_url: str, store: Connection) -> None:
    ensure(store, "2024-01-01 00:00+00", "2024-01-01 00:00+00")
    with psycopg.connect(destination_url) as reader, psycopg.connect(destination_url) as maker:
        reader.execute("select count(*) from bemi.changes")  # its locks are held to the end
        maker.execute("set lock_timeout to '5s'")
        assert ensure(maker, "2030-01-01 00:00+00", "2030-01-01 00:00+00") == 1
        with psycopg.connect(destination_url) as other:
            other.execute("set lock_timeout to '5s'")
            assert other.execute("select count(*) from bemi.changes").fetchone() == (0,)
        maker.commit()
        assert reader.execute("select count(*) from bemi.changes").fetchone() == (0,)


def test_upkeep_makes_partitions_ahead(store: Connection) -> None:
    store.execute("select bemi.upkeep()")
    ahead = datetime.now(UTC) + timedelta(days=28)
    assert f"{ahead:%Y_%m}" in partitions(store)


# --- the checkpoint


def register(conn: Connection, name: str = "shop", position: int = 0x100) -> Checkpoint:
    return checkpoint.register(
        conn,
        "bemi",
        name=name,
        database="shop",
        slot="bemi_shop",
        publication="bemi",
        system_identifier="7",
        timeline=1,
        database_oid=5,
        position=Lsn(position),
    )


def advance(conn: Connection, held: Checkpoint, position: int) -> Checkpoint:
    with conn.cursor() as cursor:
        return checkpoint.advance(
            cursor, "bemi", held, position=Lsn(position), next_context=1, committed_at=None
        )


def test_registering_twice_keeps_the_checkpoint(store: Connection) -> None:
    first = register(store)
    moved = advance(store, checkpoint.claim(store, "bemi", first.source_id), 0x200)
    again = register(store, position=0x900)
    assert (again.position, again.epoch, again.source_id) == (0x200, first.epoch, first.source_id)
    assert again == moved
    assert checkpoint.read(store, "bemi", "shop") == again
    assert store.execute("select count(*) from bemi.epochs").fetchone() == (1,)


def test_registering_at_the_same_time_makes_one_source(
    destination_url: str, store: Connection
) -> None:
    start = threading.Barrier(4)

    def register_once(_: int) -> Checkpoint:
        with psycopg.connect(destination_url, autocommit=True) as connection:
            start.wait(10)
            return register(connection)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(register_once, range(4)))
    assert len({(held.source_id, held.epoch) for held in found}) == 1
    assert store.execute("select count(*) from bemi.epochs").fetchone() == (1,)


def test_an_unknown_source_has_no_checkpoint(store: Connection) -> None:
    assert checkpoint.read(store, "bemi", "nobody") is None
    with pytest.raises(SetupError):
        checkpoint.claim(store, "bemi", 77)


def test_who_claims_fences_the_one_before(store: Connection) -> None:
    old = checkpoint.claim(store, "bemi", register(store).source_id)
    old = advance(store, old, 0x200)
    new = checkpoint.claim(store, "bemi", old.source_id)
    assert (new.position, new.fence) == (0x200, old.fence + 1)
    with pytest.raises(FencedError):
        advance(store, old, 0x300)
    assert advance(store, new, 0x300).position == 0x300


def test_a_claim_waits_for_a_commit_of_the_one_before(
    destination_url: str, store: Connection
) -> None:
    """And so begins where that one left off."""
    old = checkpoint.claim(store, "bemi", register(store).source_id)
    claimed: list[Checkpoint] = []
    with psycopg.connect(destination_url) as leaving, psycopg.connect(destination_url) as coming:
        advance(leaving, old, 0x200)
        waiting = threading.Thread(
            target=lambda: claimed.append(checkpoint.claim(coming, "bemi", old.source_id))
        )
        waiting.start()
        pid = coming.info.backend_pid
        until(
            lambda: (
                store.execute("select cardinality(pg_blocking_pids(%s)) > 0", [pid]).fetchone()
                == (True,)
            ),
            10,
            "the claim waits",
        )
        leaving.commit()
        waiting.join(10)
    assert claimed[0].position == 0x200


@pytest.mark.parametrize("column", ["position", "fence", "epoch"])
def test_a_checkpoint_is_moved_only_from_where_it_was_left(store: Connection, column: str) -> None:
    held = checkpoint.claim(store, "bemi", register(store).source_id)
    other = register(store, "other")
    value = other.epoch if column == "epoch" else 999
    store.execute(
        f"update bemi.checkpoints set {column} = {value} where source_id = "
        f"{held.source_id}".encode()
    )
    with pytest.raises(FencedError):
        advance(store, held, 0x300)


def test_a_checkpoint_remembers_the_last_commit_time(store: Connection) -> None:
    held = checkpoint.claim(store, "bemi", register(store).source_id)
    with store.cursor() as cursor:
        held = checkpoint.advance(
            cursor, "bemi", held, position=Lsn(0x200), next_context=1, committed_at=1_500_000
        )
    assert held.committed_at == EPOCH_START + timedelta(seconds=1.5)
    assert advance(store, held, 0x300).committed_at == held.committed_at


# --- the sink, fed by hand


class Fed:
    """A sink of the registered source, and events for it at any commit time."""

    def __init__(self, url: str, store: Connection, *, same_server: bool = False) -> None:
        self.store = store
        self.held = checkpoint.claim(store, "bemi", register(store).source_id)
        encoder = Encoder(
            epoch=self.held.epoch,
            source_id=self.held.source_id,
            system_identifier="7",
            timeline=1,
            database_oid=5,
        )
        conn = psycopg.connect(url)
        completer = Completer(
            "bemi",
            self.held.source_id,
            self.held.epoch,
            versions={},
            rules_of={None: NO_RULES},
            rules_id=None,
        )
        self.sink = Sink(
            conn, "bemi", encoder, completer, self.held, versions={}, same_server=same_server
        )
        self._open = True
        self._table = Table(9, "public", "todos", (Column("id", 20, True),), (0,))
        self.end = int(self.held.position)

    def close(self) -> None:
        if self._open:
            self._open = False
            self.sink.close()

    def commit(self, at: datetime, rows: int = 1, context: bytes = b'{"a": 1}') -> None:
        begun, self.end = self.end + 0x100, self.end + 0x200
        microseconds = (at - EPOCH_START) // timedelta(microseconds=1)
        transaction = Transaction(Lsn(begun), microseconds, microseconds, 700)
        for ordinal in range(1, rows + 1):
            row = (str(ordinal).encode(),)
            self.sink.put(
                Change(
                    transaction,
                    self._table,
                    Operation.CREATE,
                    begun - 8,
                    ordinal - 1,
                    ordinal,
                    0,
                    None,
                    row,
                )
            )
        self.sink.put(Stretch(transaction, 0, context))
        self.sink.put(Committed(transaction, Lsn(self.end), rows))

    def store_all(self) -> None:
        def stored() -> bool:
            self.sink.flush()
            if self.sink.stored < self.end:
                self.sink.wait(0.1)
            return self.sink.stored >= self.end

        until(stored, 20, "everything put is stored")


@pytest.fixture
def fed(destination_url: str, store: Connection) -> Iterator[Callable[[], Fed]]:
    made: list[Fed] = []

    def make() -> Fed:
        made.append(Fed(destination_url, store))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_commits_of_any_time_find_their_partition(fed: Callable[[], Fed]) -> None:
    """A clock may jump by decades, within what goes into one commit of the destination, too."""
    at = fed()
    times = [
        datetime(2024, 5, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(1999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(2050, 6, 1, tzinfo=UTC),
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(2024, 6, 1, tzinfo=UTC),
    ]
    for time in times:
        at.commit(time)
    at.store_all()
    at.commit(datetime(2051, 1, 1, tzinfo=UTC))
    at.store_all()
    rows = at.store.execute(
        "select committed_at, queued_at, context from bemi.changes order by commit_position"
    ).fetchall()
    assert [row[0] for row in rows] == [*times, datetime(2051, 1, 1, tzinfo=UTC)]
    assert all(row[2] == {"a": 1} for row in rows)
    assert {"1999_12", "2050_06", "2051_01"} <= set(partitions(at.store))


def test_partitions_are_there_four_weeks_ahead(fed: Callable[[], Fed]) -> None:
    at = fed()
    at.commit(datetime(2024, 1, 15, tzinfo=UTC))
    at.store_all()
    assert partitions(at.store) == partitions(at.store, "contexts") == ["2024_01", "2024_02"]


def test_rows_and_checkpoint_appear_together(fed: Callable[[], Fed]) -> None:
    at = fed()
    at.commit(datetime(2024, 1, 1, tzinfo=UTC), rows=3)
    at.store_all()
    row = at.store.execute(
        "select position, next_context, (select count(*) from bemi.changes) from bemi.checkpoints"
    ).fetchone()
    assert row == (at.end, at.held.next_context + 1, 3)


def test_what_is_proven_of_an_idle_source_is_written_down_where_it_holds(
    fed: Callable[[], Fed], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink, "IDLE_INTERVAL", 0)
    at = fed()

    def captured() -> datetime | None:
        row = at.store.execute("select captured_at from bemi.checkpoints").fetchone()
        assert row is not None
        found: datetime | None = row[0]
        return found

    noon = datetime(2024, 1, 1, 12, tzinfo=UTC)
    at.commit(noon)
    at.sink.proofs.add(Proof(noon + timedelta(seconds=1), Lsn(at.end)))
    at.sink.proofs.add(Proof(noon + timedelta(seconds=2), Lsn(at.end + 1)))
    at.store_all()
    assert captured() == noon + timedelta(seconds=1)
    at.end += 1
    at.sink.reached(Lsn(at.end))
    at.store_all()
    assert captured() == noon + timedelta(seconds=2)
    # Nothing was written to the log, but time went by.
    at.sink.proofs.add(Proof(noon + timedelta(seconds=3), Lsn(at.end)))
    at.sink.flush()
    at.sink.finish(10)
    assert captured() == noon + timedelta(seconds=3)
    before = at.sink.stored
    at.sink.flush()
    at.sink.finish(10)
    assert (captured(), at.sink.stored) == (noon + timedelta(seconds=3), before)


def test_what_the_checkpoint_has_is_skipped(fed: Callable[[], Fed]) -> None:
    """After a crash the source sends again what was stored and not acknowledged."""
    first = fed()
    first.commit(datetime(2024, 1, 1, tzinfo=UTC))
    first.store_all()
    first.close()
    again = fed()
    again.end = int(first.held.position)
    again.commit(datetime(2024, 1, 1, tzinfo=UTC))
    again.commit(datetime(2024, 1, 1, tzinfo=UTC))
    again.store_all()
    assert again.store.execute("select count(*) from bemi.changes").fetchone() == (2,)


def test_a_fenced_sink_stores_nothing(fed: Callable[[], Fed]) -> None:
    old = fed()
    new = fed()
    old.commit(datetime(2024, 1, 1, tzinfo=UTC))
    with pytest.raises(FencedError):
        old.store_all()
    assert old.store.execute("select count(*) from bemi.row_changes").fetchone() == (0,)
    assert old.sink.stored == old.held.position
    old.close()
    new.commit(datetime(2024, 1, 1, tzinfo=UTC))
    new.store_all()
    assert new.store.execute("select count(*) from bemi.changes").fetchone() == (1,)


def test_a_transaction_larger_than_any_piece_appears_at_once(
    destination_url: str, fed: Callable[[], Fed], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink, "PIECE_BYTES", 10_000)
    at = fed()
    seen: set[int] = set()
    done = threading.Event()

    def watch() -> None:
        with psycopg.connect(destination_url, autocommit=True) as reader:
            while not done.is_set():
                row = reader.execute("select count(*) from bemi.changes").fetchone()
                assert row is not None
                seen.add(row[0])

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        at.commit(datetime(2024, 1, 1, tzinfo=UTC), rows=3000)
        at.store_all()
    finally:
        done.set()
        watcher.join(10)
    assert at.store.execute("select count(*) from bemi.changes").fetchone() == (3000,)
    assert seen <= {0, 3000}


def test_a_transaction_of_many_contexts_takes_no_memory_for_each(
    fed: Callable[[], Fed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of those that are used, of those that rules left nothing of, and of the one that goes on."""
    monkeypatch.setattr(sink, "PIECE_BYTES", 300)
    store, held = Writer.store, []

    def watched(self: Writer, piece: Piece) -> None:
        store(self, piece)
        held.append(sum(len(each) for each in vars(self).values() if isinstance(each, dict | set)))

    monkeypatch.setattr(Writer, "store", watched)
    at = fed()
    begun, at.end = at.end + 0x100, at.end + 0x200
    transaction = Transaction(Lsn(begun), 0, 0, 700)
    for ordinal in range(1, 101):
        for told in (2 * ordinal, 2 * ordinal + 1):
            at.sink.put(Stretch(transaction, told, b'{"told": %d}' % told))
        for number in (1, 2):
            at.sink.put(
                Change(
                    transaction,
                    at._table,
                    Operation.CREATE,
                    begun - 8,
                    2 * ordinal + number,
                    2 * ordinal + number - 2,
                    2 * ordinal + 1,
                    None,
                    (b"1" * 200,),
                )
            )
        until(lambda: not at.sink.full(), 10, "the sink takes more")
    at.sink.put(Committed(transaction, Lsn(at.end), 200))
    at.store_all()
    assert len(held) > 50
    assert max(held) <= 2
    found = at.store.execute(
        "select (context ->> 'told')::int, count(*) from bemi.changes group by 1 order by 1"
    ).fetchall()
    assert found == [(2 * ordinal + 1, 2) for ordinal in range(1, 101)]


def test_half_a_transaction_is_never_stored(
    fed: Callable[[], Fed], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink, "PIECE_BYTES", 1000)
    at = fed()
    begun = at.end + 0x100
    transaction = Transaction(Lsn(begun), 0, 0, 700)
    for ordinal in range(1, 500):
        at.sink.put(
            Change(
                transaction,
                at._table,
                Operation.CREATE,
                begun - 8,
                ordinal,
                ordinal,
                0,
                None,
                (b"1",),
            )
        )
        until(lambda: not at.sink.full(), 10, "the sink takes more")
    at.sink.finish(5)
    at.close()
    assert at.store.execute("select count(*) from bemi.row_changes").fetchone() == (0,)
    assert at.sink.stored == at.held.position
