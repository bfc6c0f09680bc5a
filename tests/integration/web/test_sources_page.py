"""The page of the sources: what is complete, and what needs somebody, with the command for it."""

import pytest

from tests.integration.conftest import Track
from tests.support.hostile import TABLE
from tests.support.reading import reader
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
