"""Trends in the browser: how much happened when, by what, and the changes behind each bar."""

import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser

from tests.support.attic import HOSTILE, SCOPES
from tests.support.hostile import TABLE
from tests.support.html import Page
from tests.support.reading import HTML, Reader, reader
from tests.support.screens import SCHEMES, SIZES, opened
from tests.support.web import Web


@pytest.fixture(scope="module")
def grace(web: Web) -> Reader:
    return reader(web)


def bars(page: Page) -> list[tuple[str, str]]:
    """What each says, and where it leads."""
    return [
        (given["aria-label"], given["href"])
        for tag, given in page.elements
        if tag == "a" and re.match(r"[\d,]+ change", given.get("aria-label", ""))
    ]


def test_each_bar_leads_to_the_changes_that_it_counts(web: Web, grace: Reader) -> None:
    """So many as it says, by whatever is counted."""
    for by in ("table", "operation", "user", "source", "context.request_id"):
        page = grace.get("/trends", by=by, every="hour")
        found = bars(page)
        assert found, by
        for said, href in found:
            query: dict[str, Any] = {**parse_qs(urlsplit(href).query)}
            assert {"since", "until"} < {*query}
            number = int(said.partition(" ")[0].replace(",", ""))
            if number <= 1000:
                listed = web.get("/changes", limit=1000, **query)["changes"]
                assert len(listed) == number, (by, href)
    assert "without request_id" in page.text


def test_what_is_counted_is_chosen(grace: Reader) -> None:
    page = grace.get("/trends")
    assert "Of the last 7 days" in page.text
    labels = ["bulk", "todo", "pair", "secret", "child"]
    found = [page.text.index(f" {label} ") for label in labels]
    assert found == sorted(found)
    assert "As a table" in page.text
    assert re.search(r"bulk ?1,501 changes, most in [\d-]+: 1,501", page.text)
    assert "Each day without any is left out." in page.text
    answer = grace.client.get(
        "/trends/by",
        params={"table": "todo", "what": "context", "member": "request_id", "every": "day"},
    )
    assert answer.headers["location"] == "/trends?table=todo&by=context.request_id&every=day"
    page = grace.get(answer.headers["location"])
    assert "req-2" in page.text
    assert "pair" not in page.text.partition("As a table")[0].partition("Of the last")[2]
    assert grace.get("/?table=todo&limit=5").link(href="/trends?table=todo") is not None
    # A filter is added here, and stays here.
    page = grace.get("/filter", on="/trends", by="operation", add="table", value="todo")
    assert "Remove the filter table todo" in page.source
    assert page.link(**{"aria-label": "Remove the filter table todo"}) == "/trends?by=operation"
    # Of the largest only so many are told, and the others together.
    page = grace.get("/trends", top="2")
    assert "all others" in page.text
    assert len(bars(page)) == 2
    # Small ones are seen on a scale of their own.
    for own, least in (("false", 1), ("true", 100)):
        page = grace.get("/trends", own=own)
        heights = [
            given["height"]
            for tag, given in page.elements
            if (tag, given.get("class")) == ("rect", "bar")
        ]
        assert min(map(int, heights)) == least


def test_a_moment_and_a_range_hold(web: Web, grace: Reader) -> None:
    (update,) = web.get("/changes", table="todo", changed="done")["changes"]
    then = update["committed_at"]
    page = grace.get("/trends", moment=then, by="table")
    assert "bulk" not in page.text
    assert all("moment=" in href for _, href in bars(page))
    week = next(each for each in page.links if "since=" in each and each.startswith("/trends"))
    grace.get(week)
    assert "No changes match" in grace.get("/trends", until="2001-01-01", whole="true").text
    assert "bulk" in grace.get("/trends", whole="true").text


def test_a_scope_holds_in_counts(web: Web) -> None:
    scoped = reader(web, *SCOPES)
    for by in ("table", "operation", "user", "context.endpoint"):
        page = scoped.get("/trends", by=by)
        for each in ("secret", "bulk", "child", "1,500", "insert …"):
            assert each not in page.source, (by, each)
    for query, status in (
        ({"by": "context.SQL"}, 403),
        ({"by": "context.revert.filters"}, 403),
        ({"table": "secret"}, 403),
        ({"after": "price=1"}, 403),
    ):
        assert "insert …" not in scoped.get("/trends", status, **query).source, query


def test_what_means_nothing_is_told(grace: Reader) -> None:
    assert "is nothing that changes have" in grace.get("/trends", 400, by="color").text
    assert "is not a time" in grace.get("/trends", 400, since="yesteryear").text
    page = grace.get("/trends", 400, since="30d", every="minute")
    assert "choose a longer time for each bar" in page.text
    grace.get("/trends?by=table&by=user", 422)
    grace.get("/trends?tabel=todo", 422)
    assert "which key" in grace.get("/trends/by", 400, what="context").text
    grace.get("/filter", 422, on="//evil.example", add="table", value="todo")


def test_what_attackers_wrote_is_text_in_charts(hostile_web: Web) -> None:
    me = reader(hostile_web)
    query: dict[str, Any] = {"context": f"user_id={HOSTILE}"}
    for by in ("table", "user", f"context.{HOSTILE}"):
        page = me.get("/trends", by=by, **query)
        assert (TABLE if by == "table" else "<script>alert('x')</script>") in page.text
        for link in {*page.links}:
            if link.startswith("/"):
                assert me.client.get(link, headers=HTML).status_code == 200, link


def test_somebody_sees_who_did_how_much_in_a_browser(chromium: Browser, web: Web) -> None:
    for width, scheme in zip(SIZES, SCHEMES, strict=True):
        with opened(chromium, web, width, scheme) as screen:
            page = screen.page
            shows = screen.is_accessible if width == min(SIZES) else screen.shows
            page.goto(f"{web.base}/")
            page.get_by_role("link", name="Trends", exact=True).click()
            page.get_by_text("Of the last 7 days").wait_for()
            shows("trends")
            page.get_by_label("by", exact=True).select_option("user")
            page.get_by_role("button", name="Count").click()
            page.get_by_text("without user_id").first.wait_for()
            page.get_by_text("As a table").click()
            shows("trends-by-user")
            page.get_by_role("link", name=re.compile("^[0-9]+ changes?,")).last.click()
            page.get_by_role("heading", name="Activity").wait_for()
