"""One history and one server for all tests that only read."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from bemi.config import Settings
from bemi.embedded import Server
from tests.support import attic, databases, hostile, orders, parts
from tests.support.web import Web, serve


@pytest.fixture(scope="session")
def history(server: Server) -> Iterator[Settings]:
    with databases.pair(server) as urls:
        yield attic.filled(*urls)


@pytest.fixture(scope="session")
def hostile_web(server: Server) -> Iterator[Web]:
    """Of a history in which everything is written by somebody who means ill."""
    with databases.pair(server) as urls:
        settings = hostile.filled(*urls)
        server.start()
        with serve(settings) as running:
            yield running


@pytest.fixture(scope="session")
def shop(server: Server) -> Iterator[Web]:
    """Of a history of several customers."""
    with databases.pair(server) as urls:
        settings = orders.filled(*urls)
        server.start()
        with serve(settings) as running:
            yield running


@pytest.fixture(scope="session")
def web(history: Settings) -> Iterator[Web]:
    with serve(history) as running:
        yield running


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Of a module: while Playwright is there, its event loop runs in the thread of the tests, in
    which others could not run one."""
    program = parts.require("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program)
        yield browser
        browser.close()
