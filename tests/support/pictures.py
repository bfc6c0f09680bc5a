"""The pictures of the documentation: `python -m tests.support.pictures` takes them again.

Of a small shop, in which somebody gave a product the wrong price. Chromium has to be there.
"""

import json
import random
import shutil
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import psycopg
from playwright.sync_api import Browser, Page, sync_playwright

from bemi.capture import worker
from bemi.config import Settings
from bemi.embedded import Server
from tests.support.embedding import Embedding
from tests.support.tracked import Tracked
from tests.support.tracking import ROOT, track
from tests.support.web import Web, serve

FOLDER: Final = ROOT / "docs" / "images"

_TABLES: Final = """
create table customers (id int primary key, name text not null, email text);
create table products (id int primary key, name text not null, price numeric(8, 2) not null);
create table orders (id int primary key, customer_id int not null references customers,
    status text not null, total numeric(8, 2) not null, note text);
create table order_lines (order_id int references orders, product_id int references products,
    quantity int not null, primary key (order_id, product_id))
"""
_ROWS: Final = (
    """insert into customers values (1, 'Ines Okafor', 'ines@example.com'),
    (2, 'Tomás Vidal', 'tomas@example.com'), (3, 'Mei Lindqvist', 'mei@example.com')""",
    """insert into products values (1, 'Teapot, blue', 39.00), (2, 'Cup, white', 9.50),
    (3, 'Kettle, steel', 64.00), (4, 'Tray, oak', 28.00)""",
)
_NAMES: Final = ("customers", "products", "orders", "order_lines")
_EMIT: Final = "select pg_logical_emit_message(true, '_bemi', %s)"


class _Shop:
    def __init__(self, at: Tracked) -> None:
        self._at = at
        self._requests = 0

    def request(self, user: str, endpoint: str, *statements: str, method: str = "PUT") -> None:
        """One transaction of the application."""
        self._requests += 1
        context = {
            "user_id": user,
            "method": method,
            "endpoint": endpoint,
            "request_id": f"req-{4700 + self._requests}",
        }
        with self._at.source.transaction():
            self._at.source.execute(_EMIT, [json.dumps(context)])
            for statement in statements:
                self._at.source.execute(statement.encode())

    def order(self, number: int, dice: random.Random) -> None:
        product, quantity = dice.randrange(1, 5), dice.randrange(1, 4)
        self.request(
            dice.choice(("ines", "tomas", "mei")),
            "/orders",
            f"insert into orders values ({number}, {dice.randrange(1, 4)}, 'open',"
            f" (select price * {quantity} from products where id = {product}))",
            f"insert into order_lines values ({number}, {product}, {quantity})",
            method="POST",
        )


def _work(at: Tracked) -> None:
    shop, dice = _Shop(at), random.Random(7)
    shop.request("ada", "/admin/import", *_ROWS, method="POST")
    for number in range(1001, 1043):
        shop.order(number, dice)
        if number % 3 == 0:
            shop.request(
                "warehouse",
                f"/orders/{number - 2}/ship",
                f"update orders set status = 'shipped' where id = {number - 2}",
            )
    shop.request(
        "mei", "/orders/1042", "update orders set note = 'Leave it at the door' where id = 1042"
    )
    shop.request(
        "linus",
        "/admin/products/3",
        "update products set price = 6.40, name = 'Kettle, steel, 1.5 l' where id = 3",
    )
    shop.request(
        "tomas",
        "/orders",
        "insert into orders values (1043, 2, 'open', 12.80)",
        "insert into order_lines values (1043, 3, 2)",
        method="POST",
    )
    shop.request("ines", "/orders/1042/pay", "update orders set status = 'paid' where id = 1042")
    shop.request("grace", "/admin/products/4", "update products set price = 26.00 where id = 4")


def _spread(settings: Settings) -> None:
    """As if it all had taken a week: for the charts."""
    now = datetime.now(UTC)
    dice = random.Random(11)
    with psycopg.connect(settings.destination_url, autocommit=True) as conn:
        conn.execute("select bemi.ensure_partitions(%s, %s)", [now - timedelta(days=8), now])
        commits = conn.execute("select distinct commit_position from bemi.row_changes").fetchall()
        for (commit,) in commits:
            when = now - timedelta(days=6.9 * dice.random() ** 1.4)
            conn.execute(
                "update bemi.row_changes set committed_at = %s where commit_position = %s",
                [when, commit],
            )
        conn.execute("truncate bemi.counted, bemi.hourly_counts, bemi.hourly_users")
        conn.execute("update bemi.checkpoints set uncounted_since = '-infinity'")


def take(folder: Path, browser: Browser, web: Web) -> None:
    page = _opened(browser, web, 1280, "light")

    def shot(name: str, of: Page = page) -> None:
        of.screenshot(path=folder / f"{name}.png")

    def at(address: str, name: str, then: Callable[[], object] = lambda: None) -> None:
        page.goto(f"{web.base}{address}")
        then()
        shot(name)

    def unfold() -> None:
        page.locator(".change", has_text="changed name and price").locator("summary").click()
        page.evaluate("scrollTo(0, 0)")

    change = web.get("/changes", table="products", key="3", changed="price")["changes"][0]
    at("/", "activity", unfold)
    at("/record?table=products&key=3", "record")
    at(f"/trace?id={change['context']['request_id']}", "trace")
    at(f"/revert?id={change['id']}", "undo")
    before = datetime.fromisoformat(change["committed_at"]) - timedelta(milliseconds=1)
    moment = urlencode({"table": "products", "moment": before.isoformat()})
    at(f"/table?{moment}", "time-travel")
    at("/sources", "sources")

    def check() -> None:
        page.get_by_role("button", name="Check it").click()
        page.get_by_role("status").wait_for()

    at("/sources/connect", "connect", check)
    rules = '[rules]\nmask = ["customers.email"]\n\n[[rules.skip]]\ntables = ["order_lines"]\n'
    at(f"/sources/rules?{urlencode({'rules': rules})}", "rules")
    with web.conn() as conn:
        conn.execute("update bemi.people set name = 'ada' where person_id = %s", [web.admin])
    orders = [{"table": "public.orders", "columns": ["id", "status", "total"]}]
    web.person("support", "viewer", orders)
    web.person("linus", "editor")
    at("/settings/people", "settings")
    embed(folder, browser, web)
    small = _opened(browser, web, 390, "dark")
    small.goto(f"{web.base}/?table=orders")
    shot("phone", small)
    _spread(web.settings)
    at("/trends?by=table", "trends")


def embed(folder: Path, browser: Browser, web: Web) -> None:
    """What a customer sees."""
    table = {"table": "orders", "columns": ["id", "status", "total", "note"], "label": "id"}
    bound = {"name": "orders", "tables": [{**table, "tenant": "customer_id"}], "origins": []}
    embedding = Embedding(web, {**bound, "context": ["user_id"]})
    (order,) = web.get("/changes", table="orders", key="1042", changed="note")["changes"]
    token = embedding.token(tenant=order["after"]["customer_id"], context=["user_id"])
    page = browser.new_page(viewport={"width": 720, "height": 480})
    page.goto(f"{web.base}/embed/{embedding.kid}#{token}")
    page.get_by_text("1042 from open to paid").wait_for()
    page.evaluate("postMessage({words: {tables: {'public.orders': 'order'}}})")
    page.get_by_text("changed note of order 1042").wait_for()
    page.screenshot(path=folder / "embed.png")


def _opened(browser: Browser, web: Web, width: int, scheme: Any) -> Page:
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, device_scale_factor=1
    )
    _, session = web.person(f"grace{'' if width > 400 else ' '}", "admin")
    context.add_cookies([{"name": web.serving.cookie, "value": session, "url": web.base}])
    return context.new_page()


def main(folder: Path = FOLDER) -> None:
    folder.mkdir(exist_ok=True)
    program = shutil.which("chromium")
    if program is None:
        sys.exit("chromium is not there")
    with Server(settings={"fsync": "off", "wal_level": "logical"}) as server:
        source, destination = server.create_database("shop"), server.create_database("history")
        with psycopg.connect(source, autocommit=True) as conn:
            conn.execute(_TABLES.encode())
        names = [f"public.{name}" for name in _NAMES]
        at = Tracked(track(source, destination, tables=names, full=names, source="shop"))
        _work(at)
        at.catch_up()
        at.close()
        stop = threading.Event()
        capturing = threading.Thread(target=worker.run, args=[at.settings], kwargs={"stop": stop})
        capturing.start()
        try:
            with serve(at.settings) as web, sync_playwright() as playwright:
                take(folder, playwright.chromium.launch(executable_path=program), web)
        finally:
            stop.set()
            capturing.join()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
