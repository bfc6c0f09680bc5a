"""What a `_bemi` message's content becomes. Cases shared with the clients: test_context.py."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bemi.capture.contexts import MAX_SIZE, NO_CONTEXT, Context, read_context


def filled(size: int) -> bytes:
    """An object whose text has `size` bytes."""
    return b'{"a":"' + b"x" * (size - 8) + b'"}'


def test_an_object_is_kept_as_it_is() -> None:
    content = b' {"user_id" : 42, "n": 1.50, "s": "\xc3\xa9"}\n'
    assert read_context(content, "utf-8") == Context(content)


def test_null_is_the_empty_context() -> None:
    assert read_context(b" null ", "utf-8") is NO_CONTEXT
    assert Context(b"{}", None, None) == NO_CONTEXT


def test_one_mebibyte_is_the_limit() -> None:
    assert read_context(filled(MAX_SIZE), "utf-8") == Context(filled(MAX_SIZE))
    over = filled(MAX_SIZE + 1)
    assert read_context(over, "utf-8") == Context(b"{}", "too_large", over[:MAX_SIZE])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not_json"),
        (b"user 42", "not_json"),
        (b'{"a": NaN}', "not_json"),
        (b'{"a": -Infinity}', "not_json"),
        (b"{'a': 1}", "not_json"),
        (b'{"a": 01}', "not_json"),
        (b'{"a": 1} x', "not_json"),
        (b'{"a": 1}\0', "not_json"),
        (b'{"a": "\n"}', "not_json"),
        (b'\xef\xbb\xbf{"a": 1}', "not_json"),
        (b'{"a": "\xe9"}', "undecodable"),
        (b'{"a": "\xed\xa0\x80"}', "undecodable"),
        (b"[]", "not_object"),
        (b'"null"', "not_object"),
        (b"true", "not_object"),
        (b"1e99999", "not_object"),
        (b'{"a": "\\u0000"}', "not_jsonb"),
        (b'{"a": "\\ud800"}', "not_jsonb"),
        (b'{"a": 1e99999}', "not_jsonb"),
        (b'{"a": ' + b"[" * 1000 + b"]" * 1000 + b"}", "not_jsonb"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not_jsonb"),
        (b'{"a": ' * 100_000, "not_jsonb"),
    ],
)
def test_what_cant_be_read_says_why_and_keeps_its_bytes(content: bytes, reason: str) -> None:
    assert read_context(content, "utf-8") == Context(b"{}", reason, content)


def test_the_servers_encoding_is_heeded() -> None:
    text = '{"name": "café"}'
    assert read_context(text.encode("latin-1"), "iso8859-1") == Context(text.encode())
    assert read_context('{"a": "日本"}'.encode("euc_jp"), "euc_jp") == Context(
        '{"a": "日本"}'.encode()
    )
    undecodable = b'{"a": "\xff"}'
    assert read_context(undecodable, "euc_jp") == Context(b"{}", "undecodable", undecodable)


@given(st.binary(max_size=200), st.sampled_from(["utf-8", "iso8859-1", "euc_jp", "gb18030"]))
def test_any_bytes_give_an_object(content: bytes, encoding: str) -> None:
    read = read_context(content, encoding)
    assert isinstance(json.loads(read.content), dict)
    assert (read.dropped is None) == (read.raw is None)


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
        st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans(),
    ),
    st.booleans(),
)
def test_any_object_is_read(context: dict[str, object], ensure_ascii: bool) -> None:
    content = json.dumps(context, ensure_ascii=ensure_ascii).encode()
    assert read_context(content, "utf-8") == Context(content)
