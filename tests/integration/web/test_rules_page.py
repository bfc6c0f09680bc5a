"""Rules tried on the last changes: what the page says is what a worker would store."""

import re
from dataclasses import replace
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, expect

from bemi.rules import Rules
from bemi.settings_file import Given
from bemi.settings_values import convert
from tests.integration.conftest import Track
from tests.support.reading import Reader, reader
from tests.support.screens import SCHEMES, SIZES, opened
from tests.support.tracked import Row, Tracked
from tests.support.web import API, Web, serve

RULES: Final[dict[str, Any]] = {
    "ignore": ["seen"],
    "exclude": ["person.note"],
    "mask": ["*.phone", "other.data"],
    "hash": ["email"],
    "skip": [{"tables": ["*.job"], "operations": ["update"]}, {"context": {"job": "nightly"}}],
}
# Once with whole old rows in the log, and once without.
_SCHEMAS: Final = ("public", "plain")
_TABLES: Final = (
    "create table person (id int primary key, email text, phone text, note jsonb, seen int)",
    "create table pupil (email text primary key, phone text, seen int)",
    "create table job (id int primary key, state text)",
    "create table visit (id int primary key, seen int)",
    "create table other (id int primary key, data jsonb)",
)
_WORK: Final = (
    "insert into person values (1, 'ada@example', '555', '{\"a\": [1, null]}', 1)",
    "insert into person values (2, null, null, null, null)",
    "update person set seen = 2 where id = 1",
    "update person set note = '{}' where id = 1",
    "update person set seen = 3, email = 'ada@new' where id = 1",
    "update person set phone = '556' where id = 1",
    "insert into pupil values ('bo@example', '777', 1)",
    "update pupil set seen = 2",
    "update pupil set email = 'bo@new', seen = 3",
    "insert into job values (1, 'new')",
    "update job set state = 'old'",
    "insert into other values (1, 'null'), (2, null), (3, '{\"a\": 1}')",
    "insert into visit values (1, 1)",
    "update visit set seen = 2",
    "delete from person",
    "truncate job",
)


def work(at: Tracked) -> None:
    for schema in _SCHEMAS:
        at.source.execute(f"set search_path = {schema}".encode())
        for statement in _WORK:
            at.source.execute(statement.encode())
    with at.source.transaction():
        at.source.execute("select pg_logical_emit_message(true, '_bemi', '{\"job\": \"nightly\"}')")
        at.source.execute("insert into job values (9, 'nightly')")
    at.catch_up()


def test_a_preview_is_what_is_stored(tracked: Track) -> None:
    """The same work under the rules, and without them and then tried."""
    rules = convert("rules", Given(RULES, "rules"))
    assert isinstance(rules, Rules)
    tables = [f"set search_path = {schema}; {table}" for schema in _SCHEMAS for table in _TABLES]
    really, plain = (tracked("create schema plain", *tables, full=["public.*"]) for _ in range(2))
    really.settings = replace(really.settings, rules=rules, hash_key="a key of sixteen")
    for each in (really, plain):
        work(each)
    with serve(plain.settings) as web:
        answer = web.as_admin.post(f"{API}/sources/rules", json={"rules": RULES})
        assert answer.status_code == 200, answer.text
        effects = answer.json()["changes"]
    assert {each["fate"] for each in effects} == {"same", "otherwise", "silent", "skipped"}
    tried = [each["stored"] for each in reversed(effects) if each["stored"] is not None]
    stored = really.query("select * from bemi.changes order by committed_at, ordinal")
    assert [*map(plainly, tried)] == [*map(plainly, stored)]


def plainly(row: Row) -> dict[str, Any]:
    """What is the same of the same work; digests are of other keys."""
    names = (
        "schema",
        "table",
        "operation",
        "before",
        "after",
        "primary_key",
        "previous_key",
        "flags",
    )
    found = {name: row[name] for name in names}
    digest = re.compile("[0-9a-f]{64}")

    def same(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: same(each) for name, each in sorted(value.items())}
        return digest.sub("digest", value) if isinstance(value, str) else value

    return {**{name: same(value) for name, value in found.items()}, "flags": flags(row)}


def flags(row: Row) -> list[str]:
    return sorted(row["flags"] or [])


@pytest.fixture
def admin(web: Web) -> Reader:
    return reader(web, role="admin")


def test_what_is_wrong_is_told_at_its_place(admin: Reader) -> None:
    cases = {
        '[rules]\nmask = ["a.b.c.d"]': "rules.mask[0]: 'a.b.c.d' names no column",
        '[rules]\nmsak = ["a"]': "rules.msak is not a setting",
        '[rules]\nmask = "a"': "rules.mask: Expected `array`, got `str`",
        "[rules\nmask = 1": "not valid TOML",
        "[[rules.skip]]": "rules.skip[0]: without tables, operations or context",
        "[rules]\nmask = []\n[other]\n": "rules.rules is not a setting",
        "[rules]\nmask = [" + 201 * '"a",' + "]": "these are more than 200 rules",
    }
    for text, words in cases.items():
        page = admin.get("/sources/rules", 400, rules=text)
        assert words in page.text
        assert "What they would have done" not in page.text
        (area,) = (given for tag, given in page.elements if tag == "textarea")
        assert area["aria-describedby"] == "wrong"
    assert "there is no source x" in admin.get("/sources/rules", 400, source="x", rules="").text


def test_nothing_that_is_tried_is_kept(web: Web, admin: Reader) -> None:
    assert "Try rules" in admin.get("/sources").text
    page = admin.get("/sources/rules", rules='[rules]\nmask = ["pin"]\nignore = ["nothing"]')
    assert "'nothing' matches no column of a tracked table" in page.text
    assert "pinwheel" in page.text
    assert '[rules] ignore = ["nothing"] mask = ["pin"]' in page.text
    with web.conn() as conn:
        rows = conn.execute("select a::text from bemi.accesses a where action ~ 'rules'").fetchall()
    assert rows
    assert "pinwheel" not in str(rows)
    for role in ("viewer", "editor"):
        client = reader(web, role=role).client
        assert client.get("/sources/rules").status_code == 403
        assert "Try rules" not in client.get("/sources").text


def test_rules_of_anybody_on_anything(hostile_web: Web) -> None:
    page = reader(hostile_web, role="admin").get("/sources/rules", rules='[rules]\nhash = ["*"]')
    assert "Digests are made with a key of this page's own" in page.text


@pytest.mark.parametrize(("width", "scheme"), [*zip(SIZES, SCHEMES, strict=True)])
def test_rules_in_a_browser(web: Web, chromium: Browser, width: int, scheme: Any) -> None:
    _, session = web.person(f"ada, rules at {width}", "admin")
    with opened(chromium, web, width, scheme, signed_in=False) as screen:
        page = screen.page
        cookie = {"name": web.serving.cookie, "value": session, "url": web.base}
        page.context.add_cookies([cookie])  # type: ignore[list-item]
        page.goto(f"{web.base}/sources/rules")
        page.get_by_label("Rules, as the file has them").fill(
            '[rules]\nmask = ["*.pin"]\nignore = ["done"]\n[[rules.skip]]\ntables = ["bulk"]\n'
        )
        page.get_by_label("Only of the table").fill("secret")
        page.get_by_role("button", name="Try them").click()
        expect(page.get_by_role("status")).to_contain_text(
            "Of the last 2 changes of 1 table that the rules are about, 0 would have"
        )
        expect(page.get_by_text("stored otherwise").first).to_be_visible()
        screen.is_accessible("rules")
        page.get_by_label("Rules, as the file has them").fill("[rules]\nmask = [1]")
        page.get_by_role("button", name="Try them").click()
        expect(page.get_by_role("alert")).to_contain_text("rules.mask[0]")
        screen.refused = 1
