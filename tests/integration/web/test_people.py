"""Letting people and programs in, and out again."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from bemi.errors import UsageError
from bemi.store import people
from bemi.store.people import Role
from tests.support.attic import SCOPES
from tests.support.waiting import until
from tests.support.web import API, Web


def test_admins_let_others_in_and_out(web: Web) -> None:
    answer = web.as_admin.post(
        f"{API}/people", json={"name": "edsger", "role": "viewer", "scopes": SCOPES}
    )
    assert answer.status_code == 201
    person, link = answer.json()["person"], answer.json()["link"]
    assert link.startswith(f"{web.base}/sign-in?link=")
    browser = web.client(**{"Sec-Fetch-Site": "same-origin"})
    assert browser.post("/sign-in", data={"link": link.partition("=")[2]}).status_code == 303
    assert web.get("/me", browser)["scopes"] == SCOPES
    path = f"{API}/people/{person['id']}"
    for body, status in (
        ({"role": "admin"}, 400),  # who may see a part only lets nobody in
        ({"role": "admin", "scopes": None}, 200),
        ({"role": "boss"}, 422),
        ({"scopes": [{"table": "."}], "role": "viewer"}, 400),
        ({"rule": "viewer"}, 422),
        ({"role": "viewer"}, 200),
    ):
        answer = web.as_admin.patch(path, json=body)
        assert answer.status_code == status, (body, answer.text)
    assert web.get("/me", browser)["role"] == "viewer"
    assert web.as_admin.patch(path, json={"disabled": True}).json()["disabled_at"]
    assert browser.get(f"{API}/me").status_code == 401
    assert web.as_admin.post(f"{path}/link").status_code == 400
    assert web.as_admin.patch(path, json={"disabled": False}).status_code == 200
    assert browser.get(f"{API}/me").status_code == 401  # its session ended for good
    assert (
        web.as_admin.post(f"{API}/people", json={"name": "edsger", "role": "viewer"}).status_code
        == 400
    )


def test_who_is_disabled_meanwhile_stays_so(web: Web) -> None:
    """Whatever another admin changes at the same time."""
    id, _ = web.person("barbara", "editor")
    path = f"{API}/people/{id}"
    waiting = (
        "select count(*) from pg_stat_activity where datname = current_database()"
        " and wait_event_type = 'Lock'"
    )
    with web.conn() as conn, web.conn() as other, ThreadPoolExecutor(1) as threads:
        with conn.transaction():
            conn.execute("lock table bemi.people in share row exclusive mode")
            conn.execute("update bemi.people set disabled_at = now() where person_id = %s", [id])
            changed = threads.submit(web.as_admin.patch, path, json={"role": "viewer"})
            until(lambda: other.execute(waiting).fetchone() == (1,), 20, "it waits")
        person = changed.result().json()
    assert person["role"] == "viewer"
    assert person["disabled_at"] is not None


def test_tokens_hold_until_they_are_revoked_or_expire(web: Web) -> None:
    answer = web.as_admin.post(f"{API}/tokens", json={"name": "t", "role": "viewer", "days": 1})
    id, secret = answer.json()["id"], answer.json()["token"]
    client = web.client(secret)
    assert client.get(f"{API}/me").status_code == 200
    with web.conn() as conn:
        conn.execute("update bemi.api_tokens set expires_at = now() where token_id = %s", [id])
        assert client.get(f"{API}/me").status_code == 401
        conn.execute("update bemi.api_tokens set expires_at = null where token_id = %s", [id])
    assert client.get(f"{API}/me").status_code == 200
    assert web.as_admin.delete(f"{API}/tokens/{id}").status_code == 200
    assert client.get(f"{API}/me").status_code == 401
    assert web.as_admin.delete(f"{API}/tokens/999999").status_code == 404


def test_who_signs_in_while_they_are_disabled_has_no_session_left(web: Web) -> None:
    id, _ = web.person("adele", "viewer")
    with web.conn() as conn:
        secret = people.link(conn, "bemi", id)
    waiting = (
        "select count(*) from pg_stat_activity where datname = current_database()"
        " and wait_event_type = 'Lock'"
    )
    browser = web.client(**{"Sec-Fetch-Site": "same-origin"})
    with web.conn() as conn, web.conn() as other, ThreadPoolExecutor(1) as threads:
        with people.held(conn, "bemi", id) as person:
            assert person is not None
            conn.execute("select from bemi.people where person_id = %s for update", [id])
            signed_in = threads.submit(browser.post, "/sign-in", data={"link": secret})
            until(lambda: other.execute(waiting).fetchone() == (1,), 20, "it waits")
            people.change_person(conn, "bemi", id, role="viewer", scopes=None, disabled=True)
        assert signed_in.result().status_code == 403
        sessions = "select count(*) from bemi.sessions where person_id = %s"
        assert other.execute(sessions, [id]).fetchone() == (0,)


def test_tokens_of_who_is_disabled_are_revoked_when_that_is_asked_for(web: Web) -> None:
    _, session = web.person("niklaus", "admin")
    browser = web.browser(session)
    made = browser.post(f"{API}/tokens", json={"name": "program", "role": "admin"}).json()
    first = web.client(made["token"])
    # And what that token makes.
    second = web.client(
        first.post(f"{API}/tokens", json={"name": "other", "role": "viewer"}).json()["token"]
    )
    (id,) = [each["id"] for each in web.get("/people")["people"] if each["name"] == "niklaus"]
    path = f"{API}/people/{id}"
    assert web.as_admin.patch(path, json={"disabled": True}).status_code == 200
    # Programs go on: they are not the person.
    assert [each.get(f"{API}/me").status_code for each in (browser, first, second)] == [
        401,
        200,
        200,
    ]
    answer = web.as_admin.patch(path, json={"revoke_tokens": True})
    assert answer.json()["disabled_at"] is not None
    assert [each.get(f"{API}/me").status_code for each in (first, second)] == [401, 401]
    assert web.as_admin.get(f"{API}/me").status_code == 200


def test_nobody_takes_the_last_admin_away(web: Web) -> None:
    with web.conn() as conn, conn.transaction(force_rollback=True):
        admins = [
            each
            for each in people.people(conn, "bemi")
            if each.role == "admin" and each.disabled_at is None
        ]
        *others, last = [each.id for each in admins]

        def change(id: int, role: Role, disabled: bool) -> None:
            people.change_person(conn, "bemi", id, role=role, scopes=None, disabled=disabled)

        for id in others:
            change(id, "admin", True)
        with pytest.raises(UsageError, match="is the last admin"):
            change(last, "admin", True)
        with pytest.raises(UsageError, match="is the last admin"):
            change(last, "viewer", False)
