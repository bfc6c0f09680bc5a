"""PostgreSQL's text form becomes JSON that jsonb takes and that comes back, or is not natural."""

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bemi.capture import values
from bemi.capture.values import (
    NotNaturalError,
    jsonb_takes,
    natural_form,
    quote,
    text_form,
    text_of_text_form,
)

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


def back(fragment: str, type_oid: int) -> str | None:
    text = text_form(fragment.encode(), type_oid, ELEMENTS)
    return None if text is None else text.decode()


NATURAL_FORMS = [
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
    (TEXT_ARRAY, '{"null","Null"}', '["null","Null"]'),
    (TEXT_ARRAY, '{" a","b ","c\td","\v","\f"}', r'[" a","b ","c\td","\u000b","\f"]'),
    (TEXT_ARRAY, "{\u00a0,\u2003}", '["\u00a0","\u2003"]'),
    (TEXT_ARRAY, "{NULLS,t,1}", '["NULLS","t","1"]'),
    (FLOAT8_ARRAY, "{1e+15,100000000000000,NULL}", "[1e+15,100000000000000,null]"),
    (NUMERIC_ARRAY, "{{1.50},{NULL},{NaN}}", '[[1.50],[null],["NaN"]]'),
]


@pytest.mark.parametrize(("type_oid", "value", "fragment"), NATURAL_FORMS)
def test_natural_forms(type_oid: int, value: str, fragment: str) -> None:
    assert encode(type_oid, value) == fragment
    json.loads(fragment, parse_int=len)


@pytest.mark.parametrize(("type_oid", "value", "fragment"), NATURAL_FORMS)
def test_the_text_comes_back_from_the_natural_form(
    type_oid: int, value: str, fragment: str
) -> None:
    assert back(fragment, type_oid) == value


@pytest.mark.parametrize(
    ("type_oid", "fragment", "value"),
    [
        (values.INT4, "null", None),
        (TEXT, "null", None),
        (INT4_ARRAY, "[1, -2, null]", "{1,-2,NULL}"),
        (INT4_ARRAY, "[[1, 2], [3, 4]]", "{{1,2},{3,4}}"),
        (TEXT_ARRAY, '["a", "b,c", "", null, "NULL"]', '{a,"b,c","",NULL,"NULL"}'),
        (BOOL_ARRAY, "[true, null]", "{t,NULL}"),
        (values.FLOAT8, "1" + "0" * 300, "1e+300"),
        (values.FLOAT8, "-123" + "0" * 300, "-1.23e+302"),
        (values.FLOAT8, "0." + "0" * 323 + "5", "5e-324"),
        (values.FLOAT8, "0.0001", "0.0001"),
        (values.FLOAT8, "0.000012", "1.2e-05"),
        (values.FLOAT8, "123456789012345", "123456789012345"),
        (values.FLOAT8, "1234567890123456", "1.234567890123456e+15"),
        (values.FLOAT8, "0", "0"),
        (values.FLOAT4, "100000", "100000"),
        (values.FLOAT4, "1000000", "1e+06"),
        (values.FLOAT4, "123456.7", "123456.7"),
        (values.FLOAT4, "1234567", "1.234567e+06"),
        (FLOAT8_ARRAY, '[1000000000000000, "-Infinity", 0.00001]', "{1e+15,-Infinity,1e-05}"),
        (values.NUMERIC, "1" + "0" * 300, "1" + "0" * 300),
        (values.JSONB, '"null"', '"null"'),
        (values.JSON, '{"a": [1, null]}', '{"a": [1, null]}'),
        (TIMESTAMPTZ, '"infinity"', "infinity"),
        # As it was stored, the column had another type than it has now.
        (TEXT, "7", "7"),
        (values.INT4, '"7"', "7"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_the_text_comes_back_as_jsonb_prints_it(
    type_oid: int, fragment: str, value: str | None
) -> None:
    assert back(fragment, type_oid) == value


def test_a_text_form_is_its_text() -> None:
    assert text_of_text_form(rb'"[0:1]={\"-0\",\u00e9}\n"') == '[0:1]={"-0",é}\n'.encode()
    assert text_of_text_form(b"null") is None


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
        (values.JSON, "-0"),
        (values.JSON, '{"a":[-0.00,1]}'),
        (values.JSON, "[-0e5]"),
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


array_of_texts = st.lists(st.none() | texts) | st.lists(
    st.lists(st.none() | texts, min_size=2, max_size=2), min_size=1
)


@given(array_of_texts)
def test_an_array_of_texts_parses_back(items: list[Any]) -> None:
    fragment = encode(TEXT_ARRAY, array_text(items, quoted_element))
    assert json.loads(fragment) == items
    text = back(fragment, TEXT_ARRAY)
    assert text is not None
    assert encode(TEXT_ARRAY, text) == fragment


@given(texts)
def test_a_text_comes_back(text: str) -> None:
    assert back(encode(TEXT, text), TEXT) == text


@given(st.lists(st.none() | st.integers(-(1 << 31), (1 << 31) - 1)))
def test_an_array_of_numbers_parses_back(items: list[int | None]) -> None:
    text = array_text(items, str)
    assert json.loads(encode(INT4_ARRAY, text)) == items
    assert back(json.dumps(items), INT4_ARRAY) == text


@given(st.decimals(allow_nan=False, allow_infinity=False, places=20))
def test_numerics_are_exact(number: Decimal) -> None:
    fragment = encode(values.NUMERIC, f"{number:f}")
    assert json.loads(fragment, parse_float=Decimal) == number
    assert back(fragment, values.NUMERIC) == f"{number:f}"


def float8_text(number: float) -> str:
    """As float8out writes it."""
    exact = Decimal(repr(number))
    if not exact.is_finite():
        return {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}[str(number)]
    if number == 0:
        return f"{exact:.0f}"
    exact = exact.normalize()
    if -4 <= exact.adjusted() < 15:
        return f"{exact:f}"
    mantissa, exponent = f"{exact:e}".split("e")
    return f"{mantissa}e{int(exponent):+03d}"


@given(st.floats())
def test_floats_come_back(number: float) -> None:
    text = float8_text(number)
    try:
        fragment = encode(values.FLOAT8, text)
    except NotNaturalError:
        assert text == "-0"
    else:
        assert repr(float(json.loads(fragment))) == repr(number)
        assert back(fragment, values.FLOAT8) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_come_back_from_their_digits(number: float) -> None:
    """jsonb prints a number without an exponent."""
    if number:
        digits = f"{Decimal(repr(number)):f}"
        assert back(digits, values.FLOAT8) == float8_text(number)


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


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1.50", "1.5"),
        ("[1, 2]", "[1,2]"),
        ('{"a": 1, "b": "\\u00e9"}', '{"b":"é","a":1e0}'),
        ("1E-400", "10E-401"),
    ],
)
def test_json_that_says_the_same(one: str, other: str) -> None:
    assert values.same_json(one.encode(), other.encode())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("false", "0"),
        ("true", "1"),
        ("[true]", "[1.0]"),
        ("1E-400", "0"),
        ("0", "-0"),
        ("12345678901234567890", "12345678901234567891"),
        ("0.1000000000000000000001", "0.1"),
        ('"1"', "1"),
        ('{"a": 1, "a": 2}', '{"a": 2}'),
        ("[" * 100_000, "[" * 100_001),
        ("1E9999999999999999999999", "2E9999999999999999999999"),
    ],
)
def test_json_that_says_something_else(one: str, other: str) -> None:
    assert not values.same_json(one.encode(), other.encode())
