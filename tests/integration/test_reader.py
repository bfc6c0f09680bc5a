"""Filters find what they say, and numbers come back exact."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import psycopg
import pytest
from psycopg.types.json import Jsonb

from bemi.errors import UnknownStateError, UsageError
from bemi.lsn import Lsn
from bemi.store import checkpoint
from bemi.store.filters import Filters
from bemi.store.migrate import migrate
from bemi.store.reader import StoredChange, change, changes, status, tables_called

START = datetime(2026, 5, 3, 14, 0, tzinfo=UTC)
AT_1000 = UUID("00000000-0000-803e-a000-000000000001")
"""An id of a change whose transaction was committed at position 1000."""
FIRST_CONTEXT = (START - datetime(2000, 1, 1, tzinfo=UTC)).days << 44 | 1 << 32


class Store:
    """A history filled by hand, a minute between transactions."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self.conn = conn
        self.held = checkpoint.register(
            conn,
            "bemi",
            name="todo",
            database="todo_db",
            slot="bemi_todo",
            publication="bemi",
            system_identifier="1",
            timeline=1,
            database_oid=5,
            position=Lsn(1),
        )
        conn.execute("select bemi.ensure_partitions(%s, %s)", [START, START + timedelta(days=40)])
        self.transactions = 0

    def transaction(
        self, context: object, *rows: dict[str, Any], dropped: str | None = None
    ) -> None:
        self.transactions += 1
        number = self.transactions
        raw = context if isinstance(context, str) else json.dumps(context)
        self.conn.execute(
            "insert into bemi.contexts (id, transaction_id, queued_at, context, dropped) "
            "values (%s, %s, %s, %s::jsonb, %s)",
            [FIRST_CONTEXT + number, 700 + number, START, raw, dropped],
        )
        for ordinal, row in enumerate(rows, start=1):
            values = {
                "committed_at": START + timedelta(minutes=number),
                "commit_position": 1000 * number,
                "context_id": FIRST_CONTEXT + number,
                "position": 1000 * number - 1,
                "id": UUID(int=1000 * number + ordinal),
                "ordinal": ordinal,
                "epoch": self.held.epoch,
                "relation": 1,
                "schema": "public",
                "table": "todo",
                "operation": "UPDATE",
                "primary_key": "1",
                **row,
            }
            names = ", ".join(f'"{name}"' for name in values)
            places = ", ".join(["%s"] * len(values))
            self.conn.execute(
                f"insert into bemi.row_changes ({names}) values ({places})".encode(),
                [Jsonb(value) if isinstance(value, dict) else value for value in values.values()],
            )

    def find(self, **filters: Any) -> list[StoredChange]:
        return list(changes(self.conn, "bemi", Filters(**filters)))

    def found(self, **filters: Any) -> list[int]:
        """The transactions of what is found."""
        return [change.commit_position // 1000 for change in self.find(**filters)]


@pytest.fixture
def store(destination_url: str) -> Iterator[Store]:
    with psycopg.connect(destination_url, autocommit=True) as conn:
        migrate(conn, "bemi")
        yield Store(conn)


def test_a_change_has_the_columns_of_the_contract_and_exact_numbers(store: Store) -> None:
    store.conn.execute("set timezone to 'Asia/Tokyo'")
    store.transaction('{"user_id": 12345678901234567890}', {"operation": "CREATE"})
    store.conn.execute(
        """update bemi.row_changes set after = '{"id": 9007199254740993, "price": 1.10}'"""
    )
    (change,) = store.find()
    assert msgspec.json.decode(msgspec.json.encode(change), type=dict[str, msgspec.Raw]) == {
        name: msgspec.Raw(value)
        for name, value in {
            "id": b'"00000000-0000-0000-0000-0000000003e9"',
            "database": b'"todo_db"',
            "schema": b'"public"',
            "table": b'"todo"',
            "primary_key": b'"1"',
            "operation": b'"CREATE"',
            "before": b"{}",
            "after": b'{"id": 9007199254740993, "price": 1.10}',
            "context": b'{"user_id": 12345678901234567890}',
            "committed_at": msgspec.json.encode(change.committed_at),
            "queued_at": msgspec.json.encode(change.queued_at),
            "created_at": msgspec.json.encode(change.created_at),
            "transaction_id": b"701",
            "position": b"999",
            "commit_position": b"1000",
            "ordinal": b"1",
            "epoch": str(store.held.epoch).encode(),
            "source": b'"todo"',
            "previous_key": b"null",
            "rules": b"null",
            "flags": b"null",
        }.items()
    }
    assert change.committed_at == START + timedelta(minutes=1)


def test_the_newest_come_first_and_the_limit_cuts(store: Store) -> None:
    store.transaction({}, {}, {"primary_key": "2"})
    store.transaction({}, {})
    assert [(c.commit_position, c.ordinal) for c in store.find()] == [
        (2000, 1),
        (1000, 2),
        (1000, 1),
    ]
    assert store.found(limit=2) == [2, 1]


def test_filters_by_columns(store: Store) -> None:
    store.transaction({}, {"operation": "CREATE"})
    store.transaction({}, {"primary_key": "2", "operation": "DELETE"})
    store.transaction({}, {"schema": "app", "table": "todo"})
    store.transaction({}, {"table": "user.list"})
    assert store.found(table="todo") == [2, 1]
    assert store.found(table="app.todo") == [3]
    assert store.found(table="public.user.list") == [4]
    assert store.found(key="2") == [2]
    assert store.found(operation=("CREATE", "DELETE")) == [2, 1]
    assert store.found(transaction=703) == [3]
    assert store.found(source="todo", table="todo", key="1") == [1]
    assert store.found(source="other") == []
    assert store.found(since=START + timedelta(minutes=2), until=START + timedelta(minutes=3)) == [
        3,
        2,
    ]


def test_both_keys_find_a_key_change(store: Store) -> None:
    store.transaction({}, {"primary_key": "2", "previous_key": "1"})
    assert store.found(key="1") == store.found(key="2") == [1]


def test_a_composite_key_is_found_however_it_is_spaced(store: Store) -> None:
    store.transaction({}, {"primary_key": '["1","a b"]'})
    for typed in ['["1","a b"]', '["1", "a b"]', '[1, "a b"]']:
        assert store.found(key=typed) == [1]
    assert store.found(key='["1"]') == []


def test_a_changed_column_is_found_and_what_cannot_be_ruled_out(store: Store) -> None:
    def update(changed: object, **more: Any) -> dict[str, Any]:
        return {"after": {"done": True, "task": "x"}, "changed": changed, **more}

    store.transaction({}, update({"done": False}))
    store.transaction({}, update({"task": "y"}))
    store.transaction({}, {"after": {"done": True}, "flags": ["before_unknown"]})
    store.transaction({}, update({"note": "old"}, flags=["unchanged:note"]))
    store.transaction({}, {"operation": "CREATE", "after": {"done": True}})
    assert store.found(changed="done") == [3, 1]
    assert store.found(changed="note") == []
    assert store.found(changed="missing") == []


@pytest.mark.parametrize(
    ("context", "key", "value", "matches"),
    [
        ({"user_id": 7}, "user_id", "7", True),
        ({"user_id": "7"}, "user_id", "7", True),
        ({"user_id": 77}, "user_id", "7", False),
        ('{"user_id": 7.0}', "user_id", "7", False),
        ('{"user_id": 7.0}', "user_id", "7.0", True),
        ({"user_id": [7]}, "user_id", "7", False),
        ({"admin": True}, "admin", "true", True),
        ({"admin": "true"}, "admin", "true", True),
        ({"team": None}, "team", "null", True),
        ({}, "team", "null", False),
        ({"tenant": {"id": 7}}, "tenant.id", "7", True),
        ({"tenant.id": "7"}, "tenant.id", "7", True),
        ({"name": "O'Brien \" \\ %s é"}, "name", "O'Brien \" \\ %s é", True),
        ({"name": ""}, "name", "", True),
        ({"big": 10**30}, "big", "1" + "0" * 30, True),
    ],
)
def test_a_context_value_compares_as_text(
    store: Store, context: object, key: str, value: str, matches: bool
) -> None:
    store.transaction(context, {})
    assert bool(store.found(context=((key, value),))) is matches


def test_several_context_values_must_all_match(store: Store) -> None:
    store.transaction({"user_id": 7, "method": "PUT"}, {})
    store.transaction({"user_id": 7, "method": "POST"}, {})
    assert store.found(context=(("user_id", "7"), ("method", "PUT"))) == [1]


def test_the_schemas_of_a_tables_name_are_known(store: Store) -> None:
    store.transaction({}, {"schema": "app"}, {"schema": "web"}, {"schema": "app"}, {"table": "x"})
    assert tables_called(store.conn, "bemi", "todo") == ["app", "web"]
    assert tables_called(store.conn, "bemi", "none") == []


def test_a_history_of_any_size_is_read_in_pieces(store: Store) -> None:
    store.transaction({}, {})
    store.conn.execute(
        "insert into bemi.row_changes select committed_at, commit_position, context_id, position, "
        'gen_random_uuid(), n, epoch, relation, schema, "table", operation, primary_key '
        "from bemi.row_changes, generate_series(2, 3000) n"
    )
    seen = changes(store.conn, "bemi", Filters())
    assert next(seen).ordinal == 3000
    seen.close()
    assert sum(1 for _ in changes(store.conn, "bemi", Filters())) == 3000


def test_status_tells_checkpoint_gaps_and_dropped_contexts(store: Store) -> None:
    store.transaction({}, {}, dropped="not_json")
    store.transaction({}, {})
    for accepted in (False, True):
        checkpoint.record_gap(
            store.conn,
            "bemi",
            store.held,
            to=Lsn(5 + accepted),
            cause="slot_ahead",
            detail="",
            accepted=accepted,
        )
    store.conn.execute(
        "insert into bemi.sources (name, database, slot, publication) values ('a', 'b', 'c', 'd')"
    )
    unfinished, todo = status(store.conn, "bemi")
    assert (unfinished.source, unfinished.position, unfinished.age) == ("a", None, None)
    assert (todo.source, todo.database, todo.slot) == ("todo", "todo_db", "bemi_todo")
    assert todo.position == Lsn(1)
    assert todo.dropped == 1
    assert todo.age is not None
    assert todo.age >= 0
    assert len(todo.gaps) == 2
    assert [str(gap.to_position) for gap in todo.unaccepted] == ["0/5"]


def test_what_of_several_sources_is_not_clear_is_refused(store: Store) -> None:
    """Positions are of one log; a change has the same id in two histories of one database."""
    store.transaction({}, {"id": AT_1000})
    (first,) = store.find()
    assert change(store.conn, "bemi", AT_1000) == first
    assert store.found(from_position=1000, to_position=1000) == [1]
    store.held = checkpoint.register(
        store.conn,
        "bemi",
        name="twin",
        database="todo_db",
        slot="bemi_twin",
        publication="bemi_twin",
        system_identifier="2",
        timeline=1,
        database_oid=5,
        position=Lsn(1),
    )
    store.transaction({}, {"id": AT_1000, "commit_position": 1000})
    with pytest.raises(UsageError, match="positions are those of one source's log: todo, twin"):
        store.find(from_position=1)
    assert len(store.find(from_position=1, source="twin")) == 1
    with pytest.raises(UsageError, match=r"more than once: t\w+, t\w+"):
        change(store.conn, "bemi", AT_1000)
    assert change(store.conn, "bemi", AT_1000, "todo").source == "todo"
    with pytest.raises(UnknownStateError, match="there is no change"):
        change(store.conn, "bemi", UUID(int=0))
