"""Pages of an application, on an origin of their own, show a customer their history."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, Literal

import pytest
from playwright.sync_api import Browser, Page

from tests.support.embedding import Embedding
from tests.support.orders import BOUND
from tests.support.screens import SCHEMES, SIZES, opened
from tests.support.waiting import until
from tests.support.web import API, Web

PATH: Final = f"{API}/embed/changes"
ROOT: Final = Path(__file__).parents[3]
POLICY: Final = (
    "default-src 'none'; style-src 'self'; script-src 'self' {server}; connect-src 'self' {server};"
    " frame-src {server}; require-trusted-types-for 'script'"
)


STYLES: Final = """
:root { color-scheme: light dark; }
body { font-family: system-ui, sans-serif; margin: 1rem auto; max-width: 46rem; padding: 0 1rem; }
iframe { width: 100%; border: 0; }
"""
# What a page says that frames a history: it gives tokens, words and colours, and takes the height.
FRAMING: Final = """
const frame = document.querySelector("iframe");
let asked = 0;
const server = new URL(frame.src).origin;
addEventListener("message", async ({ origin, source, data }) => {
  if (origin !== server || source !== frame.contentWindow) return;
  if (data.bemi === "height") frame.style.height = `${data.height}px`;
  // A page that is slower than its frame does not hear the first time.
  if (data.bemi === "token" && asked++) {
    const { token } = await (await fetch("/token")).json();
    const words = { tables: { "public.orders": "Bestellung" } };
    source.postMessage({ token, words, theme: { "--bemi-ink": "rgb(1, 2, 3)" } }, server);
  }
});
"""


class Application:
    """A shop, with a page, and tokens for whoever looks at it."""

    def __init__(self) -> None:
        self.page = ""
        self.tokens: list[str] = []
        self.server = ""
        application = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                kind, body = application.answer(self.path)
                self.send_response(200)
                self.send_header("Content-Type", f"{kind}; charset=utf-8")
                policy = POLICY.format(server=application.server)
                self.send_header("Content-Security-Policy", policy)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: Any) -> None:
                pass

        self._listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self._listener.server_port}"
        self._thread = threading.Thread(target=self._listener.serve_forever)
        self._thread.start()

    def answer(self, path: str) -> tuple[str, str]:
        """One token after the other, and the last one again."""
        if path == "/token":
            token = self.tokens.pop(0) if len(self.tokens) > 1 else self.tokens[0]
            return "application/json", json.dumps({"token": token})
        files = {"/shop.css": ("text/css", STYLES), "/shop.js": ("text/javascript", FRAMING)}
        return files.get(path, ("text/html", self.page))

    def shows(self, body: str, server: str, *tokens: str) -> None:
        self.server = server
        self.tokens = [*tokens]
        self.page = (
            '<!doctype html><html lang="en"><head><title>Orders</title>'
            '<meta name="viewport" content="width=device-width">'
            '<link rel="stylesheet" href="/shop.css">'
            f'<script type="module" src="{server}/embed.js"></script></head>'
            f"<body><main><h1>Your orders</h1>{body}</main></body></html>"
        )

    def close(self) -> None:
        self._listener.shutdown()
        self._thread.join()
        self._listener.server_close()


@pytest.fixture(scope="module")
def application() -> Iterator[Application]:
    made = Application()
    yield made
    made.close()


@pytest.fixture(scope="module")
def embedding(shop: Web, application: Application) -> Embedding:
    bound = {**BOUND, "origins": [application.origin]}
    return Embedding(shop, bound, tenant="7", context=["user_name"])


def elements(page: Page) -> set[str]:
    """Those in the component, whatever it was told."""
    found: list[str] = page.evaluate(
        """[...document.querySelector("bemi-history").shadowRoot.querySelectorAll("*")]
            .map((each) => each.localName)"""
    )
    return {*found}


@pytest.mark.parametrize(("width", "scheme"), [*zip(SIZES, SCHEMES, strict=True)])
def test_a_customer_sees_what_is_theirs_in_a_page_of_the_application(
    chromium: Browser,
    embedding: Embedding,
    application: Application,
    width: int,
    scheme: Literal["light", "dark"],
) -> None:
    server = embedding.web.base
    with opened(
        chromium, embedding.web, width, scheme, signed_in=False, also=(application.origin,)
    ) as screen:
        page = screen.page
        # The first token has expired by then: the component asks for another.
        expired = embedding.token(lasts=0)
        application.shows(
            '<bemi-history token-url="/token" limit="4"></bemi-history>',
            server,
            *(expired, embedding.token()),
        )
        screen.refused += 1
        page.goto(application.origin)
        page.get_by_text("Ada deleted orders A-2").wait_for()
        assert page.get_by_role("listitem").count() == 4
        page.get_by_role("button", name="Show more").focus()
        page.keyboard.press("Enter")
        page.get_by_text("Ada changed status of orders A-2 from sent to lost").wait_for()
        # The focus goes on to what is new.
        focused = page.evaluate("document.activeElement.shadowRoot.activeElement.textContent")
        assert "ticket was added" in focused
        page.get_by_role("button", name="Show more").click()
        page.get_by_text("That is all.").wait_for()
        page.get_by_text("Ada created orders A-1").wait_for()
        assert page.get_by_role("listitem").count() == 11
        page.get_by_text("Details").last.click()
        page.get_by_text("12345678901234567890.10").last.wait_for()
        screen.is_accessible("embed")


def test_words_are_those_of_the_token_or_of_the_application(
    chromium: Browser, embedding: Embedding, application: Application
) -> None:
    server = embedding.web.base
    with opened(
        chromium, embedding.web, 390, "light", signed_in=False, also=(application.origin,)
    ) as screen:
        page = screen.page
        words = {
            "tables": {"public.orders": "Bestellung"},
            "columns": {"status": "Zustand", "public.orders.total": "Summe"},
            "deleted": "{who} löschte {row} {evil} {constructor}",
        }
        application.shows(
            '<bemi-history token-url="/token" table="orders">'
            f'<script type="application/json">{json.dumps(words)}</script></bemi-history>',
            server,
            embedding.token(language="de-AT"),
        )
        page.goto(application.origin)
        page.get_by_text("Ada hat Zustand von Bestellung A-1 von open auf paid geändert").wait_for()
        page.get_by_text("Ada löschte Bestellung A-2").wait_for()
        assert page.locator("section").get_attribute("lang") == "de-AT"
        asked: list[str] = []
        page.on("request", lambda each: asked.append(each.url) if PATH in each.url else None)
        application.shows(
            f'<bemi-history token="{embedding.token(record=("orders", 1))}" table="orders"'
            ' lang="fr">'
            "</bemi-history>",
            server,
        )
        page.goto(application.origin)
        page.get_by_text("Ada a modifié status de orders A-1 : open est devenu paid").wait_for()
        page.get_by_text("orders A-1 a été retiré").wait_for()
        assert len(asked) == 1  # of a log that has a line for each
        # What its user writes is text.
        application.shows(
            '<bemi-history token-url="/token" lang="xx"></bemi-history>',
            server,
            embedding.token(tenant="mallory"),
        )
        page.goto(application.origin)
        page.get_by_text("<script>alert('x')</script>").first.wait_for()
        page.get_by_text("Details").first.click()
        screen.is_accessible("embed-hostile")
        assert not elements(page) & {"script", "img", "a", "iframe"}


def test_a_page_frames_the_history_without_its_script(
    chromium: Browser, embedding: Embedding, application: Application
) -> None:
    server = embedding.web.base
    address = f"{server}/embed/{embedding.kid}"
    with opened(
        chromium, embedding.web, 390, "dark", signed_in=False, also=(application.origin,)
    ) as screen:
        page = screen.page
        application.shows(
            f'<iframe src="{address}" title="History"></iframe>'
            '<script type="module" src="/shop.js"></script>',
            server,
            *(embedding.token(lasts=0), embedding.token(language="de")),
        )
        screen.refused += 1
        page.goto(application.origin)
        frame = page.frame_locator("iframe")
        frame.get_by_text("Ada hat status von Bestellung A-2 von sent auf lost geändert").wait_for()
        page.wait_for_function("document.querySelector('iframe').offsetHeight > 600")
        assert frame.locator("html").get_attribute("lang") == "de"
        ink = "getComputedStyle(document.querySelector('bemi-history')).color"
        assert page.frames[1].evaluate(ink) == "rgb(1, 2, 3)"
        # In a page without a script, the token stands in the fragment, and not for long.
        application.shows(f'<iframe src="{address}#{embedding.token()}"></iframe>', server)
        page.goto(application.origin)
        frame.get_by_text("Ada created orders A-1").wait_for()
        assert page.frames[1].evaluate("location.href") == address


def test_a_page_of_another_origin_shows_nothing(
    chromium: Browser, shop: Web, application: Application
) -> None:
    """Whatever token it has got hold of; of what the browser says to that, there is much."""
    embedding = Embedding(shop, BOUND, tenant="7")
    application.shows(
        f'<bemi-history token="{embedding.token()}"></bemi-history>'
        f'<iframe src="{shop.base}/embed/{embedding.kid}#{embedding.token()}"></iframe>',
        shop.base,
    )
    page = chromium.new_page()
    page.goto(application.origin)
    page.get_by_text("The history can't be loaded just now.").wait_for()
    page.get_by_role("button", name="Try again").click()
    page.get_by_text("The history can't be loaded just now.").wait_for()
    assert "li" not in elements(page)
    assert page.frames[1].url == "chrome-error://chromewebdata/"
    page.close()


@pytest.mark.parametrize(
    ("example", "path", "shows"),
    [
        ("fastapi", "/", "Ada changed status of order A-1 from open to paid"),
        ("django", "/orders/1/", "Ada hat status von orders von open auf paid geändert"),
    ],
)
def test_the_examples_show_it(
    chromium: Browser, shop: Web, example: str, path: str, shows: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    origin = f"http://127.0.0.1:{port}"
    embedding = Embedding(shop, {**BOUND, "origins": [origin]})
    given = {"HISTORY_URL": shop.base, "HISTORY_KEY": json.dumps(embedding.key), "PORT": str(port)}
    program = [sys.executable, f"examples/embed/{example}_app.py"]
    with subprocess.Popen(
        program, cwd=ROOT, env={**os.environ, **given}, stderr=subprocess.DEVNULL
    ) as running:
        try:
            until(lambda: answers(port), 30, "the application has started")
            with opened(chromium, shop, 390, "light", signed_in=False, also=(origin,)) as screen:
                screen.page.goto(f"{origin}{path}")
                screen.page.get_by_text(shows).wait_for()
                screen.is_accessible(f"embed-{example}")
        finally:
            running.terminate()


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
