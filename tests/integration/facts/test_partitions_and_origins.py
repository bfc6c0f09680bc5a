"""Partitions that rows move between, and that come and go; inheritance; changes from elsewhere."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from bemi.capture.decoder import decode
from bemi.capture.messages import Begin, Commit, Delete, Insert, Origin, Relation
from bemi.capture.sink import Sink
from bemi.capture.tables import add_new_tables, survey
from bemi.change import Change, Event
from bemi.errors import ProtocolError
from tests.integration.conftest import Track
from tests.integration.facts import stream
from tests.integration.facts.peek import rows_sent, sent
from tests.support.tracked import Row, Tracked

EVENTS = (
    "create table events (day int, n int, note text, primary key (day, n)) partition by list (day)",
    "create table events_1 partition of events for values in (1)",
    "create table events_2 partition of events for values in (2)",
)


def told(rows: list[Row], *names: str) -> list[Any]:
    """Of each row the members called `names`; one name gives bare values."""
    if len(names) == 1:
        return [row[names[0]] for row in rows]
    return [tuple(row[name] for name in names) for row in rows]


def oid_of(at: Tracked, name: str) -> int:
    row = at.source.execute("select %s::regclass::oid::bigint", [name]).fetchone()
    assert row is not None
    return int(row[0])


def relations_of(at: Tracked) -> list[int]:
    """Of each change the table that held its row."""
    rows = at.query(
        "select relation::bigint from bemi.row_changes order by commit_position, ordinal"
    )
    return [int(row["relation"]) for row in rows]


@pytest.mark.parametrize("identity", ["default", "full"])
def test_a_row_that_moves_to_another_partition(tracked: Track, identity: str) -> None:
    """PostgreSQL deletes it here and inserts it there, in one transaction; the history has both
    under the name of the table above, one behind the other."""
    at = tracked(*EVENTS, full=["*.*"] if identity == "full" else [])
    at.source.execute("insert into events values (1, 7, 'a')")
    with at.source.transaction():
        at.source.execute("""select pg_logical_emit_message(true, '_bemi', '{"who": "Ann"}')""")
        at.source.execute("update events set day = 2, note = 'b'")
    _, deleted, inserted = rows_sent(at)
    assert isinstance(deleted, Delete)
    assert isinstance(inserted, Insert)
    assert deleted.relation == oid_of(at, "events_1")
    assert inserted.relation == oid_of(at, "events_2")
    assert len(sent(at, Commit)) == 2

    rows = at.changes()
    assert told(rows, "table", "operation", "ordinal", "primary_key") == [
        ("events", "CREATE", 1, '["1","7"]'),
        ("events", "DELETE", 1, '["1","7"]'),
        ("events", "CREATE", 2, '["2","7"]'),
    ]
    assert rows[1]["transaction_id"] == rows[2]["transaction_id"] != rows[0]["transaction_id"]
    assert told(rows[1:], "context") == [{"who": "Ann"}] * 2
    assert rows[1]["before"] == {"day": 1, "n": 7, "note": "a"}
    assert rows[2]["after"] == {"day": 2, "n": 7, "note": "b"}
    assert told(rows, "flags") == [None, None, ["moved"]], "the row of the change right before"
    at.source.execute("delete from events")
    at.source.execute("insert into events values (1, 8, 'a')")
    assert told(at.changes()[3:], "flags") == [None, None]


@pytest.mark.parametrize("how", ["", "concurrently"])
def test_a_partition_that_is_detached(tracked: Track, how: str) -> None:
    """It stays published by itself; from then on it goes by its own name, and is the same table.

    The stream does not tell when it was detached: changes from before the catalog was read say so.
    """
    at = tracked(*EVENTS)
    at.source.execute("insert into events values (1, 1, 'a'), (2, 1, 'a')")
    at.catch_up()
    at.source.execute(f"alter table events detach partition events_1 {how}".encode())
    (state,) = (each for each in survey(at.source, at.settings) if each.name == "events_1")
    assert (state.published, state.root) == (True, None)
    at.source.execute("update events_1 set note = 'b'")
    at.source.execute("update events set note = 'c'")
    announced = [(message.oid, message.name) for message in sent(at, Relation)]
    assert announced == [
        (oid_of(at, "events_1"), "events_1"),
        (oid_of(at, "events_2"), "events_2"),
    ]

    rows = at.changes()
    assert told(rows, "table", "primary_key", "before") == [
        ("events", '["1","1"]', {}),
        ("events", '["2","1"]', {}),
        ("events_1", '["1","1"]', {"day": 1, "n": 1, "note": "a"}),
        ("events", '["2","1"]', {"day": 2, "n": 1, "note": "a"}),
    ]
    assert told(rows, "flags") == [None, None, ["inferred"], None]
    assert relations_of(at)[0] == relations_of(at)[2] == oid_of(at, "events_1")
    at.source.execute("update events_1 set note = 'd'")
    last = at.changes()[-1]
    assert (last["table"], last["flags"]) == ("events_1", None)
    known = at.query(
        'select "table", partition from bemi.schema_history where relation = %s '
        "order by from_position",
        [oid_of(at, "events_1")],
    )
    assert told(known, "table", "partition") == [
        ("events", "public.events_1"),
        ("events_1", None),
    ]


def test_a_table_that_becomes_a_partition(tracked: Track) -> None:
    """One that was published stays so, and goes by the name above it from then on."""
    at = tracked(*EVENTS, "create table events_3 (day int, n int, note text, primary key (day, n))")
    at.source.execute("insert into events_3 values (3, 1, 'a')")
    at.catch_up()
    at.source.execute("alter table events attach partition events_3 for values in (3)")
    at.source.execute("insert into events values (3, 2, 'b')")
    at.source.execute("update events set note = 'c' where n = 1")
    assert {message.name for message in sent(at, Relation)} == {"events_3"}

    rows = at.changes()
    assert told(rows, "table", "operation", "primary_key") == [
        ("events_3", "CREATE", '["3","1"]'),
        ("events", "CREATE", '["3","2"]'),
        ("events", "UPDATE", '["3","1"]'),
    ]
    assert rows[2]["before"] == {"day": 3, "n": 1, "note": "a"}
    assert set(relations_of(at)) == {oid_of(at, "events_3")}


def test_a_partition_that_was_not_published(tracked: Track) -> None:
    """It brings nothing along when it is attached, the root being no part of the publication.
    Its rows are missing until it is added; from when on it is covered is on record."""
    at = tracked(*EVENTS)
    at.source.execute("create table events_3 partition of events for values in (3)")
    at.source.execute("create table events_4 (day int not null, n int not null, note text)")
    at.source.execute("alter table events attach partition events_4 for values in (4)")
    at.source.execute("insert into events values (3, 1, 'lost'), (4, 1, 'lost')")
    assert rows_sent(at) == []
    missing = {
        each.name: each
        for each in survey(at.source, at.settings)
        if each.wanted and not each.published
    }
    assert set(missing) == {"events_3", "events_4"}
    assert {each.identity for each in missing.values()} == {"primary key"}

    assert len(add_new_tables(at.source, at.settings).added) == 2
    at.source.execute("insert into events values (3, 2, 'b'), (4, 2, 'b')")
    rows = at.changes()
    assert told(rows, "table", "primary_key") == [
        ("events", '["3","2"]'),
        ("events", '["4","2"]'),
    ]
    states = {each.name for each in survey(at.source, at.settings) if each.published}
    assert states == {"events_1", "events_2", "events_3", "events_4"}


@pytest.mark.parametrize(
    "ddl",
    [
        "alter table events detach partition events_1",
        "alter table events attach partition events_3 for values in (3)",
    ],
)
def test_a_partition_that_came_or_went_before_its_rows_were_read(tracked: Track, ddl: str) -> None:
    """The name above it may not be the one of that time: the change says so."""
    at = tracked(*EVENTS, "create table events_3 (day int, n int, note text, primary key (day, n))")
    at.source.execute("insert into events values (1, 1, 'a')")
    at.source.execute("insert into events_3 values (3, 1, 'a')")
    at.source.execute(ddl.encode())
    rows = at.changes()
    known = {row["flags"] is None for row in rows}
    assert known == {True, False}, "of the two only one was altered"
    for row, name in zip(rows, ("events", "events_3"), strict=True):
        assert row["table"] == name or row["flags"] == ["inferred"]


def test_a_partition_that_went_may_be_read_in_two_runs(
    tracked: Track, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read before the worker was stopped does not make the rest certain."""
    at = tracked(*EVENTS)
    for number in (1, 2, 3):
        at.source.execute("insert into events values (1, %s, 'a')", [number])
    at.source.execute("alter table events detach partition events_1")
    put = Sink.put

    def put_two(self: Sink, event: Event) -> None:
        if isinstance(event, Change) and event.after is not None and event.after[1] == b"3":
            self.finish(60)
            raise ProtocolError("ended in the middle")
        put(self, event)

    with monkeypatch.context() as patched:
        patched.setattr(Sink, "put", put_two)
        with pytest.raises(ProtocolError, match="ended in the middle"):
            at.catch_up()
    assert len(at.query("select from bemi.changes")) == 2
    rows = at.changes()
    assert told(rows, "table", "flags") == [("events_1", ["inferred"])] * 3


def test_inheritance_shares_neither_keys_nor_publication(tracked: Track) -> None:
    """Each table is judged, published and named by itself, though one statement writes to all."""
    at = tracked(
        "create table animals (id int primary key, name text)",
        "create table dogs (bark text, primary key (id)) inherits (animals)",
        "create table cats () inherits (animals)",
    )
    with at.source.transaction(force_rollback=True):
        # Without ONLY those below would come along, keyless ones too, whose updates then fail.
        at.source.execute("alter publication bemi set table animals")
        published = at.source.execute("select tablename from pg_publication_tables").fetchall()
        assert ("cats",) in published
        at.source.execute("insert into cats values (1, 'Tom')")
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
            at.source.execute("update animals set name = 'x'")
    at.source.execute("insert into animals values (1, 'one')")
    at.source.execute("insert into dogs values (1, 'Rex', 'wuff')")
    at.source.execute("insert into cats values (1, 'Tom')")
    at.source.execute("update animals set name = name || '!'")
    assert {message.relation for message in rows_sent(at)} == {
        oid_of(at, "animals"),
        oid_of(at, "dogs"),
    }

    (state,) = (each for each in survey(at.source, at.settings) if each.name == "cats")
    assert (state.published, state.reason) == (False, "it has no primary key")
    rows = at.changes()
    assert sorted(told(rows, "table", "operation", "primary_key")) == [
        ("animals", "CREATE", "1"),
        ("animals", "UPDATE", "1"),
        ("dogs", "CREATE", "1"),
        ("dogs", "UPDATE", "1"),
    ]
    after = {(row["table"], row["operation"]): row["after"] for row in rows}
    assert after["animals", "UPDATE"] == {"id": 1, "name": "one!"}
    assert after["dogs", "UPDATE"] == {"id": 1, "name": "Rex!", "bark": "wuff"}


# --- replication origins


@pytest.fixture
def elsewhere(tracked: Track) -> Iterator[Tracked]:
    """A source whose session applies what another server sent; the origin bears its own name."""
    at = tracked("create table t (id int primary key, n int)")
    origin = at.source.info.dbname
    at.source.execute("select pg_replication_origin_create(%s)", [origin])
    at.catch_up()  # before 15 that is a transaction, though an empty one
    at.source.execute("select pg_replication_origin_session_setup(%s)", [origin])
    yield at
    at.source.execute("select pg_replication_origin_session_reset()")
    at.source.execute("select pg_replication_origin_drop(%s)", [origin])


def test_a_transaction_with_an_origin(elsewhere: Tracked) -> None:
    """Its BEGIN comes with the LSN 0/0 and an origin of its own; it is stored like any other,
    at its commit, once, with its context."""
    at = elsewhere
    with at.source.transaction():
        at.source.execute("""select pg_logical_emit_message(true, '_bemi', '{"who": "Ann"}')""")
        at.source.execute("insert into t values (1, 1), (2, 1)")
        at.source.execute("select pg_replication_origin_xact_setup('0/ABCD', now())")
    at.source.execute("update t set n = 2 where id = 1")
    with at.connect() as local:
        local.execute("insert into t values (3, 1)")
    stream.free(at.source, at.settings.slot)
    with stream.Replication(at.settings.source_url, at.settings.slot) as replication:
        frames = [(each.lsn, decode(each.data)) for each in replication.read("C", 3) if each.data]
    begins = [(lsn, message) for lsn, message in frames if isinstance(message, Begin)]
    assert [lsn for lsn, _ in begins][:2] == [0, 0]
    assert begins[2][0] > 0
    origins = [message for _, message in frames if isinstance(message, Origin)]
    assert [(each.name, each.lsn) for each in origins][:1] == [(at.source.info.dbname, 0xABCD)]
    assert len(origins) == 2
    assert [type(message).__name__ for _, message in frames[:3]] == [
        "Begin",
        "Origin",
        "LogicalMessage",
    ]

    rows = at.changes()
    assert told(rows, "operation", "primary_key", "ordinal", "context") == [
        ("CREATE", "1", 1, {"who": "Ann"}),
        ("CREATE", "2", 2, {"who": "Ann"}),
        ("UPDATE", "1", 1, {}),
        ("CREATE", "3", 1, {}),
    ]
    commits = [int(message.final_lsn) for _, message in begins]
    assert told(rows, "commit_position") == [commits[0], commits[0], *commits[1:]]
    assert all(0 < row["position"] <= row["commit_position"] for row in rows)
    assert at.changes() == rows


def test_the_time_of_a_transaction_with_an_origin_is_the_other_servers(
    elsewhere: Tracked,
) -> None:
    """Times of commits need not rise in the order of commits: positions do."""
    at = elsewhere
    with at.connect() as local:
        local.execute("insert into t values (1, 1)")
    with at.source.transaction():
        at.source.execute("insert into t values (2, 1)")
        at.source.execute("select pg_replication_origin_xact_setup('0/1', '2001-02-03 04:05:06Z')")
    early, late = sent(at, Begin)
    assert late.committed_at < early.committed_at
    assert late.final_lsn > early.final_lsn

    rows = at.changes()
    assert told(rows, "primary_key") == ["1", "2"]
    assert rows[1]["committed_at"].isoformat() == "2001-02-03T04:05:06+00:00"
    assert rows[0]["commit_position"] < rows[1]["commit_position"]
