"""Changes as Server-Sent Events: each once, through reconnects, restarts and whatever is hidden."""

import gc
import itertools
from collections.abc import Iterator
from typing import Any, Final

import psycopg
import pytest

from bemi.api.routes import live
from bemi.embedded import Server
from bemi.store import people
from tests.support import databases
from tests.support.listening import Listener
from tests.support.tracked import Tracked
from tests.support.tracking import track
from tests.support.waiting import until
from tests.support.web import API, Web, serve

SESSIONS: Final = (
    "select count(*) from pg_stat_activity where datname = current_database()"
    " and application_name = 'bemi'"
)
"""Those of streams."""


@pytest.fixture(scope="module")
def at(server: Server) -> Iterator[Tracked]:
    with databases.pair(server) as urls:
        with psycopg.connect(urls[0], autocommit=True) as conn:
            conn.execute("create table todo (id serial primary key, task text)")
            conn.execute("create table secret (id serial primary key, pin text)")
        made = Tracked(track(*urls, schemas=["*"], full=["public.*"]))
        yield made
        made.close()


@pytest.fixture(scope="module")
def web(at: Tracked) -> Iterator[Web]:
    with serve(at.settings) as running:
        yield running


def write(at: Tracked, *tasks: str) -> None:
    """A row each, in one transaction that is captured."""
    at.source.execute("insert into todo (task) select unnest(%s::text[])", [list(tasks)])
    at.catch_up()


def test_a_commit_is_seen_and_a_restart_neither_loses_nor_doubles(at: Tracked) -> None:
    with serve(at.settings) as web:
        listener = Listener(web.as_admin, table="todo")
        write(at, "a", "b")
        assert [each["after"]["task"] for each in listener.take(1)] == ["a"]
        last = listener.last
        listener.close()
    # In the middle of a transaction, with a server that is gone.
    at.source.execute("insert into secret (pin) values ('x')")
    write(at, "c")
    with serve(at.settings) as web:
        listener = Listener(web.as_admin, last, table="todo")
        write(at, "d")
        assert [each["after"]["task"] for each in listener.take(3)] == ["b", "c", "d"]
        listener.close()
        # The end of all streams makes room again.
        until(lambda: b"bemi_http_streams 0.0" in web.serving.metrics.text(), 10, "it is closed")


def test_a_scope_and_filters_hold_for_streams(at: Tracked, web: Web) -> None:
    scopes = [{"table": "public.todo", "columns": ["id"]}]
    listener = Listener(web.client(web.token("viewer", scopes)))
    at.source.execute("insert into secret (pin) values ('x')")
    write(at, "hidden")
    (change,) = listener.take(1)
    assert (change["table"], [*change["after"]]) == ("todo", ["id"])
    listener.close()


def test_who_may_not_any_more_is_not_told_more(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_BEAT", 0.1)
    with web.conn() as conn:
        id, secret = people.add_token(
            conn, "bemi", "short", "viewer", None, created_by="ada", lasts=None
        )
        listener = Listener(web.client(secret))
        beats = 0
        for kind, _ in listener.events():
            beats += kind == "beat"
            if beats == 2:
                people.revoke_token(conn, "bemi", id)
    # It has ended by itself.
    assert beats >= 2
    listener.close()


def test_the_places_are_counted(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web.serving.streams.places, "most", 2)
    until(lambda: b"bemi_http_streams 0.0" in web.serving.metrics.text(), 10, "none is open")
    listeners = [Listener(web.as_admin) for _ in range(2)]
    answer = web.as_admin.get(f"{API}/stream")
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:bemi:busy")
    monkeypatch.setattr(web.serving.streams.places, "most", 50)
    monkeypatch.setattr(web.serving.streams.places, "most_of_one", 2)
    # Nobody takes all of them.
    assert web.as_admin.get(f"{API}/stream").status_code == 503
    listeners.append(Listener(web.client(web.token("viewer"))))
    # Nobody has to wait behind them.
    assert web.get("/me")["name"] == "admin"
    for each in listeners:
        each.close()
    until(lambda: b"bemi_http_streams 0.0" in web.serving.metrics.text(), 10, "they are closed")
    # And so are their connections, in the middle of waiting as they were.
    with web.conn() as conn:
        until(lambda: conn.execute(SESSIONS).fetchone() == (0,), 10, "no session is left")
    assert _status(web, start="0/0=") == 400
    assert _status(web, start="now", limit=1) == 422
    Listener(web.as_admin).close()


def test_who_leaves_in_the_middle_leaves_no_session(at: Tracked, web: Web) -> None:
    write(at, "first")
    start = web.get("/changes", limit=1)["changes"][0]["id"]
    rows = "select repeat('x', 999) from generate_series(1, 3000)"
    at.source.execute(f"insert into todo (task) {rows}".encode())
    at.catch_up()
    gc.disable()  # which would come across them, at some time
    try:
        for _ in range(3):
            listener = Listener(web.as_admin, start=start)
            listener.take(1)
            listener.close()
        with web.conn() as conn:
            until(lambda: conn.execute(SESSIONS).fetchone() == (0,), 10, "no session is left")
    finally:
        gc.enable()


def test_what_is_missing_is_told(at: Tracked, web: Web) -> None:
    write(at, "before")
    newest = web.get("/changes", limit=1)["changes"][0]["id"]
    at.destination.execute(
        "insert into bemi.gaps (source_id, epoch, from_position, to_position, cause, detail)"
        " select source_id, epoch, position, position + 8, 'slot_ahead', 'made up'"
        " from bemi.checkpoints"
    )
    listener = Listener(web.as_admin, start=newest)
    write(at, "behind")
    told = [event for event in itertools.islice(listener.events(), 3) if event[0] != "beat"]
    assert [kind for kind, _ in told] == ["missing", "change"]
    assert (told[0][1]["cause"], told[0][1]["source"]) == ("slot_ahead", at.settings.source)
    (source,) = web.get("/sources")["sources"]
    assert source["health"] == "gap"
    assert ["slot_ahead" in each and "bemi recover" in each for each in source["findings"]] == [
        True
    ]
    listener.close()


def _status(web: Web, **query: Any) -> int:
    return web.as_admin.get(f"{API}/stream", params=query).status_code
