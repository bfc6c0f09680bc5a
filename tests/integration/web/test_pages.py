"""The pages, as a browser without scripts gets them."""

import html
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from tests.support.attic import HOSTILE, SCOPES
from tests.support.hostile import COLUMN, REQUEST, TABLE
from tests.support.html import Page
from tests.support.reading import HTML, Reader, reader
from tests.support.web import API, Web


@pytest.fixture(scope="module")
def grace(web: Web) -> Reader:
    return reader(web)


def pages_from(of: Reader, address: str) -> Iterator[Page]:
    """One after the other, by the link to the next."""
    following: str | None = address
    while following is not None:
        page = of.get(following)
        yield page
        following = page.link(rel="next")


def test_the_activity_tells_what_happened_in_sentences(grace: Reader) -> None:
    page = grace.get("/")
    assert "changed done and task of todo 1" in page.text
    assert "user 43 created 2 rows of pair and changed 1 row of todo" in page.text
    assert "somebody changed pin of secret 1 from pinwheel to pinafore" in page.text
    assert "created 1,000" not in page.text
    assert "somebody created more than 1,000 rows of bulk" in page.text
    assert "995 more changes, and others" in page.text
    assert "emptied bulk" in page.text
    assert "request req-2" in page.text
    assert "3 unchanged columns" in page.text


def test_all_changes_of_a_filter_are_on_its_pages_once(grace: Reader) -> None:
    for query in ("limit=2", "limit=2&oldest_first=true", "limit=1&table=todo"):
        numbers = [
            re.findall(r"transaction (\d+)", page.text) for page in pages_from(grace, f"/?{query}")
        ]
        found = [number for each in numbers for number in each]
        assert len(found) == len({*found}) == (4 if "todo" in query else 7)
        assert found == sorted(found, key=int, reverse="oldest" not in query)


def test_filters_are_chips_of_the_address(grace: Reader) -> None:
    page = grace.get("/filter", add="user", value="43")
    assert "context user_id=43" in page.text
    assert "user 42" not in page.text
    page = grace.get("/filter?context=user_id%3D43&add=operation&value=create")
    assert page.text.count("Filter by") == 1
    chips = [
        given["href"]
        for _, given in page.elements
        if given.get("aria-label", "").startswith("Remove the filter")
    ]
    assert [parse_qs(urlsplit(each).query) for each in chips] == [
        {"operation": ["create"]},
        {"context": ["user_id=43"]},
    ]
    # One that can have one value only gets the new one.
    page = grace.get("/filter?table=todo&behind=x&add=table&value=pair")
    assert "table pair" in page.text
    assert "table todo" not in page.text


def test_a_filter_that_means_nothing_is_told_beside_the_chips(grace: Reader) -> None:
    page = grace.get("/?since=yesteryear&table=todo", 400)
    assert "since: 'yesteryear' is not a time" in page.text
    assert "table todo" in page.text
    grace.get("/?tabel=todo", 422)
    grace.get("/filter?add=tabel&value=todo", 400)
    assert "table todo" in grace.get("/filter?table=todo&add=since&value=").text


def test_a_page_without_changes_says_what_to_do(grace: Reader, web: Web) -> None:
    page = grace.get("/?table=nothing")
    assert "No changes match" in page.text
    assert page.link(href="/") is not None
    nothing = reader(web, {"table": "no.thing"})
    assert "No changes of what you may see" in nothing.get("/").text


def test_a_record_tells_who_set_what_and_what_happened(grace: Reader) -> None:
    page = grace.get("/record", table="todo", key="2")
    assert "Who set what" in page.text
    assert "task paint it was paint user 43" in page.text
    assert "changed id of todo 2 from 1 to 2" in page.text
    assert "todo 2" in page.text
    assert page.link(href="/record?table=public.todo&key=1") is not None
    assert page.link(href="/?table=todo&key=2") is not None


def test_two_versions_of_a_record_beside_each_other(web: Web, grace: Reader) -> None:
    changes = web.get("/changes", table="todo", key="1")["changes"]
    first, last = changes[-1]["id"], changes[0]["id"]
    page = grace.get("/record", table="todo", key="2", a=last, b=first)
    assert "Two versions" in page.text
    # The older one is on the left, whichever was named first.
    assert "id 1 2" in page.text
    assert "task paint paint it" in page.text
    assert "2 columns alike" in page.text
    # The form says which these are; at first it offers what was done last.
    page = grace.get("/record", table="todo", key="1", a=last, b=first)
    assert _picked(page) == [("b", last), ("a", first)]
    assert _picked(grace.get("/record", table="todo", key="1")) == [
        ("b", last),
        ("a", changes[1]["id"]),
    ]
    other = web.get("/changes", table="pair")["changes"][0]["id"]
    page = grace.get("/record", table="todo", key="2", a=other, b=first)
    assert "is of another record" in page.text


def test_related_records_are_told_by_foreign_keys(web: Web, grace: Reader) -> None:
    page = grace.get("/record", table="child", key="1")
    assert "refers to, by todo_id todo 2" in page.text
    assert page.link(href="/record?table=public.todo&key=2&source=attic") is not None
    page = grace.get("/record", table="todo", key="2")
    assert "referred to, by todo_id changes of child, todo_id 2" in page.text
    children = "/?table=public.child&after=todo_id%3D2&source=attic"
    assert page.link(href=children) is not None
    assert "created child 1" in grace.get(children).text
    # Who may not see the other table is not told of it.
    assert "Related records" not in reader(web, *SCOPES).get("/record", table="todo", key="2").text
    # What it referred to then.
    (insert,) = web.get("/changes", table="child")["changes"]
    page = grace.get("/record", table="child", key="1", moment=insert["committed_at"])
    (parent,) = [each for each in page.links if each.startswith("/record?table=public.todo")]
    assert parse_qs(urlsplit(parent).query)["moment"] == [
        insert["committed_at"].replace("Z", "+00:00")
    ]


def test_a_record_is_looked_at_version_by_version(web: Web, grace: Reader) -> None:
    changes = web.get("/record/changes", table="todo", key="1")["changes"]
    times = [each["committed_at"].replace("Z", "+00:00") for each in changes[::-1]]
    assert len(times) == len({*times}) == 3
    page = grace.get("/record", table="todo", key="1")
    assert _versions(page) == ([*times, ""], "")
    for when in times[1::-1]:
        page = grace.get(_named(page, "one version earlier"))
        assert _versions(page) == ([*times, ""], when)
        assert "You are looking at" in page.text
    assert "task paint price" in page.text
    assert "one version earlier" not in page.text
    page = grace.get(_named(page, "one version later"))
    assert _versions(page) == ([*times, ""], times[1])
    assert _versions(grace.get("/record", table="todo", key="1", moment="")) == ([*times, ""], "")


def _versions(page: Page) -> tuple[list[str], str]:
    """The moments on offer, and the one that is picked."""
    (start,) = [
        n
        for n, (tag, given) in enumerate(page.elements)
        if tag == "select" and given.get("id") == "version"
    ]
    options: list[dict[str, str]] = []
    for tag, given in page.elements[start + 1 :]:
        if tag != "option":
            break
        options.append(given)
    (picked,) = [given["value"] for given in options if "selected" in given]
    return [given["value"] for given in options], picked


def _named(page: Page, text: str) -> str:
    """Where the link with this text leads."""
    found = re.search(f'<a href="([^"]*)">{text}</a>', page.source)
    assert found is not None
    return html.unescape(found[1])


def _picked(page: Page) -> list[tuple[str, str]]:
    return [
        (given["name"], given["value"])
        for tag, given in page.elements
        if tag == "input" and "checked" in given
    ]


def test_a_record_is_found_by_its_table_and_key(grace: Reader) -> None:
    page = grace.get("/record")
    options = [given["value"] for tag, given in page.elements if tag == "option"]
    assert options == ["bulk", "child", "pair", "secret", "todo"]
    # What was typed stays, beside what is wrong with it.
    page = grace.get("/record", 404, table="todo", key="4711")
    assert "the history has no change of todo 4711" in page.text
    typed = {given["name"]: given["value"] for tag, given in page.elements if "required" in given}
    assert typed == {"table": "todo", "key": "4711"}
    assert "pair" in grace.get("/record", table="pair", key='["1","x/y"]').text


def test_a_change_a_transaction_and_a_request(web: Web, grace: Reader) -> None:
    found = web.get("/changes", table="todo", changed="done")["changes"][0]
    page = grace.get("/change", id=found["id"])
    assert "task was paint→, is now paint it" in page.text
    assert f"bemi revert --change {found['id']} --source attic" in page.text
    assert "3 unchanged columns" in page.text
    transaction = page.link(href=f"/transaction?number={found['transaction_id']}&source=attic")
    assert transaction is not None
    page = grace.get(transaction)
    assert "3 changes" in page.text
    assert page.text.index("todo 1") < page.text.index("pair") < page.text.index("request_id")
    page = grace.get("/trace?id=req-2")
    assert "all that it did, in order: 1 transaction" in page.text
    assert "bemi revert --trace req-2" in page.text
    grace.get("/transaction?number=1", 404)
    grace.get("/trace?id=nothing", 404)
    bulk = web.get("/changes", table="bulk", operation="create", limit=1)["changes"][0]
    keys: list[str] = []
    for page in pages_from(grace, f"/transaction?number={bulk['transaction_id']}"):
        keys += re.findall(r"created bulk (\d+)", page.text)
        if len(keys) > 200:
            break
    assert keys[:150] == [str(number) for number in range(1, 151)]


def test_a_moment_that_was_picked_stays_picked(web: Web, grace: Reader) -> None:
    (update,) = web.get("/changes", table="todo", changed="done")["changes"]
    page = grace.get("/moment", when=update["committed_at"], back="/?table=todo")
    assert "You are looking at" in page.text
    assert "changed done and task" in page.text
    assert "changed id of todo" not in page.text
    assert page.link(href="/?table=todo") is not None  # back to now
    record = next(each for each in page.links if each.startswith("/record?table=public.todo&key=1"))
    page = grace.get(record)
    assert "As it was" in page.text
    assert "task paint it" in page.text
    pages = ("/record", "/change", "/trace", "/transaction", "/?")
    now = [each for each in page.links if each.startswith(pages) and "moment=" not in each]
    assert now == [record.partition("&moment=")[0]]  # back to now
    grace.get("/record", 404, table="todo", key="1", moment="2001-01-01")


def test_a_way_back_leads_nowhere_else(grace: Reader) -> None:
    for back in ("//evil.example", "https://evil.example", "/\\evil.example"):
        for answer in (
            grace.client.get("/moment", params={"when": "now", "back": back}),
            grace.client.post("/theme", data={"theme": "dark", "back": back}),
        ):
            assert answer.status_code == 400
            assert "location" not in answer.headers
        page = grace.get("/moment", 400, when="tomorrow", back=back)
        assert page.link(href=back) is None
    # From a time that is none, to where it was asked for.
    page = grace.get("/moment", 400, when="tomorrow", back="/table?table=todo&source=attic")
    assert "'tomorrow' is not a time" in page.text
    assert page.link(href="/table?table=todo&source=attic") is not None


def test_colours_follow_the_system_until_one_is_chosen(web: Web) -> None:
    me = reader(web)
    assert dict(me.get("/").elements)["html"] == {"lang": "en"}
    for theme, attributes in (("dark", {"data-theme": "dark"}), ("system", {})):
        answer = me.client.post("/theme", data={"theme": theme, "back": "/record?table=a"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/record?table=a")
        assert dict(me.get("/").elements)["html"] == {"lang": "en", **attributes}
    me.client.cookies.set("bemi_theme", '"><script>', domain="127.0.0.1")
    assert dict(me.get("/").elements)["html"] == {"lang": "en"}


def test_errors_are_pages_for_people_and_problems_for_programs(web: Web, grace: Reader) -> None:
    for path, status in (("/nothing", 404), ("/change?id=x", 400), ("/record?table=a&kye=1", 422)):
        page = grace.get(path, status)
        assert page.link(href="/") is not None
        answer = web.as_admin.get(path)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.status_code == status
    assert "Not Found" in Reader(web.nobody).get("/nothing", 404).text
    evil = grace.get("/record", 404, table="<script>alert(1)</script>", key="\u202e")
    assert "<script>alert(1)</script>" in evil.text
    api = grace.client.get(f"{API}/changes/x", headers=HTML)
    assert api.headers["content-type"] == "application/problem+json"


# --- scopes -----------------------------------------------------------------------------------


def test_a_scope_narrows_every_page(web: Web) -> None:
    scoped = reader(web, *SCOPES)
    hidden = ("secret", "pinwheel", "pinafore", "insert …", "1234567890123456789", "bulk", "price")
    todo = web.get("/changes", table="todo", operation="create")["changes"]
    update = web.get("/changes", table="todo", changed="done")["changes"][0]
    addresses = [
        "/",
        "/record",
        "/record?table=todo&key=2",
        f"/record?table=todo&key=2&a={todo[-1]['id']}&b={update['id']}",
        f"/record?table=todo&key=1&moment={update['committed_at'].replace('+', '%2B')}",
        *(f"/change?id={each['id']}" for each in todo),
        f"/transaction?number={todo[0]['transaction_id']}",
        "/trace?id=req-1",
        "/trace?id=req-2",
        "/?table=parcels",
    ]
    for address in addresses:
        page = scoped.get(address)
        for each in hidden:
            assert each not in page.source, (address, each)
    assert "changed task of todo 1 from paint to paint it" in scoped.get("/").text
    # And each says that there is more.
    for address in ("/", "/sources", "/tables", "/trends"):
        assert "You see a part of the history" in scoped.get(address).text
        assert "You see a part" not in reader(web).get(address).text


def test_what_is_out_of_scope_is_on_no_page(web: Web) -> None:
    scoped = reader(web, *SCOPES)
    secret = web.get("/changes", table="secret")["changes"][0]
    for address, status in (
        (f"/change?id={secret['id']}", 404),
        (f"/transaction?number={secret['transaction_id']}", 404),
        ("/record?table=secret&key=1", 403),
        (f"/record?table=todo&key=2&a={secret['id']}&b={secret['id']}", 200),
        ("/?table=secret", 403),
        ("/?after=pin%3Dpinafore", 403),
        ("/?changed=price", 403),
        ("/?context=SQL%3Dx", 403),
    ):
        assert "pinwheel" not in scoped.get(address, status).source, address


def test_what_is_looked_at_is_recorded(web: Web) -> None:
    me = reader(web)
    me.get("/record", table="todo", key="2")
    me.get("/?table=todo&after=task%3Dx")
    feed, record, *_ = web.get("/accesses", limit=10)["accesses"][1:]
    assert (feed["action"], feed["asked"]) == ("GET /", {"table": "todo", "after": "task=x"})
    assert (record["action"], record["asked"]) == ("GET /record", {"table": "todo", "key": "2"})


# --- what attackers write ---------------------------------------------------------------------


def test_whatever_is_written_is_text_in_every_place(hostile_web: Web) -> None:
    """Of tables, columns, keys, values, JSON, contexts, filters and people."""
    _, session = hostile_web.person(HOSTILE.replace("\r\n", " "), "editor")
    me = Reader(hostile_web.browser(session))
    created, updated = reversed(hostile_web.get("/changes")["changes"])
    record: dict[str, Any] = {"table": f"public.{TABLE}", "key": HOSTILE}
    pages = {
        "activity": me.get("/"),
        "filters": me.get("/", context=f"user_id={HOSTILE}", table=TABLE, after=f"{COLUMN}=x"),
        "chips": me.get("/", 400, since=HOSTILE, key=HOSTILE, trace=REQUEST, before=HOSTILE),
        "record": me.get("/record", **record),
        "compared": me.get("/record", **record, a=created["id"], b=updated["id"]),
        "then": me.get("/record", **record, moment=updated["committed_at"]),
        "find": me.get("/record", table="", key=HOSTILE),
        "change": me.get("/change", id=updated["id"]),
        "created": me.get("/change", id=created["id"]),
        "transaction": me.get("/transaction", number=created["transaction_id"]),
        "trace": me.get("/trace", id=REQUEST),
        "by trace": me.get("/trace", id=HOSTILE),
        "unknown": me.get("/record", 404, table=HOSTILE, key=REQUEST),
        "wrong": me.get("/change", 400, id=HOSTILE),
    }
    for name in ("activity", "record", "compared", "change", "created", "transaction", "trace"):
        text = pages[name].text
        for evil in ("<script>alert('x')</script>", TABLE):
            assert evil in text, (name, evil)
    for name in ("record", "compared", "change", "created", "transaction"):
        assert " ".join(COLUMN.split()) in pages[name].text, name
    assert "{{7*7}}" in pages["change"].text
    # All of it can be followed.
    for name in ("activity", "record", "change"):
        for link in {*pages[name].links}:
            if link.startswith("/") and "sign" not in link.partition("?")[0]:
                answer = me.client.get(link, headers=HTML)
                assert answer.status_code == 200, link


def test_nobody_can_make_a_page_large(hostile_web: Web) -> None:
    _, session = hostile_web.person("meg", "viewer")
    me = Reader(hostile_web.browser(session))
    for address in ("/", f"/trace?{urlencode({'id': REQUEST})}"):
        assert len(me.get(address).source) < 100_000, address
