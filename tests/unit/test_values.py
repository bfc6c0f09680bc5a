"""PostgreSQL's text form becomes JSON that jsonb takes and that comes back, or is not natural."""

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bemi.capture import values
from bemi.capture.values import NotNaturalError, jsonb_takes, natural_form, quote

INT4_ARRAY, TEXT_ARRAY, FLOAT8_ARRAY, BOOL_ARRAY = 1007, 1009, 1022, 1000
JSON_ARRAY, JSONB_ARRAY, NUMERIC_ARRAY = 199, 3807, 1231
TEXT, TIMESTAMPTZ, BYTEA = 25, 1184, 17
ELEMENTS = {
    INT4_ARRAY: values.INT4,
    TEXT_ARRAY: TEXT,
    FLOAT8_ARRAY: values.FLOAT8,
    BOOL_ARRAY: values.BOOL,
    JSON_ARRAY: values.JSON,
    JSONB_ARRAY: values.JSONB,
    NUMERIC_ARRAY: values.NUMERIC,
}

# PostgreSQL has no NUL in a text, and no half of a surrogate pair.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


def encode(type_oid: int, value: str) -> str:
    return natural_form(type_oid, ELEMENTS)(value.encode()).decode()


@pytest.mark.parametrize(
    ("type_oid", "value", "fragment"),
    [
        (values.BOOL, "t", "true"),
        (values.BOOL, "f", "false"),
        (values.INT2, "-32768", "-32768"),
        (values.INT4, "2147483647", "2147483647"),
        (values.INT8, "-9223372036854775808", "-9223372036854775808"),
        (values.OID, "4294967295", "4294967295"),
        (values.FLOAT4, "1.1", "1.1"),
        (values.FLOAT8, "1e+300", "1e+300"),
        (values.FLOAT8, "-5e-324", "-5e-324"),
        (values.FLOAT8, "NaN", '"NaN"'),
        (values.FLOAT8, "Infinity", '"Infinity"'),
        (values.FLOAT4, "-Infinity", '"-Infinity"'),
        (values.NUMERIC, "1.50", "1.50"),
        (values.NUMERIC, "0.000000000000000000001", "0.000000000000000000001"),
        (values.NUMERIC, "9" * 131_072, "9" * 131_072),
        (values.NUMERIC, "NaN", '"NaN"'),
        (values.NUMERIC, "-Infinity", '"-Infinity"'),
        (TEXT, "", '""'),
        (TEXT, "café 🐘", '"café 🐘"'),
        (TEXT, 'a "b" \\ c', '"a \\"b\\" \\\\ c"'),
        (TEXT, "null", '"null"'),
        (TEXT, "42", '"42"'),
        (TIMESTAMPTZ, "2020-01-01 00:00:00+00", '"2020-01-01 00:00:00+00"'),
        (TIMESTAMPTZ, "infinity", '"infinity"'),
        (BYTEA, "\\x00ff", '"\\\\x00ff"'),
        (values.JSONB, '{"a": [1, null]}', '{"a": [1, null]}'),
        (values.JSONB, '"null"', '"null"'),
        (values.JSONB, "1e400", "1e400"),
        (values.JSON, '{"a":1, "b":[ {"a":2}]}', '{"a":1, "b":[ {"a":2}]}'),
        (values.JSON, ' "x"\n', ' "x"\n'),
        (INT4_ARRAY, "{}", "[]"),
        (INT4_ARRAY, "{1,-2,NULL}", "[1,-2,null]"),
        (INT4_ARRAY, "{{1,2},{3,4}}", "[[1,2],[3,4]]"),
        (BOOL_ARRAY, "{t,f,NULL}", "[true,false,null]"),
        (FLOAT8_ARRAY, "{1.5,NaN,-Infinity}", '[1.5,"NaN","-Infinity"]'),
        (TEXT_ARRAY, '{a,"b,c","",NULL,"NULL","{}"}', '["a","b,c","",null,"NULL","{}"]'),
        (TEXT_ARRAY, r'{"a\"b","c\\d",café}', r'["a\"b","c\\d","café"]'),
        (TEXT_ARRAY, '{"line\nbreak"}', r'["line\nbreak"]'),
        (TEXT_ARRAY, r'{{"\\","\""},{"}","{"}}', r'[["\\","\""],["}","{"]]'),
        (TEXT_ARRAY, "{null,Null}", '["null","Null"]'),
    ],
)
def test_natural_forms(type_oid: int, value: str, fragment: str) -> None:
    assert encode(type_oid, value) == fragment
    json.loads(fragment, parse_int=len)


@pytest.mark.parametrize(
    ("type_oid", "value"),
    [
        (values.FLOAT8, "-0"),
        (values.FLOAT4, "-0"),
        (values.JSONB, "null"),
        (values.JSON, "null"),
        (values.JSON, " null\n"),
        (values.JSON, '{"a":1,"a":2}'),
        (values.JSON, '{"b":{"a":1,"a":2}}'),
        (values.JSON, r'"\u0000"'),
        (values.JSON, r'{"\u0000":1}'),
        (values.JSON, r'"\ud800"'),
        (values.JSON, r'"\ude00\ud83d"'),
        (values.JSON, "1" * 20_000),
        (values.JSON, "1e10000"),
        (values.JSON, "1E-99999"),
        (values.JSON, "[" * 600 + "]" * 600),
        (INT4_ARRAY, "[0:1]={1,2}"),
        (INT4_ARRAY, "[1:1][0:1]={{1,2}}"),
        (FLOAT8_ARRAY, "{1,-0}"),
        (values.JSONB, "[" * 600 + "]" * 600),
        (values.JSONB, "[" + ", ".join("1" * 8_000_000) + "]"),
        (values.JSON, "[" + ",".join("1" * 10_000_000) + "]"),
        (INT4_ARRAY, "{" + ",".join("1" * 10_000_000) + "}"),
        (JSON_ARRAY, '{"{}"}'),
        (JSONB_ARRAY, "{1}"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_would_not_come_back_is_not_natural(type_oid: int, value: str) -> None:
    with pytest.raises(NotNaturalError):
        encode(type_oid, value)


@given(texts)
def test_a_quoted_text_parses_back(text: str) -> None:
    assert json.loads(quote(text.encode())) == text


@pytest.mark.parametrize("code", [*range(1, 0x20), 0x22, 0x5C, 0x7F, 0x80, 0x9F, 0x2028, 0xFFFF])
def test_no_character_breaks_a_string(code: int) -> None:
    for text in (chr(code), f"a{chr(code)}", f"{chr(code)}b"):
        assert json.loads(quote(text.encode())) == text


def test_text_that_is_not_utf8_is_not_natural() -> None:
    with pytest.raises(NotNaturalError):
        natural_form(TEXT, {})(b"caf\xe9")
    with pytest.raises(NotNaturalError):
        natural_form(TEXT_ARRAY, ELEMENTS)(b"{caf\xe9}")


def array_text(items: list[Any], item: Callable[[Any], str]) -> str:
    """As array_out writes it, every element quoted."""
    return (
        "{"
        + ",".join(
            array_text(element, item)
            if isinstance(element, list)
            else "NULL"
            if element is None
            else item(element)
            for element in items
        )
        + "}"
    )


def quoted_element(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@given(st.lists(st.none() | texts) | st.lists(st.lists(st.none() | texts, min_size=2, max_size=2)))
def test_an_array_of_texts_parses_back(items: list[Any]) -> None:
    assert json.loads(encode(TEXT_ARRAY, array_text(items, quoted_element))) == items


@given(st.lists(st.none() | st.integers(-(1 << 31), (1 << 31) - 1)))
def test_an_array_of_numbers_parses_back(items: list[int | None]) -> None:
    assert json.loads(encode(INT4_ARRAY, array_text(items, str))) == items


@given(st.decimals(allow_nan=False, allow_infinity=False, places=20))
def test_numerics_are_exact(number: Decimal) -> None:
    fragment = encode(values.NUMERIC, f"{number:f}")
    assert json.loads(fragment, parse_float=Decimal) == number


@given(st.floats())
def test_floats_come_back(number: float) -> None:
    text = {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}.get(repr(number), repr(number))
    if text == "-0.0":
        text = "-0"
    try:
        fragment = encode(values.FLOAT8, text)
    except NotNaturalError:
        assert text == "-0"
    else:
        assert repr(float(json.loads(fragment))) == repr(number)


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"request_id": "7be12345"}',
        '{"id": "00000000e0000"}',
        '{"a": "' + "1" * 20_000 + '"}',
        '{"a": "\\"1e99999"}',
        r'{"a": "\\u0000"}',
        r'{"a": "\ud83d\ude00\u00e9\uD83D\uDE00"}',
        r'{"a": "\\\\ud800"}',
        '{"a": "' + "[" * 2000 + '"}',
        '{"a": [' + ",".join(["[]"] * 2000) + "]}",
        '{"a": 1e400}',
    ],
)
def test_jsonb_takes_this(text: str) -> None:
    assert jsonb_takes(text.encode())


@pytest.mark.parametrize(
    "text",
    [
        r'{"a": "\u0000"}',
        r'{"a": "\\\u0000"}',
        r'{"\u0000": 1}',
        r'{"a": "\ud800"}',
        r'{"a": "\udc00\ud800"}',
        r'{"a": "\ud83d\ud83d\ude00"}',
        r'{"a": "\ud83dx\ude00"}',
        '{"a": 1e999999}',
        '{"a": ' + "1" * 200_000 + "}",
        '{"a": ' + "[" * 5000 + "]" * 5000 + "}",
    ],
)
def test_jsonb_refuses_this(text: str) -> None:
    assert not jsonb_takes(text.encode())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
    max_leaves=8,
)


@given(json_values, st.booleans())
def test_jsonb_takes_json_without_nul_and_half_pairs(value: object, ensure_ascii: bool) -> None:
    assert jsonb_takes(json.dumps(value, ensure_ascii=ensure_ascii).encode())
