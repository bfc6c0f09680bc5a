"""The log of who has asked for what: all of it, before it is told, within bounds."""

from datetime import timedelta
from typing import Any

import psycopg

from bemi.config import Settings
from bemi.store import accesses, people
from tests.support.waiting import until
from tests.support.web import API, Web, serve


def test_everything_that_is_asked_is_recorded(web: Web) -> None:
    token = web.token("viewer", name="reader")
    client = web.client(token)
    web.get("/me")
    client.get(f"{API}/changes", params={"table": "todo", "after": "task=\0", "context": "a=1"})
    client.get(f"{API}/people")
    found = web.get("/accesses", limit=3)
    itself, refused, allowed = found["accesses"]
    assert itself["action"] == "GET /api/v1/accesses"
    assert (allowed["actor"], allowed["kind"], allowed["action"], allowed["allowed"]) == (
        "reader",
        "token",
        "GET /api/v1/changes",
        True,
    )
    assert allowed["asked"] == {"table": "todo", "after": "task=\\0", "context": "a=1"}
    assert (refused["action"], refused["allowed"]) == ("GET /api/v1/people", False)
    assert web.get("/accesses", behind=found["next"], limit=1)["accesses"][0]["id"] < allowed["id"]


def test_what_is_recorded_of_a_request_has_an_end(web: Web) -> None:
    long = "x" * 9_000
    bodies: tuple[dict[str, Any], ...] = (
        {"table": "todo", "after": {f"{long}{number}": long for number in range(40)}},
        {"operation": ["create"] * 5, "context": {f"k{number}": 7 for number in range(50)}},
    )
    client = web.client(web.token("viewer"))
    for body in bodies:
        started = client.post(f"{API}/exports", json=body)
        assert started.status_code == 202
        client.delete(f"{API}/exports/{started.json()['id']}")
    only = ["y" * 900 for _ in range(60)]
    web.as_admin.post(f"{API}/reverts/plan", json={"table": "todo", "only": only})
    with web.conn() as conn:
        rows = conn.execute(
            "select octet_length(asked::text), asked from bemi.accesses"
            " order by access_id desc limit 8"
        ).fetchall()
        several, *_, first, _ = rows
        assert max(size for size, _ in rows) < 60_000
        assert several[1]["only"][-1] == "… 4 more"
        assert first[1]["table"] == "todo"
        assert len(first[1]["after"]) < 12


def test_nobody_hides_what_they_ask_for_behind_what_they_do_not(web: Web) -> None:
    change = web.get("/changes", table="todo")["changes"][0]["id"]
    client = web.client(web.token("viewer"))
    junk = [("key", "x" * 1000)] * 25
    of_two = [("table", "todo"), ("key", "2"), ("when", change)]
    assert client.get(f"{API}/record/at", params=[*junk, *of_two]).status_code == 200
    padded = f"{'{' * 3000}{change}"
    assert client.get(f"{API}/changes/{padded}").status_code == 200
    resumed = {"Last-Event-ID": "beginning"}
    with client.stream("GET", f"{API}/stream", headers=resumed) as answer:
        assert answer.status_code == 200
    with web.conn() as conn:
        rows = conn.execute("select asked from bemi.accesses order by access_id desc limit 3")
        (stream,), (one,), (record,) = rows.fetchall()
    assert (record["table"], record["key"][-1], record["when"]) == ("todo", "2", change)
    assert one["id"] == padded
    assert stream == resumed
    # What would not be recorded to its end is not answered.
    answer = client.get(f"{API}/record/at", params=[*junk * 2, *of_two])
    assert (answer.status_code, answer.json()["type"]) == (414, "urn:bemi:too-long")
    for body in ({"key": f"{' ' * 1000}2"}, {"table": " " * 1001}):
        assert client.post(f"{API}/exports", json=body).status_code == 422
    assert web.as_admin.post(f"{API}/reverts/plan", json={"ids": [padded]}).status_code == 422


def test_who_looked_at_a_record_is_known_however_they_asked(web: Web) -> None:
    client = web.client(web.token("viewer", name="shy"))
    change = web.get("/changes", table="todo")["changes"][0]["id"]
    of_two = [("table", "x"), ("table", "todo"), ("key", "9"), ("key", "2"), ("when", change)]
    assert client.get(f"{API}/record/at", params=of_two).json()["row"]["values"]["id"] == 2
    spaced = {"table": "public.pair", "key": '[ 1,  "x/y" ]'}
    assert client.get(f"{API}/record/changes", params=spaced).json()["changes"]
    sent = {"table": "pair", "key": '["1", "x/y"]'}
    assert client.post(f"{API}/exports", json=sent).status_code == 202

    def looked(table: str, key: str) -> list[str]:
        found = web.get("/accesses", table=table, key=key, limit=9)["accesses"]
        return [each["action"] for each in found if each["actor"] == "shy"]

    assert looked("public.todo", "2") == ["GET /api/v1/record/at"]
    for key in ('["1","x/y"]', '["1", "x/y"]'):
        assert looked("pair", key) == ["POST /api/v1/exports", "GET /api/v1/record/changes"]


def test_accesses_are_kept_for_so_long_and_no_longer(history: Settings) -> None:
    with psycopg.connect(history.destination_url, autocommit=True) as conn:

        def remember(*days: int) -> None:
            conn.execute(
                "insert into bemi.accesses (at, actor, address, action, asked, allowed)"
                " select now() - make_interval(days => d), 'old', '', 'x', '{}', true"
                " from unnest(%s) d",
                [[*days]],
            )

        def left() -> list[int]:
            rows = conn.execute(
                "select (now()::date - at::date) from bemi.accesses where actor = 'old' order by at"
            )
            return [days for (days,) in rows]

        remember(500, 100, 90, 20)
        assert accesses.forget(conn, "bemi", timedelta(days=400)) == 1
        assert accesses.forget(conn, "bemi", timedelta(days=400)) == 0
        # Nobody hides what was done just now.
        assert accesses.forget(conn, "bemi", timedelta(0)) >= 2
        assert left() == [20]
        remember(*[500] * 20_001)
        with serve(history):
            until(lambda: left() == [20], 20, "they are deleted")


def test_what_is_refused_is_recorded_as_that(web: Web) -> None:
    _, session = web.person("mallory", "viewer", [{"table": "public.todo"}])
    browser = web.browser(session)
    assert browser.get(f"{API}/changes", params={"table": "secret"}).status_code == 403
    elsewhere = web.client(Cookie=f"{web.serving.cookie}={session}")
    assert elsewhere.post(f"{API}/exports", json={}).status_code == 403
    _, forged, refused, _ = web.get("/accesses", limit=4)["accesses"]
    for each in (forged, refused):
        assert (each["actor"], each["allowed"]) == ("mallory", False)
    assert refused["asked"] == {"table": "secret"}
    assert forged["action"] == "POST /api/v1/exports"


def test_what_is_recorded_is_what_was_done(web: Web) -> None:
    """Whatever else the query says."""
    with web.conn() as conn:
        token, _ = people.add_token(conn, "bemi", "x", "viewer", None, created_by="ada", lasts=None)
    web.as_admin.delete(f"{API}/tokens/{token}", params={"id": "1"})
    web.as_admin.get(f"{API}/transactions/7", params={"transaction": "8"})
    web.as_admin.get(f"{API}/traces/one", params={"trace": "two"})
    _, trace, transaction, revoked = web.get("/accesses", limit=4)["accesses"]
    assert trace["asked"] == {"trace": "one"}
    assert transaction["asked"] == {"transaction": "7"}
    assert revoked["asked"] == {"id": str(token)}


def test_what_can_not_be_recorded_is_not_told(web: Web) -> None:
    with web.conn() as conn, conn.transaction():
        conn.execute("alter table bemi.accesses add constraint full_disk check (false) not valid")
        conn.execute("commit")
        try:
            answer = web.as_admin.get(f"{API}/changes")
        finally:
            conn.execute("begin")
            conn.execute("alter table bemi.accesses drop constraint full_disk")
    assert answer.status_code == 503
    assert "changes" not in answer.json()
