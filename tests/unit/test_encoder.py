"""Changes become rows of COPY's binary format, lean and flagged; ids say where they come from."""

import json
import tracemalloc
import uuid
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bemi.capture import images, values
from bemi.capture.encoder import Encoder
from bemi.capture.keys import key_text
from bemi.change import (
    UNCHANGED,
    Change,
    Column,
    Operation,
    Row,
    Stretch,
    Table,
    Transaction,
)
from bemi.errors import SetupError
from bemi.keys import MAX_KEY
from bemi.lsn import Lsn
from bemi.store.rows import (
    CHANGE_COLUMNS,
    COPY_HEADER,
    COPY_TRAILER,
    DAY,
    STRETCH_COLUMNS,
    commit_lsn_of,
    context_id,
)
from tests.support import binary_copy

TEXT = 25
ORIGIN: dict[str, Any] = {
    "system_identifier": "7318000000000000000",
    "timeline": 1,
    "database_oid": 16384,
}
TRANSACTION = Transaction(Lsn(0x16_B374D848), 10, 20, 700)
TODOS = Table(
    16385,
    "public",
    "todos",
    (
        Column("id", values.INT8, True),
        Column("title", TEXT),
        Column("doc", values.JSONB),
        Column("size", values.FLOAT8),
    ),
    key=(0,),
)
UNKNOWN = ("before_unknown",)


def new_encoder(*, encoding: str = "utf-8", **origin: Any) -> Encoder:
    return Encoder(epoch=3, source_id=2, encoding=encoding, **{**ORIGIN, **origin})


def change(
    before: Row | None,
    after: Row | None,
    *,
    table: Table = TODOS,
    lsn: int = 0x16_B374D000,
    index: int = 0,
    ordinal: int = 1,
    before_known: bool = True,
    flags: tuple[str, ...] = (),
    transaction: Transaction = TRANSACTION,
    operation: Operation | None = None,
) -> Change:
    if operation is None:
        operation = (
            Operation.TRUNCATE
            if before is None and after is None
            else Operation.CREATE
            if before is None and before_known
            else Operation.DELETE
            if after is None
            else Operation.UPDATE
        )
    return Change(
        transaction,
        table,
        operation,
        lsn,
        index,
        ordinal,
        0,
        before,
        after,
        before_known,
        flags,
    )


def stored(made: Change, encoder: Encoder | None = None) -> dict[str, Any]:
    """The row of `row_changes`, its images as JSON text, or None for NULL."""
    fields = binary_copy.fields((encoder or new_encoder()).change(made, 55))
    row: dict[str, Any] = dict(zip(CHANGE_COLUMNS, fields, strict=True))
    for name in ("committed_at", "commit_position", "context_id", "position", "ordinal", "epoch"):
        row[name] = binary_copy.number(row[name])
    row["relation"] = int.from_bytes(row["relation"], "big")
    for name in ("schema", "table", "operation", "primary_key", "previous_key"):
        row[name] = binary_copy.text(row[name])
    for name in ("before", "changed", "after"):
        row[name] = binary_copy.jsonb(row[name])
        if row[name] is not None:
            json.loads(row[name])
            row[name] = row[name].decode()
    row["id"] = uuid.UUID(bytes=row["id"])
    row["flags"] = binary_copy.text_array(row["flags"])
    return row


def image(row: dict[str, Any], name: str) -> Any:
    return None if row[name] is None else json.loads(row[name])


def test_the_format_is_copys() -> None:
    assert COPY_HEADER == binary_copy.HEADER
    assert COPY_TRAILER == binary_copy.TRAILER


def test_a_create() -> None:
    row = stored(change(None, (b"1", b'a "b"', b'{"x": [1]}', b"1.5"), ordinal=7))
    assert {name: value for name, value in row.items() if name != "id"} == {
        "committed_at": 10,
        "commit_position": 0x16_B374D848,
        "context_id": 55,
        "position": 0x16_B374D000,
        "ordinal": 7,
        "epoch": 3,
        "relation": 16385,
        "schema": "public",
        "table": "todos",
        "operation": "CREATE",
        "primary_key": "1",
        "previous_key": None,
        "before": None,
        "changed": None,
        "after": r'{"id":1,"title":"a \"b\"","doc":{"x": [1]},"size":1.5}',
        "flags": None,
    }


def test_a_delete_keeps_the_old_row() -> None:
    row = stored(change((b"1", None, b"[]", b"NaN"), None))
    assert row["operation"] == "DELETE"
    assert image(row, "before") == {"id": 1, "title": None, "doc": [], "size": "NaN"}
    assert (row["changed"], row["after"], row["primary_key"]) == (None, None, "1")


def test_a_delete_by_key_keeps_the_key() -> None:
    made = change((b"1", UNCHANGED, UNCHANGED, UNCHANGED), None, before_known=False, flags=UNKNOWN)
    row = stored(made)
    assert image(row, "before") == {"id": 1}
    assert row["flags"] == ["before_unknown"]


def test_a_truncate_has_no_images_and_no_key() -> None:
    row = stored(change(None, None))
    assert [row[name] for name in ("before", "changed", "after", "primary_key")] == [None] * 4


def test_an_update_keeps_of_the_old_row_what_it_changed() -> None:
    row = stored(change((b"1", b"a", b"[]", None), (b"1", b"b", None, None)))
    assert row["before"] is None
    assert image(row, "changed") == {"title": "a", "doc": []}
    assert image(row, "after") == {"id": 1, "title": "b", "doc": None, "size": None}
    assert row["previous_key"] is None


def test_an_update_that_changed_nothing() -> None:
    row = stored(change((b"1", b"a", None, None), (b"1", b"a", None, None)))
    assert image(row, "changed") == {}


def test_an_update_to_and_from_null() -> None:
    row = stored(change((b"1", None, b"[]", None), (b"1", b"a", None, None)))
    assert image(row, "changed") == {"title": None, "doc": []}


def test_an_update_whose_old_row_is_not_known() -> None:
    made = change(None, (b"1", b"a", UNCHANGED, None), before_known=False)
    row = stored(change(None, made.after, before_known=False, operation=Operation.UPDATE))
    assert (row["before"], row["changed"]) == (None, None)
    assert image(row, "after") == {"id": 1, "title": "a", "size": None}


def test_an_update_of_the_key_has_both() -> None:
    after = (b"2", b"a", None, None)
    known = stored(change((b"1", b"a", None, None), after))
    assert (known["primary_key"], known["previous_key"]) == ("2", "1")
    assert image(known, "changed") == {"id": 1}
    by_key = stored(change((b"1", UNCHANGED, UNCHANGED, UNCHANGED), after, before_known=False))
    assert (by_key["primary_key"], by_key["previous_key"]) == ("2", "1")
    assert image(by_key, "before") == {"id": 1}
    assert by_key["changed"] is None


def test_a_key_tuple_without_a_change_of_the_key() -> None:
    """It is sent when the key is toasted, too."""
    made = change(
        (b"1", UNCHANGED, UNCHANGED, UNCHANGED), (b"1", b"a", None, None), before_known=False
    )
    row = stored(made)
    assert (row["primary_key"], row["previous_key"]) == ("1", None)


COMPOSITE = Table(
    1, "s", "t", (Column("b", TEXT), Column("x", TEXT), Column("a", values.INT4)), key=(2, 0)
)


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ((b"one", None, b"2"), '["2","one"]'),
        ((b'say "hi"\n', None, b"-2"), r'["-2","say \"hi\"\n"]'),
        ((b"", None, b"2"), '["2",""]'),
        ((UNCHANGED, None, b"2"), None),
        ((None, None, b"2"), None),
    ],
)
def test_a_composite_key_is_a_json_array_of_texts_in_the_keys_order(
    row: Row, text: str | None
) -> None:
    found = key_text(COMPOSITE, row)
    assert (None if found is None else found.decode()) == text


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))))
def test_a_composite_key_parses_back(parts: list[str]) -> None:
    columns = tuple(Column(f"c{at}", TEXT) for at in range(len(parts)))
    table = Table(1, "s", "t", columns, key=tuple(range(len(parts))))
    if len(parts) > 1:
        found = key_text(table, tuple(part.encode() for part in parts))
        assert found is not None
        assert json.loads(found) == parts


def test_without_a_key() -> None:
    keyless = Table(1, "s", "t", (Column("a", values.INT4),))
    row = stored(change((b"1",), (b"2",), table=keyless))
    assert (row["primary_key"], row["previous_key"]) == (None, None)


def test_a_key_too_long_for_an_index_becomes_its_digest() -> None:
    table = Table(1, "s", "t", (Column("k", TEXT),), key=(0,))
    fits, over = b"k" * MAX_KEY, b"k" * (MAX_KEY + 1)
    assert stored(change(None, (fits,), table=table))["primary_key"] == fits.decode()
    made = stored(change(None, (over,), table=table))
    assert made["primary_key"].startswith("sha256:")
    assert made["flags"] == ["key_digest"]
    moved = stored(change((over,), (b"short",), table=table))
    assert moved["previous_key"] == made["primary_key"]
    assert (moved["primary_key"], moved["flags"]) == ("short", ["previous_key_digest"])


def test_what_has_no_natural_form_is_text_in_both_images() -> None:
    """One flag tells how to read the column, whichever image it is in."""
    row = stored(change((b"1", None, None, b"-0"), (b"1", None, None, b"2.5")))
    assert image(row, "changed") == {"size": "-0"}
    assert image(row, "after")["size"] == "2.5"
    assert row["flags"] == ["text:size"]


def test_a_json_null_is_told_from_null_by_its_flag() -> None:
    row = stored(change(None, (b"1", None, b"null", None)))
    assert image(row, "after")["doc"] is None
    assert row["flags"] == ["json_null:doc"]
    row = stored(change((b"1", None, b"null", None), (b"1", None, b"[1]", None)))
    assert image(row, "changed") == {"doc": None}
    assert image(row, "after")["doc"] == [1]
    assert row["flags"] == ["json_null:doc"]


def test_a_json_null_beside_a_null_is_text() -> None:
    row = stored(change((b"1", None, b"null", None), (b"1", None, None, None)))
    assert image(row, "changed") == {"doc": "null"}
    assert image(row, "after")["doc"] is None
    assert row["flags"] == ["text:doc"]


def test_flags_of_the_change_come_first() -> None:
    made = change(
        None,
        (b"1", UNCHANGED, None, b"-0"),
        before_known=False,
        flags=("before_unknown", "unchanged:title"),
        operation=Operation.UPDATE,
    )
    assert stored(made)["flags"] == ["before_unknown", "unchanged:title", "text:size"]


def test_text_that_is_not_utf8_is_kept_escaped_and_flagged() -> None:
    row = stored(change(None, (b"1", b"caf\xe9", None, None)))
    assert image(row, "after")["title"] == "caf\\xe9"
    assert row["flags"] == ["text:title", "undecodable:title"]


def test_json_that_is_not_utf8_is_kept_escaped_and_flagged() -> None:
    """A server that was told to call its bytes UTF-8 has jsonb of that kind."""
    row = stored(change(None, (b"1", None, b'{"a": "caf\xe9"}', None)))
    assert image(row, "after")["doc"] == '{"a": "caf\\xe9"}'
    assert row["flags"] == ["text:doc", "undecodable:doc"]


def test_values_in_the_servers_encoding() -> None:
    row = stored(
        change(
            None,
            ("ключ".encode("cp1251"), b'{"\xf4": 1}'),
            table=Table(1, "s", "t", (Column("k", TEXT), Column("d", values.JSONB)), key=(0,)),
        ),
        new_encoder(encoding="cp1251"),
    )
    assert image(row, "after") == {"k": "ключ", "d": {"ф": 1}}
    assert (row["primary_key"], row["flags"]) == ("ключ", None)


def test_bytes_that_the_servers_encoding_does_not_have() -> None:
    encoder = new_encoder(encoding="cp1252")
    row = stored(change(None, (b"1", b"caf\xe9 \x81", b'{"a": "\x81\xe9"}', b"1.5")), encoder)
    assert image(row, "after") == {
        "id": 1,
        "title": "café \\x81",
        "doc": '{"a": "\\x81é"}',
        "size": 1.5,
    }
    assert row["flags"] == ["text:title", "undecodable:title", "text:doc", "undecodable:doc"]
    table = Table(1, "s", "t", (Column("k", TEXT), Column("l", TEXT)), key=(0, 1))
    moved = stored(change((b"\x81\xe9", b"x"), (b"\xe9", b"x"), table=table), encoder)
    assert json.loads(moved["primary_key"]) == ["é", "x"]
    assert json.loads(moved["previous_key"]) == ["\\x81é", "x"]


def test_a_plan_is_kept_per_table_not_per_announcement() -> None:
    """ANALYZE alone makes PostgreSQL announce a relation again."""
    encoder = new_encoder()
    for _ in range(10_000):
        again = msgspec.structs.replace(TODOS)
        encoder.change(change(None, (b"1", None, None, None), table=again), 55)
    assert len(encoder._plans) == 1


def test_a_table_announced_with_other_columns_has_another_plan() -> None:
    encoder = new_encoder()
    stored(change(None, (b"1", None, None, None)), encoder)
    renamed = msgspec.structs.replace(TODOS, name="tasks", columns=(Column("key", TEXT),))
    row = stored(change(None, (b"a",), table=renamed), encoder)
    assert (row["table"], row["after"]) == ("tasks", '{"key":"a"}')


def test_keys_that_are_not_utf8() -> None:
    table = Table(1, "s", "t", (Column("k", TEXT), Column("l", TEXT)), key=(0, 1))
    row = stored(change(None, (b"caf\xe9", b"x"), table=table))
    assert json.loads(row["primary_key"]) == ["caf\\xe9", "x"]
    single = Table(1, "s", "t", (Column("k", TEXT),), key=(0,))
    row = stored(change(None, (b"caf\xe9",), table=single))
    assert row["primary_key"] == "caf\\xe9"


def without_digests(flags: list[str]) -> list[str]:
    """But for those of what was left out; each column has one."""
    left_out = [flag for flag in flags if flag.startswith("too_large:")]
    digests = [flag for flag in flags if flag.startswith("sha256:")]
    assert [each.split(":", 1)[1] for each in left_out] == [
        each.split(":", 2)[2] for each in digests
    ]
    assert all(len(each.split(":")[1]) == 64 for each in digests)
    return [flag for flag in flags if flag not in digests]


def test_a_value_too_large_for_jsonb_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_JSONB", 2000)
    row = stored(change(None, (b"1", b"x" * 3000, b"[2]", None)))
    assert image(row, "after") == {"id": 1, "doc": [2], "size": None}
    assert without_digests(row["flags"]) == ["too_large:title"]


NUMBERS = Table(
    1,
    "s",
    "t",
    (*(Column(name, 1007) for name in "abc"), Column("d", values.JSONB)),
    array_elements={1007: values.INT4},
)


def test_numbers_take_more_in_jsonb_than_their_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve bytes for the two of `1,`: arrays become text until the rest fits."""
    monkeypatch.setattr(images, "MAX_JSONB", 12_000)
    ones = b"{" + b",".join([b"1"] * 400) + b"}"
    row = stored(change(None, (ones, ones, ones, None), table=NUMBERS))
    assert row["flags"] == ["text:a"]
    assert image(row, "after") == {"a": ones.decode(), "b": [1] * 400, "c": [1] * 400, "d": None}
    few = b"{" + b",".join([b"1"] * 300) + b"}"
    assert stored(change(None, (few, few, few, None), table=NUMBERS))["flags"] is None


def test_json_that_would_not_fit_becomes_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_JSONB", 12_000)
    ones = b"[" + b", ".join([b"1"] * 1000) + b"]"
    row = stored(change((None, None, None, b"null"), (None, None, None, ones), table=NUMBERS))
    assert (image(row, "changed"), image(row, "after")["d"]) == ({"d": "null"}, ones.decode())
    assert row["flags"] == ["text:d"]


def test_values_too_large_together_leave_out_the_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_JSONB", 2000)
    row = stored(change(None, (b"1", b"x" * 1200, b'"' + b"y" * 1300 + b'"', None)))
    assert set(image(row, "after")) == {"id", "title", "size"}
    assert without_digests(row["flags"]) == ["too_large:doc"]


def test_text_that_escaping_makes_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_JSONB", 2000)
    row = stored(change(None, (b"1", b"\x01" * 600, None, None)))
    assert set(image(row, "after")) == {"id", "doc", "size"}
    assert without_digests(row["flags"]) == ["too_large:title"]


def test_a_value_too_large_in_the_old_row_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_JSONB", 2000)
    row = stored(change((b"1", b"x" * 3000, None, None), (b"1", b"y", None, None)))
    assert "title" not in image(row, "changed")
    assert "title" not in image(row, "after")
    assert without_digests(row["flags"]) == ["too_large:title"]


def test_the_old_row_that_the_view_puts_together_fits_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """after || changed is the old row: a jsonb of its own, for which the limit counts as well."""
    monkeypatch.setattr(images, "MAX_JSONB", 2000)
    row = stored(
        change(
            (b"1", b"x" * 1200, b'"' + b"y" * 1300 + b'"', None),
            (b"1", b"x" * 1200, b"[]", None),
        )
    )
    old = {**image(row, "after"), **image(row, "changed")}
    assert len(json.dumps(old)) < 2000
    assert without_digests(row["flags"]) == ["too_large:doc"]


@pytest.mark.parametrize("most", [values.MAX_JSONB, 12_000_000], ids=["at once", "with care"])
def test_a_wide_row_is_held_thrice_over_at_most(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Beside the value itself, that is, while it is quoted."""
    monkeypatch.setattr(images, "MAX_JSONB", most)
    wide = change(None, (b"1", b"x" * 8_000_000, None, None))
    encoder = new_encoder()
    tracemalloc.start()
    try:
        encoder.change(wide, 55)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3.1 * 8_000_000


def test_a_stretch() -> None:
    encoder = new_encoder()
    stretch = Stretch(TRANSACTION, 0, b'{"user_id": 42}')
    fields = binary_copy.fields(encoder.stretch(stretch, 99))
    row = dict(zip(STRETCH_COLUMNS, fields, strict=True))
    assert binary_copy.number(row["id"]) == 99
    assert binary_copy.number(row["transaction_id"]) == 700
    assert binary_copy.number(row["queued_at"]) == 20
    assert binary_copy.jsonb(row["context"]) == b'{"user_id": 42}'
    assert (row["dropped"], row["raw"]) == (None, None)


def test_a_stretch_whose_context_was_dropped() -> None:
    stretch = Stretch(TRANSACTION, 0, b"{}", "not_json", b"\xff\0")
    fields = binary_copy.fields(new_encoder().stretch(stretch, 99))
    row = dict(zip(STRETCH_COLUMNS, fields, strict=True))
    assert binary_copy.text(row["dropped"]) == "not_json"
    assert row["raw"] == b"\xff\0"


@given(st.integers(-(1 << 19), (1 << 19) - 2), st.integers(0, 4095), st.integers(0, (1 << 40)))
def test_a_context_id_lies_in_its_day(day: int, source_id: int, counter: int) -> None:
    for committed_at in (day * DAY, day * DAY + DAY - 1):
        found = context_id(committed_at, source_id, counter)
        assert context_id(day * DAY, 0, 0) <= found < context_id((day + 1) * DAY, 0, 0)
        assert -(1 << 63) <= found < 1 << 63


@pytest.mark.parametrize("day", [-(1 << 19) - 1, 1 << 19])
def test_a_day_that_an_id_cant_hold_is_said(day: int) -> None:
    with pytest.raises(SetupError, match="clock") as caught:
        context_id(day * DAY, 1, 0)
    assert caught.value.fix


def test_context_ids_of_sources_and_counters_differ() -> None:
    ids = {context_id(0, source, counter) for source in range(50) for counter in range(50)}
    assert len(ids) == 2500


def id_of(encoder: Encoder | None = None, **parts: Any) -> uuid.UUID:
    found = stored(change(None, (b"1", None, None, None), **parts), encoder)["id"]
    assert isinstance(found, uuid.UUID)
    return found


lsns = st.integers(1, (1 << 63) - 1)


@given(lsns, st.integers(0, 1 << 40), st.integers(0, 4095))
def test_an_id_is_a_uuid_8_with_its_commit_in_the_leading_bits(
    commit_lsn: int, distance: int, index: int
) -> None:
    transaction = Transaction(Lsn(commit_lsn), 0, 0, 3)
    found = id_of(transaction=transaction, lsn=max(0, commit_lsn - distance), index=index)
    assert found.version == 8
    assert found.variant == uuid.RFC_4122
    assert commit_lsn_of(found.int) == commit_lsn


@given(lsns, lsns)
def test_ids_are_ordered_as_commits_are(one: int, other: int) -> None:
    if one == other:
        return
    ids = [id_of(transaction=Transaction(Lsn(lsn), 0, 0, 3), lsn=lsn - 1) for lsn in (one, other)]
    assert (ids[0] < ids[1]) == (one < other)


def test_ids_within_a_transaction_differ() -> None:
    """Among the rows of one record, and among records."""
    ids = {
        id_of(lsn=0x16_B374D848 - distance, index=index)
        for distance in range(24, 6000, 8)
        for index in range(30)
    }
    assert len(ids) == len(range(24, 6000, 8)) * 30


def test_ids_of_tables_truncated_together_differ() -> None:
    ids = {
        stored(change(None, None, table=Table(oid, "s", "t", ()), index=index))["id"]
        for oid, index in ((1, 0), (2, 1), (3, 2))
    }
    assert len(ids) == 3


def test_an_id_depends_on_its_epoch_and_nothing_that_may_be_chosen() -> None:
    base = id_of()
    assert id_of(ordinal=9) == base
    assert id_of(Encoder(epoch=8, source_id=9, **ORIGIN)) == base
    assert id_of(new_encoder(timeline=2)) != base
    assert id_of(new_encoder(system_identifier="1")) != base
    assert id_of(new_encoder(database_oid=5)) != base
    truncated = {
        stored(change(None, None, index=index, ordinal=index + 1))["id"] for index in range(3)
    }
    assert len(truncated) == 1
