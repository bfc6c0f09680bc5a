"""What the API answers, over real HTTP, from a real history."""

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from tests.support.attic import BIG, HOSTILE, PRECISE
from tests.support.web import API, Web, exact


def test_no_digit_is_lost(web: Web) -> None:
    answer = web.as_admin.get(f"{API}/changes", params={"table": "todo", "operation": "create"})
    far, paint = exact(answer.text)["changes"]
    assert paint["after"]["price"] == Decimal(PRECISE)
    assert paint["after"]["note"] == {"big": 10**30}
    assert far["after"]["id"] == BIG
    assert re.search(r'"price": ?0\.10\b', answer.text)
    at = web.as_admin.get(
        f"{API}/record/at", params={"table": "todo", "key": "1", "when": paint["id"]}
    )
    assert exact(at.text)["row"]["values"]["price"] == Decimal(PRECISE)
    assert PRECISE in at.text
    assert at.json()["uncertain"] is None


def test_a_change_by_its_id_and_its_difference(web: Web) -> None:
    (change,) = web.get("/changes", table="todo", changed="done")["changes"]
    assert web.get(f"/changes/{change['id']}") == change
    diff = web.get(f"/changes/{change['id']}/diff")
    assert diff["columns"] == {
        "task": {"before": "paint", "after": "paint it"},
        "done": {"before": False, "after": True},
    }


def test_pages_follow_each_other_without_hole_or_double(web: Web) -> None:
    for oldest_first in (False, True):
        asked: dict[str, Any] = {"limit": 700, "oldest_first": oldest_first}
        found: list[dict[str, Any]] = []
        pages = 0
        while pages == 0 or asked["behind"] is not None:
            page = web.get("/changes", **asked)
            found += page["changes"]
            asked["behind"] = page["next"]
            pages += 1
        places = [(each["commit_position"], each["ordinal"]) for each in found]
        assert places == sorted(set(places), reverse=not oldest_first)
        assert len(found) == 1512
        assert pages == 3
    # One that is full, behind which nothing is.
    page = web.get("/changes", table="secret", limit=2)
    assert (len(page["changes"]), page["next"]) == (2, None)


def test_what_was_answered_is_not_sent_again(web: Web) -> None:
    first = web.as_admin.get(f"{API}/changes", params={"table": "todo"})
    again = web.as_admin.get(
        f"{API}/changes",
        params={"table": "todo"},
        headers={"If-None-Match": first.headers["etag"]},
    )
    assert (again.status_code, again.content) == (304, b"")
    other = web.as_admin.get(
        f"{API}/changes",
        params={"table": "secret"},
        headers={"If-None-Match": first.headers["etag"]},
    )
    assert other.status_code == 200


def test_a_filter_that_is_misspelt_is_refused(web: Web) -> None:
    for query, status in (
        ({"tabel": "todo"}, 422),
        ({"since": "yesteryear"}, 400),
        ({"context": "user_id"}, 400),
        ({"context": ["user_id=1", "user_id=2"]}, 400),
        ({"behind": "page 2"}, 400),
        ({"limit": 1001}, 422),
        ({"table": "to\0do"}, 422),
        ({"transaction": str(10**30)}, 400),
        ({"since": "today", "until": "yesterday"}, 400),
    ):
        answer = web.as_admin.get(f"{API}/changes", params=query)
        assert answer.status_code == status, (query, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["detail"]


def test_filters_are_those_of_the_commands(web: Web) -> None:
    assert len(web.get("/changes", context="user_id=42", table="todo")["changes"]) == 2
    assert len(web.get("/changes", after="task=paint it")["changes"]) == 2
    assert len(web.get("/changes", operation=["truncate", "delete"])["changes"]) == 2
    hostile = web.get("/changes", context=f"user_id={HOSTILE}")["changes"]
    assert [each["after"]["task"] for each in hostile] == [HOSTILE]
    assert [
        each["after"]["task"] for each in web.get("/changes", after=f"task={HOSTILE}")["changes"]
    ]


def test_a_record(web: Web) -> None:
    timeline = web.get("/record/changes", table="todo", key="2")["changes"]
    assert [(each["primary_key"], each["previous_key"]) for each in timeline] == [("2", "1")]
    blamed = {
        each["column"]: each for each in web.get("/record/blame", table="todo", key="2")["columns"]
    }
    assert blamed["task"]["value"] == "paint it"
    assert blamed["task"]["change"]["context"]["user_id"] == 43
    assert blamed["id"]["previous"] == 1
    composite = web.get("/record/changes", table="pair", key='["1","x/y"]')["changes"]
    assert [each["operation"] for each in composite] == ["CREATE"]
    deleted = web.get("/changes", table="pair", operation="delete")["changes"][0]
    gone = web.get("/record/at", table="pair", key=deleted["primary_key"], when=deleted["id"])
    assert gone["row"] is None


def test_a_table_as_it_was_and_what_it_differs_in(web: Web) -> None:
    (update,) = web.get("/changes", table="todo", changed="done")["changes"]
    answer = web.as_admin.get(f"{API}/table/at", params={"table": "todo", "when": update["id"]})
    assert answer.headers["content-type"] == "application/x-ndjson"
    rows = [json.loads(line) for line in answer.text.splitlines()]
    assert {row["key"]: row["values"]["task"] for row in rows} == {"1": "paint it", str(BIG): "far"}
    bulk = web.get("/changes", table="bulk", limit=1, operation="create")["changes"][0]
    answer = web.as_admin.get(f"{API}/table/at", params={"table": "bulk", "when": bulk["id"]})
    assert len(answer.text.splitlines()) == 1500
    answer = web.as_admin.get(f"{API}/table/diff", params={"table": "todo", "start": update["id"]})
    kinds = sorted(json.loads(line)["kind"] for line in answer.text.splitlines())
    assert kinds == ["changed", "changed"]
    nowhere = web.as_admin.get(f"{API}/table/at", params={"table": "todo", "when": "2001-01-01"})
    assert nowhere.status_code == 404
    ahead = web.as_admin.get(f"{API}/table/at", params={"table": "todo", "when": "FFFF/FFFFFFFF"})
    assert ahead.status_code == 409


def test_transactions_in_short_however_large(web: Web) -> None:
    found: list[dict[str, Any]] = []
    asked: dict[str, Any] = {"limit": 2}
    while not found or asked["behind"] is not None:
        page = web.get("/transactions", **asked)
        found += page["transactions"]
        asked["behind"] = page["next"]
    assert [each["tables"] for each in found[1:4]] == [
        {"public.bulk": {"TRUNCATE": 1}, "public.pair": {"DELETE": 1}},
        {"public.child": {"CREATE": 1}, "public.todo": {"UPDATE": 1}},
        {"public.bulk": {"CREATE": 1000}},
    ]
    assert [each["more"] for each in found] == [False, False, False, True, False, False, False]
    assert len({each["transaction_id"] for each in found}) == 7
    oldest = web.get("/transactions", oldest_first=True)["transactions"]
    assert [each["transaction_id"] for each in oldest] == [
        each["transaction_id"] for each in reversed(found)
    ]
    number = found[-1]["transaction_id"]
    whole = web.get(f"/transactions/{number}")["changes"]
    assert [each["ordinal"] for each in whole] == [1, 2, 3]


def test_a_trace_and_counts(web: Web) -> None:
    trace = web.get("/traces/req-2")["changes"]
    assert [each["table"] for each in trace] == ["todo", "pair", "pair"]
    counted = web.get("/stats", by=["table", "operation"], every="month")
    assert {
        (each["values"]["table"], each["values"]["operation"]): each["count"]
        for each in counted["counts"]
    }[("public.bulk", "CREATE")] == 1500
    refused = web.as_admin.get(f"{API}/stats", params={"since": "2001-01-01", "every": "minute"})
    assert refused.status_code == 400


def test_more_counts_than_there_is_room_for_are_refused(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are as many groups as somebody else has written."""
    monkeypatch.setattr("bemi.api.routes.changes._MOST_COUNTS", 10)
    queries: tuple[tuple[dict[str, Any], int], ...] = (
        ({"by": "transaction"}, 400),
        ({"by": "transaction", "top": 6}, 400),
        ({"by": "transaction", "top": 3}, 200),
        ({"by": "operation"}, 200),
        ({}, 200),
    )
    for query, status in queries:
        answer = web.as_admin.get(f"{API}/stats", params={**query, "every": "month"})
        assert answer.status_code == status, (query, answer.text)
        assert status == 200 or "top" in answer.json()["fix"]


def test_a_page_of_large_values_has_fewer_changes(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pages(largest: int) -> list[list[str]]:
        monkeypatch.setattr("bemi.api.routes.changes._LARGEST", largest)
        found: list[list[str]] = []
        behind: str | None = ""
        while behind is not None:
            query: dict[str, Any] = {"behind": behind} if behind else {}
            page = web.get("/changes", key="1", **query)
            found.append([each["id"] for each in page["changes"]])
            behind = page["next"]
        return found

    (whole,) = pages(10**6)
    # One at least, however large it is.
    assert pages(0) == [[id] for id in whole]
    several = pages(150)
    assert 1 < len(several) < len(whole)
    assert [id for page in several for id in page] == whole


def test_transactions_of_large_values_are_looked_at_bit_by_bit(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one that is too large for it only the beginning, and of a page only as many."""

    def pages() -> Iterator[list[dict[str, Any]]]:
        behind: dict[str, Any] = {}
        while behind.get("behind", "") is not None:
            page = web.get("/transactions", **behind)
            behind = {"behind": page["next"]}
            yield page["transactions"]

    (whole,) = pages()
    monkeypatch.setattr("bemi.api.summaries.LARGEST", 0)
    (bit,) = pages()
    assert [each["transaction_id"] for each in bit] == [each["transaction_id"] for each in whole]
    for seen, each in zip(bit, whole, strict=True):
        assert (seen["count"], seen["more"]) == (1, each["count"] > 1)
        assert seen["changes"] == each["changes"][:1]
    monkeypatch.setattr("bemi.api.routes.changes._LARGEST", 0)
    assert [each for (each,) in pages()] == bit


def test_sources_and_tables(web: Web) -> None:
    (source,) = web.get("/sources")["sources"]
    assert (source["source"], source["health"], source["gaps"]) == ("attic", "ok", [])
    assert source["findings"] == []
    tables = {each["table"]: each["state"] for each in web.get("/tables")["tables"]}
    assert tables["public.todo"] == "known"
    assert [each["table"] for each in web.get("/tables", table="tod*")["tables"]] == ["public.todo"]
    (coverage,) = web.get("/coverage", table="todo")["coverage"]
    assert coverage["tables"][0]["stretches"][0]["open"] is True


def test_errors_are_problems_that_tell_nothing_of_the_server(web: Web) -> None:
    answer = web.as_admin.get(f"{API}/changes/00000000-0000-0000-0000-000000000000")
    assert answer.status_code == 404
    assert answer.json()["type"] == "urn:bemi:unknown"
    for path, status in ((f"{API}/nothing", 404), (f"{API}/changes/x", 400)):
        answer = web.as_admin.get(path)
        assert (answer.status_code, answer.json()["status"]) == (status, status)
    answer = web.as_admin.post(f"{API}/changes")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")
    assert msgspec.json.decode(answer.content)["title"] == "Method Not Allowed"
    large = web.as_admin.post(f"{API}/reverts/plan", content=b" " * (1 << 21))
    assert large.status_code == 413
