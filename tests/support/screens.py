"""Pages in a real browser, in which nothing may go wrong.

BEMI_TEST_SCREENSHOTS names a folder for pictures of them.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, Request

from bemi.store import people
from bemi.store.people import Role
from tests.support.web import Web

SCREENSHOTS: Final = os.environ.get("BEMI_TEST_SCREENSHOTS")
SIZES: Final = {1280: 800, 390: 844}
SCHEMES: Final[tuple[Literal["light", "dark"], ...]] = ("light", "dark")


class Screen:
    """A page in a browser in which nothing went wrong."""

    def __init__(self, page: Page, width: int, scheme: Literal["light", "dark"]) -> None:
        self.page = page
        self.width = width
        self.scheme = scheme
        self.refused = 0
        """Answers that the browser is to complain of."""

    def is_accessible(self, name: str) -> None:
        """To those who see, hear or move otherwise, as far as axe can tell."""
        self.page.wait_for_load_state()  # half a page is not accessible
        found = Axe().run(self.page).response["violations"]
        told = [
            (each["id"], node["html"], node["failureSummary"])
            for each in found
            for node in each["nodes"]
        ]
        assert not told, f"{name}: {told}"
        self.shows(name)

    def shows(self, name: str) -> None:
        """For the record, light and dark: that nothing scrolls sideways."""
        self.page.wait_for_load_state()
        wide = self.page.evaluate(
            """document.documentElement.scrollWidth > innerWidth
                ? [...document.querySelectorAll("body *")]
                    .filter((each) => each.getBoundingClientRect().right > innerWidth)
                    .map((each) => each.outerHTML.slice(0, 200))
                : []"""
        )
        assert not wide, f"{name}: {wide}"
        if SCREENSHOTS is None:
            return
        for scheme in SCHEMES:
            self.page.emulate_media(color_scheme=scheme)
            path = Path(SCREENSHOTS) / f"{name}-{self.width}-{scheme}.png"
            self.page.screenshot(path=path, full_page=True)
        self.page.emulate_media(color_scheme=self.scheme)


@contextmanager
def opened(
    chromium: Browser,
    web: Web,
    width: int,
    scheme: Literal["light", "dark"],
    *,
    signed_in: bool = True,
    role: Role = "editor",
    also: tuple[str, ...] = (),
    **given: Any,
) -> Iterator[Screen]:
    """Whatever the browser complains of, asks people or loads from elsewhere is an
    error in the end. `also`: other origins, which are none of that."""
    wrong: list[str] = []
    context = chromium.new_context(
        viewport={"width": width, "height": SIZES[width]}, color_scheme=scheme, **given
    )
    if signed_in:
        name = f"grace {people.new_secret()[:8]}"
        _, session = web.person(name, role)
        context.add_cookies([{"name": web.serving.cookie, "value": session, "url": web.base}])
    page = context.new_page()

    def told(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            wrong.append(message.text)

    def asked(dialog: Dialog) -> None:
        wrong.append(dialog.message)
        dialog.dismiss()

    def loaded(request: Request) -> None:
        if not request.url.startswith(tuple(f"{origin}/" for origin in (web.base, *also))):
            wrong.append(request.url)

    page.on("console", told)
    page.on("dialog", asked)
    page.on("request", loaded)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.set_default_timeout(10_000)
    screen = Screen(page, width, scheme)
    try:
        yield screen
        assert [each for each in wrong if "responded with a status of 4" not in each] == []
        assert len(wrong) == screen.refused, wrong
    finally:
        context.close()
