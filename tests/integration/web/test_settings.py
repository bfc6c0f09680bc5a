"""The pages of the settings: who may what here, and who did what."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser

import bemi
from bemi.store import people
from tests.integration.conftest import Track
from tests.support.attic import HOSTILE, SCOPES
from tests.support.html import Page
from tests.support.reading import HTML, Reader, require_harmless
from tests.support.screens import SIZES, opened
from tests.support.web import API, Web, serve


@pytest.fixture(scope="module")
def admin(web: Web) -> Reader:
    _, session = web.person(f"hypatia of {web.base}", "admin")
    return Reader(web.browser(session))


def sent(admin: Reader, path: str, status: int = 200, /, **data: Any) -> Page:
    """The page that a form leads to."""
    answer = admin.client.post(path, data=data, headers=HTML, follow_redirects=True)
    assert answer.status_code == status, answer.text
    page = Page(answer.text)
    require_harmless(page)
    return page


def field(page: Page, name: str) -> str:
    """What a form has in it."""
    (found,) = [
        given for tag, given in page.elements if tag == "input" and given.get("name") == name
    ]
    return found.get("value", "")


def newest(web: Web, number: int = 2) -> list[Any]:
    found: list[Any] = web.get("/accesses", limit=number + 1)["accesses"][1:]
    return found


def test_somebody_is_invited_and_may_what_was_chosen(web: Web, admin: Reader) -> None:
    lines = "public.todo: id, task\npublic.pa*"
    page = sent(admin, "/settings/people", name=" marie ", role="viewer", sees="some", tables=lines)
    assert "It is not shown again" in page.text
    (link,) = re.findall(r"http://\S+/sign-in\?link=[\w-]+", page.source.split("data-copy")[0])
    browser = web.client(**{"Sec-Fetch-Site": "same-origin"})
    assert browser.post("/sign-in", data={"link": link.partition("=")[2]}).status_code == 303
    me = web.get("/me", browser)
    assert (me["name"], me["role"], me["scopes"]) == ("marie", "viewer", SCOPES)
    recorded = next(each for each in newest(web, 4) if each["asked"].get("name") == "marie")
    assert recorded["action"] == "POST /settings/people"
    assert recorded["asked"]["tables"] == lines

    listed = admin.get("/settings/people")
    assert "marie viewer public.todo: id, task public.pa* last here" in listed.text
    (address,) = {each for each in listed.links if each.endswith(f"id={id_of(web, 'marie')}")}
    page = admin.get(address)
    assert "sessions 1" in page.text
    assert "no table that the history has" not in page.text
    assert lines in page.source

    id = id_of(web, "marie")
    refused = sent(
        admin, "/settings/person", 400, id=id, role="admin", sees="some", tables="public.x"
    )
    assert "an admin sees everything" in refused.text
    assert "public.x" in refused.source  # as it was typed
    page = sent(admin, "/settings/person", id=id, role="editor", sees="all", tables="")
    assert "This is saved" in page.text
    me = web.get("/me", browser)
    assert (me["role"], me["scopes"]) == ("editor", None)


def test_what_was_typed_stays_with_the_error(admin: Reader) -> None:
    for given, words in (
        ({"role": "viewer", "sees": "some", "tables": "a: "}, "a colon and no columns"),
        ({"role": "viewer", "sees": "all", "tables": "public.todo"}, "something else is chosen"),
        ({"role": "boss", "sees": "all"}, "role: input should be"),
        ({"role": "viewer", "sees": "some", "tables": "."}, "names no table"),
    ):
        page = sent(admin, "/settings/people", 400, name='emmy "n"', **given)
        assert words in page.text
        assert field(page, "name") == 'emmy "n"'
        assert given.get("tables", "").strip() in page.source
    assert (
        "name: it is missing"
        in sent(admin, "/settings/people", 400, name=" ", role="viewer", sees="all").text
    )
    for days in ("x", "0", "99999"):
        page = sent(admin, "/settings/tokens", 400, name="t", role="viewer", sees="all", days=days)
        assert "days: input should be" in page.text
        assert field(page, "days") == days


def test_who_is_disabled_is_out_and_comes_in_again_by_a_new_link(web: Web, admin: Reader) -> None:
    id, session = web.person("lovelace", "admin")
    browser = web.browser(session)
    made = browser.post(f"{API}/tokens", json={"name": "engine", "role": "viewer"}).json()
    program = web.client(made["token"])
    page = sent(admin, "/settings/person/disable", id=id)
    assert "Disabled: no session" in page.text
    assert "tokens 1 that they made" in page.text
    assert [each.get(f"{API}/me").status_code for each in (browser, program)] == [401, 200]
    assert "lovelace is disabled" in sent(admin, "/settings/person/link", 400, id=id).text
    sent(admin, "/settings/person/enable", id=id)
    sent(admin, "/settings/person/disable", id=id, revoke_tokens="true")
    assert program.get(f"{API}/me").status_code == 401
    sent(admin, "/settings/person/enable", id=id)
    page = sent(admin, "/settings/person/link", id=id)
    assert "/sign-in?link=" in page.text
    for path in ("", "/disable", "/enable", "/link"):
        sent(admin, f"/settings/person{path}", 404, id=2**31 - 1, role="viewer", sees="all")
    admin.get("/settings/person", 404, id=2**31 - 1)


def test_names_that_can_not_be_typed_stay_as_they_are(web: Web, admin: Reader) -> None:
    odd = [{"table": "public.a: b", "columns": ["x,y", HOSTILE]}]
    id, session = web.person("ada o.", "viewer", odd)
    page = admin.get("/settings/person", id=id)
    assert "its names can't be typed" in page.text
    assert "public.a: b is no table that the history has" in page.text
    sent(admin, "/settings/person", id=id, role="editor", sees="same", tables="")
    me = web.get("/me", web.browser(session))
    assert (me["role"], me["scopes"]) == ("editor", odd)


def test_a_token_is_shown_once_and_revoked(web: Web, admin: Reader) -> None:
    page = sent(
        admin, "/settings/tokens", name="prom", role="viewer", sees="none", tables="", days="7"
    )
    secret, example = [given["data-copy"] for _, given in page.elements if "data-copy" in given]
    assert example == f'curl -H "Authorization: Bearer $TOKEN" {web.base}/metrics'
    program = web.client(secret)
    assert web.get("/me", program)["scopes"] == []
    page = admin.get("/settings/tokens")
    assert secret not in page.source
    assert "prom viewer nothing of the history until" in page.text
    id = max(each["id"] for each in web.get("/tokens")["tokens"])
    page = sent(admin, "/settings/tokens/revoke", id=id)
    assert "prom revoked" in page.text
    assert program.get(f"{API}/me").status_code == 401
    sent(admin, "/settings/tokens/revoke", 404, id=2**31 - 1)


def test_an_embed_is_made_with_its_bound_and_revoked(shop: Web) -> None:
    _, session = shop.person("hypatia", "admin")
    admin = Reader(shop.browser(session))
    lines = "public.orders (customer): [number], status\noffer ( * ): name"
    given = {"name": "the shop's", "context": "user_name, user_id", "origins": "https://a.example"}
    page = sent(admin, "/settings/embeds", tables=lines, **given)
    (key,) = {each["data-copy"] for _, each in page.elements if "data-copy" in each}
    token = bemi.embed_token(key, audience=shop.base, tenant=7, context=["user_id"])
    shown = shop.client(token).get(f"{API}/embed/changes", params={"limit": 1})
    assert shown.json()["changes"][0]["context"]
    page = admin.get("/settings/embeds")
    assert json.loads(key)["d"] not in page.source
    assert "public.orders (customer): [number], status offer (*): name" in page.text
    assert "last shown" in page.text
    id = max(each["id"] for each in shop.get("/embeds")["embeds"])
    log = admin.get("/settings/accesses", by=f"embed {id}")
    assert "the shop's embed showed a customer their history" in log.text
    assert "tenant 7" in log.text
    assert "the shop's revoked" in sent(admin, "/settings/embeds/revoke", id=id).text
    assert shop.client(token).get(f"{API}/embed/changes").status_code == 401
    sent(admin, "/settings/embeds/revoke", 404, id=2**31 - 1)
    for tables, words in (
        ("public.orders: status", "is not of the form"),
        ("public.orders (customer):", "is not of the form"),
        ("public.* (customer): status", "is not the name of one table"),
        ("orders (customer): [a], [b]", "several columns stand in brackets"),
        ("<script>alert('x')</script>", "is not of the form"),
        ("", "tables: it is missing"),
    ):
        page = sent(admin, "/settings/embeds", 400, tables=tables, **given)
        assert words in page.text
        assert field(page, "origins") == "https://a.example"
    private = {"public_key": "-----BEGIN PRIVATE KEY----- secret"}
    sent(admin, "/settings/embeds", 400, tables=lines, **given, **private)
    assert "secret" not in json.dumps(newest(shop, 2))


def test_the_log_is_narrowed_to_what_is_asked(web: Web, admin: Reader) -> None:
    id, session = web.person("curious", "viewer")
    browser = web.browser(session)
    for number in range(3):
        browser.get(f"{API}/changes", params={"table": f"t{number}"})
    browser.get("/settings/people")
    who = f"person {id}"
    page = admin.get("/settings/accesses/filter", by=who, since="1h", until="", action="")
    assert (
        re.findall(r"(refused )?curious (looked at people|read changes)", page.text)
        == [
            ("! refused ", "looked at people"),
            *[("", "read changes")] * 3,
        ]
        or page.text.count("curious read changes") == 3
    )
    assert "! refused curious looked at people" in page.text
    assert "table t2" in page.text
    (json,) = {each for each in page.links if each.startswith("/api/v1/accesses?")}
    found = web.as_admin.get(json).json()["accesses"]
    assert [each["by"] for each in found] == [who] * 4

    page = admin.get("/settings/accesses", by=who, refused="true")
    assert page.text.count("refused curious") == 1
    assert "curious read changes" not in page.text
    page = admin.get("/settings/accesses", by=who, action="GET /api/v1/changes", limit=2)
    assert "table t1" in page.text
    assert "table t0" not in page.text
    older = page.link(rel="next")
    assert older is not None
    page = admin.get(older)
    assert "table t0" in page.text
    assert page.link(rel="next") is None
    assert "Nothing of this kind" in admin.get("/settings/accesses", by=who, until="1h").text
    assert web.get("/accesses", by=who, behind=1)["accesses"] == []

    # Who has looked at a record is asked from there.
    browser.get("/record?table=public.todo&key=2")
    browser.get("/record?table=todo&key=1")
    asked = admin.get("/record?table=todo&key=2").link(href="/settings/accesses?table=todo&key=2")
    assert asked is not None
    page = admin.get(asked)
    assert "Only what asked for the table todo the key 2 by name" in page.text
    assert re.search(r"curious looked at a record.{30,90}key 2 table public.todo", page.text)
    assert "key 1" not in page.text
    page = admin.get("/settings/accesses/filter", table="todo", key="2", by=who)
    assert page.text.count("curious looked at a record") == 1


def test_what_was_sent_at_once_is_not_hidden_by_more(web: Web, admin: Reader) -> None:
    with web.conn() as conn:
        person = people.add_person(conn, "bemi", "quick", "viewer", None)
        for asked in ("{}", "{}", '{"table": "lost"}', '{"table": "lost", "key": "7"}'):
            conn.execute(
                "insert into bemi.accesses (person_id, actor, address, action, asked, allowed)"
                " values (%s, 'quick', '', 'POST /api/v1/exports', %s, true)",
                [person.id, asked],
            )
    page = admin.get("/settings/accesses", by=f"person {person.id}")
    assert page.text.count("lost") == 2


def test_what_can_not_be_asked_of_the_log_is_said(web: Web, admin: Reader) -> None:
    for query, words in (
        ({"by": "nobody"}, "names nobody"),
        ({"since": "yesteryear"}, "is not a time"),
    ):
        assert words in admin.get("/settings/accesses", 400, **query).text
        assert web.as_admin.get(f"{API}/accesses", params=query).status_code == 400
    admin.get("/settings/accesses", 422, who="x")


def test_everybody_sees_what_they_may_and_signs_out_everywhere(web: Web) -> None:
    id, session = web.person("rosalind", "viewer", SCOPES)
    with web.conn() as conn:
        link = people.link(conn, "bemi", id)
        other = people.sign_in(conn, "bemi", link, "")
        unused = people.link(conn, "bemi", id)
    assert other is not None
    here, elsewhere = Reader(web.browser(session)), web.browser(other[1])
    page = here.get("/settings")
    assert "you see public.todo: id, task public.pa*" in page.text
    assert page.text.count("until 2") == 2
    assert page.text.count("· here") == 1
    assert "/settings/people" not in page.links
    assert "signed out" not in page.text
    answer = here.client.post("/settings/sign-out", headers=HTML)
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")
    for each in (web.browser(session), elsewhere):
        assert each.get(f"{API}/me").status_code == 401
    browser = web.client(**{"Sec-Fetch-Site": "same-origin"})
    assert browser.post("/sign-in", data={"link": unused}).status_code == 403


def test_a_program_has_no_sessions(web: Web) -> None:
    page = Reader(web.as_admin).get("/settings")
    assert "Where you are signed in" not in page.text
    assert web.as_admin.post("/settings/sign-out").status_code == 303
    assert web.as_admin.get(f"{API}/me").status_code == 200


def test_whatever_names_and_questions_say_is_text(web: Web, admin: Reader) -> None:
    odd = [{"table": f"public.{HOSTILE}", "columns": [HOSTILE]}]
    id, session = web.person(f"{HOSTILE} {web.base}", "viewer", odd)
    browser = web.browser(session)
    browser.get(f"{API}/changes", params={HOSTILE: HOSTILE, "key": HOSTILE})
    with web.conn() as conn:
        people.add_token(conn, "bemi", HOSTILE, "viewer", odd, created_by=HOSTILE, lasts=None)
        conn.execute(
            "insert into bemi.accesses (person_id, actor, address, action, asked, allowed)"
            " values (%s, %s, %s, %s, '[]', true)",
            [id, HOSTILE, HOSTILE, HOSTILE],
        )
    pages = [
        Reader(browser).get("/settings"),
        admin.get("/settings/people"),
        admin.get("/settings/person", id=id),
        admin.get("/settings/tokens"),
        admin.get("/settings/accesses"),
        admin.get("/settings/accesses", action=HOSTILE),
        sent(admin, "/settings/people", 400, name=HOSTILE, role=HOSTILE, sees=HOSTILE),
        sent(admin, "/settings/tokens", name=HOSTILE[:99], role="viewer", sees="all"),
    ]
    for page in pages:
        assert "<script>alert" in page.text


def test_the_last_admin_stays_one(tracked: Track) -> None:
    at = tracked("create table todo (id int primary key)")
    with serve(at.settings) as web:
        admin = Reader(web.browser(web.admin_session))
        id = web.admin
        for path, data in (
            ("/settings/person", {"role": "viewer", "sees": "all"}),
            ("/settings/person/disable", {}),
        ):
            assert "is the last admin" in sent(admin, path, 400, id=id, **data).text
        assert "This is you" in admin.get("/settings/person", id=id).text
        web.person("second", "admin")
        page = sent(admin, "/settings/person", id=id, role="viewer", sees="all")
        assert "role viewer" in page.text  # of their own page


def id_of(web: Web, name: str) -> int:
    (id,) = [each["id"] for each in web.get("/people")["people"] if each["name"] == name]
    assert isinstance(id, int)
    return id


@pytest.fixture
def office(tracked: Track) -> Iterator[Web]:
    """A server of its own, whose pages show few people."""
    at = tracked("create table todo (id int primary key)")
    with serve(at.settings) as web:
        web.person("Grace Hopper", "editor")
        web.person("Barbara Liskov", "viewer", SCOPES)
        id, _ = web.person("Niklaus Wirth", "viewer")
        assert web.as_admin.patch(f"{API}/people/{id}", json={"disabled": True}).is_success
        yield web


def test_an_admin_lets_somebody_in_and_out_again(chromium: Browser, office: Web) -> None:
    """Without scripts."""
    wide = max(SIZES)
    with opened(chromium, office, wide, "light", role="admin", java_script_enabled=False) as screen:
        page = screen.page
        page.goto(f"{office.base}/")
        page.locator("details.menu summary").click()
        page.get_by_role("link", name="Settings: people, tokens, embeds").click()
        page.get_by_role("heading", name="Where you are signed in").wait_for()
        screen.shows("settings")
        page.get_by_role("link", name="People", exact=True).click()
        page.get_by_role("link", name="Barbara Liskov").wait_for()
        screen.shows("settings-people")
        page.get_by_text("Invite somebody").click()
        page.get_by_label("Name").fill("Tony Hoare")
        page.get_by_label("Tables that may be seen").fill("public.todo: id, task")
        page.get_by_role("button", name="Make a link for them").click()
        page.get_by_text("something else is chosen").wait_for()
        screen.refused += 1
        screen.shows("settings-people-refused")
        page.get_by_label("only these tables").check()
        page.get_by_role("button", name="Make a link for them").click()
        page.get_by_text("It is not shown again").wait_for()
        assert not page.get_by_role("button", name="copy").is_visible()
        screen.shows("settings-link")
        page.get_by_role("link", name="All people").click()
        page.get_by_role("link", name="Tony Hoare").click()
        screen.shows("settings-person")
        page.get_by_label("Revoke the tokens, too").check()
        page.get_by_role("button", name="Disable Tony Hoare").click()
        page.get_by_text("no session and no link").wait_for()

        page.get_by_role("link", name="Tokens", exact=True).click()
        page.locator("summary", has_text="Make a token").click()
        page.get_by_label("Name").fill("nightly report")
        page.get_by_role("button", name="Make the token").click()
        page.get_by_text("Authorization: Bearer $TOKEN").wait_for()
        page.get_by_role("link", name="All tokens").click()
        row = page.get_by_role("listitem").filter(has_text="nightly report")
        row.get_by_text("Revoke…").click()
        screen.shows("settings-tokens")
        row.get_by_role("button").click()
        page.get_by_text("any more").click()
        page.get_by_text("nightly report revoked").wait_for()

        page.get_by_role("link", name="Embeds", exact=True).click()
        page.locator("summary", has_text="Make an embed").click()
        page.get_by_label("Name").fill("orders in the shop")
        page.get_by_label("Tables").fill("public.todo (owner): [id], task")
        page.get_by_label("Who did it").fill("user_name")
        page.get_by_label("Origins of its pages").fill("https://shop.example")
        screen.shows("settings-embeds-new")
        page.get_by_role("button", name="Make the embed").click()
        page.get_by_text("Here is only the public half").wait_for()
        screen.shows("settings-embed-key")
        page.get_by_role("link", name="All embeds").click()
        page.get_by_text("public.todo (owner): [id], task").wait_for()
        screen.shows("settings-embeds")

        page.get_by_role("link", name="Accesses", exact=True).click()
        page.get_by_label("What", exact=True).select_option(label="revoked a token")
        page.get_by_role("button", name="Show").click()
        page.wait_for_url(re.compile("action="))
        assert page.locator(".accesses .deed").all_inner_texts() == ["revoked a token"]
        page.get_by_role("link", name="Everything").click()
        page.locator(".deed", has_text="disabled a person").wait_for()
        screen.shows("settings-accesses")


def test_the_settings_on_a_phone(chromium: Browser, office: Web) -> None:
    id = id_of(office, "Barbara Liskov")
    with opened(chromium, office, min(SIZES), "dark", role="admin") as screen:
        page = screen.page
        for path, opens in (
            ("", ""),
            ("/people", "Invite somebody"),
            (f"/person?id={id}", ""),
            ("/tokens", "Make a token"),
            ("/embeds", "Make an embed"),
            ("/accesses", ""),
        ):
            page.goto(f"{office.base}/settings{path}")
            if opens:
                page.locator("summary", has_text=opens).click()
            screen.is_accessible(f"settings{path.partition('?')[0].replace('/', '-')}")
        page.goto(f"{office.base}/settings/person?id={id}")
        page.get_by_role("button", name="Make a new link").click()
        page.get_by_role("button", name="copy").wait_for()
        screen.shows("settings-link")
