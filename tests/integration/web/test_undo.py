"""Undoing in the browser: the plan that was seen, typed for, by an editor, and no other."""

import re
from collections.abc import Iterator
from typing import Any, Final

import psycopg
import pytest
from playwright.sync_api import Browser

from bemi.embedded import Server
from tests.support import databases
from tests.support.hostile import COLUMN, REQUEST, TABLE
from tests.support.html import Page
from tests.support.reading import HTML, reader
from tests.support.screens import SCHEMES, SIZES, opened
from tests.support.tracked import Tracked
from tests.support.tracking import track
from tests.support.web import Web, serve

SAYS: Final = "select pg_logical_emit_message(true, '_bemi', %s)"


class Undoing:
    """A history of two rows that user 42 has changed in one request, and an editor."""

    def __init__(self, at: Tracked, web: Web) -> None:
        self.at = at
        self.web = web
        self.editor = reader(web, role="editor")

    def write(self, statement: str, context: str = "{}", *, captured: bool = True) -> None:
        with self.at.source.transaction():
            self.at.source.execute(SAYS, [context])
            self.at.source.execute(statement.encode())
        if captured:
            self.at.catch_up()

    def tasks(self) -> list[Any]:
        return [task for (task,) in self.at.source.execute("select task from todo order by id")]

    def post(self, address: str, page: Page, status: int, /, **given: Any) -> Page:
        """The form of a plan."""
        data = {"seen": field(page, "seen"), **given}
        answer = self.editor.client.post(address, data=data, headers=HTML)
        assert answer.status_code == status, answer.text
        return Page(answer.text)


def field(page: Page, name: str) -> str:
    return next(given["value"] for _, given in page.elements if given.get("name") == name)


@pytest.fixture(scope="module")
def shared(server: Server) -> Iterator[Undoing]:
    """To begin anew each time takes longer than most of the tests do."""
    with databases.pair(server) as urls:
        with psycopg.connect(urls[0], autocommit=True) as conn:
            conn.execute("create table todo (id int primary key, task text)")
        at = Tracked(track(*urls, schemas=["*"], full=["public.*"]))
        with serve(at.settings) as web:
            yield Undoing(at, web)
        at.close()


@pytest.fixture
def undoing(shared: Undoing) -> Undoing:
    at = shared.at
    # As when it was made: without rows, and without changes.
    at.source.execute("truncate todo")
    at.catch_up()
    at.destination.execute("truncate bemi.row_changes, bemi.contexts")
    at.source.execute("insert into todo values (1, 'a'), (2, 'b')")
    shared.write("update todo set task = upper(task)", '{"user_id": 42, "request_id": "req-1"}')
    return shared


def test_a_request_is_undone_and_what_it_became_is_shown(undoing: Undoing) -> None:
    address = undoing.editor.get("/trace?id=req-1").link(**{"class": "button"})
    assert address == "/revert?trace=req-1"
    page = undoing.editor.get(address)
    assert "chosen by request or trace req-1" in page.text
    assert "2 rows of todo are set back." in page.text
    assert "is A→, becomes a" in page.text
    sql = undoing.editor.client.get("/revert/sql?trace=req-1")
    assert sql.headers["content-disposition"] == 'attachment; filename="revert.sql"'
    assert "update" in sql.text
    assert '"user":"grace' in sql.text
    assert undoing.tasks() == ["A", "B"]

    wrong = undoing.post(address, page, 400, typed="tod")
    assert "what was typed is not what was asked for" in wrong.text
    assert undoing.tasks() == ["A", "B"]

    done = undoing.post(address, page, 200, typed="todo")
    assert "2 rows written, in transaction" in done.text
    assert undoing.tasks() == ["a", "b"]
    records = [each for each in done.links if each.startswith("/record?table=public.todo&key=")]
    assert len(records) == 2
    assert "todo 1 todo 2" in done.text
    undoing.at.catch_up()
    became = next(each for each in done.links if each.startswith("/transaction"))
    shown = undoing.editor.get(became)
    assert "job bemi revert" in shown.text
    # What was done is there to be undone itself.
    again = shown.link(**{"class": "button"})
    assert again is not None
    assert "is a→, becomes A" in undoing.editor.get(again).text
    # A page that is sent once more writes nothing.
    assert "another by now" in undoing.post(address, page, 409, typed="todo").text
    recorded = [
        each
        for each in undoing.web.get("/accesses", limit=50)["accesses"]
        if each["action"] == "POST /revert"
    ]
    assert recorded[0]["asked"] == {"plan": field(page, "seen"), "skip_conflicts": False}
    assert recorded[1]["asked"] == {"trace": "req-1"}


def test_a_plan_that_went_stale_is_shown_again_instead(undoing: Undoing) -> None:
    address = "/revert?trace=req-1"
    page = undoing.editor.get(address)
    undoing.write("update todo set task = 'mine' where id = 2", '{"user_id": 43}')
    again = undoing.post(address, page, 409, typed="todo")
    assert undoing.tasks() == ["A", "mine"]
    assert "This is the plan as it is now" in again.text
    assert "1 conflict" in again.text
    words = re.sub(r"\d+ s ago", "just now", again.text)
    assert (
        "should be, if nobody had set it since B is, set since by user 43, just now mine" in words
    )
    assert "would become b" in words
    # Conflicts stop all but what has none, where that is asked for.
    assert "1 row of todo is set back." in again.text
    stopped = undoing.post(address, again, 409, typed="todo")
    assert "leave these rows out" in stopped.text
    assert undoing.tasks() == ["A", "mine"]
    done = undoing.post(address, again, 200, typed="todo", skip_conflicts="true")
    assert "1 row with conflicts" in done.text
    assert undoing.tasks() == ["a", "mine"]


def test_rows_are_chosen(undoing: Undoing) -> None:
    query = {"trace": "req-1", "how": "without", "row": ["public.todo:1"]}
    page = undoing.editor.get("/revert/narrow", **query)
    assert "without public.todo:1" in page.text
    assert "1 row of todo is set back." in page.text
    address = page.link(**{"aria-label": "Remove: without public.todo:1"})
    assert address == "/revert?trace=req-1"
    address = "/revert?trace=req-1&without=public.todo%3A1"
    undoing.post(address, page, 200, typed="todo")
    assert undoing.tasks() == ["A", "b"]
    page = undoing.editor.get("/revert?trace=req-1&only=todo:9", 400)
    assert "is no table and no row that the plan is of" in page.text


def test_where_undoing_begins(undoing: Undoing) -> None:
    (change, _) = undoing.web.get("/changes", trace="req-1")["changes"]
    for address, plan in (
        (f"/change?id={change['id']}", f"/revert?id={change['id']}"),
        (
            f"/transaction?number={change['transaction_id']}",
            f"/revert?transaction={change['transaction_id']}",
        ),
        ("/?table=todo&context=user_id%3D42", "/revert?table=todo&context=user_id%3D42"),
    ):
        found = [each for each in undoing.editor.get(address).links if each.startswith("/revert")]
        assert [each.partition("&source")[0] for each in found] == [plan]
        assert "set back" in undoing.editor.get(found[0]).text
    # A whole history is nobody's to undo at one click, nor one at a moment.
    for address in ("/", "/?source=x", "/?limit=5", "/?moment=2001-01-01"):
        links = undoing.editor.get(address).links
        assert [each for each in links if each.startswith("/revert")] == []
    assert "What is to be undone?" in undoing.editor.get("/revert").text
    assert "What is to be undone?" in undoing.editor.get("/revert?moment=2030-01-01").text
    # A record, one of its changes alone, or from one of them on; or as it was at a moment.
    record = undoing.editor.get("/record?table=todo&key=1")
    assert "created todo 1" in record.text
    alone = [each for each in record.links if each.startswith("/revert?id=")]
    assert len(alone) == 2
    one = undoing.editor.get(alone[0])
    assert "1 row of todo is set back." in one.text
    assert "ticked" not in one.text  # of one row there is nothing to choose
    positions = [given["value"] for tag, given in record.elements if tag == "option"]
    page = undoing.editor.get("/revert", table="todo", key="1", from_position=positions[-1])
    assert "1 row of todo goes." in page.text
    then = undoing.web.get("/changes", table="todo", key="1")["changes"][1]["committed_at"]
    back = undoing.editor.get("/record", table="todo", key="1", moment=then)
    address = next(each for each in back.links if each.startswith("/revert"))
    page = undoing.editor.get(address)
    assert "is A→, becomes a" in page.text
    assert "1 row of todo is set back." in page.text
    # Nothing is undone that was committed after a moment that was picked.
    page = undoing.editor.get("/revert", table="todo", key="1", moment=then)
    assert "1 change of" in page.text


def test_who_may_not_sees_no_way_to_it(web: Web) -> None:
    for who in (reader(web), reader(web, {"table": "public.todo"}, role="editor")):
        for address in ("/?table=todo", "/trace?id=req-2", "/record?table=todo&key=1"):
            page = who.get(address)
            assert [each for each in page.links if "revert" in each] == []
            assert "Undo it" not in page.text
            assert ("An admin can give you that." in page.text) == (not address.startswith("/?"))
        for address in ("/revert?trace=req-2", "/revert/sql?trace=req-2"):
            assert "paint" not in who.get(address, 403).source
        answer = who.client.post("/revert?trace=req-2", data={"seen": "x", "typed": "todo"})
        assert answer.status_code == 403
    with serve(web.settings, write_urls={}) as other:
        editor = reader(other, role="editor")
        assert editor.get("/trace?id=req-2").link(**{"class": "button"}) is None
        assert "knows no database to write to" in editor.get("/revert?trace=req-2", 400).text


def test_what_attackers_wrote_is_undone_as_text(hostile_web: Web) -> None:
    editor = reader(hostile_web, role="editor")
    for address, query in (("/revert", {"trace": REQUEST}), ("/revert", {"table": TABLE})):
        page = editor.get(address, **query)
        for evil in ("<script>alert('x')</script>", TABLE, " ".join(COLUMN.split())):
            assert evil in page.text
        assert len(page.source) < 100_000
    created, updated = reversed(hostile_web.get("/changes")["changes"])
    page = editor.get("/revert", id=updated["id"])
    assert "is set back" in page.text
    narrowed = editor.get(
        "/revert/narrow",
        id=updated["id"],
        how="only",
        row=f"public.{TABLE}:{created['primary_key']}",
    )
    assert "is set back" in narrowed.text
    for link in {*narrowed.links}:
        if link.startswith("/"):
            assert editor.client.get(link, headers=HTML).status_code == 200, link


def test_whatever_means_nothing_is_told(web: Web) -> None:
    editor = reader(web, role="editor")
    assert "is not a time" in editor.get("/revert?since=yesteryear", 400).text
    editor.get("/revert?tabel=todo", 422)
    answer = editor.client.post("/revert", data={"seen": "x", "typed": "x"}, headers=HTML)
    assert answer.status_code == 400
    page = editor.get("/revert?transaction=1", 404)
    assert "no change" in page.text
    assert "typed" not in page.source


def test_a_request_is_undone_in_a_browser(chromium: Browser, undoing: Undoing) -> None:
    """With scripts and without; a plan that went stale in between is shown again."""
    for number, (width, scheme) in enumerate(zip(SIZES, SCHEMES, strict=True), 2):
        undoing.write(
            "insert into todo select n, 'new' from generate_series(10, 12) n;"
            f" update todo set task = 'lorem ipsum dolor {number}' where id < 3",
            f'{{"user_id": 42, "request_id": "req-{number}", "endpoint": "/todo/{number}"}}',
            captured=False,
        )
        undoing.write(
            f"update todo set task = 'mine {number}' where id in (2, 12)", '{"user_id": 43}'
        )
        with opened(
            chromium, undoing.web, width, scheme, java_script_enabled=width == max(SIZES)
        ) as screen:
            page = screen.page
            shows = screen.is_accessible if width == max(SIZES) else screen.shows  # by a script
            page.goto(f"{undoing.web.base}/trace?id=req-{number}")
            page.get_by_role("link", name="Undo all of this request").click()
            page.get_by_text("is, set since by").first.wait_for()
            page.get_by_text("Show the script").click()
            shows("undo")
            page.get_by_label("Choose todo 11").check()
            page.get_by_label("Choose todo 12").check()
            page.get_by_role("button", name="Leave out the ticked rows").click()
            page.get_by_label("Remove: without public.todo:12").wait_for()
            undoing.write(f"update todo set task = 'hers {number}' where id = 10")
            page.get_by_label("Leave 1 row with conflicts alone").check()
            page.get_by_label("Type todo to confirm").fill("todo")
            page.get_by_role("button", name="Undo it: 2 rows").click()
            page.get_by_text("This is the plan as it is now").wait_for()
            screen.refused += 1
            shows("undo-stale")
            page.get_by_label("Leave 2 rows with conflicts alone").check()
            page.get_by_label("Type todo to confirm").fill("todo")
            page.get_by_role("button", name="Undo it: 1 row").click()
            page.get_by_text("1 row written").wait_for()
            screen.shows("undone")
            undoing.at.catch_up()
            page.get_by_role("link", name=re.compile("^transaction")).click()
            page.get_by_text("bemi revert").first.wait_for()
            page.goto(f"{undoing.web.base}/record?table=todo&key=10")
            page.get_by_role("heading", name="Undo").wait_for()
            screen.shows("undo-record")
            page.goto(f"{undoing.web.base}/revert")
            screen.shows("undo-what")
        undoing.write("delete from todo where id >= 10", captured=False)
