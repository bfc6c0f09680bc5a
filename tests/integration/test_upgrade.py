"""A history that an older version of Bemi made is taken along, and goes on."""

import psycopg
import pytest

from bemi.capture.setup import init
from bemi.errors import StoreVersionError
from bemi.store import migrate, schema_version
from tests.conftest import MakeDatabase
from tests.support.tracked import Tracked
from tests.support.tracking import track

FIRST = 1
"""The version before tables had intervals, versions and rules."""


@pytest.fixture
def at(make_database: MakeDatabase, monkeypatch: pytest.MonkeyPatch) -> Tracked:
    """A source with a history of the first version, in which one change is stored.

    Only its store can be made again; what that version's worker wrote is written by hand.
    """
    source_url, destination_url = make_database(), make_database()
    with psycopg.connect(source_url, autocommit=True) as conn:
        conn.execute("create table t (id int primary key, v text)")
    settings = track(source_url, destination_url, schemas=["public"])
    every = schema_version.migrations()
    with psycopg.connect(destination_url, autocommit=True) as conn:
        kept = {
            name: conn.execute(f"select to_jsonb(t) from bemi.{name} t".encode()).fetchall()
            for name in ("sources", "epochs", "checkpoints")
        }
        conn.execute("drop schema bemi cascade")
        monkeypatch.setattr(migrate, "migrations", lambda: every[:FIRST])
        migrate.migrate(conn, "bemi")
        monkeypatch.setattr(migrate, "migrations", lambda: every)
        for name, rows in kept.items():
            for (row,) in rows:
                conn.execute(
                    f"insert into bemi.{name} overriding system value select * from "
                    f"jsonb_populate_record(null::bemi.{name}, %s::jsonb)".encode(),
                    [psycopg.types.json.Jsonb(row)],
                )
        conn.execute("update bemi.checkpoints set next_context = 1")
        conn.execute("select bemi.ensure_partitions(now(), now())")
        conn.execute(
            "insert into bemi.contexts (id, transaction_id, queued_at, context) "
            "select ((now()::date - date '2000-01-01')::bigint << 44) | (1::bigint << 32), 7,"
            " now(), '{\"user_id\": 1}'"
        )
        conn.execute(
            "insert into bemi.row_changes (committed_at, commit_position, position, context_id, id,"
            ' ordinal, epoch, relation, operation, schema, "table", primary_key, after)'
            " select now(), 10, 9, id, gen_random_uuid(), 1, 1, 1, 'CREATE', 'public', 't', '1',"
            ' \'{"id": 1, "v": "old"}\' from bemi.contexts'
        )
    return Tracked(settings)


def test_init_migrates_a_history_and_its_worker_goes_on(at: Tracked) -> None:
    at.source.execute("insert into t values (2, 'while nobody looked')")
    with pytest.raises(StoreVersionError, match=f"is at version {FIRST}") as caught:
        at.catch_up()
    assert "bemi init" in (caught.value.fix or "")
    assert init(at.settings, report=lambda _: None).gap is None
    at.catch_up()
    at.source.execute("update t set v = 'new'")
    at.catch_up()
    rows = at.query("select * from bemi.changes order by commit_position, ordinal")
    assert [(row["primary_key"], row["operation"], row["before"]) for row in rows] == [
        ("1", "CREATE", {}),
        ("2", "CREATE", {}),
        ("2", "UPDATE", rows[2]["before"]),
    ]
    assert rows[0]["context"] == {"user_id": 1}
    assert [row["rules"] is None for row in rows] == [True, False, False]
    (interval,) = at.query("select opened, state_position from bemi.intervals")
    assert interval["opened"] == "init"
    at.close()


def test_migrating_again_changes_nothing(at: Tracked) -> None:
    with psycopg.connect(at.settings.destination_url, autocommit=True) as conn:
        assert migrate.migrate(conn, "bemi")[0] == FIRST + 1
        assert migrate.migrate(conn, "bemi") == []
    at.close()
