"""Turns a pgoutput payload (protocol version 1) into a message.

Knows bytes only: no relation cache, no transaction, no types. Whatever does not parse to
its last byte is a `ProtocolError`.
"""

import struct
from collections.abc import Callable
from typing import Final

from bemi.capture.messages import (
    Begin,
    Commit,
    Delete,
    Insert,
    LogicalMessage,
    Message,
    Origin,
    Relation,
    Truncate,
    Type,
    Update,
)
from bemi.change import UNCHANGED, Column, Row, Value
from bemi.errors import ProtocolError
from bemi.lsn import Lsn

_BEGIN: Final = struct.Struct("!xQqI")
_COMMIT: Final = struct.Struct("!xBQQq")
_ROW: Final = struct.Struct("!xIc")
_COLUMN: Final = struct.Struct("!Ii")
_U16: Final = struct.Struct("!H")
_U32: Final = struct.Struct("!I")
_U64: Final = struct.Struct("!Q")

_NEWER: Final = {
    b"S": "Stream Start",
    b"E": "Stream Stop",
    b"c": "Stream Commit",
    b"A": "Stream Abort",
    b"b": "Begin Prepare",
    b"P": "Prepare",
    b"K": "Commit Prepared",
    b"r": "Rollback Prepared",
    b"p": "Stream Prepare",
}


def decode(payload: bytes, encoding: str = "utf-8") -> Message:
    """Read one message; `encoding` is that of its names, as Python calls it.

    Raises `ProtocolError` if it is malformed or of a later protocol.
    """
    kind = payload[:1]
    read = _READERS.get(kind)
    try:
        if read is not None:
            message, end = read(payload)
        elif kind in _WITH_NAMES:
            message, end = _WITH_NAMES[kind](payload, encoding)
        else:
            raise _unknown(kind)
    except (struct.error, IndexError, ValueError) as error:
        raise ProtocolError(f"malformed pgoutput message of type {kind!r}: {error}") from error
    if end != len(payload):
        raise ProtocolError(
            f"malformed pgoutput message of type {kind!r}: "
            f"its fields end at byte {end}, the message at {len(payload)}"
        )
    return message


def _unknown(kind: bytes) -> ProtocolError:
    if kind in _NEWER:
        return ProtocolError(
            f"pgoutput sent {_NEWER[kind]!r}, which protocol version 1 does not have",
            fix="the replication connection must ask for proto_version 1",
        )
    return ProtocolError(f"unknown pgoutput message of type {kind!r}")


def _read_row(data: bytes, at: int) -> tuple[Row, int]:
    count = data[at] << 8 | data[at + 1]
    at += 2
    values: list[Value] = []
    append = values.append
    unpack = _U32.unpack_from
    for _ in range(count):
        kind = data[at]
        if kind == 0x74:  # t: text
            start = at + 5
            at = start + unpack(data, at + 1)[0]
            append(data[start:at])
        elif kind == 0x6E:  # n: NULL
            append(None)
            at += 1
        elif kind == 0x75:  # u: unchanged TOAST value
            append(UNCHANGED)
            at += 1
        else:
            raise ValueError(f"column of unknown kind {chr(kind)!r}")
    return tuple(values), at


def _insert(data: bytes) -> tuple[Message, int]:
    relation, kind = _ROW.unpack_from(data)
    if kind != b"N":
        raise ValueError(f"expected the new tuple, found {kind!r}")
    new, end = _read_row(data, 6)
    return Insert(relation, new), end


def _update(data: bytes) -> tuple[Message, int]:
    relation, kind = _ROW.unpack_from(data)
    if kind == b"N":
        new, end = _read_row(data, 6)
        return Update(relation, None, None, new), end
    if kind not in (b"K", b"O"):
        raise ValueError(f"expected a tuple, found {kind!r}")
    old, at = _read_row(data, 6)
    if data[at] != 0x4E:  # N
        raise ValueError("the new tuple is missing")
    new, end = _read_row(data, at + 1)
    return Update(relation, "K" if kind == b"K" else "O", old, new), end


def _delete(data: bytes) -> tuple[Message, int]:
    relation, kind = _ROW.unpack_from(data)
    if kind not in (b"K", b"O"):
        raise ValueError(f"expected the old tuple, found {kind!r}")
    old, end = _read_row(data, 6)
    return Delete(relation, "K" if kind == b"K" else "O", old), end


def _begin(data: bytes) -> tuple[Message, int]:
    final_lsn, committed_at, xid = _BEGIN.unpack_from(data)
    return Begin(Lsn(final_lsn), committed_at, xid), _BEGIN.size


def _commit(data: bytes) -> tuple[Message, int]:
    _flags, commit_lsn, end_lsn, committed_at = _COMMIT.unpack_from(data)
    return Commit(Lsn(commit_lsn), Lsn(end_lsn), committed_at), _COMMIT.size


def _origin(data: bytes, encoding: str) -> tuple[Message, int]:
    (lsn,) = _U64.unpack_from(data, 1)
    name, end = _read_string(data, 9, encoding)
    return Origin(Lsn(lsn), name), end


def _relation(data: bytes, encoding: str) -> tuple[Message, int]:
    (oid,) = _U32.unpack_from(data, 1)
    schema, at = _read_string(data, 5, encoding)
    name, at = _read_string(data, at, encoding)
    identity = chr(data[at])
    (count,) = _U16.unpack_from(data, at + 1)
    at += 3
    columns = []
    for _ in range(count):
        flags = data[at]
        column, at = _read_string(data, at + 1, encoding)
        type_oid, modifier = _COLUMN.unpack_from(data, at)
        at += _COLUMN.size
        columns.append(Column(column, type_oid, bool(flags & 1), modifier=modifier))
    # An empty schema name stands for pg_catalog.
    return Relation(oid, schema or "pg_catalog", name, identity, tuple(columns)), at


def _type(data: bytes, encoding: str) -> tuple[Message, int]:
    (oid,) = _U32.unpack_from(data, 1)
    schema, at = _read_string(data, 5, encoding)
    name, at = _read_string(data, at, encoding)
    return Type(oid, schema or "pg_catalog", name), at


def _truncate(data: bytes) -> tuple[Message, int]:
    (count,) = _U32.unpack_from(data, 1)
    end = 6 + 4 * count
    if end > len(data):
        raise ValueError(f"{count} relations announced, {(len(data) - 6) // 4} sent")
    options = data[5]
    relations = struct.unpack_from(f"!{count}I", data, 6)
    return Truncate(relations, bool(options & 1), bool(options & 2)), end


def _message(data: bytes, encoding: str) -> tuple[Message, int]:
    transactional = bool(data[1] & 1)
    (lsn,) = _U64.unpack_from(data, 2)
    prefix, at = _read_string(data, 10, encoding)
    (size,) = _U32.unpack_from(data, at)
    start = at + 4
    return LogicalMessage(transactional, Lsn(lsn), prefix, data[start : start + size]), start + size


def _read_string(data: bytes, at: int, encoding: str) -> tuple[str, int]:
    end = data.index(b"\0", at)
    return data[at:end].decode(encoding, "backslashreplace"), end + 1


_READERS: Final[dict[bytes, Callable[[bytes], tuple[Message, int]]]] = {
    b"I": _insert,
    b"U": _update,
    b"D": _delete,
    b"B": _begin,
    b"C": _commit,
    b"T": _truncate,
}
_WITH_NAMES: Final[dict[bytes, Callable[[bytes, str], tuple[Message, int]]]] = {
    b"R": _relation,
    b"Y": _type,
    b"M": _message,
    b"O": _origin,
}
