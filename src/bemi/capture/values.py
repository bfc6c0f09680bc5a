"""Turns PostgreSQL's text form of a value into a JSON fragment that jsonb accepts, and back.

Numbers, booleans, arrays and JSON become what they are in JSON, exactly; everything else is
a JSON string of the text. A value that would not come back from its natural form raises
`NotNaturalError`; its text form, a JSON string, always does.
"""

import json
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Final, TypeAlias

import msgspec

Fragment: TypeAlias = bytes
Natural: TypeAlias = Callable[[bytes], Fragment]

BOOL: Final = 16
INT8: Final = 20
INT2: Final = 21
INT4: Final = 23
OID: Final = 26
JSON: Final = 114
JSONB: Final = 3802
FLOAT4: Final = 700
FLOAT8: Final = 701
NUMERIC: Final = 1700

# jsonb refuses a string, and a whole object, of 256 MB and more.
# https://www.postgresql.org/docs/current/datatype-json.html
MAX_JSONB: Final = (1 << 28) - 1

# In jsonb a small number takes some twelve bytes: a long array of them would not fit, though
# its text does. Text that large is kept as text.
_MAX_NATURAL: Final = 1 << 24

# numeric holds 131072 digits before the point and 16383 behind it; a JSON number written
# with a longer exponent or more digits than this is rare enough to be kept as text.
_MAX_DIGITS: Final = 10_000
_LONG_NUMBER: Final = re.compile(rb"\d{%d}|[eE][+-]?0*\d{4}" % _MAX_DIGITS)

# The depth at which PostgreSQL's own parser runs out of stack is some thousands.
_MAX_DEPTH: Final = 500

# From this power of ten on, a float's text has an exponent.
_FIXED_POINT: Final = {FLOAT4: 6, FLOAT8: 15}
_INTEGERS: Final = frozenset({INT2, INT4, INT8, OID})

# What array_out puts between quotes: nothing at all, NULL, and what would end an element.
_TO_BE_QUOTED: Final = re.compile(r'\A(?:[nN][uU][lL][lL])?\Z|["\\{},\t\n\v\f\r ]')

_encode_json = msgspec.json.encode
_decode_text = msgspec.json.Decoder(str | None).decode


class NotNaturalError(Exception):
    """The value has no natural form that would come back: use its text form."""


def quote(value: bytes) -> Fragment:
    """A JSON string. Raises `NotNaturalError` for text that is not UTF-8.

    Only a server that does not check its text (SQL_ASCII), or a damaged one, has such text.
    """
    try:
        return _encode_json(value.decode())
    except UnicodeDecodeError as error:
        raise NotNaturalError from error


def _check(value: bytes) -> None:
    try:
        value.decode()
    except UnicodeDecodeError as error:
        raise NotNaturalError from error


def boolean(value: bytes) -> Fragment:
    return b"true" if value == b"t" else b"false"


def integer(value: bytes) -> Fragment:
    return value


def number(value: bytes) -> Fragment:
    """A float or numeric. NaN and the infinities are strings; -0 would lose its sign."""
    if value[-1] > 0x39:  # the y of Infinity, the N of NaN
        return b'"' + value + b'"'
    if value == b"-0":
        raise NotNaturalError
    return value


def jsonb(value: bytes) -> Fragment:
    if value == b"null":  # can't be told from SQL's NULL
        raise NotNaturalError
    if len(value) > _MAX_DEPTH and (len(value) > _MAX_NATURAL or _too_deep(value)):
        raise NotNaturalError
    if not value.isascii():
        _check(value)
    return value


def json_text(value: bytes) -> Fragment:
    """A `json` value, which is any text that parses: jsonb takes less, and keeps less."""
    if value.strip() == b"null" or len(value) > _MAX_NATURAL or not jsonb_takes(value):
        raise NotNaturalError
    if b"-0" in value and _JSON_MINUS_ZERO.search(value):  # in a string as well: it is rare
        raise NotNaturalError
    try:
        json.loads(value, object_pairs_hook=_no_duplicates, parse_int=len, parse_float=len)
    except (ValueError, RecursionError) as error:
        raise NotNaturalError from error
    return value


def same_json(one: bytes, other: bytes) -> bool:
    """Whether two `json` texts say the same: jsonb keeps no spelling, but all digits of a number.

    False where that is too deep to be seen, or a number too large.
    """
    if one == other:
        return True
    try:
        return bool(_read_json(one) == _read_json(other))
    except (ValueError, ArithmeticError, RecursionError):
        return False


def _read_json(text: bytes) -> object:
    return json.loads(
        text, parse_int=_number, parse_float=_number, object_pairs_hook=_object_or_pairs
    )


def _object_or_pairs(pairs: list[tuple[str, object]]) -> object:
    found = dict(pairs)
    return found if len(found) == len(pairs) else pairs


def _number(digits: str) -> tuple[bool, Decimal]:
    """Unlike any other JSON value: to Python, 0 is false, and numbers have few digits."""
    number = Decimal(digits)
    return number.is_signed(), number


def jsonb_takes(text: bytes) -> bool:
    """Whether jsonb takes this valid JSON: no NUL or lone surrogate, no monstrous number.

    May say no to JSON that it would take, never yes to what it would not.
    """
    if b"\\u" in text and any(match[1] for match in _JSON_ESCAPE.finditer(text)):
        return False
    if _too_deep(text):
        return False
    return _LONG_NUMBER.search(text) is None or not _has_long_number(text)


def array(element: Natural) -> Natural:
    """The natural form of an array whose elements' is `element`."""

    def encode(value: bytes) -> Fragment:
        if value[:1] == b"[":  # bounds other than 1 are lost in JSON
            raise NotNaturalError
        if len(value) > _MAX_NATURAL:
            raise NotNaturalError
        if element in (integer, number):
            plain = value.replace(b"NULL", b"null")
            if b"N" not in plain and b"y" not in plain:  # NaN, Infinity
                if _MINUS_ZERO.search(plain):
                    raise NotNaturalError
                return plain.translate(_BRACKETS)
        parts: list[bytes] = []
        append = parts.append
        for match in _ARRAY_TOKEN.finditer(value):
            token = match[0]
            first = token[0]
            if first == 0x7B:
                append(b"[")
            elif first == 0x7D:
                append(b"]")
            elif first == 0x2C:
                append(b",")
            elif first == 0x22:
                inner = token[1:-1]
                append(element(_ARRAY_ESCAPE.sub(rb"\1", inner) if b"\\" in inner else inner))
            elif token == b"NULL":
                append(b"null")
            else:
                append(element(token))
        return b"".join(parts)

    return encode


def natural_form(type_oid: int, array_elements: Mapping[int, int]) -> Natural:
    """The encoder for a type; `array_elements` gives the element's type of array types."""
    element = array_elements.get(type_oid)
    if element is not None:
        # An element of JSON can't be told from one that is a string: the array stays text.
        return _never if element in (JSON, JSONB) else array(natural_form(element, {}))
    return _NATURAL.get(type_oid, quote)


def text_form(fragment: Fragment, type_oid: int, array_elements: Mapping[int, int]) -> bytes | None:
    """PostgreSQL's text of a value that is stored in its natural form; `None` for `null`.

    The fragment is as `natural_form` made it or as jsonb prints it; the text is what the
    type's output function writes, byte by byte. Of `json` it is what jsonb made of it: white
    space, the order of keys and the spelling of numbers and escapes are not kept.
    """
    if fragment == b"null":
        return None
    if type_oid in (JSON, JSONB):
        return fragment
    first = fragment[0]
    if first == 0x22:
        return text_of_text_form(fragment)
    if first == 0x5B:
        return _array_text(fragment, array_elements.get(type_oid, type_oid))
    if first in b"tf":
        return fragment[:1]
    if type_oid in _FIXED_POINT:
        return _float_text(fragment.decode(), _FIXED_POINT[type_oid]).encode()
    return fragment


def text_of_text_form(fragment: Fragment) -> bytes | None:
    """PostgreSQL's text of a value that is stored as a JSON string of it; `None` for `null`."""
    text = _decode_text(fragment)
    return None if text is None else text.encode()


def _array_text(fragment: Fragment, element_oid: int) -> bytes:
    """As array_out writes it. The numbers of an array of floats may need another spelling."""
    if element_oid in _INTEGERS:
        return fragment.replace(b"null", b"NULL").translate(_BRACES, b" ")
    limit = _FIXED_POINT.get(element_oid)
    # Numbers stay as they are spelled: a Python number could not hold all of them.
    items = json.loads(fragment, parse_int=str, parse_float=str)

    def literal(items: list[object]) -> str:
        return "{" + ",".join([each(item) for item in items]) + "}"

    def each(item: object) -> str:
        if item is None:
            return "NULL"
        if isinstance(item, list):
            return literal(item)
        if isinstance(item, bool):
            return "t" if item else "f"
        text = str(item)
        if limit is not None and text[-1] <= "9":  # not NaN, not Infinity
            return _float_text(text, limit)
        if _TO_BE_QUOTED.search(text):
            return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
        return text

    return literal(items).encode()


def _float_text(number: str, limit: int) -> str:
    """The digits as float8out and float4out place them: with an exponent from `limit` on.

    https://github.com/postgres/postgres/blob/master/src/common/d2s.c (to_chars)
    """
    sign, unsigned = ("-", number[1:]) if number[0] == "-" else ("", number)
    mantissa, _, written = unsigned.partition("e")
    whole, _, fraction = mantissa.partition(".")
    padded = whole + fraction
    digits = padded.lstrip("0")
    exponent = len(whole) - 1 - (len(padded) - len(digits)) + int(written or 0)
    digits = digits.rstrip("0")
    if not digits:
        return "0"
    if not -4 <= exponent < limit:
        point = "." if len(digits) > 1 else ""
        return f"{sign}{digits[0]}{point}{digits[1:]}e{exponent:+03d}"
    if exponent < 0:
        return f"{sign}0.{'0' * (-exponent - 1)}{digits}"
    if len(digits) <= exponent + 1:
        return f"{sign}{digits:0<{exponent + 1}}"
    return f"{sign}{digits[: exponent + 1]}.{digits[exponent + 1 :]}"


def _never(_value: bytes) -> Fragment:
    raise NotNaturalError


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate keys")
    return found


def _has_long_number(text: bytes) -> bool:
    return _LONG_NUMBER.search(_JSON_STRING.sub(b"", text)) is not None


def _too_deep(text: bytes) -> bool:
    if text.count(b"[") + text.count(b"{") <= _MAX_DEPTH:
        return False
    # Each round takes the innermost pairs away: without a loop over millions of them.
    left = _JSON_STRING.sub(b"", text).translate(_BRACKETS, _NO_BRACKETS)
    for _ in range(_MAX_DEPTH):
        left = left.replace(b"[]", b"")
    return bool(left)


_JSON_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
# Group 1 is what jsonb refuses: a NUL, or half a surrogate pair.
_JSON_ESCAPE: Final = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|u(0000|[dD][89a-fA-F][0-9a-fA-F]{2})|.)"
)
_ARRAY_TOKEN: Final = re.compile(rb'[{},]|"(?:[^"\\]|\\.)*"|[^{},"]+', re.DOTALL)
_BRACKETS: Final = bytes.maketrans(b"{}", b"[]")
_BRACES: Final = bytes.maketrans(b"[]", b"{}")
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_MINUS_ZERO: Final = re.compile(rb"-0[,}]")
_JSON_MINUS_ZERO: Final = re.compile(rb"-0(?:\.0*)?(?:[eE][+-]?\d+)?(?![.\deE])")
_ARRAY_ESCAPE: Final = re.compile(rb"\\(.)", re.DOTALL)

_NATURAL: Final[dict[int, Natural]] = {
    BOOL: boolean,
    INT8: integer,
    INT2: integer,
    INT4: integer,
    OID: integer,
    FLOAT4: number,
    FLOAT8: number,
    NUMERIC: number,
    JSON: json_text,
    JSONB: jsonb,
}
