"""Turns the content of a `_bemi` message into the JSON object that the history keeps.

Anything may be emitted under that prefix by anyone: what can't be read is said, kept raw,
and never stops the stream.
"""

import json
from typing import Final

import msgspec

from bemi.capture.values import jsonb_takes

EMPTY: Final = b"{}"
MAX_SIZE: Final = 1 << 20


class Context(msgspec.Struct, frozen=True):
    """A JSON object in UTF-8; when it could not be read, `{}` with the reason and the bytes."""

    content: bytes
    dropped: str | None = None
    raw: bytes | None = None


NO_CONTEXT: Final = Context(EMPTY)


def read_context(content: bytes, encoding: str) -> Context:
    """Read a message's content, which is in the server's `encoding` (a Python codec's name).

    Reasons for a drop: `too_large` (over 1 MiB), `undecodable`, `not_json`, `not_object`,
    `not_jsonb` (JSON that jsonb refuses, such as a NUL character in a string).
    """
    if len(content) > MAX_SIZE:
        return Context(EMPTY, "too_large", content[:MAX_SIZE])
    if encoding != "utf-8":
        try:
            text = content.decode(encoding).encode()
        except UnicodeDecodeError:
            return Context(EMPTY, "undecodable", content)
    else:
        text = content
    try:
        value = _parse(text)
    except UnicodeDecodeError:
        return Context(EMPTY, "undecodable", content)
    except ValueError:
        return Context(EMPTY, "not_json", content)
    except RecursionError:
        return Context(EMPTY, "not_jsonb", content)
    if value is None:
        return NO_CONTEXT
    if not isinstance(value, dict):
        return Context(EMPTY, "not_object", content)
    if not jsonb_takes(text):
        return Context(EMPTY, "not_jsonb", content)
    return Context(text)


def _parse(text: bytes) -> object:
    """What kind of value JSON text is. Raises `ValueError` and `RecursionError`."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        # It refuses numbers beyond a float, and half a surrogate pair, which are JSON.
        return json.loads(
            text.decode(), parse_int=len, parse_float=len, parse_constant=_not_a_number
        )


def _not_a_number(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
