"""Who may what: every route there is, taken from the application itself."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import httpx
import psycopg
import pytest
from fastapi.routing import APIRoute
from limits import RateLimitItemPerMinute
from psycopg.conninfo import make_conninfo

from bemi.api.access import Takes
from bemi.api.archive import Archive
from bemi.api.limits import Limits
from bemi.api.principals import ROLES
from bemi.api.routing import OPEN, role_of, routes_of
from bemi.api.serving import QUESTIONS_OF_ONE
from bemi.config import Settings
from bemi.errors import SetupError
from bemi.store import people
from bemi.store.grants import ASKED, READABLE, grant
from bemi.store.people import digest_of
from tests.support.attic import SCOPES
from tests.support.embedding import ORIGIN, Embedding
from tests.support.waiting import until
from tests.support.web import API, Web, serve

FOREIGN: Final = "https://evil.example"

Call = tuple[str, str, dict[str, Any]]
Every = list[tuple[Takes | None, Call]]


def calls(web: Web, viewer: httpx.Client) -> Iterator[tuple[Takes | None, Call]]:
    """A request of each route that succeeds for who may, with the role that it takes. `viewer`: who
    is to have an export."""
    updated = web.get("/changes", table="todo", changed="done")["changes"][0]
    change, transaction = updated["id"], updated["transaction_id"]
    with web.conn() as conn:
        person, other = (
            people.add_person(conn, "bemi", f"x {people.new_secret()}", "viewer", None)
            for _ in range(2)
        )
        token, _ = people.add_token(conn, "bemi", "x", "viewer", None, created_by="ada", lasts=None)
    plan = web.as_admin.post(f"{API}/reverts/plan", json={"ids": [change]}).json()["plan"]
    gone = web.get("/changes", table="pair", operation="delete")["changes"][0]["id"]
    undoing = web.as_admin.post(f"{API}/reverts/plan", json={"ids": [gone]}).json()["plan"]
    export = viewer.post(f"{API}/exports", json={"limit": 1}).json()["id"]
    until(lambda: web.get(f"/exports/{export}", viewer)["state"] == "done", 10, "it is written")
    embedding = Embedding(web)
    record = {"table": "todo", "key": "2"}
    bodies: dict[tuple[str, str], dict[str, Any]] = {
        ("GET", "/record"): {"params": record},
        ("GET", "/change"): {"params": {"id": change}},
        ("GET", "/transaction"): {"params": {"number": transaction}},
        ("GET", "/trace"): {"params": {"id": "req-1"}},
        ("GET", "/filter"): {"params": {"add": "table", "value": "todo"}},
        ("GET", "/moment"): {"params": {"when": "now"}},
        ("GET", "/revert"): {"params": {"id": change}},
        ("GET", "/revert/sql"): {"params": {"id": change}},
        ("GET", "/revert/narrow"): {"params": {"how": "only"}},
        ("POST", "/revert"): {"params": {"id": gone}, "data": {"seen": undoing, "typed": "pair"}},
        ("GET", "/trends/by"): {"params": {"what": "operation"}},
        ("GET", "/table"): {"params": {"table": "todo"}},
        ("POST", "/sources/connect"): {"data": {"source": "attic"}},
        ("POST", "/sources/checks"): {"json": {"source": "attic"}},
        ("POST", "/sources/rules"): {"json": {"rules": {"mask": ["task"]}}},
        ("POST", "/theme"): {"data": {"theme": "dark"}},
        ("POST", "/settings/people"): {
            "data": {"name": people.new_secret(), "role": "viewer", "sees": "all"}
        },
        ("GET", "/settings/person"): {"params": {"id": person.id}},
        ("POST", "/settings/person"): {"data": {"id": person.id, "role": "editor", "sees": "all"}},
        ("POST", "/settings/person/link"): {"data": {"id": person.id}},
        ("POST", "/settings/person/disable"): {"data": {"id": other.id}},
        ("POST", "/settings/person/forget"): {"data": {"id": other.id}},
        ("POST", "/settings/person/enable"): {"data": {"id": other.id}},
        ("POST", "/settings/tokens"): {"data": {"name": "x", "role": "viewer", "sees": "all"}},
        ("POST", "/settings/tokens/revoke"): {"data": {"id": token}},
        ("POST", "/settings/embeds"): {"data": {"name": "x", "tables": "public.todo (*): task"}},
        ("POST", "/settings/embeds/revoke"): {"data": {"id": Embedding(web).id}},
        ("GET", "/record/changes"): {"params": record},
        ("GET", "/record/blame"): {"params": record},
        ("GET", "/record/at"): {"params": {**record, "when": change}},
        ("GET", "/table/at"): {"params": {"table": "todo", "when": change}},
        ("GET", "/table/diff"): {"params": {"table": "todo", "start": change}},
        ("POST", "/reverts/plan"): {"json": {"ids": [change]}},
        ("POST", "/reverts/apply"): {
            "json": {"ids": [change], "plan": plan, "skip_conflicts": True}
        },
        ("POST", "/exports"): {"json": {"limit": 1}},
        ("POST", "/people"): {"json": {"name": people.new_secret(), "role": "viewer"}},
        ("PATCH", "/people/{id}"): {"json": {"role": "editor"}},
        ("POST", "/tokens"): {"json": {"name": "x", "role": "viewer"}},
        ("POST", "/embeds"): {"json": embedding.bound},
    }
    for route in api_routes(web):
        for method in sorted(route.methods or ()):
            path = route.path.removeprefix(API)
            ids = {
                "people": person.id,
                "tokens": token,
                "exports": export,
                "embeds": Embedding(web).id,
            }
            id = ids.get(path.split("/")[1], change)
            filled = route.path.replace("{id}", str(id)).replace("{kid}", embedding.kid)
            filled = re.sub(r"\{\w+(:path)?\}", "1", filled)
            yield role_of(route), (method, filled, bodies.get((method, path), {}))


@pytest.fixture(scope="module")
def every(web: Web) -> Every:
    return [*calls(web, web.as_admin)]


def api_routes(web: Web) -> list[APIRoute]:
    return [route for route in routes_of(web.app) if isinstance(route, APIRoute)]


def asked(client: httpx.Client, call: Call) -> int:
    """The status. Of a stream only the beginning is read."""
    method, path, given = call
    with client.stream(method, path, **given) as answer:
        if not answer.is_success:
            answer.read()
            kind = answer.headers.get("content-type", "")
            assert kind in ("application/problem+json", "") or kind.startswith("text/html")
        return answer.status_code


def test_the_open_routes_are_these_and_no_others(web: Web) -> None:
    open_ = {route.path for route in api_routes(web) if role_of(route) is None}
    assert open_ == OPEN - {"/openapi.json"}
    others = {getattr(route, "path", "") for route in routes_of(web.app)} - {
        route.path for route in api_routes(web)
    }
    assert others == {"/openapi.json", "/static"}
    for path in ("/healthz", "/readyz", "/openapi.json", "/sign-in", "/static/bemi.css"):
        assert web.nobody.get(path).status_code == 200


def test_what_takes_more_than_a_viewer(web: Web) -> None:
    """Told once more here, so that no route gets a lower role by mistake."""
    found = {
        (method, route.path.removeprefix(API)): role_of(route)
        for route in api_routes(web)
        for method in route.methods or ()
        if role_of(route) not in (None, "viewer")
    }
    assert found == {
        ("POST", "/reverts/plan"): "editor",
        ("POST", "/reverts/apply"): "editor",
        ("GET", "/revert"): "editor",
        ("POST", "/revert"): "editor",
        ("GET", "/revert/sql"): "editor",
        ("GET", "/revert/narrow"): "editor",
        ("GET", "/sources/connect"): "admin",
        ("POST", "/sources/connect"): "admin",
        ("POST", "/sources/checks"): "admin",
        ("POST", "/sources/rules"): "admin",
        ("GET", "/sources/plan"): "admin",
        ("GET", "/sources/rules"): "admin",
        ("GET", "/people"): "admin",
        ("POST", "/people"): "admin",
        ("PATCH", "/people/{id}"): "admin",
        ("POST", "/people/{id}/link"): "admin",
        ("GET", "/tokens"): "admin",
        ("POST", "/tokens"): "admin",
        ("DELETE", "/tokens/{id}"): "admin",
        ("GET", "/accesses"): "admin",
        ("GET", "/settings/people"): "admin",
        ("POST", "/settings/people"): "admin",
        ("GET", "/settings/person"): "admin",
        ("POST", "/settings/person"): "admin",
        ("POST", "/settings/person/link"): "admin",
        ("POST", "/settings/person/disable"): "admin",
        ("POST", "/settings/person/enable"): "admin",
        ("POST", "/settings/person/forget"): "admin",
        ("GET", "/settings/tokens"): "admin",
        ("POST", "/settings/tokens"): "admin",
        ("POST", "/settings/tokens/revoke"): "admin",
        ("GET", "/settings/embeds"): "admin",
        ("POST", "/settings/embeds"): "admin",
        ("POST", "/settings/embeds/revoke"): "admin",
        ("GET", "/settings/accesses"): "admin",
        ("GET", "/settings/accesses/filter"): "admin",
        ("GET", "/embeds"): "admin",
        ("POST", "/embeds"): "admin",
        ("DELETE", "/embeds/{id}"): "admin",
        ("GET", "/embed/changes"): "embed",
        ("OPTIONS", "/embed/changes"): "embed",
    }


def ended(web: Web) -> Iterator[httpx.Client]:
    """Of those who might once."""
    with web.conn() as conn:
        for end in ("revoked_at = now()", "expires_at = now()"):
            token = web.token("admin")
            conn.execute(
                f"update bemi.api_tokens set {end} where digest = %s".encode(), [digest_of(token)]
            )
            yield web.client(token)
        person, session = web.person(f"x {people.new_secret()}", "admin")
        conn.execute("update bemi.people set disabled_at = now() where person_id = %s", [person])
        yield web.browser(session)
        _, session = web.person(f"x {people.new_secret()}", "admin")
        conn.execute(
            "update bemi.sessions set expires_at = now() where digest = %s", [digest_of(session)]
        )
        yield web.browser(session)


def test_without_a_token_nothing_is_told(web: Web, every: Every) -> None:
    wrong = [
        *ended(web),
        web.nobody,
        web.client("wrong"),
        web.client(web.admin_session),  # a session is no token
        web.client(Authorization=f"Basic {web.token('admin')}"),
        web.browser(web.token("admin")),  # nor is a token a session
        web.client(Cookie=f"{web.serving.cookie}="),
    ]
    number = 0
    customer = Embedding(web).client()
    for role, call in every:
        if role is not None:
            for client in wrong if role == "embed" else (*wrong, customer):
                assert asked(client, call) in (401, 403), call
                number += 1
    assert number > 100


def test_a_role_that_is_too_low_may_not(web: Web, every: Every) -> None:
    clients = {role: web.client(web.token(role)) for role in ROLES}
    number = 0
    for role, call in every:
        if role is not None and role != "embed":
            for lower in ROLES[: ROLES.index(role)]:
                assert asked(clients[lower], call) == 403, call
                number += 1
    assert number > 15


def test_pages_of_another_origin_may_not(web: Web, every: Every) -> None:
    """With whatever the browser would send along."""
    token = web.token("admin")
    foreign = [
        web.client(token, Origin=FOREIGN),
        web.client(token, Origin="null"),
        web.client(token, **{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}),
        web.client(token, **{"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"}),
        web.browser(web.admin_session, Origin=FOREIGN),
        web.browser(web.admin_session, **{"Sec-Fetch-Site": "cross-site"}),
        web.browser(
            web.admin_session,
            **{
                "Sec-Fetch-Site": "cross-site",
                "Sec-Fetch-Mode": "navigate",
                "Sec-Fetch-Dest": "iframe",
            },
        ),
        web.client(token, Host="evil.example"),
    ]
    for role, call in every:
        # Of these, none has a token for an embed.
        unknown = (401,) if role == "embed" else ()
        if role is not None:
            for client in foreign:
                assert asked(client, call) in (403, 421, *unknown), call


def test_a_form_of_another_site_does_nothing(web: Web, every: Every) -> None:
    """A navigation that is no more than following a link is let through; what writes is not."""
    headers = {
        "Sec-Fetch-Site": "cross-site",
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Dest": "document",
    }
    navigating = web.browser(web.admin_session, **headers)
    assert navigating.get("/").status_code == 200
    # An old browser says nothing of where a request comes from.
    silent = web.client()
    silent.cookies.set(web.serving.cookie, web.admin_session, domain="127.0.0.1")
    for role, (method, path, given) in every:
        if method not in ("GET", "HEAD"):
            assert asked(navigating, (method, path, given)) == 403
            if role is not None:
                assert asked(silent, (method, path, given)) == 403
    assert silent.post("/sign-in", data={"link": "x"}).status_code == 403


def test_who_may_succeeds(web: Web) -> None:
    clients: dict[Takes, httpx.Client] = {role: web.client(web.token(role)) for role in ROLES}
    clients["embed"] = Embedding(web).client(Origin=ORIGIN)
    for role, call in calls(web, clients["viewer"]):
        if call[1].startswith(("/sign-in", "/settings/account")):
            continue  # they take secrets, or a provider
        client = web.nobody if role is None else clients[role]
        assert asked(client, call) in (200, 201, 202, 204, 303), call


def test_no_route_tells_of_what_is_out_of_scope(web: Web, every: Every) -> None:
    """Whatever is asked of them by who may see a part: what is refused is not told either."""
    scoped = web.client(web.token("editor", SCOPES), Accept="text/html, */*")
    number = 0
    for role, (method, path, given) in every:
        if method != "GET" or role not in ("viewer", "editor"):
            continue
        with scoped.stream(method, path, **given) as answer:
            is_endless = answer.headers.get("content-type", "").startswith("text/event-stream")
            text = next(answer.iter_text()) if is_endless else answer.read().decode()
        assert answer.status_code in (200, 303, 403, 404), (path, text)
        for hidden in ("secret", "pinwheel", "pinafore", "insert … hidden", "12345678901234567890"):
            assert hidden not in text, path
        number += answer.is_success
    assert number > 25


def test_what_a_session_may_it_may_until_it_ends(web: Web) -> None:
    _, session = web.person("grace", "editor")
    browser = web.browser(session)
    assert web.get("/me", browser) == {
        "kind": "person",
        "name": "grace",
        "role": "editor",
        "scopes": None,
    }
    assert browser.post(f"{API}/reverts/plan", json={"key": "2", "table": "todo"}).is_success
    assert browser.post("/sign-out").headers["location"] == "/sign-in"
    gone = web.browser(session)
    assert gone.get(f"{API}/me").status_code == 401

    _, again = web.person("hedy", "viewer")
    with web.conn() as conn:
        conn.execute(
            "update bemi.sessions set expires_at = now() where digest = %s", [digest_of(again)]
        )
    assert web.browser(again).get(f"{API}/me").status_code == 401


def test_a_proxy_may_ask_for_a_password_of_its_own(web: Web) -> None:
    """Which browsers send along with the session, and which is nothing to us."""
    browser = web.browser(web.admin_session, Authorization="Basic YWRhOnh4")
    assert web.get("/me", browser)["kind"] == "person"
    assert (
        web.nobody.get(f"{API}/me", headers={"Authorization": "Basic YWRhOnh4"}).status_code == 401
    )
    # A token that does not hold is not made up for by a session.
    assert (
        web.browser(web.admin_session, Authorization="Bearer x").get(f"{API}/me").status_code == 401
    )


def test_no_secret_is_in_the_store(web: Web) -> None:
    token = web.token("viewer")
    web.client(token).get(f"{API}/me")
    embedding = Embedding(web)
    embedding.client().get(f"{API}/embed/changes")
    with web.conn() as conn:
        for table in ("people", "sessions", "sign_in_links", "api_tokens", "embeds", "accesses"):
            for (row,) in conn.execute(f"select t::text from bemi.{table} t".encode()):
                assert token not in row
                assert web.admin_session not in row
                assert embedding.key["d"] not in row


def test_headers_of_every_answer(web: Web) -> None:
    answers = [
        web.nobody.get("/sign-in"),
        web.nobody.get(f"{API}/changes"),
        web.as_admin.get(f"{API}/changes"),
        web.nobody.get("/static/bemi.css"),
        web.nobody.get("/nothing"),
        web.client(Host="evil.example").get("/"),
    ]
    for each in answers:
        policy = each.headers["content-security-policy"]
        assert "script-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert each.headers["x-content-type-options"] == "nosniff"
        assert each.headers["referrer-policy"] == "same-origin"
        assert each.headers["x-frame-options"] == "DENY"
        assert "access-control-allow-origin" not in each.headers


def test_a_link_signs_in_once_and_is_not_used_up_by_a_look(web: Web) -> None:
    with web.conn() as conn:
        person = people.add_person(conn, "bemi", "joan", "viewer", None)
        secret = people.link(conn, "bemi", person.id)
    browser = web.client(**{"Sec-Fetch-Site": "same-origin"})
    for _ in range(2):
        assert secret in browser.get("/sign-in", params={"link": secret}).text
    answer = browser.post("/sign-in", data={"link": secret})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "joan" in browser.get("/").text
    assert (
        web.client(**{"Sec-Fetch-Site": "same-origin"})
        .post("/sign-in", data={"link": secret})
        .status_code
        == 403
    )


def test_a_form_is_sent_as_browsers_send_it(web: Web) -> None:
    with web.conn() as conn:
        person = people.add_person(conn, "bemi", "radia", "viewer", None)
        secret = people.link(conn, "bemi", person.id)
    policy = web.nobody.get("/sign-in").headers["referrer-policy"]
    browser = web.client(
        **{
            # https://fetch.spec.whatwg.org/#append-a-request-origin-header
            "Origin": "null" if policy == "no-referrer" else web.base,
            "Sec-Fetch-Site": "same-origin",
            "Sec-Fetch-Mode": "navigate",
            "Sec-Fetch-Dest": "document",
        }
    )
    assert browser.post("/sign-in", data={"link": secret}).status_code == 303
    assert browser.post("/sign-out").status_code == 303


def test_pages_lead_to_signing_in(web: Web) -> None:
    answer = web.nobody.get("/", headers={"Accept": "text/html"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")
    assert web.nobody.get(f"{API}/me", headers={"Accept": "text/html"}).status_code == 401


def test_what_is_written_into_a_page_is_text(web: Web) -> None:
    evil = "<script>alert(1)</script>"
    _, session = web.person(evil, "viewer")
    page = web.browser(session).get("/").text
    assert evil not in page
    assert "&lt;script&gt;" in page
    page = web.nobody.get("/sign-in", params={"link": f'"><{evil}'}).text
    assert evil not in page


def test_who_asks_too_often_waits(history: Settings) -> None:
    limits = Limits(
        asked=RateLimitItemPerMinute(3, namespace="a"),
        refused=RateLimitItemPerMinute(2, namespace="r"),
    )
    with serve(history, limits=limits) as web:
        me = web.client(web.token("viewer"))
        statuses = [me.get(f"{API}/me").status_code for _ in range(4)]
        assert statuses == [200, 200, 200, 429]
        assert 0 < int(me.get(f"{API}/me").headers["retry-after"]) <= 61
        # Another one may still.
        other = web.client(web.token("viewer"))
        assert other.get(f"{API}/me").status_code == 200
        wrong = web.client("wrong")
        assert [wrong.get(f"{API}/me").status_code for _ in range(3)] == [401, 401, 429]
        # Nobody keeps out others who come from there.
        assert other.get(f"{API}/me").status_code == 200
        browser = web.client(**{"Sec-Fetch-Site": "same-origin"})
        assert browser.post("/sign-in", data={"link": "wrong"}).status_code == 429
        with web.conn() as conn:
            person = people.add_person(conn, "bemi", "late", "viewer", None)
            secret = people.link(conn, "bemi", person.id)
        assert browser.post("/sign-in", data={"link": secret}).status_code == 303


def test_nobody_takes_all_threads(web: Web) -> None:
    waiting = (
        "select count(*) from pg_stat_activity where datname = current_database()"
        " and wait_event_type = 'Lock'"
    )
    me, other = (web.client(web.token("viewer")) for _ in range(2))
    with web.conn() as conn, web.conn() as looking, ThreadPoolExecutor(20) as threads:
        with conn.transaction():
            conn.execute("lock table bemi.row_changes")
            asked = [threads.submit(me.get, f"{API}/changes") for _ in range(QUESTIONS_OF_ONE)]
            held = (QUESTIONS_OF_ONE,)
            until(lambda: looking.execute(waiting).fetchone() == held, 20, "all wait")
            answer = me.get(f"{API}/me")
            assert (answer.status_code, answer.json()["type"]) == (503, "urn:bemi:busy")
            assert answer.headers["retry-after"] == "5"
            assert other.get(f"{API}/me").status_code == 200
        assert {each.result().status_code for each in asked} == {200}
    assert me.get(f"{API}/me").status_code == 200
    assert web.serving.questions.taken == 0


def test_readers_of_the_history_read_nothing_of_people(web: Web) -> None:
    private = {
        *("people", "identities", "sign_in_links", "sessions", "api_tokens"),
        *("embeds", "accesses"),
    }
    assert not private & {*READABLE, *ASKED}
    with web.conn() as conn:
        role = f"reader_of_{conn.info.dbname}"
        conn.execute(f'create role "{role}"'.encode())
        try:
            grant(conn, "bemi", role)
            conn.execute(f'set role "{role}"'.encode())
            for table in private:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    conn.execute(f"select from bemi.{table}".encode())
            conn.execute("reset role")
            # A server with this role would have no answer for anybody: it does not begin.
            as_reader = make_conninfo(web.settings.destination_url, options=f"-c role={role}")
            with pytest.raises(SetupError, match="can't record who reads"):
                Archive(as_reader, "bemi").__enter__()
        finally:
            conn.execute(f'drop owned by "{role}"; drop role "{role}"'.encode())
