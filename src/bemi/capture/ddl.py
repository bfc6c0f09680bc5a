"""Turns the content of a `_bemi_ddl` message into what the history keeps of a schema change.

The source's event triggers write these messages, but anyone may emit under that prefix: what
can't be read is kept and flagged, and never stops the stream. What they say of a table's columns
is believed as a context is: whoever sends either may write to the database.
"""

import base64
import json
import re
from typing import Annotated, Any, Final

import msgspec

from bemi.capture.values import jsonb_takes
from bemi.change import Column, Ddl, Table

PREFIX: Final = "_bemi_ddl"
UNREADABLE: Final = "UNREADABLE"
"""The tag of a message that is none of the event triggers'."""

_MAX_SIZE: Final = 16 << 20
"""Of a whole message; 1,600 columns and 64 kB of statement are far below."""
_MAX_RAW: Final = 64 << 10
_MAX_OID: Final = (1 << 32) - 1
_Oid = Annotated[int, msgspec.Meta(ge=0, le=_MAX_OID)]
_BYTE: Final = re.compile("[\udc80-\udcff]")
"""Bytes that did not decode, as Python's surrogateescape has them."""
_NAMED: Final = ("tag", "object_type", "identity", "relation", "statement")


class DdlMessage(msgspec.Struct, frozen=True):
    """As in `bemi.change.Ddl`."""

    tag: str
    object_type: str | None
    identity: str | None
    relation: int | None
    statement: str | None
    detail: bytes
    tables: tuple[Table, ...] = ()
    parted: tuple[str, str] | None = None
    dropped: int | None = None


class _Column(msgspec.Struct, frozen=True):
    name: str
    number: Annotated[int, msgspec.Meta(ge=1, le=1600)]
    type: str
    base_type_oid: _Oid
    stamp: _Oid
    generated: str = ""
    filled: bool = False
    parts: dict[str, str] = {}
    modifier: Annotated[int, msgspec.Meta(ge=-1, lt=1 << 31)] = -1


class _Name(msgspec.Struct, frozen=True):
    schema: str
    name: str


class _Described(msgspec.Struct, frozen=True):
    schema: str
    name: str
    kind: str
    filenode: _Oid
    replica_identity: Annotated[str, msgspec.Meta(min_length=1, max_length=1)]
    key: list[str]
    columns: list[_Column]
    partition_of: _Name | None = None


class _Below(msgspec.Struct, frozen=True):
    oid: _Oid
    table: _Described


class _Told(msgspec.Struct, frozen=True):
    event: str = ""
    object_type: str | None = None
    oid: _Oid = 0
    relation: _Oid = 0
    table: _Described | None = None
    below: list[_Below] | None = None


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
    told = _Told() if undecodable else _told(value)
    if detail.pop("below", None) is not None:
        # It says again of each partition what is said of the table.
        encoded = json.dumps(detail, ensure_ascii=False, allow_nan=False).encode()
    return DdlMessage(
        tag=value["tag"],
        object_type=value.get("object_type"),
        identity=value.get("identity"),
        relation=value.get("relation"),
        statement=value.get("statement"),
        detail=encoded,
        tables=_tables(told),
        parted=_parted(told),
        dropped=told.oid if (told.event, told.object_type) == ("sql_drop", "table") else None,
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


def _told(value: dict[str, Any]) -> _Told:
    """What it says of tables; nothing where that is not wholly of the form that is expected."""
    try:
        return msgspec.convert(value, _Told)
    except msgspec.ValidationError:
        return _Told()


def _tables(told: _Told) -> tuple[Table, ...]:
    if told.event != "ddl_command_end" or told.table is None:
        return ()
    found = [(told.relation, told.table), *((each.oid, each.table) for each in told.below or ())]
    return tuple(_table(oid, each) for oid, each in found if each.kind == "r" and _whole(each))


def _whole(table: _Described) -> bool:
    return {*table.key} <= {column.name for column in table.columns}


def _table(oid: int, told: _Described) -> Table:
    names = [column.name for column in told.columns]
    above = told.partition_of or told
    return Table(
        oid=oid,
        schema=above.schema,
        name=above.name,
        columns=tuple(
            Column(
                column.name,
                column.base_type_oid,
                number=column.number,
                type=column.type,
                stamp=column.stamp,
                filled=column.filled,
                generated=column.generated,
                parts=column.parts,
                modifier=column.modifier,
            )
            for column in told.columns
        ),
        key=tuple(names.index(name) for name in told.key),
        identity=told.replica_identity,
        partition=f"{told.schema}.{told.name}" if told.partition_of is not None else None,
        filenode=told.filenode,
        told=True,
        attributes=max((column.number for column in told.columns), default=0),
    )


def _parted(told: _Told) -> tuple[str, str] | None:
    if told.event != "ddl_command_end" or told.table is None or told.below is None:
        return None
    above = told.table.partition_of or told.table
    return (above.schema, above.name) if told.table.kind == "p" else None


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
