"""What of one change a customer is told, image by image."""

import json
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import msgspec
import pytest

from bemi.embed.share import Part, Share
from bemi.embed.telling import Told, tell
from bemi.store.reader import StoredChange

NOW: Final = datetime(2026, 5, 3, tzinfo=UTC)
OWN: Final = {"id": 1, "customer": 7, "status": "open", "hidden": "x"}
FOREIGN: Final = {**OWN, "customer": 8, "status": "foreign"}
SHARE: Final = Share(
    source="shop",
    parts={("public", "orders"): Part(("status", "note"), "customer", "status")},
    tenant="7",
    tenant_context=None,
    members=("name", "SQL"),
)


def change(
    operation: str = "UPDATE",
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
    *flags: str,
    **given: Any,
) -> StoredChange:
    def raw(value: object) -> msgspec.Raw:
        return msgspec.Raw(json.dumps(value).encode())

    context = {"name": "Ada", "SQL": "hidden", "other": "hidden"}
    found: dict[str, Any] = {
        "id": UUID(int=1),
        "database": "shop",
        "schema": "public",
        "table": "orders",
        "primary_key": "1",
        "operation": operation,
        "before": raw(before or {}),
        "after": raw(after or {}),
        "context": raw(given.pop("context", context)),
        **dict.fromkeys(("committed_at", "queued_at", "created_at"), NOW),
        **dict.fromkeys(("transaction_id", "position", "commit_position", "ordinal", "epoch"), 1),
        "source": "shop",
        "previous_key": None,
        "flags": [*flags],
        "rules": None,
        **given,
    }
    return StoredChange(**found)


def told(stored: StoredChange, share: Share = SHARE) -> Told:
    found = tell(stored, share)
    assert found is not None
    assert "hidden" not in repr(found)
    assert "foreign" not in repr(found)
    return found


@pytest.mark.parametrize(
    ("stored", "kind", "who"),
    [
        (change("CREATE", None, OWN), "created", "Ada"),
        (change("DELETE", OWN), "deleted", "Ada"),
        (change("UPDATE", OWN, {**OWN, "status": "paid"}), "changed", "Ada"),
        (change("UPDATE", FOREIGN, OWN), "added", None),
        (change("UPDATE", OWN, FOREIGN), "removed", None),
        (change("UPDATE", {**FOREIGN, "customer": None}, OWN), "added", None),
        (change("UPDATE", None, OWN, "before_unknown"), "changed", None),
        # An update of the partition key: the row may have been somebody else's.
        (change("CREATE", None, OWN, "moved"), "added", None),
    ],
)
def test_each_image_is_looked_at_by_itself(
    stored: StoredChange, kind: str, who: str | None
) -> None:
    found = told(stored)
    assert (found.kind, found.context.get("name")) == (kind, who)
    assert {each.name for each in found.columns} == {"status"}


@pytest.mark.parametrize(
    "stored",
    [
        change("CREATE", None, FOREIGN),
        change("DELETE", FOREIGN),
        change("UPDATE", FOREIGN, {**FOREIGN, "status": "x"}),
        change("UPDATE", None, FOREIGN, "before_unknown"),
        change("UPDATE", OWN, {**OWN, "hidden": "y"}),
        change("SNAPSHOT", None, OWN),
        change("TRUNCATE"),
        change("CREATE", None, OWN, source="other"),
        change("CREATE", None, OWN, schema="other"),
        change("CREATE", None, OWN, table="order"),
        # Of what can't be told whose it is, nobody is told.
        change("CREATE", None, {**OWN, "customer": None}),
        change("CREATE", None, {"id": 1, "status": "open"}),
        change("CREATE", None, {**OWN, "customer": [7]}),
        change("CREATE", None, {**OWN, "customer": 7.0}),
        change("CREATE", None, {**OWN, "customer": "7 "}),
        *(
            change("CREATE", None, OWN, f"{flag}:customer")
            for flag in ("masked", "hashed", "too_large", "undecodable")
        ),
    ],
)
def test_what_is_not_theirs_is_not_told(stored: StoredChange) -> None:
    assert tell(stored, SHARE) is None


def test_a_null_is_no_tenant_called_null() -> None:
    share = msgspec.structs.replace(SHARE, tenant="null")
    assert tell(change("CREATE", None, {**OWN, "customer": None}), share) is None
    assert told(change("CREATE", None, {**OWN, "customer": "null"}), share).kind == "created"
    assert tell(change("CREATE", None, OWN), msgspec.structs.replace(SHARE, tenant="")) is None


def test_a_record_is_the_one_with_its_key() -> None:
    share = SHARE.narrowed("public.orders", "2")
    assert tell(change("UPDATE", OWN, {**OWN, "status": "x"}), share) is None
    moved = {"primary_key": "2", "previous_key": "1"}
    came = told(change("UPDATE", {**OWN, "status": "foreign"}, OWN, **moved), share)
    assert (came.kind, came.columns[0].before) == ("added", None)
    gone = {"primary_key": "1", "previous_key": "2"}
    assert told(change("UPDATE", OWN, FOREIGN, **gone), share).kind == "removed"
    composite = SHARE.narrowed("orders", '["1", "x"]')
    assert told(change("CREATE", None, OWN, primary_key='["1","x"]'), composite).label == "open"


def test_the_context_has_to_be_the_tenants_too_where_the_embed_says_so() -> None:
    share = msgspec.structs.replace(SHARE, tenant_context="shop")
    assert told(change("CREATE", None, OWN, context={"shop": 7}), share).context == {}
    for context in ({}, {"shop": 8}, {"shop": None}, {"shop": {"7": "7"}}, {"shop": [7]}):
        assert tell(change("CREATE", None, OWN, context=context), share) is None


def test_what_replaces_a_value_is_told_as_that() -> None:
    after = {**OWN, "status": "***", "note": None}
    status, note = told(change("CREATE", None, after, "masked:status")).columns
    assert status.after is not None
    assert (status.after.text, status.after.note) == ("***", "masked")
    assert note.after is not None
    assert (note.after.text, note.after.note) == (None, None)


def test_a_context_is_told_as_far_as_it_is_a_text_or_a_number() -> None:
    share = msgspec.structs.replace(SHARE, members=("a", "b", "c", "d", "e"))
    context = {"a": {"hidden": 1}, "b": ["hidden"], "c": 10**30, "d": "\u202e", "e": ""}
    found = told(change("CREATE", None, OWN, context=context), share)
    assert found.context == {"c": str(10**30), "d": "\\u202e"}
