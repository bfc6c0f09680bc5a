"""Reverts over HTTP: the plan that was seen, all of it or nothing, by an editor."""

import re
from collections.abc import Iterator

import psycopg
import pytest

from bemi.config import Settings
from bemi.embedded import Server
from tests.support import databases
from tests.support.tracked import Tracked
from tests.support.tracking import track
from tests.support.web import API, Web, serve


@pytest.fixture(scope="module")
def at(server: Server) -> Iterator[Tracked]:
    """A table for each test, with two rows that were updated."""
    with databases.pair(server) as urls:
        tables = ("todo", "conflicting", "refused", "ruled")
        with psycopg.connect(urls[0], autocommit=True) as conn:
            for table in tables:
                conn.execute(f"create table {table} (id int primary key, task text)".encode())
        made = Tracked(track(*urls, schemas=["*"], full=["public.*"]))
        for table in tables:
            made.source.execute(f"insert into {table} values (1, 'a'), (2, 'b')".encode())
            made.source.execute(f"update {table} set task = upper(task)".encode())
        made.catch_up()
        yield made
        made.close()


@pytest.fixture(scope="module")
def web(at: Tracked) -> Iterator[Web]:
    """A server that may write to it."""
    with serve(at.settings) as running:
        yield running


def test_a_plan_is_seen_then_applied_and_is_in_the_history(at: Tracked, web: Web) -> None:
    _, session = web.person("grace", "editor")
    grace = web.browser(session)
    wanted = {"table": "todo", "operation": ["update"]}
    plan = grace.post(f"{API}/reverts/plan", json=wanted).json()
    assert plan["changes"] == 2
    assert [(row["key"], row["fields"][0]["target"]) for row in plan["rows"]] == [
        ("1", "a"),
        ("2", "b"),
    ]
    assert plan["conflicts"] == []
    assert "update" in plan["sql"].lower()
    assert '"user":"grace"' in plan["sql"]
    assert at.source.execute("select task from todo order by id").fetchall() == [("A",), ("B",)]
    answer = grace.post(f"{API}/reverts/apply", json={**wanted, "plan": plan["plan"]})
    assert answer.json()["applied"]["rows"] == 2
    assert at.source.execute("select task from todo order by id").fetchall() == [("a",), ("b",)]
    at.catch_up()
    newest = web.get("/changes", limit=1)["changes"][0]
    assert "grace" in str(newest["context"])
    assert newest["context"]["revert"]["filters"]["table"] == "todo"
    # What was chosen may be told by values of what others don't see.
    scoped = web.client(web.token("viewer", [{"table": "public.todo", "columns": ["id"]}]))
    found = web.get("/changes", scoped, limit=1)["changes"][0]["context"]
    assert (found["user"], found["job"]) == ("grace", "bemi revert")
    assert "revert" not in found
    # It would be another plan by now: there is nothing left to be done.
    again = grace.post(f"{API}/reverts/apply", json={**wanted, "plan": plan["plan"]})
    assert (again.status_code, again.json()["type"]) == (409, "urn:bemi:conflict")
    recorded = web.get("/accesses", limit=20)["accesses"]
    asked = [each for each in recorded if each["action"].endswith("/reverts/apply")]
    assert asked[0]["actor"] == "grace"
    assert asked[0]["asked"]["plan"] == plan["plan"]


def test_conflicts_stop_all_but_what_has_none(at: Tracked, web: Web) -> None:
    at.source.execute("update conflicting set task = 'mine' where id = 2")
    update = web.get("/changes", table="conflicting", key="1")["changes"][0]
    wanted = {"transaction": update["transaction_id"]}
    plan = web.as_admin.post(f"{API}/reverts/plan", json=wanted).json()
    assert [each["key"] for each in plan["conflicts"]] == ["2"]
    answer = web.as_admin.post(f"{API}/reverts/apply", json={**wanted, "plan": plan["plan"]})
    assert answer.status_code == 409
    assert answer.json()["conflicts"][0]["key"] == "2"
    assert at.source.execute("select task from conflicting where id = 1").fetchone() == ("A",)
    skipped = web.as_admin.post(
        f"{API}/reverts/apply", json={**wanted, "plan": plan["plan"], "skip_conflicts": True}
    )
    assert skipped.json()["applied"]["skipped"] == 1
    assert at.source.execute("select task from conflicting order by id").fetchall() == [
        ("a",),
        ("mine",),
    ]


def test_what_the_database_says_to_it_is_told(at: Tracked) -> None:
    role = f"writes_nothing_{at.source.info.dbname}"
    at.source.execute(f"create role {role} login password 'x'".encode())
    url = re.sub(r"//[^@/]*@", f"//{role}:x@", at.settings.source_url)
    try:
        with serve(at.settings, write_urls={at.settings.source: url}) as web:
            answer = web.as_admin.post(f"{API}/reverts/plan", json={"table": "refused"})
        assert answer.status_code == 409
        assert "permission denied for table refused" in answer.json()["detail"]
        assert url not in answer.text
    finally:
        at.source.execute(f"drop role {role}".encode())
    with serve(at.settings, write_urls={at.settings.source: url}) as web:
        answer = web.as_admin.post(f"{API}/reverts/plan", json={"table": "refused"})
    # How the server connects to it is not.
    assert answer.status_code == 503
    assert role not in answer.text


def test_a_rule_that_stands_in_the_way_is_told(at: Tracked, web: Web) -> None:
    at.source.execute("alter table ruled add constraint loud check (task = upper(task)) not valid")
    wanted = {"table": "ruled", "operation": ["update"]}
    plan = web.as_admin.post(f"{API}/reverts/plan", json=wanted).json()["plan"]
    answer = web.as_admin.post(f"{API}/reverts/apply", json={**wanted, "plan": plan})
    assert answer.status_code == 409, answer.text
    assert "loud" in answer.json()["detail"]
    assert answer.json()["detail"].count("nothing was written") == 1


def test_what_means_nothing_is_refused(history: Settings) -> None:
    with serve(history, write_urls={}) as web:
        answer = web.as_admin.post(f"{API}/reverts/plan", json={"table": "todo"})
        assert (answer.status_code, "fix" in answer.json()) == (400, True)
    urls = {"one": history.source_url, "two": history.source_url}
    with serve(history, write_urls=urls) as web:
        for body, status in (
            ({"table": "todo"}, 400),
            ({"table": "todo", "source": "three"}, 400),
            ({"source": "one"}, 400),
            ({"source": "one", "ids": ["x"]}, 400),
            ({"source": "one", "tabel": "todo"}, 422),
            ({"source": "one", "after": {"task": 1.5}}, 422),
            ({"source": "one", "after": {"task": "\0"}}, 422),
        ):
            answer = web.as_admin.post(f"{API}/reverts/plan", json=body)
            assert answer.status_code == status, (body, answer.text)
