"""Who may see a part only sees nothing of the rest, wherever they look."""

import itertools
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from bemi.store.scope import Scope
from tests.integration.conftest import Track
from tests.support.attic import BIG, SCOPES
from tests.support.listening import Listener
from tests.support.web import API, Web, serve


@pytest.fixture(scope="module")
def scoped(web: Web) -> httpx.Client:
    return web.client(web.token("editor", SCOPES))


def test_a_scope_narrows_all_that_is_read(web: Web, scoped: httpx.Client) -> None:
    hidden = ("secret", "pinwheel", "pinafore", "hidden", "12345678901234567890")
    paths: tuple[tuple[str, dict[str, Any]], ...] = (
        ("/changes", {"limit": 1000}),
        ("/transactions", {}),
        ("/traces/req-1", {}),
        ("/stats", {"by": "table"}),
        ("/tables", {}),
        ("/coverage", {}),
        ("/sources", {}),
        ("/export", {}),
        ("/export", {"format": "csv"}),
        ("/record/blame", {"table": "todo", "key": "2"}),
        ("/record/changes", {"table": "todo", "key": "2"}),
    )
    for path, query in paths:
        answer = scoped.get(API + path, params=query)
        assert answer.status_code == 200, answer.text
        for each in hidden:
            assert each not in answer.text, (path, each)
    found = web.get("/changes", scoped, limit=1000)["changes"]
    assert {each["table"] for each in found} == {"todo", "pair"}
    for each in found:
        if each["table"] == "todo":
            assert {*each["before"], *each["after"]} <= {"id", "task"}
    assert {name for each in found for name in each["after"]} == {"id", "task", "a", "b", "n"}
    blamed = web.get("/record/blame", scoped, table="todo", key="2")["columns"]
    assert [each["column"] for each in blamed] == ["id", "task"]
    update = web.get("/changes", table="todo", changed="done")["changes"][0]["id"]
    assert [*web.get(f"/changes/{update}/diff", scoped)["columns"]] == ["task"]
    rows = scoped.get(f"{API}/table/at", params={"table": "todo", "when": update}).text
    assert "price" not in rows
    assert "paint it" in rows
    row = web.get("/record/at", scoped, table="todo", key="1", when=update)["row"]
    assert row["values"] == {"id": 1, "task": "paint it"}
    diff = scoped.get(f"{API}/table/diff", params={"table": "todo", "start": update}).text
    assert "price" not in diff


def test_what_is_out_of_scope_is_refused_or_not_there(web: Web, scoped: httpx.Client) -> None:
    secret = web.get("/changes", table="secret")["changes"][0]
    assert scoped.get(f"{API}/changes/{secret['id']}").status_code == 404
    assert scoped.get(f"{API}/changes/{secret['id']}/diff").status_code == 404
    when = {"when": secret["id"]}
    for path, query in (
        ("/changes", {"table": "secret"}),
        ("/changes", {"table": "public.secret"}),
        ("/changes", {"table": "todo", "after": "price=1"}),
        ("/changes", {"table": "todo", "before": "done=true"}),
        ("/changes", {"table": "todo", "changed": "price"}),
        ("/changes", {"after": "pin=pinafore"}),
        ("/changes", {"changed": "pin"}),
        ("/changes", {"context": "SQL=x"}),
        ("/stats", {"by": "context.SQL"}),
        ("/stats", {"after": "pin=pinafore"}),
        ("/export", {"after": "pin=pinafore"}),
        ("/stream", {"after": "pin=pinafore"}),
        ("/record/blame", {"table": "secret", "key": "1"}),
        ("/record/at", {"table": "secret", "key": "1", **when}),
        ("/table/at", {"table": "secret", **when}),
        ("/table/diff", {"table": "secret", "start": secret["id"]}),
    ):
        answer = scoped.get(API + path, params=query)
        assert answer.status_code == 403, (path, query, answer.text)
    assert scoped.post(f"{API}/reverts/plan", json={"table": "todo", "key": "2"}).status_code == 403
    nothing = web.client(web.token("viewer", []))
    assert web.get("/changes", nothing)["changes"] == []
    assert nothing.get("/metrics").status_code == 200


def test_what_a_context_may_tell_of_other_tables_is_left_out(web: Web) -> None:
    """Its transaction wrote these, too."""
    client = web.client(web.token("viewer", [{"table": "public.todo"}]))
    for path, query in (
        ("/changes", {}),
        ("/transactions", {}),
        ("/traces/req-1", {}),
        ("/export", {}),
        ("/record/blame", {"table": "todo", "key": str(BIG)}),
    ):
        answer = client.get(API + path, params=query)
        assert "req-1" in answer.text
        assert "hidden" not in answer.text, path
    for path, query in (
        ("/changes", {"context": "SQL=x"}),
        ("/changes", {"context": "revert.filters.after.pin=x"}),
        ("/stats", {"by": "context.revert"}),
        ("/stats", {"by": "context.replay.filters"}),
    ):
        assert client.get(API + path, params=query).status_code == 403, (path, query)


def test_a_partition_is_seen_as_the_table_above_it(tracked: Track) -> None:
    at = tracked(
        "create table event (id int primary key, pin text) partition by range (id)",
        "create table event_1 partition of event for values from (0) to (10)",
        'create schema "public.event"',
        'create table "public.event".pins (id int primary key, pin text)',
        full=("*.*",),
    )
    at.source.execute("insert into event values (1, 'pinwheel')")
    at.source.execute("insert into \"public.event\".pins values (1, 'pinafore')")
    at.catch_up()
    columns = {"table": "public.event", "columns": ["id"]}
    with serve(at.settings) as web:
        oldest, newest = web.get("/changes", oldest_first=True)["changes"]
        when = newest["id"]

        def asked(client: httpx.Client, table: str) -> Iterator[httpx.Response]:
            yield client.get(f"{API}/table/at", params={"table": table, "when": when})
            record = {"table": table, "key": "1", "when": when}
            yield client.get(f"{API}/record/at", params=record)
            between = {"table": table, "start": oldest["id"], "end": when}
            yield client.get(f"{API}/table/diff", params=between)

        client = web.client(web.token("viewer", [columns, {"table": "public.event_*"}]))
        for answer in asked(client, "event_1"):
            assert answer.status_code == 200, answer.text
            assert "pinwheel" not in answer.text
        assert '"id":1' in next(asked(client, "event_1")).text
        for scope, table in (
            ({"table": "public.event_1"}, "event_1"),
            # Names may have dots, and this is not one of the schema public.
            ({"table": "public.*"}, "public.event.pins"),
        ):
            for answer in asked(web.client(web.token("viewer", [scope])), table):
                assert answer.status_code == 403, answer.text
        for answer in asked(web.as_admin, "public.event.pins"):
            assert answer.status_code == 200, answer.text

        at.destination.execute(
            "insert into bemi.gaps (source_id, epoch, relation, from_position, to_position, cause,"
            " detail) select k.source_id, k.epoch, n.relation, k.position, k.position + 8,"
            " 'table_dropped', 'made up' from bemi.checkpoints k join bemi.relation_names n"
            " using (source_id) where n.partition = 'public.event_1'"
        )
        at.source.execute("insert into event values (2, 'x')")
        at.catch_up()
        for entry, seen in (([columns], True), ([{"table": "public.other"}], False)):
            client = web.client(web.token("viewer", entry))
            (source,) = web.get("/sources", client)["sources"]
            assert [gap["table"] for gap in source["gaps"]] == ["public.event_1"] * seen
            assert (source["health"] == "gap") is seen
        told = Listener(web.client(web.token("viewer", [columns])), start=when)
        kinds = [kind for kind, _ in itertools.islice(told.events(), 3)]
        assert kinds == ["beat", "missing", "change"]
        told.close()


def test_globs_of_scopes_match_in_sql_as_in_python(web: Web) -> None:
    for table, sees in (
        ("public.todo", True),
        ("public.t*", True),
        ("*.todo", True),
        ("public.to_o", False),
        ("public.%", False),
        ("public.TODO", False),
        ("todo", True),
        ("other.todo", False),
        ("pub.*", False),
    ):
        scopes = [{"table": table}]
        assert Scope.read(scopes).sees("public.todo") is sees, table
        client = web.client(web.token("viewer", scopes))
        found = web.get("/changes", client, limit=1000)["changes"]
        assert any(each["table"] == "todo" for each in found) is sees, table
