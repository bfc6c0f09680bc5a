"""Exports, sent at once or written down: whole, exact, and within bounds."""

import csv
import io
import json
from decimal import Decimal
from typing import Any

import httpx
import pytest
from fastapi import Request

from bemi.api.access import may_still
from bemi.api.exports import Owner
from bemi.api.principals import Principal
from bemi.api.problems import BusyError
from bemi.config import Settings
from bemi.store import people
from tests.support.attic import HOSTILE, PRECISE
from tests.support.waiting import until
from tests.support.web import API, Web, exact, serve


@pytest.mark.parametrize("form", ["ndjson", "csv"])
def test_an_export_has_all_exactly(web: Web, form: str) -> None:
    answer = web.as_admin.get(f"{API}/export", params={"format": form})
    assert f'filename="changes.{form}"' in answer.headers["content-disposition"]
    if form == "ndjson":
        rows = [exact(line) for line in answer.text.splitlines()]
        prices = [row["after"].get("price") for row in rows]
        texts = [row["after"].get("task") for row in rows]
    else:
        table = list(csv.DictReader(io.StringIO(answer.text, newline="")))
        rows = [exact(row["after"]) for row in table]
        prices = [row.get("price") for row in rows]
        texts = [row.get("task") for row in rows]
    assert len(rows) == 1512
    assert Decimal(PRECISE) in prices
    assert HOSTILE in texts


def test_an_export_beyond_the_places_is_told_to_wait(web: Web) -> None:
    exports = web.serving.exports
    taken = [exports.taking(Owner(f"other {at % 2}", lambda: True), _nothing()) for at in range(6)]
    for each in taken:
        next(each)
    answer = web.as_admin.get(f"{API}/export")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    for each in taken:
        each.close()
    assert web.as_admin.get(f"{API}/export", params={"limit": 1}).status_code == 200
    assert exports.places.taken == 0


def test_nobody_takes_all_places_of_exports(web: Web) -> None:
    taken = [web.serving.exports.taking(Owner("one", lambda: True), _nothing()) for _ in range(4)]
    for each in taken[:3]:
        next(each)
    with pytest.raises(BusyError, match="3 exports at once already"):
        next(taken[3])
    assert web.as_admin.get(f"{API}/export", params={"limit": 1}).status_code == 200
    for each in taken:
        each.close()


def test_an_export_breaks_off_for_who_may_not_any_more(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bemi.api.exports._AGAIN", 0.0)
    with web.conn() as conn:
        id, secret = people.add_token(
            conn, "bemi", "short", "viewer", None, created_by="ada", lasts=None
        )
        client = web.client(secret)
        assert len(client.get(f"{API}/export").text.splitlines()) == 1512

        looks = iter(range(100))

        def revoked(request: Request, who: Principal) -> bool:
            if next(looks) == 1:  # behind the first piece, which is sent by then
                people.revoke_token(conn, "bemi", id)
            return may_still(request, who)

        monkeypatch.setattr("bemi.api.access.may_still", revoked)
        # No client takes it for whole.
        with pytest.raises(httpx.RemoteProtocolError):
            client.get(f"{API}/export")
    assert client.get(f"{API}/me").status_code == 401


def test_an_export_behind_ones_back(web: Web) -> None:
    me = web.client(web.token("viewer"))
    started = me.post(f"{API}/exports", json={"format": "csv", "table": "bulk"})
    assert (started.status_code, started.json()["rows"]) == (202, 0)
    path = f"/exports/{started.json()['id']}"
    until(lambda: web.get(path, me)["state"] == "done", 20, "it is written")
    done = web.get(path, me)
    file = me.get(f"{API}{path}/file")
    assert file.headers["content-type"] == "text/csv; charset=utf-8"
    assert (done["rows"], done["bytes"]) == (1501, len(file.content))
    assert len(list(csv.reader(io.StringIO(file.text, newline="")))) == 1502
    # It is nobody else's, an admin's neither.
    for other in (f"{API}{path}", f"{API}{path}/file"):
        assert web.as_admin.get(other).status_code == 404
    assert web.get("/exports")["exports"] == []
    files = [*web.serving.background._folder.iterdir()]  # type: ignore[union-attr]
    assert me.delete(f"{API}{path}").json() == {"exports": []}
    assert me.get(f"{API}{path}/file").status_code == 404
    assert len([*web.serving.background._folder.iterdir()]) == len(files) - 1  # type: ignore[union-attr]


def test_an_export_is_kept_for_so_long_and_no_longer(
    history: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where nobody asks for it any more; and one that fails is in the log."""
    monkeypatch.setattr("bemi.api.background.LOOKS", 0.05)
    with serve(history) as web:
        web.as_admin.post(f"{API}/exports", json={"limit": 1})
        export = next(iter(web.serving.background._exports.values()))
        until(export.path.exists, 20, "it is written")
        monkeypatch.setattr("bemi.api.background.LASTS", 0.0)
        until(lambda: not export.path.exists(), 20, "it is gone")
        monkeypatch.setattr("bemi.api.background.LASTS", 3600.0)
        with web.conn() as conn:
            conn.execute("alter view bemi.changes rename to elsewhere")
            try:
                id = web.as_admin.post(f"{API}/exports", json={}).json()["id"]
                until(lambda: web.get(f"/exports/{id}")["state"] == "failed", 20, "it fails")
            finally:
                conn.execute("alter view bemi.elsewhere rename to changes")
    (record,) = [each for each in caplog.records if each.message == "export failed"]
    assert "changes" in str(record.__dict__["reason"])


def test_an_export_that_is_given_up_ends_in_the_middle_of_its_question(web: Web) -> None:
    waiting = (
        "select count(*) from pg_stat_activity where datname = current_database()"
        " and wait_event_type = 'Lock'"
    )
    with web.conn() as conn, web.conn() as other, conn.transaction():
        conn.execute("lock table bemi.row_changes")
        path = f"{API}/exports/{web.as_admin.post(f'{API}/exports', json={}).json()['id']}"
        until(lambda: other.execute(waiting).fetchone() == (1,), 20, "it waits")
        assert web.as_admin.delete(path).status_code == 200
        until(lambda: other.execute(waiting).fetchone() == (0,), 20, "it does not wait any more")


def test_exports_that_are_written_down_have_an_end(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failed() -> str:
        id = web.as_admin.post(f"{API}/exports", json={}).json()["id"]
        until(lambda: web.get(f"/exports/{id}")["state"] == "failed", 20, "it fails")
        export = web.get(f"/exports/{id}")
        web.as_admin.delete(f"{API}/exports/{id}")
        assert export["bytes"] == 0
        return str(export["error"])

    # Other tests of this server have left theirs.
    folder = web.serving.background._folder
    before = {*folder.iterdir()} if folder else set()
    monkeypatch.setattr("bemi.api.background.LARGEST", 100_000)
    assert "larger than 0 MB" in failed()
    monkeypatch.setattr("bemi.api.background.LARGEST", 10**9)
    monkeypatch.setattr("bemi.api.background.ROOM", 100_000)
    assert "the server keeps no more" in failed()
    folder = web.serving.background._folder
    assert folder is not None
    assert {*folder.iterdir()} <= before


def test_somebody_has_so_many_exports_and_no_more(web: Web) -> None:
    scopes = [{"table": "public.todo", "columns": ["id"]}]
    me = web.client(web.token("viewer", scopes))
    for body, status in (({"table": "secret"}, 403), ({"tabel": "todo"}, 422)):
        assert me.post(f"{API}/exports", json=body).status_code == status
    ids = [me.post(f"{API}/exports", json={}).json()["id"] for _ in range(5)]
    assert me.post(f"{API}/exports", json={}).status_code == 503
    until(lambda: web.get(f"/exports/{ids[0]}", me)["state"] == "done", 20, "it is written")
    rows = [json.loads(line) for line in me.get(f"{API}/exports/{ids[0]}/file").text.splitlines()]
    assert {row["table"] for row in rows} == {"todo"}
    assert {name for row in rows for name in row["after"]} == {"id"}
    for id in ids:
        me.delete(f"{API}/exports/{id}")


def _nothing() -> Any:
    yield b""
