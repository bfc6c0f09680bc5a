"""Connecting a source: what the checks find, of whom, and where the password is not."""

import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from playwright.sync_api import Browser, expect
from psycopg.conninfo import conninfo_to_dict

from bemi.capture.connector import Connector
from bemi.config import Settings
from bemi.errors import BemiError
from tests.support.hostile import TABLE
from tests.support.html import Page
from tests.support.plain_server import plain_servers
from tests.support.reading import HTML, reader, require_harmless
from tests.support.screens import SCHEMES, SIZES, opened
from tests.support.web import API, Web, serve

SECRET: Final = "s3cret/with@odd:chars%"
ROLE: Final = "connector_of_tests"


@pytest.fixture(scope="module")
def typing(history: Settings) -> Iterator[Web]:
    """A server at which admins type addresses, and a role with a password that odd addresses
    would show a part of."""
    with psycopg.connect(history.source_url, autocommit=True) as conn:
        conn.execute(f"create role {ROLE} login replication password '{SECRET}'".encode())
        connector = Connector({history.source: history}, takes_any=True)
        with serve(history, connector=connector) as web:
            yield web
        conn.execute(f"drop role {ROLE}".encode())


def typed(web: Web, **given: Any) -> dict[str, Any]:
    """Of the history's own source, as somebody types it."""
    parts = conninfo_to_dict(web.settings.source_url)
    return {
        "host": "127.0.0.1",
        "port": str(parts.get("port") or 5432),
        "database": str(parts["dbname"]),
        "user": ROLE,
        "password": SECRET,
        **given,
    }


def checked(web: Web, data: dict[str, Any], status: int = 200) -> Page:
    answer = reader(web, role="admin").client.post("/sources/connect", data=data, headers=HTML)
    assert answer.status_code == status, answer.text
    page = Page(answer.text)
    require_harmless(page)
    return page


def test_a_source_of_the_settings_is_checked(web: Web) -> None:
    page = checked(web, {"source": "attic"})
    assert "ok wal_level wal_level is logical" in page.text
    assert re.search(r"\d+ ok, \d warnings?\.", page.text)
    assert "! failure" not in page.text
    # Each finding that is not ok has its fix.
    assert "alter system set max_slot_wal_keep_size = '50GB'" in page.text
    assert "todo ✓ tracked" in page.text
    found = web.as_admin.post(f"{API}/sources/checks", json={"source": "attic"}).json()
    assert {each["check"]: each["level"] for each in found["findings"]}["slot"] == "ok"
    (todo,) = (each for each in found["tables"] if each["name"] == "todo")
    assert (todo["tracked"], todo["identity"], todo["fix"]) == (True, "full", None)


def test_what_a_source_calls_its_tables_is_text(hostile_web: Web) -> None:
    page = checked(hostile_web, {"source": "hostile"})
    assert TABLE in page.text
    chosen = {"source": "hostile", "table": f"public.{TABLE}", "full": f"public.{TABLE}"}
    page = reader(hostile_web, role="admin").get("/sources/plan", **chosen)
    assert TABLE.replace('"', '\\"') in page.text


def test_others_are_not_looked_at_unless_whoever_started_it_said_so(web: Web) -> None:
    page = checked(web, typed(web), 400)
    assert "looks at the sources of its own settings only" in page.text
    assert "Password" not in page.text
    answer = web.as_admin.post(f"{API}/sources/checks", json=typed(web))
    assert answer.status_code == 400
    answer = web.as_admin.post(f"{API}/sources/checks", json={"source": "other"})
    assert "no source other" in answer.json()["detail"]


def test_each_finding_comes_as_it_is_made(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is sent while the checks go on: without a script, too."""
    waits: list[int] = []
    checks = web.serving.connector.checks

    def slowly(settings: Settings) -> Iterator[Any]:
        for each in checks(settings):
            waits.append(received)
            yield each

    monkeypatch.setattr(web.serving.connector, "checks", slowly)
    received = 0
    client = reader(web, role="admin").client
    with client.stream("POST", "/sources/connect", data={"source": "attic"}) as answer:
        first = ""
        for piece in answer.iter_text():
            received += len(piece)
            first = first or piece
    assert "<h1>Connect a source</h1>" in first
    assert "</html>" not in first
    assert len({*waits}) > 1


def test_what_is_typed_is_checked_and_forgotten(
    typing: Web, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Right or wrong, the password is in no page, no answer, no line of a log, and nowhere in the
    store."""
    with caplog.at_level(logging.DEBUG):
        seen = [checked(typing, typed(typing)).source]
        assert "todo" in seen[0]
        cases = {
            "password authentication failed": typed(typing, password=f"{SECRET}!"),
            "connect to the source 127.0.0.1:1/": typed(typing, port="1"),
            "does not exist": typed(typing, database="no_such_database"),
        }
        for words, data in cases.items():
            page = checked(typing, data)
            assert words in page.text
            assert "! failure source" in page.text
            assert "not checked, because of: source" in page.text
            assert "Which tables" not in page.text
            seen.append(page.source)
        for data in (
            typed(typing, host=f"bemi:{SECRET}@127.0.0.1"),
            typed(typing, host="/var/run/postgresql"),
            typed(typing, host="127.0.0.1,10.0.0.1"),
            typed(typing, password=""),
            typed(typing, user=""),
            typed(typing, port="x"),
            typed(typing, sslkey="/etc/passwd"),
            typed(typing, source="other"),
        ):
            answer = reader(typing, role="admin").client.post("/sources/connect", data=data)
            assert answer.status_code in (400, 422), data
            if f"bemi:{SECRET}@" not in data["host"]:
                seen.append(answer.text)
            told = typing.as_admin.post(f"{API}/sources/checks", json=data)
            assert told.status_code in (400, 422), data
            seen.append(told.text)
    texts = [*seen, caplog.text, *capfd.readouterr()]
    with typing.conn() as conn:
        texts += [row[0] for row in conn.execute("select a::text from bemi.accesses a")]
        (recorded,) = conn.execute(
            "select count(*) from bemi.accesses where asked ->> 'user' = %s"
            " and action = 'POST /sources/connect'",
            [ROLE],
        ).fetchone() or (0,)
    assert recorded == 1 + len(cases)
    for text in texts:
        assert SECRET not in text
        assert "s3cret" not in text


def test_a_server_that_says_the_password_is_not_repeated(history: Settings) -> None:
    """Whoever holds the name of a host may answer with whatever it was told."""
    settings = replace(history, source_url="postgresql://x:topsecret9@127.0.0.1:1/topsecret9")
    found = [*Connector({}).checks(settings)]
    assert "127.0.0.1:1/***" in found[0].message
    assert not [each for each in found if "topsecret9" in f"{each.message} {each.fix}"]
    with pytest.raises(BemiError, match=r"127\.0\.0\.1:1/\*\*\*"):
        Connector({}).tables(settings, None)


def test_a_server_without_logical_decoding_is_told_with_its_fix(
    typing: Web, postgres_bin: Path | None
) -> None:
    with plain_servers(postgres_bin) as make:
        server = make()
        url = server.create_database("shop")
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("create table keyless (note text)")
        given = {name: str(value) for name, value in conninfo_to_dict(url).items()}
        data = typed(
            typing,
            port=given["port"],
            database="shop",
            user=given["user"],
            password=given["password"],
        )
        page = checked(typing, data)
    assert "! failure wal_level wal_level of the source is replica" in page.text
    assert "fix: alter system set wal_level = logical; then restart the source" in page.text
    assert "Mend what failed, and check again" in page.text
    assert "can't be tracked so: it has no primary key" in page.text
    assert 'alter table "public"."keyless" replica identity full;' in page.text
    assert given["password"] not in page.source


def test_what_was_chosen_becomes_lines_and_commands(typing: Web) -> None:
    page = reader(typing, role="admin").get(
        "/sources/plan?host=db.example&port=5432&database=shop&user=bemi&name=shop"
        "&schema=public&table=app.%5Bodd%5D&full=app.todo&snapshot=true&ddl=true"
    )
    for line in (
        "[sources.shop]",
        'source_url = "postgresql://bemi:PASSWORD@db.example:5432/shop"',
        'schemas = ["public"]',
        'tables = ["app.[[]odd]"]',
        "bemi init --full app.todo --ddl --snapshot --source shop",
        "the replication slot bemi_shop",
    ):
        assert line in page.text
    page = reader(typing, role="admin").get("/sources/plan?source=attic&table=public.todo")
    assert 'tables = ["public.todo"]' in page.text
    assert "source_url =" not in page.text
    assert "bemi init" in page.text
    assert "all tables that can be tracked" in (
        reader(typing, role="admin").get("/sources/plan?source=attic").text
    )
    reader(typing, role="admin").get("/sources/plan?source=other", 400)


def test_only_an_admin_connects(typing: Web) -> None:
    for role in ("viewer", "editor"):
        client = reader(typing, role=role).client
        assert "Connect a source" not in client.get("/sources").text
        assert client.get("/sources/connect").status_code == 403
        assert client.post("/sources/connect", data=typed(typing)).status_code == 403


@pytest.mark.parametrize(("width", "scheme"), [*zip(SIZES, SCHEMES, strict=True)])
def test_connecting_in_a_browser(typing: Web, chromium: Browser, width: int, scheme: Any) -> None:
    """The whole story: what is typed, what is found, what is chosen, what to run. Without scripts,
    once."""
    _, session = typing.person(f"ada at {width}", "admin")
    with opened(
        chromium, typing, width, scheme, signed_in=False, java_script_enabled=width > 400
    ) as screen:
        page = screen.page
        cookie = {"name": typing.serving.cookie, "value": session, "url": typing.base}
        page.context.add_cookies([cookie])  # type: ignore[list-item]
        page.goto(f"{typing.base}/sources")
        page.get_by_role("link", name="Connect a source").click()
        look = screen.is_accessible if width > 400 else screen.shows
        look("connect")
        for label, value in typed(typing).items():
            page.get_by_label(label.capitalize(), exact=label != "user").fill(value)
        page.get_by_role("button", name="Check it").last.click()
        expect(page.get_by_role("status")).to_contain_text("ok")
        expect(page.get_by_text("wal_level is logical")).to_be_visible()
        look("checked")
        page.get_by_label("pair", exact=True).check()
        page.get_by_label("Store what the tables hold already").check()
        page.get_by_role("button", name="What to write and run").click()
        expect(page.get_by_text("bemi init --snapshot")).to_be_visible()
        assert SECRET not in page.content()
        assert "s3cret" not in page.url
        look("connect-plan")
