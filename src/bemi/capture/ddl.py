"""Turns the content of a `_bemi_ddl` message into what the history keeps of a schema change.

The source's event triggers write these messages, but anyone may emit under that prefix: what
can't be read is kept and flagged, and never stops the stream.
"""

import base64
import json
import re
from typing import Any, Final

import msgspec

from bemi.capture.values import jsonb_takes
from bemi.change import Ddl

PREFIX: Final = "_bemi_ddl"
UNREADABLE: Final = "UNREADABLE"
"""The tag of a message that is none of the event triggers'."""

_MAX_SIZE: Final = 16 << 20
"""Of a whole message; 1,600 columns and 64 kB of statement are far below."""
_MAX_RAW: Final = 64 << 10
_MAX_OID: Final = (1 << 32) - 1
_BYTE: Final = re.compile("[\udc80-\udcff]")
"""Bytes that did not decode, as Python's surrogateescape has them."""
_NAMED: Final = ("tag", "object_type", "identity", "relation", "statement")


class DdlMessage(msgspec.Struct, frozen=True):
    """As in `bemi.change.Ddl`; `detail` is a JSON object in UTF-8 that jsonb accepts."""

    tag: str
    object_type: str | None
    identity: str | None
    relation: int | None
    statement: str | None
    detail: bytes


def read_ddl(content: bytes, encoding: str) -> DdlMessage:
    """Read a message's content, in the server's `encoding` (a Python codec's name).

    Never raises. What is not a message of the event triggers has the tag UNREADABLE, and
    `detail` has the reason (`too_large`, `undecodable`, `not_json`, `not_ddl`) and the bytes.
    Bytes of an SQL_ASCII source that are not text become `\\xNN`, with `undecodable` said.
    """
    if len(content) > _MAX_SIZE:
        return _unreadable("too_large", content)
    undecodable = False
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        text = _BYTE.sub(
            lambda byte: f"\\\\x{ord(byte[0]) - 0xDC00:02x}",
            content.decode(encoding, "surrogateescape"),
        )
        undecodable = True
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return _unreadable("undecodable" if undecodable else "not_json", content)
    if not isinstance(value, dict) or not _is_ddl(value):
        return _unreadable("not_ddl", content)
    detail = {name: found for name, found in value.items() if name not in _NAMED}
    if undecodable:
        detail["undecodable"] = True
    try:
        encoded = json.dumps(detail, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return _unreadable("not_ddl", content)
    if not jsonb_takes(encoded):
        return _unreadable("not_ddl", content)
    return DdlMessage(
        tag=value["tag"],
        object_type=value.get("object_type"),
        identity=value.get("identity"),
        relation=value.get("relation"),
        statement=value.get("statement"),
        detail=encoded,
    )


def without_statement(ddl: Ddl) -> Ddl:
    """The same without what may hold values that must not be stored: texts of statements."""
    if ddl.statement is None and ddl.tag != UNREADABLE:
        return ddl
    detail = json.loads(ddl.detail)
    detail.pop("raw", None)
    detail["statement_left_out"] = "the rules leave out or replace values"
    return msgspec.structs.replace(
        ddl, statement=None, detail=json.dumps(detail, ensure_ascii=False).encode()
    )


def _is_ddl(value: dict[str, Any]) -> bool:
    """Whether its members are of the types that the store has columns for."""
    if not isinstance(value.get("tag"), str) or not value["tag"]:
        return False
    for name in ("tag", "object_type", "identity", "statement"):
        text = value.get(name)
        if text is not None and not (isinstance(text, str) and _storable(text)):
            return False
    relation = value.get("relation")
    return relation is None or (
        isinstance(relation, int) and not isinstance(relation, bool) and 0 <= relation <= _MAX_OID
    )


def _storable(text: str) -> bool:
    """Whether PostgreSQL takes it as text: no NUL, no half of a surrogate pair."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def _unreadable(reason: str, content: bytes) -> DdlMessage:
    raw = base64.b64encode(content[:_MAX_RAW]).decode()
    detail = json.dumps({"unreadable": reason, "raw": raw, "bytes": len(content)}).encode()
    return DdlMessage(UNREADABLE, None, None, None, None, detail)
