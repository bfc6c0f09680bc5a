"""The page of the sources: what is complete, and what needs somebody, with the command for it."""

import socket
from dataclasses import replace

import psycopg
import pytest
from playwright.sync_api import Browser, expect

from bemi.capture.connector import Connector
from bemi.store import baselines, checkpoint
from tests.integration.conftest import Track
from tests.support.hostile import TABLE
from tests.support.reading import reader
from tests.support.screens import opened
from tests.support.tracked import Tracked
from tests.support.web import Web, serve


def test_what_is_complete_is_told_of_each_table(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nobody captures any more: how long ago it was depends on the tests before.
    monkeypatch.setattr("bemi.ui.sources._SILENT", 1e9)
    page = reader(web).get("/sources")
    assert "attic captured" in page.text
    assert "5 tables complete with every row" in page.text
    assert "public.todo every row known since" in page.text
    assert "written nothing" not in page.text
    assert "/?table=public.todo&source=attic" in page.links
    monkeypatch.setattr("bemi.ui.sources._SILENT", -1.0)
    assert "The worker has written nothing since" in reader(web).get("/sources").text
    monkeypatch.setattr("bemi.ui.sources._TABLES", 2)
    assert "3 more tables, in the JSON" in reader(web).get("/sources").text
    reader(web).get("/sources?sauce=x", 422)
    assert "As they are now" in reader(web).get("/sources?moment=2030-01-01").text


def test_who_sees_a_part_sees_that_of_the_sources_too(web: Web) -> None:
    page = reader(web, {"table": "public.todo"}).get("/sources")
    assert "public.todo every row known" in page.text
    assert "1 table complete with every row" in page.text
    for hidden in ("secret", "pair", "bulk"):
        assert hidden not in page.source


def test_what_needs_somebody_is_told_with_its_command(tracked: Track) -> None:
    at = tracked("create table todo (id int primary key)", "create table done (id int primary key)")
    at.source.execute("insert into done values (1)")
    at.catch_up()
    at.destination.execute(
        "insert into bemi.gaps (source_id, epoch, from_position, to_position, cause, detail)"
        " select source_id, epoch, position, position + 8, 'slot_ahead', 'made up'"
        " from bemi.checkpoints"
    )
    with serve(at.settings) as web:
        page = reader(web).get("/sources")
        assert "! gap" in page.text
        assert "bemi recover goes on behind them" in page.text
        assert "bemi run --accept-gap" in page.text
        feed = reader(web).get("/")
        assert "bemi recover goes on behind them" in feed.text
        assert "/sources" in feed.links
        at.destination.execute("update bemi.gaps set accepted_at = now()")
        at.destination.execute("update bemi.sources set paused_at = now()")
        assert "paused just now" in reader(web).get("/sources").text


def test_a_history_without_sources_says_what_to_do(tracked: Track) -> None:
    at = tracked("create table todo (id int primary key)")
    at.destination.execute("truncate bemi.sources cascade")
    with serve(at.settings) as web:
        page = reader(web).get("/sources")
        assert "No source yet" in page.text
        assert "bemi init" in page.text


def test_names_of_tables_are_text(hostile_web: Web) -> None:
    page = reader(hostile_web).get("/sources")
    assert TABLE in page.text
    assert "<img" not in page.source


def test_a_source_says_itself_how_it_is(web: Web) -> None:
    page = reader(web).get("/sources")
    assert "worker not connected: bemi run starts one" in page.text
    assert "kept WAL" in page.text
    assert "of WAL tracked 5 tables" in page.text
    (told,) = web.get("/sources/live")["sources"]
    assert told["source"] == "attic"
    assert told["problem"] is None
    assert told["live"]["retained_bytes"] >= 0
    assert told["live"]["slot_active"] is False
    # Names of tables are in it.
    part = {"table": "public.todo"}
    assert "kept WAL" not in reader(web, part).get("/sources").text
    scoped = web.client(web.token("viewer", [part]))
    assert scoped.get("/api/v1/sources/live").status_code == 403


def test_a_source_that_is_away_does_not_hold_up_the_page(web: Web) -> None:
    settings = replace(web.settings, source_url="postgresql://x:topsecret9@127.0.0.1:1/gone")
    new = replace(settings, source="new")
    with serve(web.settings, connector=Connector({"attic": settings, "new": new})) as away:
        page = reader(away, role="admin").get("/sources")
        assert "can't connect to the source 127.0.0.1:1/gone" in page.text
        assert "new: it is in the settings, but not in this history yet; run bemi init" in page.text
        assert "todo" in page.text
        assert "topsecret9" not in page.source
        page = reader(away).get("/sources")
        assert "it can't be asked just now; an admin sees why" in page.text
        assert "127.0.0.1:1/" not in page.source


def test_a_source_that_says_nothing_is_not_waited_for(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bemi.api.lives.PATIENCE", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://x:y@127.0.0.1:{silent.getsockname()[1]}/x"
        silence = Connector({"attic": replace(web.settings, source_url=url)})
        with serve(web.settings, connector=silence) as away:
            assert "it did not answer within 2 s" in reader(away).get("/sources").text


def ask_for_baselines(at: Tracked) -> None:
    with psycopg.connect(at.settings.destination_url, autocommit=True) as conn:
        held = checkpoint.read(conn, "bemi", at.settings.source)
        assert held is not None
        wanted = baselines.intervals(conn, "bemi", held.source_id)
        baselines.ask(conn, "bemi", held.source_id, wanted)


def test_baselines_are_told_while_they_run(
    tracked: Track, chromium: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = tracked(
        "create table todo (id int primary key)",
        "insert into todo select generate_series(1, 4000)",
        "analyze todo",
    )
    at.catch_up()
    ask_for_baselines(at)
    stored = "update bemi.baselines set rows = %s"
    at.destination.execute(stored, [1000])
    monkeypatch.setattr("bemi.ui.sources._OFTEN", 0.2)
    monkeypatch.setattr("bemi.api.lives.LASTS", 0)
    with serve(at.settings) as web, opened(chromium, web, 390, "dark") as screen:
        page = screen.page
        page.goto(f"{web.base}/sources")
        bar = page.get_by_role("progressbar", name="Baseline of public.todo")
        expect(bar).to_have_attribute("max", "4000")
        expect(bar).to_have_attribute("value", "1000")
        expect(page.locator(".running")).to_contain_text("1,000 rows of about 4,000, begun")
        screen.is_accessible("sources-running")
        at.destination.execute(stored, [3000])
        # The page finds out by itself.
        expect(bar).to_have_attribute("value", "3000")
        at.destination.execute("update bemi.baselines set finished_at = now()")
        expect(bar).to_have_count(0)
