"""Reads COPY's binary format, from PostgreSQL's documentation, for tests of what writes it.

https://www.postgresql.org/docs/current/sql-copy.html (Binary Format)
"""

import struct
from typing import Any, Final

HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER: Final = b"\xff\xff"


def fields(row: bytes) -> list[bytes | None]:
    """The fields of one row, which must end with the bytes."""
    (count,) = struct.unpack_from("!h", row)
    at = 2
    found: list[bytes | None] = []
    for _ in range(count):
        (size,) = struct.unpack_from("!i", row, at)
        at += 4
        if size == -1:
            found.append(None)
            continue
        assert size >= 0
        assert at + size <= len(row)
        found.append(row[at : at + size])
        at += size
    assert at == len(row)
    return found


def number(field: bytes | None) -> int:
    assert field is not None
    return int.from_bytes(field, "big", signed=True)


def text(field: bytes | None) -> str | None:
    return None if field is None else field.decode()


def jsonb(field: bytes | None) -> bytes | None:
    """The JSON text of a jsonb field, version 1."""
    if field is None:
        return None
    assert field[:1] == b"\x01"
    return field[1:]


def text_array(field: bytes | None) -> list[Any] | None:
    """A one-dimensional text[] without NULLs."""
    if field is None:
        return None
    dimensions, has_nulls, element, size, lower = struct.unpack_from("!iiIii", field)
    assert (dimensions, has_nulls, element, lower) == (1, 0, 25, 1)
    at = 20
    found = []
    for _ in range(size):
        (length,) = struct.unpack_from("!i", field, at)
        found.append(field[at + 4 : at + 4 + length].decode())
        at += 4 + length
    assert at == len(field)
    return found
