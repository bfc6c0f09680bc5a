"""Turns the values of stored images back into PostgreSQL's text of them. Pure.

The text is what the type reads again, not always what it writes: numbers in exponents differ.
"""

import json
import re
from collections.abc import Collection, Mapping
from typing import Final

import msgspec

from bemi.history.lives import Lost, Value

_JSON_TYPES: Final = frozenset({114, 3802})
_QUOTED: Final = re.compile(r'[{}",\\\s\x0b]|^$|^null$', re.IGNORECASE)
_REPLACED: Final = {
    "masked": "it is masked in the history",
    "hashed": "it is hashed in the history",
    "undecodable": "it is no text in the database's encoding",
}
_LEFT_OUT: Final = {
    "too_large": "it was too large for the history",
    "before_unknown": "the history does not know the value before",
}

_decode: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_text: Final = msgspec.json.Decoder(str).decode


def values(image: str, flags: Collection[str], type_oids: Mapping[str, int]) -> dict[str, Value]:
    """The columns of an image; `type_oids`: of the base types of its columns then."""
    found: dict[str, Value] = {}
    special = {flag for flag in flags if ":" in flag} if flags else frozenset[str]()
    for name, raw in _decode(image).items():
        found[name] = _text(bytes(raw), type_oids.get(name, 0) in _JSON_TYPES, name, special)
    for flag in special:
        word, _, name = flag.partition(":")
        if word in _REPLACED and name in found:
            shown = found[name]
            instead = shown if isinstance(shown, str) else None
            found[name] = Lost(_REPLACED[word], instead, tells=word != "masked")
    return found


def names(image: str) -> list[str]:
    """The columns that an image has."""
    return [*_decode(image)]


def left_out(flags: Collection[str], *words: str) -> dict[str, Value]:
    """The columns that an image lacks because nothing is known of them."""
    return {
        name: Lost(_LEFT_OUT[word])
        for word, _, name in (flag.partition(":") for flag in flags)
        if name and word in words
    }


def _text(raw: bytes, is_json: bool, name: str, special: Collection[str]) -> str | None:
    if raw == b"null":
        return "null" if special and f"json_null:{name}" in special else None
    if is_json:
        if special and f"text:{name}" in special:
            return _decode_text(raw)
        return raw.decode()
    first = raw[0]
    if first == 0x22:
        return _decode_text(raw)
    if first == 0x5B:
        return _array(json.loads(raw, parse_int=str, parse_float=str))
    return {b"true": "t", b"false": "f"}.get(raw) or raw.decode()


def _array(items: list[object]) -> str:
    return "{" + ",".join(_element(item) for item in items) + "}"


def _element(item: object) -> str:
    if item is None:
        return "NULL"
    if isinstance(item, list):
        return _array(item)
    if isinstance(item, bool):
        return "t" if item else "f"
    text = str(item)
    if _QUOTED.search(text):
        text = text.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{text}"'
    return text
