"""Builds pgoutput messages byte by byte from PostgreSQL's documentation, without our decoder.

https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
"""

from collections.abc import Sequence
from typing import Final

UNCHANGED: Final = "unchanged"
Value = bytes | str | None


def byte(value: int) -> bytes:
    return value.to_bytes(1, "big")


def int16(value: int) -> bytes:
    return value.to_bytes(2, "big")


def int32(value: int) -> bytes:
    return (value & 0xFFFFFFFF).to_bytes(4, "big")


def int64(value: int) -> bytes:
    return value.to_bytes(8, "big", signed=True)


def string(value: str) -> bytes:
    return value.encode() + b"\0"


def row(values: Sequence[Value]) -> bytes:
    """TupleData: bytes are text values, None is NULL, UNCHANGED an unchanged TOAST value."""
    parts = [int16(len(values))]
    for value in values:
        if value is None:
            parts.append(b"n")
        elif isinstance(value, str):
            assert value == UNCHANGED
            parts.append(b"u")
        else:
            parts.append(b"t" + int32(len(value)) + value)
    return b"".join(parts)


def begin(final_lsn: int = 0x2000, committed_at: int = 7, xid: int = 700) -> bytes:
    return b"B" + int64(final_lsn) + int64(committed_at) + int32(xid)


def commit(commit_lsn: int = 0x2000, end_lsn: int = 0x2030, committed_at: int = 7) -> bytes:
    return b"C" + byte(0) + int64(commit_lsn) + int64(end_lsn) + int64(committed_at)


def origin(lsn: int, name: str) -> bytes:
    return b"O" + int64(lsn) + string(name)


def relation(
    oid: int,
    schema: str,
    name: str,
    columns: Sequence[tuple[str, int, bool]],
    identity: str = "d",
) -> bytes:
    """`columns`: name, type's OID, whether it belongs to the identity."""
    parts = [b"R", int32(oid), string(schema), string(name), identity.encode()]
    parts.append(int16(len(columns)))
    for column, type_oid, in_identity in columns:
        parts += [byte(in_identity), string(column), int32(type_oid), int32(-1)]
    return b"".join(parts)


def type_(oid: int, schema: str, name: str) -> bytes:
    return b"Y" + int32(oid) + string(schema) + string(name)


def insert(oid: int, new: Sequence[Value]) -> bytes:
    return b"I" + int32(oid) + b"N" + row(new)


def update(
    oid: int, new: Sequence[Value], old: Sequence[Value] | None = None, kind: str = "O"
) -> bytes:
    before = b"" if old is None else kind.encode() + row(old)
    return b"U" + int32(oid) + before + b"N" + row(new)


def delete(oid: int, old: Sequence[Value], kind: str = "K") -> bytes:
    return b"D" + int32(oid) + kind.encode() + row(old)


def truncate(*oids: int, options: int = 0) -> bytes:
    return b"T" + int32(len(oids)) + byte(options) + b"".join(map(int32, oids))


def message(
    content: bytes, prefix: str = "_bemi", *, transactional: bool = True, lsn: int = 0x1000
) -> bytes:
    flags = byte(transactional)
    return b"M" + flags + int64(lsn) + string(prefix) + int32(len(content)) + content
