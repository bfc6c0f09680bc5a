"""Each row has the context before it in its transaction; nothing that is sent stops the stream."""

import json
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from bemi.capture import encodings
from bemi.errors import SetupError
from tests.conftest import MakeDatabase
from tests.integration.conftest import Track
from tests.support.databases import unused_name
from tests.support.tracked import Row, Tracked
from tests.support.tracking import track

TODOS = "create table todos (id int primary key, title text)"
MIB = 1 << 20


def emit(
    conn: psycopg.Connection[Any],
    content: str | bytes,
    *,
    prefix: str = "_bemi",
    transactional: bool = True,
) -> None:
    kind = "bytea" if isinstance(content, bytes) else "text"
    conn.execute(
        f"select pg_logical_emit_message(%s, %s, %s::{kind})".encode(),
        [transactional, prefix, content],
    )


def insert(conn: psycopg.Connection[Any], number: int, title: str = "x") -> None:
    conn.execute("insert into todos values (%s, %s)", [number, title])


def contexts(rows: list[Row]) -> list[Any]:
    return [row["context"] for row in rows]


def dropped(at: Tracked) -> list[tuple[str, bytes]]:
    rows = at.query("select dropped, raw from bemi.contexts where dropped is not null order by id")
    return [(row["dropped"], row["raw"]) for row in rows]


def test_none(tracked: Track) -> None:
    at = tracked(TODOS)
    insert(at.source, 1)
    (row,) = at.changes()
    assert (row["context"], row["flags"]) == ({}, None)


def test_one(tracked: Track) -> None:
    at = tracked(TODOS)
    with at.source.transaction():
        emit(at.source, '{"user_id": 42, "endpoint": "/tödo 🐘", "nested": {"a": [1, null]}}')
        insert(at.source, 1)
        at.source.execute("update todos set title = 'y'")
        at.source.execute("delete from todos")
    insert(at.source, 2)
    expected = {"user_id": 42, "endpoint": "/tödo 🐘", "nested": {"a": [1, None]}}
    assert contexts(at.changes()) == [expected] * 3 + [{}]
    assert len(at.query("select from bemi.contexts")) == 2, "one row, however many changes"


def test_several_in_one_transaction(tracked: Track) -> None:
    """Each row has the one before it."""
    at = tracked(TODOS)
    with at.source.transaction():
        for number in range(1, 6):
            emit(at.source, json.dumps({"step": number}))
            insert(at.source, number)
            insert(at.source, 10 * number)
    rows = at.changes()
    assert contexts(rows) == [{"step": number} for number in range(1, 6) for _ in range(2)]


def test_one_after_the_first_row(tracked: Track) -> None:
    at = tracked(TODOS)
    with at.source.transaction():
        insert(at.source, 1)
        emit(at.source, '{"late": true}')
        insert(at.source, 2)
    assert contexts(at.changes()) == [{"late": True}] * 2


def test_one_inside_a_savepoint_that_is_rolled_back_never_was(tracked: Track) -> None:
    at = tracked(TODOS)
    with at.source.transaction():
        emit(at.source, '{"n": 1}')
        insert(at.source, 1)
        with at.source.transaction(force_rollback=True):
            emit(at.source, '{"n": 2}')
            insert(at.source, 2)
        insert(at.source, 3)
    with at.source.transaction():
        with at.source.transaction(force_rollback=True):
            emit(at.source, '{"n": 3}')
        insert(at.source, 4)
    rows = at.changes()
    assert contexts(rows) == [{"n": 1}, {"n": 1}, {}]


def test_two_interleaved_transactions(tracked: Track) -> None:
    at = tracked(TODOS)
    with at.connect() as one, at.connect() as other:
        one.autocommit = other.autocommit = False
        emit(one, '{"who": "one"}')
        emit(other, '{"who": "other"}')
        for number in range(1, 4):
            insert(one, number)
            insert(other, 10 * number)
        other.commit()
        one.commit()
    rows = at.changes()
    assert contexts(rows) == [{"who": "other"}] * 3 + [{"who": "one"}] * 3
    assert len({row["transaction_id"] for row in rows}) == 2


def test_one_mebibyte(tracked: Track) -> None:
    at = tracked(TODOS)
    text = "é" * ((MIB - 8) // 2)
    with at.source.transaction():
        emit(at.source, '{"a":"' + text + '"}')
        insert(at.source, 1)
    (row,) = at.changes()
    assert row["context"] == {"a": text}
    assert row["flags"] is None


UNREADABLE: dict[str, tuple[str | bytes, str]] = {
    "too large": ('{"a":"' + "x" * MIB + '"}', "too_large"),
    "megabytes": ("x" * (5 * MIB), "too_large"),
    "nothing": ("", "not_json"),
    "not JSON": ("user 42", "not_json"),
    "not a number": ('{"a": NaN}', "not_json"),
    "a list": ("[]", "not_object"),
    "a text": ('"text"', "not_object"),
    "a number": ("42", "not_object"),
    "a NUL character": ('{"a": "\\u0000"}', "not_jsonb"),
    "a NUL character in a name": ('{"a\\u0000": 1}', "not_jsonb"),
    "half a surrogate pair": ('{"a": "\\ud800"}', "not_jsonb"),
    "surrogates the wrong way round": ('{"a": "\\ude00\\ud83d"}', "not_jsonb"),
    "a monstrous exponent": ('{"a": 1e999999999}', "not_jsonb"),
    "a monstrous negative exponent": ('{"a": 1e-999999999}', "not_jsonb"),
    "a monstrous number": ('{"a": ' + "9" * 200_000 + "}", "not_jsonb"),
    "1,000 levels": ('{"a": ' + "[" * 1000 + "]" * 1000 + "}", "not_jsonb"),
    "100,000 levels": ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "not_jsonb"),
    "100,000 levels of objects": ('{"a": ' * 100_000 + "1" + "}" * 100_000, "not_jsonb"),
    "100,000 levels, not closed": ('{"a": ' * 100_000, "not_jsonb"),
    "a zero byte": (b'{"a": 1}\0', "not_json"),
    "a byte order mark": (b'\xef\xbb\xbf{"a": 1}', "not_json"),
    "bytes that are not UTF-8": (b'{"a": "\xe9"}', "undecodable"),
    "a surrogate in UTF-8": (b'{"a": "\xed\xa0\x80"}', "undecodable"),
    "only bytes": (bytes(range(256)), "not_json"),
}


def test_what_cant_be_read_is_dropped_flagged_and_kept(tracked: Track) -> None:
    """All in one stream, each in a transaction between two good ones."""
    at = tracked(TODOS)
    for number, (content, _) in enumerate(UNREADABLE.values()):
        with at.source.transaction():
            insert(at.source, 10 * number)
            emit(at.source, content)
            insert(at.source, 10 * number + 1)
            emit(at.source, '{"good": true}')
            insert(at.source, 10 * number + 2)
    rows = at.changes()
    assert len(rows) == 3 * len(UNREADABLE)
    for at_row, (name, _) in enumerate(UNREADABLE.items()):
        three = rows[3 * at_row : 3 * at_row + 3]
        assert contexts(three) == [{}, {}, {"good": True}], name
        assert [row["flags"] for row in three] == [None, ["context_dropped"], None], name
    expected = [
        (reason, (content.encode() if isinstance(content, str) else content)[:MIB])
        for content, reason in UNREADABLE.values()
    ]
    found = dropped(at)
    for name, got, wanted in zip(UNREADABLE, found, expected, strict=True):
        if name == "only bytes":
            assert got[0] in ("not_json", "undecodable")
            assert got[1] == wanted[1]
        else:
            assert got == wanted, name


def test_an_unreadable_one_ends_the_one_before(tracked: Track) -> None:
    at = tracked(TODOS)
    with at.source.transaction():
        emit(at.source, '{"good": true}')
        insert(at.source, 1)
        emit(at.source, "oops")
        insert(at.source, 2)
    rows = at.changes()
    assert contexts(rows) == [{"good": True}, {}]
    assert [row["flags"] for row in rows] == [None, ["context_dropped"]]


@pytest.mark.parametrize("content", ["null", " null\n"])
def test_null_counts_as_the_empty_context(tracked: Track, content: str) -> None:
    at = tracked(TODOS)
    with at.source.transaction():
        emit(at.source, '{"a": 1}')
        insert(at.source, 1)
        emit(at.source, content)
        insert(at.source, 2)
    rows = at.changes()
    assert contexts(rows) == [{"a": 1}, {}]
    assert [row["flags"] for row in rows] == [None, None]


def test_other_prefixes_are_not_ours(tracked: Track) -> None:
    at = tracked(TODOS)
    with at.source.transaction():
        emit(at.source, '{"a": 1}')
        for prefix in ("", "bemi", "_BEMI", "_bemi_ddl", "_bemi_baseline", "_bemix", "🐘"):
            emit(at.source, '{"other": 1}', prefix=prefix)
            emit(at.source, b"\xff\0", prefix=prefix)
        insert(at.source, 1)
    (row,) = at.changes()
    assert (row["context"], row["flags"]) == ({"a": 1}, None)


def test_a_message_outside_of_transactions_is_never_a_context(tracked: Track) -> None:
    at = tracked(TODOS)
    with at.source.transaction():
        emit(at.source, '{"a": 1}', transactional=False)
        insert(at.source, 1)
        emit(at.source, '{"a": 2}', transactional=False)
    with at.source.transaction(force_rollback=True):
        emit(at.source, '{"a": 3}', transactional=False)
    insert(at.source, 2)
    assert contexts(at.changes()) == [{}, {}]


def test_a_context_without_changes_leaves_nothing(tracked: Track) -> None:
    at = tracked(TODOS)
    emit(at.source, '{"a": 1}')
    emit(at.source, "oops")
    assert at.changes() == []
    assert at.query("select from bemi.contexts") == []


def test_numbers_are_kept_exactly(tracked: Track) -> None:
    at = tracked(TODOS)
    numbers = ["9007199254740993", "1.50", "0.1000000000000000055511151231257827", "1e400", "-0"]
    with at.source.transaction():
        emit(at.source, '{"n": [' + ", ".join(numbers) + "]}")
        insert(at.source, 1)
    (row,) = at.changes()
    assert row["context"]["n"] == [
        9007199254740993,
        Decimal("1.50"),
        Decimal("0.1000000000000000055511151231257827"),
        10**400,
        0,
    ]


def test_twice_the_same_name_takes_the_last_as_jsonb_does(tracked: Track) -> None:
    at = tracked(TODOS)
    with at.source.transaction():
        emit(at.source, '{"a": 1, "a": 2}')
        insert(at.source, 1)
    assert contexts(at.changes()) == [{"a": 2}]


def test_a_context_may_be_shorter_in_one_spelling_than_in_another(tracked: Track) -> None:
    at = tracked(TODOS)
    with at.source.transaction():
        emit(at.source, '{"a": "\\u00e9\\ud83d\\ude00 \\\\u0000 \\/ \\t"}')
        insert(at.source, 1)
    assert contexts(at.changes()) == [{"a": "é😀 \\u0000 / \t"}]


def test_a_server_in_latin1(tracked: Track) -> None:
    at = tracked(
        "create table café (id int primary key, naïve text)",
        encoding="LATIN1",
        locale="C",
    )
    with at.source.transaction():
        emit(at.source, '{"name": "Zoë ÿ", "escaped": "\\u65e5"}')
        at.source.execute("insert into café values (1, 'déjà \xa0 ÿ')")
    with at.source.transaction():
        emit(at.source, b'{"raw": "\xe9\xff"}')
        at.source.execute("insert into café values (2, null)")
    rows = at.changes()
    assert contexts(rows) == [{"name": "Zoë ÿ", "escaped": "日"}, {"raw": "éÿ"}]
    assert [row["after"] for row in rows] == [
        {"id": 1, "naïve": "déjà \xa0 ÿ"},
        {"id": 2, "naïve": None},
    ]
    assert {row["table"] for row in rows} == {"café"}
    assert [row["flags"] for row in rows] == [None, None]


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("EUC_JP", "日本語 ①～－"),
        ("EUC_CN", "中文・―"),
        ("WIN1252", "€“x”"),
        ("KOI8R", "привет"),
    ],
)
def test_servers_in_other_encodings(tracked: Track, encoding: str, text: str) -> None:
    at = tracked(TODOS, encoding=encoding, locale="C")
    at.source.execute("set client_encoding to 'UTF8'")
    with at.source.transaction():
        emit(at.source, json.dumps({"a": text[:2]}, ensure_ascii=False))
        insert(at.source, 1, text)
    with at.source.transaction():
        emit(at.source, b'{"a": "\x81\xff"}')
        insert(at.source, 2)
    rows = at.changes()
    assert rows[0]["context"] == {"a": text[:2]}
    assert rows[0]["after"]["title"] == text
    assert len(rows) == 2


def test_bytes_that_have_no_character_in_the_servers_encoding(tracked: Track) -> None:
    """WIN1252 lets 0x81 in, which is nothing; nor may it stop the stream, in a name either."""
    at = tracked(TODOS, encoding="WIN1252", locale="C", full=["*.*"])
    with at.connect() as raw:
        raw.execute("set client_encoding to 'WIN1252'")
        for statement in (
            b"insert into todos values (1, 'caf\xe9 \x81')",
            b"update todos set title = '\x81'",
            b'alter table todos rename title to "t\xe9t\x81"',
            b"insert into todos values (2, 'plain')",
        ):
            assert not raw.pgconn.exec_(statement).error_message
    rows = at.changes()
    assert [row["after"] for row in rows] == [
        {"id": 1, "title": "café \\x81"},
        {"id": 1, "title": "\\x81"},
        {"id": 2, "tét\\x81": "plain"},
    ]
    renamed_since = ["inferred", "text:title", "undecodable:title"]
    assert [row["flags"] for row in rows] == [renamed_since, renamed_since, None]
    assert rows[1]["before"]["title"] == "café \\x81"


def test_a_publication_whose_name_is_not_ascii(
    make_database: MakeDatabase,
) -> None:
    for encoding in ("LATIN1", "SQL_ASCII"):
        source_url = make_database(unused_name("source"), encoding=encoding, locale="C")
        with psycopg.connect(source_url, autocommit=True, client_encoding="utf-8") as source:
            source.execute(TODOS.encode())
        at = Tracked(track(source_url, make_database(), schemas=["*"], publication="zoë"))
        insert(at.source, 1)
        assert len(at.changes()) == 1
        at.close()


def test_a_server_whose_encoding_cant_be_read(make_database: MakeDatabase) -> None:
    source_url = make_database(unused_name("source"), encoding="EUC_TW", locale="C")
    with pytest.raises(SetupError, match="EUC_TW") as caught:
        track(source_url, make_database())
    assert caught.value.fix


@pytest.mark.parametrize("name", sorted(encodings._CODECS))
def test_python_decodes_as_postgres_does(source_url: str, name: str) -> None:
    codec = encodings.encoding_of(name).text
    codes = [bytes([code]) for code in range(0x80, 0x100)]
    if name == "EUC_CN":
        codes = [bytes([row, cell]) for row in range(0xA1, 0xFF) for cell in range(0xA1, 0xFF)]
    with psycopg.connect(source_url) as conn:
        conn.execute(
            "create function pg_temp.told(code bytea, encoding name) returns text "
            "language plpgsql as $$ begin return convert_from(code, encoding); "
            "exception when others then return null; end $$"
        )
        told = conn.execute(
            "select code, pg_temp.told(code, %s) from unnest(%s::bytea[]) code", [name, codes]
        ).fetchall()
    for code, character in told:
        assert code.decode(codec, "ignore") == (character or ""), code


def test_a_server_that_does_not_check_its_text(tracked: Track) -> None:
    """SQL_ASCII: what is not UTF-8 is kept readable, and flagged."""
    at = tracked(
        TODOS,
        "create table named (name text primary key, tags text[])",
        encoding="SQL_ASCII",
        locale="C",
        full=["*.*"],
    )
    at.source.execute("insert into todos values (1, E'caf\\xe9'), (2, 'café'::text)".encode())
    at.source.execute("insert into named values (E'na\\xefve', array[E'\\xff', 'ok'])")
    at.source.execute("update named set name = 'plain'")
    with at.source.transaction():
        emit(at.source, '{"a": "é"}'.encode())
        insert(at.source, 3)
        emit(at.source, b'{"a": "\xe9"}')
        insert(at.source, 4)
    rows = at.changes()
    by_key = {row["primary_key"]: row for row in rows}
    assert by_key["1"]["after"]["title"] == "caf\\xe9"
    assert by_key["1"]["flags"] == ["text:title", "undecodable:title"]
    assert (by_key["2"]["after"]["title"], by_key["2"]["flags"]) == ("café", None)
    assert by_key["na\\xefve"]["after"] == {"name": "na\\xefve", "tags": "{\\xff,ok}"}
    assert by_key["plain"]["previous_key"] == "na\\xefve"
    assert by_key["3"]["context"] == {"a": "é"}
    assert by_key["4"]["context"] == {}
    assert by_key["4"]["flags"] == ["context_dropped"]
    assert dropped(at) == [("undecodable", b'{"a": "\xe9"}')]
