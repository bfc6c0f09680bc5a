"""The current context, and the form in which it travels; both by the cases of `spec/`."""

import asyncio
import contextlib
import dataclasses
import datetime as dt
import enum
import json
import math
import socket
import subprocess
import sys
import threading
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bemi
from bemi.capture.contexts import read_context
from bemi.context import tracing, wire

CASES = Path(__file__).parents[2] / "spec" / "context-cases"


def cases(name: str) -> list[Any]:
    loaded = json.loads((CASES / f"{name}.json").read_text())
    return [pytest.param(case, id=case["name"]) for case in loaded]


@pytest.fixture(autouse=True)
def no_context() -> None:
    bemi.clear_context()


@pytest.mark.parametrize("case", cases("merge"))
def test_merging_follows_the_spec(case: Any) -> None:
    opened: list[contextlib.AbstractContextManager[Any]] = []
    for step in case["steps"]:
        if "open" in step:
            block = bemi.context(step["open"])
            block.__enter__()
            opened.append(block)
        else:
            opened.pop().__exit__(None, None, None)
    assert bemi.current_context() == case["current"]


@pytest.mark.parametrize("case", cases("encode"))
def test_encoding_follows_the_spec(case: Any) -> None:
    content = wire.encode(case["context"])
    assert json.loads(content) == case["content"]
    assert content.isascii()


@pytest.mark.parametrize("case", cases("traceparent"))
def test_traces_follow_the_spec(case: Any) -> None:
    assert tracing.read_traceparent(case["header"]) == case["trace_id"]


@pytest.mark.parametrize("case", cases("request_id"))
def test_request_ids_follow_the_spec(case: Any) -> None:
    assert tracing.read_request_id(case["header"]) == case["request_id"]


@pytest.mark.parametrize("case", cases("messages"))
def test_reading_follows_the_spec(case: Any) -> None:
    seen = read_context(case["content"].encode(), "utf-8")
    assert seen.dropped == case.get("dropped")
    assert json.loads(seen.content) == case.get("context", {})


def test_a_block_ends_its_context_also_on_an_error() -> None:
    with pytest.raises(ZeroDivisionError), bemi.context(user_id=1):
        raise ZeroDivisionError
    assert bemi.current_context() == {}


def test_set_replaces_merge_adds_clear_empties() -> None:
    bemi.set_context(user_id=1, job="mail")
    bemi.set_context(user_id=2)
    bemi.merge_context({"trace-id": 3}, method="PUT")
    assert bemi.current_context() == {"user_id": 2, "trace-id": 3, "method": "PUT"}
    bemi.clear_context()
    assert bemi.current_context() == {}


def test_what_is_handed_out_is_a_copy() -> None:
    bemi.set_context(user_id=1)
    bemi.current_context()["user_id"] = 2
    assert bemi.current_context() == {"user_id": 1}


def test_a_task_inherits_the_context_and_keeps_its_own_changes() -> None:
    async def child() -> dict[str, Any]:
        bemi.merge_context(job="mail")
        return bemi.current_context()

    async def parent() -> tuple[dict[str, Any], dict[str, Any]]:
        with bemi.context(user_id=1):
            return await asyncio.create_task(child()), bemi.current_context()

    assert asyncio.run(parent()) == ({"user_id": 1, "job": "mail"}, {"user_id": 1})


def test_a_thread_begins_without_a_context() -> None:
    seen: list[dict[str, Any]] = []
    with bemi.context(user_id=1):
        thread = threading.Thread(target=lambda: seen.append(bemi.current_context()))
        thread.start()
        thread.join()
    assert seen == [{}]


class Colour(enum.Enum):
    RED = "red"


class Size(enum.IntEnum):
    LARGE = 3


@dataclasses.dataclass
class Tenant:
    id: int
    since: dt.date


class Hostile:
    def __str__(self) -> NoReturn:
        raise RuntimeError

    __repr__ = __str__


class HostileMapping(dict[str, object]):
    def items(self) -> NoReturn:
        raise RuntimeError


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (dt.datetime(2026, 5, 3, 14, 2, 7, tzinfo=dt.UTC), "2026-05-03T14:02:07+00:00"),
        (dt.date(2026, 5, 3), "2026-05-03"),
        (dt.time(14, 2), "14:02:00"),
        (dt.timedelta(minutes=90), "1:30:00"),
        (uuid.UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        (Decimal("12.50"), "12.50"),
        (Colour.RED, "red"),
        (Size.LARGE, 3),
        (Tenant(7, dt.date(2026, 1, 2)), {"id": 7, "since": "2026-01-02"}),
        ((1, "a"), [1, "a"]),
        ({3}, [3]),
        ({1: "a", Colour.RED: "b", None: "c"}, {"1": "a", "red": "b", "null": "c"}),
        (math.nan, "NaN"),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
        (True, True),
    ],
)
def test_values_become_what_the_spec_says(value: object, encoded: object) -> None:
    assert json.loads(wire.encode({"value": value})) == {"value": encoded}


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Hostile(), "Hostile"),
        (HostileMapping(a=1), "HostileMapping"),
        (b"bytes", "bytes"),
        (print, "builtin_function_or_method"),
        (Tenant, "type"),
        pytest.param(1 << 100_000, "int", id="int"),
    ],
)
def test_what_cannot_be_encoded_is_its_types_name_and_listed(value: object, name: str) -> None:
    assert json.loads(wire.encode({"a": {"value": value}})) == {
        "a": {"value": name},
        "_bemi": {"replaced": ["a.value"]},
    }


def test_what_contains_itself_ends() -> None:
    loop: list[object] = []
    loop += [loop, loop]
    content = wire.encode({"loop": loop})
    assert len(content) <= wire.LIMIT
    assert read_context(content.encode(), "utf-8").dropped is None


def test_a_hostile_mapping_as_the_whole_context_is_an_empty_one() -> None:
    assert json.loads(wire.encode(HostileMapping())) == {"_bemi": {"replaced": [""]}}


@pytest.mark.parametrize(
    ("context", "truncated"),
    [
        ({"user_id": 7, "body": "x" * 3_000_000}, ["body"]),
        ({"user_id": 7, "body": 'é\0"' * 1_000_000}, ["body"]),
        ({"user_id": 7, "a": {"b": "x" * 2_000_000, "c": 1}}, ["a.b"]),
        ({"user_id": 7, "items": list(range(500_000))}, ["items"]),
        ({"user_id": 7, "x": "x" * 900_000, "y": "y" * 800_000, "z": "z" * 1000}, ["x", "y"]),
        ({"user_id": 7} | {f"name_{n}": n for n in range(200_000)}, [""]),
        ({"user_id": 7, "n" * 2_000_000: 1}, [""]),
    ],
    ids=["text", "escapes", "nested", "list", "two", "many", "name"],
)
def test_the_largest_values_are_cut_until_the_whole_fits(
    context: dict[str, object], truncated: list[str]
) -> None:
    content = wire.encode(context)
    assert len(content) <= wire.LIMIT
    read = json.loads(content)
    assert read["user_id"] == 7
    assert read["_bemi"]["truncated"] == truncated
    if "" not in truncated:
        assert len(content) > wire.LIMIT * 0.9


def test_long_lists_of_notes_are_cut() -> None:
    content = wire.encode({"x" * 3000: b"", "many": [b""] * 100_000, "body": "x" * 2_000_000})
    assert len(content) <= wire.LIMIT
    replaced = json.loads(content)["_bemi"]["replaced"]
    assert len(replaced) == 101
    assert replaced[-1] == "…"


values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.decimals()
    | st.datetimes(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), values, max_size=5))
def test_whatever_goes_in_the_worker_can_read_what_comes_out(context: dict[str, Any]) -> None:
    content = wire.encode(context)
    assert read_context(content.encode("ascii"), "utf-8").dropped is None


def test_importing_bemi_loads_the_standard_library_only() -> None:
    code = (
        "import sys; import bemi, bemi.context.sender;"
        "print([n for n in {m.partition('.')[0] for m in sys.modules} "
        "if n not in sys.stdlib_module_names and n not in ('bemi', '__main__')])"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, 'src'); {code}"],
        capture_output=True,
        text=True,
        check=True,
        cwd=CASES.parents[1],
    )
    assert done.stdout.strip() == "[]"


def test_emit_says_what_to_do_for_connections_that_it_does_not_know() -> None:
    with pytest.raises(bemi.BemiError, match="type object") as caught:
        bemi.emit(object())
    assert "pg_logical_emit_message" in (caught.value.fix or "")


def test_a_function_that_returns_nothing_is_no_member() -> None:
    """So that a request of nobody has no user, rather than one that is null."""
    with bemi.context(user_id=lambda: None, plan=None):
        assert json.loads(wire.encode(bemi.current_context())) == {"plan": None}


def test_the_context_of_a_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/app/jobs/import_users.py", "--all"])
    monkeypatch.setenv("LOGNAME", "deploy")
    with bemi.command_context(batch=7):
        seen = bemi.current_context()
    assert seen == {
        "job": "import_users",
        "host": socket.gethostname(),
        "user": "deploy",
        "batch": 7,
    }
    monkeypatch.setattr(sys, "argv", ["/app/jobs/__main__.py"])
    with bemi.command_context():
        assert bemi.current_context()["job"] == "jobs"
    with bemi.command_context("nightly"):
        assert bemi.current_context()["job"] == "nightly"
    assert bemi.current_context() == {}
