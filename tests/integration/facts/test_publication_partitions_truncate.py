"""Publications, partitions, TRUNCATE: what PostgreSQL sends of them, and Bemi's answers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from bemi.capture.setup import InitResult, init
from bemi.capture.tables import survey
from bemi.config import Settings
from bemi.errors import GapError, SetupError, UnknownStateError
from bemi.history.state import state
from bemi.lsn import Lsn
from tests.integration.conftest import Track
from tests.integration.facts.command import bemi
from tests.integration.facts.stream import Frame, Replication, free, kinds, number, peek
from tests.support.tracked import Tracked
from tests.support.tracking import position

Connection = psycopg.Connection[Any]

DOCS = Path(__file__).parents[3] / "docs"
TODOS = "create table todos (id int primary key, title text)"
PARTITIONED = (
    "create table events (id int primary key, what text) partition by range (id)",
    "create table events_low partition of events for values from (0) to (10)",
    "create table events_high partition of events for values from (10) to (20)",
)


@pytest.fixture
def source(source_url: str) -> Iterator[Connection]:
    with psycopg.connect(source_url, autocommit=True) as conn:
        yield conn


@pytest.fixture
def settings(source_url: str, destination_url: str) -> Settings:
    return Settings(source_url=source_url, destination_url=destination_url)


def initialise(settings: Settings, **options: Any) -> InitResult:
    return init(settings, report=lambda _: None, **options)


def slot(conn: Connection, name: str) -> str:
    """A slot of its own, for a publication of its own; dropped with the database."""
    name = f"{conn.info.dbname}_{name}"
    conn.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", [name])
    return name


def inserted(frames: list[Frame]) -> list[tuple[str, int]]:
    """The first column of each INSERT, and the LSN of its commit."""
    found: list[tuple[str, int]] = []
    waiting: list[str] = []
    for frame in frames:
        if frame.kind == "I":
            length = int.from_bytes(frame.data[9:13], "big")
            waiting.append(frame.data[13 : 13 + length].decode())
        elif frame.kind == "C":
            found += [(key, frame.commit[0]) for key in waiting]
            waiting = []
    return found


def tables(conn: Connection, frames: list[Frame]) -> list[str]:
    """Of each INSERT and TRUNCATE, the table that it is said to be of."""
    found = []
    for frame in frames:
        if frame.kind in "IT":
            at = 1 if frame.kind == "I" else 6
            oid = int.from_bytes(frame.data[at : at + 4], "big")
            row = conn.execute("select %s::regclass::text", [oid]).fetchone()
            found.append(f"{frame.kind} {row[0] if row else None}")
    return found


def keys(at: Tracked) -> list[str | None]:
    rows = at.query("select primary_key from bemi.changes order by epoch, commit_position, ordinal")
    return [row["primary_key"] for row in rows]


def state_at(at: Tracked, table: str, position: int) -> set[str | None]:
    """The keys that the table had at a position, going by the history."""
    with psycopg.connect(at.settings.destination_url) as conn:
        rows = state(conn, "bemi", at.settings.source, f"public.{table}", Lsn(position))
        return {row.key for row in rows}


# --- publications ----------------------------------------------------------------------------


def test_adding_and_dropping_a_table_takes_effect_by_position(tracked: Track) -> None:
    """Not when it is read: each row is sent or not as the publication was then."""
    at = tracked(TODOS, "create publication everything for all tables")
    conn, other, all_of_it = at.source, at.connect(), slot(at.source, "everything")
    conn.execute("insert into todos values (1, 'published')")
    at.catch_up()
    initialise(at.settings)
    conn.execute("alter publication bemi drop table todos")
    conn.execute("insert into todos values (2, 'not published')")
    with other.transaction():
        other.execute("insert into todos values (3, 'before it is added')")
        conn.execute("alter publication bemi add table only todos")
        other.execute("insert into todos values (4, 'after it was added')")
    conn.execute("insert into todos values (5, 'published')")
    other.close()
    assert [key for key, _ in inserted(peek(conn, at.settings.slot))] == ["4", "5"]

    initialise(at.settings)
    conn.execute("insert into todos values (6, 'published')")
    at.catch_up()
    assert keys(at) == ["1", "4", "5", "6"]
    # The coverage claims nothing that was lost, and not the half transaction either.
    stretches = at.query("select from_position, to_position from bemi.coverage")
    commits = dict(inserted(peek(conn, all_of_it, publication="everything")))
    covered = {
        key
        for key, commit in commits.items()
        if any(each["from_position"] <= commit < each["to_position"] for each in stretches)
    }
    assert {"6"} <= covered <= {"1", "5", "6"}
    for lost in ("2", "3"):
        with pytest.raises(UnknownStateError):
            state_at(at, "todos", commits[lost])


def test_a_slot_does_not_get_past_a_time_without_its_publication(tracked: Track) -> None:
    """Dropped and made again: 42704 for ever, or from 18 on a warning and a silent loss."""
    at = tracked(TODOS)
    at.source.execute("insert into todos values (1, '')")
    at.catch_up()
    at.source.execute("drop publication bemi")
    first = number(at.source, "pg_current_wal_insert_lsn()")
    at.source.execute("insert into todos values (2, '')")
    at.source.execute("create publication bemi for table only todos")
    at.source.execute("insert into todos values (3, '')")
    last = number(at.source, "pg_current_wal_insert_lsn()")
    warns = at.source.info.server_version >= 180000
    for _ in range(2):
        if warns:
            said: list[str] = []
            at.source.add_notice_handler(lambda notice: said.append(notice.message_primary or ""))  # noqa: B023
            assert kinds(peek(at.source, at.settings.slot), of="I") == "I"
            assert any("skipped loading publication" in line for line in said)
        else:
            with pytest.raises(psycopg.errors.UndefinedObject):
                peek(at.source, at.settings.slot)

    with pytest.raises(SetupError, match="publication was dropped"):
        at.catch_up()
    assert keys(at) == ["1"]
    ends = position(at.settings)
    assert initialise(at.settings, new_slot=True).gap
    with pytest.raises(GapError):
        at.catch_up()
    at.source.execute("insert into todos values (4, '')")
    at.catch_up(accept_gap=True)
    assert keys(at) == ["1", "4"]
    (gap,) = at.query("select * from bemi.gaps")
    assert (gap["cause"], gap["from_position"]) == ("slot_ahead", ends)
    assert gap["from_position"] <= first
    assert last <= gap["to_position"]
    for each in at.query("select from_position, to_position from bemi.coverage"):
        assert each["to_position"] <= first or each["from_position"] >= last
    for lost in (first, last):
        with pytest.raises(UnknownStateError):
            state_at(at, "todos", lost)


def test_a_renamed_publication_is_as_good_as_dropped(tracked: Track) -> None:
    at = tracked(TODOS)
    at.source.execute("alter publication bemi rename to other")
    at.source.execute("insert into todos values (1, '')")
    if at.source.info.server_version >= 180000:
        assert kinds(peek(at.source, at.settings.slot), of="I") == ""
    else:
        with pytest.raises(psycopg.errors.UndefinedObject):
            peek(at.source, at.settings.slot)
    with pytest.raises(SetupError, match='publication "bemi" does not exist'):
        at.catch_up()
    at.source.execute("alter publication other rename to bemi")
    if at.source.info.server_version >= 180000:
        assert kinds(peek(at.source, at.settings.slot), of="I") == ""
    else:
        with pytest.raises(psycopg.errors.UndefinedObject):
            peek(at.source, at.settings.slot)
    with pytest.raises(SetupError, match="publication was dropped"):
        at.catch_up()
    assert at.query("select from bemi.row_changes") == []


def test_a_slot_older_than_its_publication_has_the_same_hole(
    source: Connection, settings: Settings
) -> None:
    """The publication is made first, then the slot; one that was there before is refused."""
    source.execute(TODOS)
    name = slot(source, "early")
    source.execute("insert into todos values (1, '')")
    source.execute("create publication late for table todos")
    if source.info.server_version >= 180000:
        assert kinds(peek(source, name, publication="late"), of="I") == ""
    else:
        with pytest.raises(psycopg.errors.UndefinedObject):
            peek(source, name, publication="late")

    source.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", [settings.slot])
    source.execute("insert into todos values (2, '')")
    with pytest.raises(SetupError, match="is there already") as refused:
        initialise(settings)
    assert "pg_drop_replication_slot" in (refused.value.fix or "")
    source.execute("select pg_drop_replication_slot(%s)", [settings.slot])
    initialise(settings)
    source.execute("insert into todos values (3, '')")
    assert kinds(peek(source, settings.slot), of="I") == "I"


@pytest.mark.parametrize(
    ("statement", "sent", "since", "words"),
    [
        ("for table todos where (id > 100)", "", 150000, "row filter"),
        ("for table todos (id)", "I", 150000, "column list"),
        ("for table todos with (publish = 'delete')", "", 140000, "leaves out"),
    ],
    ids=["row filter", "column list", "publish"],
)
def test_a_publication_may_lose_changes_silently(
    source: Connection, settings: Settings, statement: str, sent: str, since: int, words: str
) -> None:
    if source.info.server_version < since:
        with pytest.raises(psycopg.errors.SyntaxError):
            source.execute(
                f"create table todos (id int); create publication p {statement}".encode()
            )
        return
    source.execute(TODOS)
    source.execute(f"create publication bemi {statement}".encode())
    name = slot(source, "filtered")
    source.execute("insert into todos values (1, 'the title')")
    frames = peek(source, name)
    assert kinds(frames, of="I") == sent
    assert not any(b"the title" in frame.data for frame in frames)

    with pytest.raises(SetupError, match=words):
        initialise(settings)


def test_for_all_tables_catches_tables_without_a_key_and_the_store(
    source: Connection, source_url: str
) -> None:
    """The application's own updates fail then."""
    source.execute("create table keyless (n int); insert into keyless values (1)")
    settings = Settings(source_url=source_url)  # the history is in the same database
    source.execute("create publication bemi for all tables")
    with pytest.raises(psycopg.Error, match="does not have a replica identity") as caught:
        source.execute("update keyless set n = 2")
    assert caught.value.sqlstate == "55000"
    with pytest.raises(SetupError, match="FOR ALL TABLES"):
        initialise(settings)

    source.execute("drop publication bemi")
    source.execute(TODOS)
    found = initialise(settings)
    assert [state.qualified for state in found.tracked] == ["public.todos"]
    assert [state.qualified for state in found.untracked] == ["public.keyless"]
    source.execute("update keyless set n = 2")
    source.execute("create publication everything for all tables")
    published = source.execute(
        "select pubname, array_agg(schemaname || '.' || tablename) "
        "from pg_publication_tables group by 1 order by 1"
    ).fetchall()
    assert published[0] == ("bemi", ["public.todos"])
    assert "bemi.checkpoints" in published[1][1]


# --- partitions ------------------------------------------------------------------------------


def test_partitions_come_by_their_own_names_or_lose_their_truncate(tracked: Track) -> None:
    """Via the root, a TRUNCATE of a leaf by itself is not sent."""
    at = tracked(*PARTITIONED)
    at.source.execute(
        "create publication via_root for table events with (publish_via_partition_root)"
    )
    name = slot(at.source, "via_root")
    at.source.execute("insert into events values (1, 'low'), (11, 'high')")
    at.source.execute("truncate events_low")
    via_root = peek(at.source, name, publication="via_root")
    assert tables(at.source, via_root) == ["I events", "I events"]
    leaves = peek(at.source, at.settings.slot)
    assert tables(at.source, leaves) == ["I events_low", "I events_high", "T events_low"]

    rows = at.changes()
    assert [(row["table"], row["operation"], row["primary_key"]) for row in rows] == [
        ("events", "CREATE", "1"),
        ("events", "CREATE", "11"),
        ("events", "TRUNCATE", None),
    ]
    # Not the whole table is empty then.
    place = rows[-1]["commit_position"]
    assert state_at(at, "events", place) == {"11"}
    assert state_at(at, "events_low", place) == set()


def test_a_truncate_of_a_partition_names_it(tracked: Track) -> None:
    """It goes by the name of the table above, which was not emptied by it."""
    at = tracked(*PARTITIONED, 'create table "a:b" (id int primary key)')
    at.source.execute("insert into events values (1, 'low'), (11, 'high')")
    for statement in ("truncate events_low", "truncate events", 'truncate "a:b"'):
        at.source.execute(statement.encode())
    at.source.execute("insert into events values (2, 'low')")
    rows = at.changes()
    low, high = ["partition:public.events_low"], ["partition:public.events_high"]
    first, *both, table = [row["flags"] for row in rows if row["operation"] == "TRUNCATE"]
    assert (first, table) == (low, None)
    assert sorted(both) == [high, low]
    assert [row["flags"] for row in rows if row["operation"] == "CREATE"] == [None] * 3
    assert bemi(at.settings, "changes").count("partition:public.events_low") == 2
    # It is no column's flag, and no state of a row has it.
    assert state_at(at, "events", rows[2]["commit_position"]) == {"11"}
    with psycopg.connect(at.settings.destination_url) as conn:
        place = Lsn(rows[-1]["commit_position"])
        found = list(state(conn, "bemi", at.settings.source, "public.events", place))
        assert [(row.key, row.flags) for row in found] == [("2", frozenset())]
    assert "nothing is missing" in bemi(at.settings, "verify")


# --- TRUNCATE and what is not logged ---------------------------------------------------------


def test_a_truncate_is_one_message_for_all_its_tables(tracked: Track) -> None:
    at = tracked(
        TODOS,
        "create table notes (id int primary key, todo int references todos)",
    )
    at.source.execute("insert into todos values (1, '')")
    at.source.execute("insert into notes values (1, 1)")
    at.source.execute("truncate todos cascade")
    at.source.execute("insert into todos values (2, '')")
    with at.source.transaction(force_rollback=True):
        at.source.execute("truncate notes")
    frames = [frame for frame in peek(at.source, at.settings.slot) if frame.kind == "T"]
    assert [int.from_bytes(frame.data[1:5], "big") for frame in frames] == [2]

    rows = at.changes()
    assert [(row["operation"], row["table"], row["ordinal"]) for row in rows] == [
        ("CREATE", "todos", 1),
        ("CREATE", "notes", 1),
        ("TRUNCATE", "todos", 1),
        ("TRUNCATE", "notes", 2),
        ("CREATE", "todos", 1),
    ]
    assert all((row["before"], row["after"]) == ({}, {}) for row in rows[2:4])
    places = [row["commit_position"] for row in rows]
    assert [state_at(at, "todos", place) for place in places] == [{"1"}, {"1"}, set(), set(), {"2"}]
    assert [state_at(at, "notes", place) for place in places[1:3]] == [{"1"}, set()]


def test_some_things_leave_nothing_in_the_log(tracked: Track) -> None:
    """Unlogged tables, sequences, materialised views, large objects."""
    at = tracked(
        TODOS,
        "create unlogged table fast (id int primary key)",
        "create sequence numbers",
        "create materialized view counts as select count(*) from todos",
        "create publication everything for all tables",
    )
    name = slot(at.source, "everything")
    at.source.execute("insert into fast values (1)")
    at.source.execute("select nextval('numbers')")
    at.source.execute("refresh materialized view counts")
    at.source.execute("select lo_from_bytea(0, 'large')")
    assert kinds(peek(at.source, name, publication="everything"), of="IUDT") == ""

    (fast,) = [each for each in survey(at.source, at.settings) if each.name == "fast"]
    assert not fast.published
    assert "unlogged" in (fast.reason or "")
    assert at.changes() == []
    page = (DOCS / "how-to" / "set-up.md").read_text(encoding="utf-8")
    for kind in ("iews", "sequences", "large objects", "unlogged"):
        assert kind in page, kind


# --- who reads -------------------------------------------------------------------------------


def test_the_replication_role_reads_what_it_may_not_select(tracked: Track) -> None:
    at = tracked(TODOS, "alter table todos enable row level security")
    at.source.execute("insert into todos values (1, 'secret')")
    role = f"reader_of_{at.source.info.dbname}"
    at.source.execute(
        sql.SQL("create role {} login replication password 'right'").format(sql.Identifier(role))
    )
    url = psycopg.conninfo.make_conninfo(at.settings.source_url, user=role, password="right")
    try:
        with (
            psycopg.connect(url) as conn,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            conn.execute("select from todos")
        with Replication(url, at.settings.slot) as client:
            (row,) = [frame for frame in client.read("C") if frame.kind == "I"]
            assert b"secret" in row.data
        free(at.source, at.settings.slot)
    finally:
        at.source.execute(sql.SQL("drop role {}").format(sql.Identifier(role)))

    (change,) = at.changes()
    assert change["after"]["title"] == "secret"
    page = (DOCS / "how-to" / "privileges.md").read_text(encoding="utf-8")
    assert "row-level security" in page
    assert "as a secret" in page
