"""What a customer of an application is told of its history: what is theirs, and nothing else.

The customers are those of `tests.support.orders`: of customer 7, nothing is called foreign, and
what nobody is to see is called hidden.
"""

import base64
import json
from collections.abc import Mapping
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from bemi.store.filters import Place
from tests.support.embedding import Embedding
from tests.support.orders import BOUND
from tests.support.web import API, Web, exact

PATH: Final = f"{API}/embed/changes"
OTHER: Final = "https://evil.example"
PREFLIGHT: Final = {
    "Access-Control-Request-Method": "GET",
    "Access-Control-Request-Headers": "authorization",
}


@pytest.fixture(scope="module")
def embedding(shop: Web) -> Embedding:
    return Embedding(shop, BOUND, tenant="7")


def told(embedding: Embedding, query: Mapping[str, Any] | None = None, /, **said: Any) -> list[Any]:
    answer = embedding.ask(embedding.token(**said), **{"limit": 100, **(query or {})})
    assert answer.status_code == 200, answer.text
    found: list[Any] = exact(answer.text)["changes"]
    return found


def short(change: dict[str, Any]) -> tuple[Any, ...]:
    """Who did what to what, and each column's sides."""
    columns = {
        each["name"]: tuple(each[side]["text"] for side in ("before", "after") if side in each)
        for each in change["columns"]
    }
    return change["context"].get("user_name"), change["kind"], change["label"], columns


def test_what_is_theirs_is_told_and_nothing_else(embedding: Embedding) -> None:
    found = [*map(short, reversed(told(embedding, context=["user_name"])))]
    total = "12345678901234567890.10"
    sent = {"number": ("A-2",), "status": ("sent",), "total": ("666",), "note": (None,)}
    paid = {"number": ("A-1",), "status": ("paid",), "total": (total,), "note": ('{"gift":true}',)}
    assert found == [
        ("Ada", "created", "A-1", {**paid, "status": ("open",)}),
        ("Ada", "changed", "A-1", {"status": ("open", "paid")}),
        # Of a row that moved, each sees what was theirs, and not by whom.
        (None, "added", "A-2", sent),
        (None, "removed", "A-1", paid),
        ("Ada", "changed", "A-2", {"status": ("sent", "lost")}),
        # Nor where it is not known whether it moved.
        (None, "changed", None, {"state": ("new",)}),
        (None, "added", None, {"state": ("taken",)}),
        (None, "changed", None, {"state": ("came",)}),
        ("Ada", "created", "Tea", {"name": ("Tea",)}),
        ("Ada", "deleted", "A-2", {**sent, "status": ("lost",)}),
        ("Ada", "deleted", None, {"state": ("new",)}),
    ]
    everything = embedding.ask(embedding.token(context=["user_name", "user_id"]), limit=100).text
    assert "hidden" not in everything
    assert "foreign" not in everything
    # Nor keys, numbers of transactions, or places in the log.
    (change, *_) = embedding.web.get("/changes", table="orders", operation="update")["changes"]
    for name in ("id", "transaction_id", "commit_position", "position", "primary_key"):
        assert f'"{name}"' not in everything
        assert name == "primary_key" or str(change[name]) not in everything


def test_a_tenant_is_a_value_and_nothing_like_it(embedding: Embedding) -> None:
    labels = {
        tenant: [each["label"] for each in told(embedding, {"table": "orders"}, tenant=tenant)]
        for tenant in ("null", "7.0", "70", "07", " 7", "7%", "NULL", "'7'", "true")
    }
    assert {tenant: each for tenant, each in labels.items() if each} == {
        "null": ["foreign-4"],  # a text; of the row that has no customer, nobody is told
        "7.0": ["foreign-6"],
        "70": ["foreign-5"],
    }


def test_who_may_be_told_by_a_context_too(shop: Web) -> None:
    """Then both have to be theirs."""
    embedding = Embedding(shop, {**BOUND, "tenant_context": "shop"}, tenant="7")
    found = [short(each)[1:3] for each in told(embedding, {"table": "orders"})]
    assert found == [("deleted", "A-2"), ("changed", "A-2"), ("changed", "A-1"), ("created", "A-1")]


def test_parameters_only_narrow(embedding: Embedding) -> None:
    found = {each["table"] for each in told(embedding, {"table": "public.ticket"})}
    assert found == {"public.ticket"}
    assert [each["label"] for each in told(embedding, {"table": "orders", "key": "1"})] == [
        *("A-1",) * 3
    ]
    # Whose it was before is theirs, and so is what it was called.
    assert told(embedding, {"table": "orders", "key": "2"})[-1]["kind"] == "added"
    for key in ("3", "4", "70", "100", "nothing", '["1"]'):
        assert told(embedding, {"table": "orders", "key": key}) == []
    narrow = embedding.token(tables={"orders": ["status"]}, record=("orders", 1))
    answer = embedding.ask(narrow)
    assert [each["columns"][0]["name"] for each in answer.json()["changes"]] == ["status"] * 3
    assert [each["label"] for each in answer.json()["changes"]] == [None] * 3
    assert embedding.ask(narrow, table="public.orders", key="1").json() == answer.json()
    for query, status in (
        ({"table": "orders", "key": "2"}, 403),
        ({"table": "ticket"}, 403),
        ({"table": "hidden"}, 403),
        ({"key": "1"}, 403),
        ({"table": "orders\0"}, 422),
        ({"tenant": "8"}, 422),
        ({"tables": "public.hidden"}, 422),
        ({"context": "SQL=x"}, 422),
        ({"after": "hidden_pin=hidden-3"}, 422),
        ({"source": "x"}, 422),
        ({"limit": "101"}, 422),
        ({"behind": "x"}, 400),
        ({"behind": "é"}, 400),
        ({"behind": "A" * 90}, 400),
    ):
        refused = embedding.ask(narrow, **query)
        assert refused.status_code == status, (query, refused.text)
        assert "changes" not in refused.json()


def test_a_page_ends_at_a_place_that_says_nothing(embedding: Embedding) -> None:
    every = told(embedding)
    for limit in (1, 3):
        found: list[Any] = []
        behind: dict[str, str] = {}
        while True:
            answer = embedding.ask(limit=limit, **behind).json()
            found += answer["changes"]
            if answer["next"] is None:
                break
            behind = {"behind": answer["next"]}
        assert found == every
    for token in (embedding.token(tenant="8"), Embedding(embedding.web, BOUND).token(tenant="7")):
        assert embedding.ask(token, **behind).status_code == 400
    place = str(Place.parse(embedding.web.get("/changes", limit=1)["next"]))
    assert embedding.ask(behind=place).status_code == 400
    assert b"[1" not in base64.urlsafe_b64decode(f"{behind['behind']}===")


def test_values_of_who_means_ill_are_values(embedding: Embedding) -> None:
    (created,) = told(
        embedding, {"table": "orders"}, tenant="mallory", context=["user_name"], language="pt-BR"
    )
    number, status, total, note = (each["after"] for each in created["columns"])
    assert "\u202e" not in json.dumps(created, ensure_ascii=False)
    assert "\\u202e" in number["text"]
    assert "\\u202e" in created["context"]["user_name"]
    assert len(status["text"]) == 500
    assert total["text"] == "NaN"
    assert note["text"]


# --- against a filter that is as simple as can be -----------------------------------------------

COLUMNS: Final = {each["table"].removeprefix("public."): each for each in BOUND["tables"]}


def expected(changes: list[Any], said: dict[str, Any]) -> list[Any]:
    """By all changes as an admin reads them, the newest first."""
    found = []
    for change in changes:
        table = change["table"]
        allowed = COLUMNS.get(table)
        if allowed is None or (said["tables"] is not None and table not in said["tables"]):
            continue
        columns = (said["tables"] or {}).get(table)
        columns = allowed["columns"] if columns is None else columns
        sides = {}
        for side in ("before", "after"):
            image = change[side]
            key = change["primary_key"]
            if side == "before" and change["previous_key"] is not None:
                key = change["previous_key"]
            if said["record"] is not None and (table, key) != said["record"]:
                continue
            owner = image.get(allowed["tenant"])
            is_own = allowed["tenant"] is None or (owner is not None and str(owner))
            if image and is_own in (True, said["tenant"]):
                sides[side] = {name: image[name] for name in columns if name in image}
        if not sides or change["operation"] in ("TRUNCATE", "SNAPSHOT"):
            continue
        if change["operation"] == "UPDATE" and not change["before"] and not any(sides.values()):
            continue  # what it was before is not known, and nothing of it may be told
        if len(sides) == 2:
            names = [n for n in columns if sides["before"].get(n) != sides["after"].get(n)]
            if not names:
                continue
            sides = {side: {n: image[n] for n in names} for side, image in sides.items()}
        found.append((change["committed_at"], table, sides))
    return found


def in_short(change: Any) -> Any:
    sides: dict[str, dict[str, Any]] = {}
    for column in change["columns"]:
        for side in ("before", "after"):
            if side in column:
                sides.setdefault(side, {})[column["name"]] = column[side]["text"]
    return change["at"], change["table"].removeprefix("public."), sides


def as_texts(sides: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    def text(value: Any) -> Any:
        return value if isinstance(value, str | None) else json.dumps(value, separators=(",", ":"))

    return {side: {n: text(v) for n, v in image.items()} for side, image in sides.items() if image}


def test_claims_of_all_kinds_tell_what_a_simple_filter_does(
    embedding: Embedding, seed: int
) -> None:
    changes = [
        each
        for each in json.loads(
            embedding.web.as_admin.get(f"{API}/changes", params={"limit": 1000}).text,
            parse_float=str,
        )["changes"]
        if each["after"].get("customer") != "mallory"
    ]
    records = sorted({(each["table"], str(each["primary_key"])) for each in changes})
    part = st.sampled_from(sorted(COLUMNS)).flatmap(
        lambda table: st.tuples(
            st.just(table),
            st.none() | st.lists(st.sampled_from(COLUMNS[table]["columns"]), unique=True),
        )
    )

    @seeded(seed)
    @settings(
        max_examples=40,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(
        tenant=st.sampled_from(["7", "8", "70", "null", "9", "7.0", "None"]),
        tables=st.none() | st.lists(part, min_size=1, max_size=3).map(dict),
        record=st.none() | st.sampled_from([each for each in records if each[0] in COLUMNS]),
        limit=st.integers(1, 30),
    )
    def ask(tenant: str, tables: Any, record: Any, limit: int) -> None:
        if record is not None and tables is not None and record[0] not in tables:
            record = None
        said = {"tenant": tenant, "tables": tables, "record": record}
        wanted = [(at, table, as_texts(sides)) for at, table, sides in expected(changes, said)]
        answer = embedding.ask(embedding.token(**said), limit=limit)
        assert answer.status_code == 200, answer.text
        assert [*map(in_short, answer.json()["changes"])] == wanted[:limit]

    ask()
