"""The pages in a real browser: the main story of each, wide and narrow, dark and light.

BEMI_TEST_SCREENSHOTS names a folder for pictures of them.
"""

import re
from typing import Literal

import pytest
from playwright.sync_api import Browser

from bemi.store import people
from tests.integration.conftest import Track
from tests.support.screens import SCHEMES, SIZES, opened
from tests.support.web import Web, serve


def test_somebody_signs_in_by_a_link_and_out_again(chromium: Browser, web: Web) -> None:
    with web.conn() as conn:
        person = people.add_person(conn, "bemi", "lise", "viewer", None)
        secret = people.link(conn, "bemi", person.id)
    with opened(chromium, web, 390, "light", signed_in=False) as screen:
        page = screen.page
        page.goto(f"{web.base}/?table=todo")
        page.get_by_text("Signing in takes a one-time link").wait_for()
        screen.shows("signed-out")
        page.goto(web.serving.link(secret))
        screen.is_accessible("sign-in")
        page.get_by_role("button", name="Sign in on this device").click()
        page.get_by_role("heading", name="Activity").wait_for()
        assert page.url == f"{web.base}/"
        (cookie,) = page.context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Lax")
        # The link holds once; the session goes on.
        page.goto(web.serving.link(secret))
        screen.refused += 1
        page.get_by_role("button", name="Sign in on this device").click()
        page.get_by_text("This link does not hold").wait_for()
        page.goto(f"{web.base}/")
        page.locator("details.menu summary").click()
        page.get_by_role("button", name="Sign out").click()
        page.get_by_text("Signing in takes a one-time link").wait_for()
        assert page.context.cookies() == []
        page.goto(f"{web.base}/record")
        page.get_by_text("Signing in takes a one-time link").wait_for()


@pytest.mark.parametrize(("width", "scheme"), [*zip(SIZES, SCHEMES, strict=True)])
def test_who_changed_a_record_is_found_within_a_few_clicks(
    chromium: Browser, web: Web, width: int, scheme: Literal["light", "dark"]
) -> None:
    with opened(chromium, web, width, scheme) as screen:
        page = screen.page
        # Of both runs, one is enough.
        shows = screen.is_accessible if width == 390 else screen.shows
        page.goto(f"{web.base}/")
        page.get_by_text("changed done and task of todo 1").wait_for()
        shows("activity")

        page.get_by_role("link", name="chart", exact=True).click()
        page.get_by_text("1,512 changes, by minute").wait_for()
        shows("activity-chart")
        page.get_by_role("link", name="without the chart").click()

        page.get_by_label("Filter by").select_option("user")
        page.get_by_label("Value", exact=True).fill("43")
        page.get_by_role("button", name="Add filter").click()
        page.wait_for_url(re.compile(r"context=user_id%3D43"))
        page.locator("[data-row]", has_text="changed done").locator("summary").click()
        page.locator("del", has_text="paint").first.wait_for()
        shows("activity-filtered")

        page.get_by_role("link", name="todo 1", exact=True).first.click()
        page.get_by_role("heading", name="Who set what").wait_for()
        shows("record")
        slider = page.get_by_role("slider", name="Version of the record")
        slider.press("ArrowLeft")
        slider.press("ArrowLeft")
        slider.press("Enter")
        page.get_by_text("You are looking at").wait_for()
        page.get_by_role("heading", name="As it was").wait_for()
        shows("record-then")
        box = slider.bounding_box()
        assert box is not None
        page.mouse.click(box["x"] + box["width"] - 2, box["y"] + box["height"] / 2)
        page.get_by_role("heading", name="Who set what").wait_for()
        page.get_by_role("button", name="Compare the two versions").click()
        page.get_by_role("heading", name="Two versions").wait_for()
        shows("record-compared")

        page.get_by_role("link", name=re.compile("of this change")).first.click()
        page.get_by_role("heading", name="What differs").wait_for()
        page.get_by_role("link", name="Undo this change").wait_for()
        shows("change")
        page.get_by_role("link", name=re.compile("^Transaction")).click()
        page.get_by_role("heading", name=re.compile("^Transaction")).wait_for()
        shows("transaction")
        page.goto(f"{web.base}/trace?id=req-2")
        page.get_by_text("all that it did, in order").wait_for()
        shows("trace")

        page.get_by_role("link", name="Sources", exact=True).click()
        page.get_by_text("every row known since").first.wait_for()
        shows("sources")
        page.goto(f"{web.base}/record")
        shows("find")
        page.goto(f"{web.base}/?table=nothing")
        shows("empty")


def test_a_page_is_used_with_the_keyboard_alone(chromium: Browser, web: Web) -> None:
    with opened(chromium, web, 1280, "light") as screen:
        page = screen.page
        page.goto(f"{web.base}/?table=todo")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
        for key in "jjkjj":
            page.keyboard.press(key)
        row = page.locator("[data-row]").nth(2)
        assert row.get_attribute("aria-current") == "true"
        page.keyboard.press("d")
        assert row.locator("details").get_attribute("open") is not None
        page.keyboard.press("?")
        page.get_by_role("dialog").wait_for()
        page.keyboard.press("Escape")
        page.keyboard.press("/")
        page.keyboard.type("jd/")
        assert page.get_by_label("Value", exact=True).input_value() == "jd/"
        page.keyboard.press("Escape")
        page.locator("h1").click()
        page.keyboard.press("t")
        page.keyboard.type("now")
        page.keyboard.press("Enter")
        # Loaded, with the script, not only there.
        page.wait_for_url(re.compile("moment="))
        page.get_by_text("You are looking at").wait_for()
        screen.is_accessible("moment")
        page.keyboard.press("j")
        page.keyboard.press("Enter")
        page.wait_for_url(re.compile("/change"))
        page.get_by_text("You are looking at").wait_for()


def test_colours_are_chosen_without_a_script(chromium: Browser, web: Web) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    with opened(chromium, web, 390, "light", java_script_enabled=False) as screen:
        page = screen.page
        page.goto(f"{web.base}/?table=todo")
        light = page.evaluate(ground)
        page.locator("details.menu summary").click()
        screen.shows("menu")
        page.get_by_role("button", name="dark").click()
        page.wait_for_url(f"{web.base}/?table=todo")
        assert page.evaluate(ground) != light
        page.locator("details.menu summary").click()
        page.get_by_role("button", name="system").click()
        page.wait_for_url(f"{web.base}/?table=todo")
        assert page.evaluate(ground) == light


def test_what_attackers_write_does_nothing(chromium: Browser, hostile_web: Web) -> None:
    """On each page that shows it; `opened` sees what a browser would do with it."""
    created, updated = reversed(hostile_web.get("/changes")["changes"])
    with opened(chromium, hostile_web, 390, "dark") as screen:
        page = screen.page
        page.goto(f"{hostile_web.base}/")
        screen.shows("hostile")
        for details in page.locator(".change summary").all():
            details.click()
        screen.shows("hostile-open")
        page.locator("a.bit-row").first.click()
        page.get_by_role("heading", name="Who set what").wait_for()
        page.get_by_role("button", name="Compare the two versions").click()
        page.get_by_role("heading", name="Two versions").wait_for()
        screen.shows("hostile-record")
        for each in (created, updated):
            page.goto(f"{hostile_web.base}/change?id={each['id']}")
            screen.shows(f"hostile-{each['operation'].lower()}")
        page.goto(f"{hostile_web.base}/transaction?number={created['transaction_id']}")
        page.locator("a", has_text="request").first.click()
        page.get_by_text("all that it did, in order").wait_for()
        screen.shows("hostile-trace")


def test_new_changes_are_told_of_and_shown_when_asked_for(
    chromium: Browser, tracked: Track
) -> None:
    at = tracked("create table todo (id int primary key, task text)")
    with serve(at.settings) as web, opened(chromium, web, 390, "light") as screen:
        page = screen.page
        page.goto(f"{web.base}/")
        page.get_by_text("No changes yet").wait_for()
        page.get_by_text("bemi run").wait_for()
        screen.shows("nothing-yet")
        for number in (1, 2):
            at.source.execute("insert into todo values (%s, 'x')", [number])
            at.catch_up()
            page.get_by_text("There are new changes").click()
            page.get_by_text(f"created todo {number}").wait_for()
