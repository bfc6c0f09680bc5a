"""Time travel in the browser: tables as they were, page by page, and what is not known."""

import csv
import io
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser

from bemi import times
from tests.integration.conftest import Track
from tests.support.attic import SCOPES
from tests.support.hostile import COLUMN, TABLE
from tests.support.reading import HTML, Reader, reader
from tests.support.screens import SCHEMES, SIZES, opened
from tests.support.tracked import Tracked
from tests.support.web import Web, serve


@pytest.fixture(scope="module")
def grace(web: Web) -> Reader:
    return reader(web)


def moment_of(web: Web, **query: Any) -> str:
    """When the newest of these changes was committed."""
    found: str = web.get("/changes", limit=1, **query)["changes"][0]["committed_at"]
    return found


def test_a_moment_is_picked_and_its_tables_are_seen(web: Web, grace: Reader) -> None:
    then = moment_of(web, table="todo", changed="done")
    page = grace.get("/tables")
    assert "The tables as of what was captured last" in page.text
    page = grace.get("/moment", when=then, back="/tables")
    assert "You are looking at" in page.text
    assert "5 tables of attic bulk child pair secret todo" in page.text
    todo = next(each for each in page.links if each.startswith("/table?table=public.todo"))
    page = grace.get(todo)
    assert "The rows as they were at" in page.text
    assert "id task price note done 1 paint it" in page.text
    assert "paint it" in page.text
    assert "12345678901234567890.12345678901234567890" in page.text
    # Its rows lead to their records, at the moment.
    record = next(each for each in page.links if each.startswith("/record?table=public.todo&key=1"))
    assert "moment=" in record
    assert "As it was" in grace.get(record).text
    # From one moment to another without leaving the table.
    picked = {"back": todo, "when": moment_of(web, table="todo", operation="create")}
    assert "done 1 paint 123" in grace.get("/moment", **picked).text
    assert next(
        given["value"]
        for _, given in page.elements
        if given.get("name") == "back" and "table=" in given["value"]
    ).startswith("/table?table=public.todo")
    # By the calendar, too.
    assert (
        "You are looking at 2030-05-03 14:02:00 UTC"
        in grace.get("/moment", when="2030-05-03T14:02", back="/tables").text
    )


def test_a_change_leads_to_its_table_before_and_after_it(web: Web, grace: Reader) -> None:
    (update,) = web.get("/changes", table="todo", changed="done")["changes"]
    found = [each for each in grace.get(f"/change?id={update['id']}").links if "/table?" in each]
    before, after = (grace.get(each).text for each in found)
    assert "1 paint 1234" in before
    assert "1 paint it 1234" in after


def test_every_row_is_on_one_page(web: Web, grace: Reader) -> None:
    then = moment_of(web, table="bulk", operation="create")
    address: str | None = f"/table?{urlencode({'table': 'bulk', 'moment': then})}"
    found: list[str] = []
    while address is not None:
        page = grace.get(address)
        found += re.findall(r'<th scope="row"><a [^>]*><bdi>(\d+)</bdi>', page.source)
        address = page.link(rel="next")
    assert found == sorted(str(number) for number in range(1, 1501))
    # After the truncate there is none of them, and the search for one goes on page by page.
    page = grace.get("/table?table=bulk")
    assert "None of the keys that were looked at was there then" in page.text
    address = page.link(rel="next")
    assert address is not None
    assert "No rows from here on" in grace.get(address).text


def test_two_moments_are_compared(web: Web, grace: Reader) -> None:
    then = moment_of(web, table="pair", operation="create")
    query = {"table": "pair", "moment": then, "versus": "now"}
    page = grace.get("/table", **query)
    assert 'removed pair ["2","ü"]' in page.text
    assert "x/y" not in page.text
    # What words mean stays what they meant; and it makes nothing which is the earlier one.
    answer = grace.client.get("/table", params={**query, "versus": "2001-01-01"}, headers=HTML)
    assert "versus=2001-01-01T00%3A00%3A00%2B00%3A00" in answer.headers["location"]
    changed = moment_of(web, table="todo", changed="done")
    created = moment_of(web, table="todo", operation="create")
    for one, other in ((created, changed), (changed, created)):
        page = grace.get("/table", table="todo", moment=one, versus=other)
        assert "changed todo 1" in page.text
        assert "was paint→, is now paint it" in page.text
    assert (
        "Nothing that you can see is different"
        in grace.get("/table", table="todo", moment=created, versus=created).text
    )
    grace.get("/table", 404, table="todo", moment=created, versus="2001-01-01")


def test_what_is_seen_is_exported(web: Web, grace: Reader) -> None:
    then = moment_of(web, table="todo", changed="done")
    for query in ({"moment": then}, {}):
        page = grace.get("/table", table="todo", **query)
        as_csv, ndjson = (each for each in page.links if each.startswith("/api/v1/table/at"))
        answer = grace.client.get(as_csv)
        name = answer.headers["content-disposition"].partition("filename=")[2]
        assert re.fullmatch(
            r'"todo-[0-9T.-]+Z\.csv"' if query else r'"todo-[0-9A-F]+-[0-9A-F]+\.csv"', name
        )
        assert answer.headers["content-type"] == "text/csv; charset=utf-8"
        rows = [*csv.DictReader(io.StringIO(answer.text, newline=""))]
        assert [row["price"] for row in rows if row["id"] in ("1", "2")] == [
            "12345678901234567890.12345678901234567890"
        ]
        assert len(grace.client.get(ndjson).text.splitlines()) == len(rows) == 2


def test_a_scope_holds_in_other_times(web: Web) -> None:
    scoped = reader(web, *SCOPES)
    then = moment_of(web, table="todo", changed="done")
    hidden = ("secret", "pinwheel", "pinafore", "bulk", "child", "price", "1234567890123", "done")
    addresses = [
        ("/tables", {}),
        ("/tables", {"moment": then}),
        ("/table", {"table": "todo"}),
        ("/table", {"table": "todo", "moment": then}),
        ("/table", {"table": "todo", "moment": then, "versus": "now"}),
    ]
    for address, query in addresses:
        page = scoped.get(address, **query)
        for each in hidden:
            assert each not in page.source, (address, query, each)
    assert "2 tables of attic" in scoped.get("/tables").text
    assert "paint" in scoped.get("/table", table="todo", moment=then).text
    for table in ("secret", "nothing"):
        for more in ({}, {"versus": "now"}, {"allow_gaps": "true"}):
            assert "pinafore" not in scoped.get("/table", 403, table=table, **more).source
    query = {"table": "todo", "when": then, "format": "csv"}
    exported = scoped.client.get("/api/v1/table/at", params=query)
    assert exported.text.splitlines()[0] == '"id","task"'
    nobody = reader(web, {"table": "no.thing"})
    assert "There are none that you may see" in nobody.get("/tables").text


@pytest.fixture
def unknown(tracked: Track) -> Iterator[tuple[Tracked, Web]]:
    """A table that had rows before it was tracked, of which no baseline was taken."""
    at = tracked(
        "create table todo (id int primary key, task text)",
        "insert into todo values (1, 'old'), (2, 'old')",
        "create table loose (n int)",
        full=("public.*",),
    )
    at.source.execute("update todo set task = 'new' where id = 2")
    at.source.execute("insert into loose select n from generate_series(1, 60) n")
    at.catch_up()
    with serve(at.settings) as web:
        yield at, web


def test_what_is_not_known_is_refused_or_marked(unknown: tuple[Tracked, Web]) -> None:
    _, web = unknown
    grace = reader(web)
    page = grace.get("/tables")
    assert "not all is known" in page.text
    page = grace.get("/table", 404, table="todo")
    assert "have no baseline by then" in page.text
    assert "`bemi snapshot` takes one" in page.text
    allowed = next(each for each in page.links if "allow_gaps" in each)
    page = grace.get(allowed)
    assert "Rows that are not surely known are marked; others may be missing" in page.text
    assert "new" in page.text
    assert grace.client.get(
        next(each for each in page.links if each.startswith("/api/v1/table/at"))
    ).headers["bemi-uncertain"]
    page = grace.get("/table", 404, table="todo", versus="now")
    assert "allow_gaps" not in page.source
    page = grace.get("/table", 404, table="todo", moment="2001-01-01")
    assert "2001-01-01" in page.text
    page = grace.get("/table", 409, table="todo", moment="2100-01-01")
    assert "is not known yet" in page.text
    assert "allow_gaps" not in page.source
    # Rows without a key have no order to go on in.
    page = grace.get("/table", table="loose", allow_gaps="true")
    assert page.source.count(">no key<") == 50
    assert "no key to go on from" in page.text
    assert page.link(rel="next") is None


def test_what_means_nothing_is_told(grace: Reader) -> None:
    assert "is not a time" in grace.get("/table?table=todo&versus=yesteryear", 400).text
    assert "is not a time" in grace.get("/tables?moment=yesteryear", 400).text
    assert "is not in the history" in grace.get("/table?table=nothing", 404).text
    assert "there is no source" in grace.get("/table?table=todo&source=nobody", 404).text
    grace.get("/table", 422)


def test_what_attackers_wrote_was_text_at_any_time(hostile_web: Web) -> None:
    me = reader(hostile_web)
    created, updated = reversed(hostile_web.get("/changes")["changes"])
    moment = updated["committed_at"]
    query = {"table": f"public.{TABLE}", "moment": moment}
    for page in (
        me.get("/tables", moment=moment),
        me.get("/table", **query),
        me.get("/table", **{**query, "versus": "now"}),
        me.get("/table", 404, **{**query, "moment": "2001-01-01"}),
        me.get("/table", **{**query, "behind": created["primary_key"]}),
    ):
        assert TABLE in page.text
    page = me.get("/table", **query)
    assert " ".join(COLUMN.split()) in page.text
    assert "<script>alert('x')</script>" in page.text
    assert len(page.source) < 100_000
    for link in {*page.links}:
        if link.startswith("/"):
            assert me.client.get(link, headers=HTML).status_code == 200, link


def test_a_table_is_seen_as_it_was_in_a_browser(chromium: Browser, web: Web) -> None:
    then = times.spell(
        times.parse(moment_of(web, table="bulk", operation="create"), now=datetime.now(UTC))
    )
    for width, scheme in zip(SIZES, SCHEMES, strict=True):
        with opened(chromium, web, width, scheme) as screen:
            page = screen.page
            shows = screen.is_accessible if width == min(SIZES) else screen.shows
            page.goto(f"{web.base}/")
            page.get_by_role("link", name="Time travel").click()
            page.get_by_role("heading", name="5 tables of attic").wait_for()
            shows("tables-now")
            page.get_by_label("A time, in UTC").fill(then)
            page.get_by_role("button", name="Go there").first.click()
            page.get_by_text("You are looking at").wait_for()
            shows("tables")
            page.get_by_role("link", name="todo", exact=True).click()
            page.get_by_text("paint it").first.wait_for()
            shows("table")
            page.get_by_role("button", name="Compare").click()
            page.get_by_text("Back to the rows").wait_for()
            page.locator("li.change").first.wait_for()
            shows("table-compared")
            page.goto(f"{web.base}/table?table=bulk")
            page.get_by_text("None of the keys").wait_for()
            page.goto(f"{web.base}/table?{urlencode({'table': 'bulk', 'moment': then})}")
            page.get_by_role("link", name="More").click()
            page.get_by_text("Back to the first page").wait_for()
            shows("table-bulk")
            page.goto(f"{web.base}/table?table=todo&moment=2001-01-01")
            screen.refused += 1
            page.get_by_role("alert").wait_for()
            shows("table-refused")
