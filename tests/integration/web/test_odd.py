"""What no client that means well asks: it is answered as a mistake, at once, or finds nothing."""

import base64
import json
from typing import Any, Final

import pytest

from tests.support.web import API, Web


def cursor(*parts: int) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


FORGED: Final = (
    cursor(0, 2**70, 1, 1),
    cursor(0, 1, 2**70, 1),
    cursor(0, 1, 1, 2**70),
    cursor(0, -5, -5, -5),
    cursor(-62135596799999995, 1, 1, 1),  # the first second that there is
    cursor(253402300799000000, 1, 1, 1),  # and the last one
)
DEEP: Final = ".".join("a" * 15_000)
MANY: Final = {f"k{number}": "v" for number in range(1000)}


@pytest.mark.parametrize("behind", FORGED)
def test_a_cursor_that_was_made_up_finds_what_it_says_or_nothing(web: Web, behind: str) -> None:
    for path, query in (
        ("/changes", {}),
        ("/changes", {"context": "a=1"}),
        ("/transactions", {}),
    ):
        answer = web.as_admin.get(API + path, params={"behind": behind, **query})
        assert answer.status_code == 200, (path, answer.text)


def test_more_and_deeper_filters_than_anybody_has_are_refused(web: Web) -> None:
    many = [f"{name}=v" for name in MANY]
    for path, query, status in (
        ("/changes", {"context": f"{DEEP}=1"}, 400),
        ("/stats", {"by": f"context.{DEEP}"}, 400),
        ("/changes", {"context": many}, 422),
        ("/changes", {"before": many}, 422),
        ("/export", {"after": many}, 422),
        ("/stream", {"operation": ["create"] * 1000}, 422),
    ):
        answer = web.as_admin.get(API + path, params=query)
        assert answer.status_code == status, (path, answer.text[:500])
        assert len(answer.content) < 2000
    bodies: tuple[tuple[str, dict[str, Any], int], ...] = (
        ("/exports", {"context": MANY}, 422),
        ("/exports", {"context": {DEEP: 1}}, 400),
        ("/reverts/plan", {"after": MANY}, 422),
        ("/reverts/plan", {"ids": ["x"] * 2000}, 422),
        ("/reverts/plan", {"only": ["x"] * 2000}, 422),
    )
    for path, body, status in bodies:
        answer = web.as_admin.post(API + path, json=body)
        assert answer.status_code == status, (path, answer.text[:500])


def test_values_of_any_length_find_nothing_or_are_refused(web: Web) -> None:
    for query, status in (
        ({"table": "a" * 30_000}, 200),
        ({"key": "x" * 40_000}, 414),
        ({"key": "[" * 10_000}, 200),
        ({"trace": "9" * 3000}, 200),
        ({"from_position": "FFFFFFFF/FFFFFFFF"}, 200),
        ({"since": "9" * 3000}, 400),
        ({"since": "99999999d"}, 400),
        ({"id": "x"}, 400),
    ):
        answer = web.as_admin.get(f"{API}/changes", params=query)
        assert answer.status_code == status, (query, answer.text[:500])
        if status == 200:
            assert answer.json() == {"changes": [], "next": None}


def test_globs_are_as_long_as_names(web: Web) -> None:
    """Longer ones take seconds to read, in which nobody else is answered."""
    for path in ("/tables", "/coverage"):
        assert web.as_admin.get(API + path, params={"table": "[" * 10_000}).status_code == 422
        assert web.get(path, table="[t]*o?o") != web.get(path, table="nothing")
    for rules in ({"ignore": [f"todo.{'[' * 5_000}"]}, {"skip": [{"tables": ["[" * 5_000]}]}):
        answer = web.as_admin.post(f"{API}/sources/rules", json={"rules": rules})
        assert "is none" in answer.json()["detail"]


def test_moments_and_tables_that_there_are_not(web: Web) -> None:
    for query, status in (
        ({"table": "todo", "when": "0001-01-01"}, 404),
        ({"table": "todo", "when": "99999d"}, 404),
        ({"table": "todo", "when": "infinity"}, 400),
        ({"table": "todo'; --", "when": "now"}, 404),
        ({"table": "", "when": "now"}, 404),
        ({"table": ".", "when": "now"}, 404),
    ):
        answer = web.as_admin.get(f"{API}/table/at", params=query)
        assert answer.status_code == status, (query, answer.text)


def test_a_place_in_the_stream_that_was_made_up(web: Web) -> None:
    for last, status in (
        ("x=1:0/0:0:0", 400),
        ("%00=1:0/1:0:0", 400),
        ("%ff=1:0/1:0:0", 400),
        ("attic=1:FFFFFFFF/FFFFFFFF:0:0", 400),
        ("attic=1:7FFFFFFF/FFFFFFFF:0:0", 400),  # ahead of the history
        ("attic=1:0/0:2147483647:2147483647", 200),
        ("attic=99:0/1:0:0", 200),
    ):
        with web.as_admin.stream("GET", f"{API}/stream", headers={"Last-Event-ID": last}) as answer:
            assert answer.status_code == status, last


def test_bodies_that_are_no_json(web: Web) -> None:
    headers = {"Content-Type": "application/json"}
    deep = b'{"context":' + b"[" * 100_000
    for content, status in ((deep, 400), (b'{"a":', 422), (b"\xff", 400), (b"[]", 422), (b"", 422)):
        answer = web.as_admin.post(f"{API}/exports", content=content, headers=headers)
        assert answer.status_code == status, (content[:20], answer.text)
        assert answer.headers["content-type"] == "application/problem+json"


def test_verbs_and_paths_that_there_are_not(web: Web) -> None:
    for verb in ("OPTIONS", "TRACE", "PUT"):
        assert web.nobody.request(verb, f"{API}/people").status_code == 405
    for path, status in (
        ("/static/../templates/base.html", 404),
        ("/static/%2e%2e/pages.py", 404),
        ("/static//etc/passwd", 404),
        ("/static/%2e%2e%2f%2e%2e%2fserver.py", 404),
        ("/api/v1/changes/", 404),
        ("/metrics/", 404),
        ("//evil.example/", 401),
    ):
        answer = web.nobody.get(path)
        assert answer.status_code == status, path
        assert "location" not in answer.headers
