"""Messages of the event triggers are read, and whatever else comes under their prefix is kept."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bemi.capture.ddl import UNREADABLE, DdlMessage, read_ddl, without_statement
from bemi.capture.values import jsonb_takes
from bemi.change import Ddl, Transaction
from bemi.lsn import Lsn

_FULL: dict[str, Any] = {
    "tag": "ALTER TABLE",
    "object_type": "table",
    "identity": 'app."Möbel"',
    "relation": 16400,
    "statement": "alter table …",
    "event": "ddl_command_end",
    "table": {"columns": [{"number": 1, "name": "id"}]},
}


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def test_a_message_is_taken_apart() -> None:
    found = read_ddl(_json(_FULL), "utf-8")
    assert (found.tag, found.object_type, found.identity, found.relation, found.statement) == (
        "ALTER TABLE",
        "table",
        'app."Möbel"',
        16400,
        "alter table …",
    )
    assert json.loads(found.detail) == {"event": _FULL["event"], "table": _FULL["table"]}


def test_a_tag_is_enough() -> None:
    assert read_ddl(b'{"tag": "GRANT"}', "utf-8") == DdlMessage(
        "GRANT", None, None, None, None, b"{}"
    )


def test_other_encodings() -> None:
    content = json.dumps(_FULL | {"statement": "é"}, ensure_ascii=False)
    content = content.replace("…", "")
    assert read_ddl(content.encode("iso8859-1"), "iso8859-1").statement == "é"


def test_bytes_that_are_no_text_are_spelled_and_told() -> None:
    content = b'{"tag": "ALTER TABLE", "identity": "app.\xff\\\\x41", "name": "\xfe"}'
    found = read_ddl(content, "ascii")
    assert found.identity == "app.\\xff\\x41"
    assert json.loads(found.detail) == {"name": "\\xfe", "undecodable": True}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not_json"),
        (b"\xff\xfe", "undecodable"),
        (b"[1]", "not_ddl"),
        (b"null", "not_ddl"),
        (b"{}", "not_ddl"),
        (b'{"tag": ""}', "not_ddl"),
        (b'{"tag": 1}', "not_ddl"),
        (b'{"tag": "X", "relation": "1"}', "not_ddl"),
        (b'{"tag": "X", "relation": true}', "not_ddl"),
        (b'{"tag": "X", "relation": -1}', "not_ddl"),
        (b'{"tag": "X", "relation": 4294967296}', "not_ddl"),
        (b'{"tag": "X", "statement": "a\\u0000b"}', "not_ddl"),
        (b'{"tag": "X", "statement": "\\ud800"}', "not_ddl"),
        (b'{"tag": "X", "more": "a\\u0000b"}', "not_ddl"),
        (b'{"tag": "X", "more": "\\ud800"}', "not_ddl"),
        (b'{"tag": "X", "more": 1e999}', "not_ddl"),
        (b'{"tag": "X", "more": NaN}', "not_ddl"),
        (b"[" * 100_000, "not_json"),
        (b'"' + b"x" * (16 << 20) + b'"', "too_large"),
    ],
)
def test_what_is_no_message_of_ours_is_kept_with_the_reason(content: bytes, reason: str) -> None:
    found = read_ddl(content, "utf-8")
    assert found.tag == UNREADABLE
    detail = json.loads(found.detail)
    assert (detail["unreadable"], detail["bytes"]) == (reason, len(content))
    assert base64.b64decode(detail["raw"]) == content[: 64 << 10]


_json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(
    st.binary()
    | st.dictionaries(
        st.sampled_from(["tag", "object_type", "identity", "relation", "statement", "table"]),
        _json_values,
    ).map(lambda value: json.dumps(value).encode()),
    st.sampled_from(["utf-8", "ascii", "iso8859-1", "euc_kr"]),
)
def test_nothing_stops_it_and_the_store_takes_what_it_gives(content: bytes, encoding: str) -> None:
    found = read_ddl(content, encoding)
    assert found.tag
    assert isinstance(json.loads(found.detail), dict)
    assert jsonb_takes(found.detail)
    for text in (found.tag, found.object_type, found.identity, found.statement):
        assert text is None or b"\0" not in text.encode()


def test_a_statement_can_be_left_out_and_that_is_said() -> None:
    transaction = Transaction(Lsn(8), 0, 0, 7)
    ddl = Ddl(transaction, 4, 0, 0, "ALTER TABLE", "table", "a.b", 1, "alter …", b'{"oid": 1}')
    bare = without_statement(ddl)
    assert bare.statement is None
    assert json.loads(bare.detail) == {
        "oid": 1,
        "statement_left_out": "the rules leave out or replace values",
    }
    assert without_statement(bare) is bare


def test_what_could_not_be_read_is_left_out_as_well() -> None:
    transaction = Transaction(Lsn(8), 0, 0, 7)
    read = read_ddl(b"secret", "utf-8")
    bare = without_statement(
        Ddl(transaction, 4, 0, 0, read.tag, None, None, None, None, read.detail)
    )
    detail = json.loads(bare.detail)
    assert "raw" not in detail
    assert detail["unreadable"] == "not_json"


def _told(**more: Any) -> bytes:
    table = {
        "schema": "app",
        "name": "t",
        "kind": "r",
        "filenode": 9,
        "replica_identity": "d",
        "key": ["id"],
        "columns": [
            {"number": 1, "name": "id", "type": "app.d", "base_type_oid": 23, "stamp": 700},
            {"number": 3, "name": "n", "type": "text", "base_type_oid": 25, "stamp": 701},
        ],
    }
    below = [
        {"oid": 8, "table": table | {"name": "p1", "partition_of": {"schema": "app", "name": "t"}}}
    ]
    return _json(_FULL | {"table": table | more, "below": below})


def test_the_tables_it_is_about_are_as_it_left_them() -> None:
    found = read_ddl(_told(), "utf-8")
    assert [
        (each.oid, each.schema, each.name, each.partition, each.key, each.told)
        for each in found.tables
    ] == [(16400, "app", "t", None, (0,), True), (8, "app", "t", "app.p1", (0,), True)]
    assert [(each.name, each.number, each.type_oid) for each in found.tables[0].columns] == [
        ("id", 1, 23),
        ("n", 3, 25),
    ]
    assert "below" not in json.loads(found.detail)
    assert found.parted is None
    parted = read_ddl(_told(kind="p"), "utf-8")
    assert ([each.oid for each in parted.tables], parted.parted) == ([8], ("app", "t"))


@pytest.mark.parametrize(
    "more",
    [
        {"columns": [{"number": 0, "name": "id", "type": "int", "base_type_oid": 1, "stamp": 1}]},
        {"columns": [{"name": "id"}]},
        {"columns": "id"},
        {"filenode": -1},
        {"filenode": 1 << 32},
        {"name": None},
        {"replica_identity": ""},
    ],
)
def test_what_is_not_wholly_of_that_form_says_nothing_of_tables(more: dict[str, Any]) -> None:
    found = read_ddl(_told(**more), "utf-8")
    assert (found.tag, found.tables, found.parted) == ("ALTER TABLE", (), None)


def test_a_key_of_no_column_is_no_tables() -> None:
    assert [each.oid for each in read_ddl(_told(key=["x"]), "utf-8").tables] == [8]
