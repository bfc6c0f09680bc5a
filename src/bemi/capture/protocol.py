"""The frames of streaming replication: what the walsender sends, and the client's answer.

https://www.postgresql.org/docs/current/protocol-replication.html
Times are microseconds since 2000-01-01 UTC, as on the wire.
"""

import struct
from typing import Final, TypeAlias

import msgspec

from bemi.errors import ProtocolError
from bemi.lsn import Lsn

_DATA: Final = struct.Struct("!xQQq")
_KEEPALIVE: Final = struct.Struct("!xQqB")
_STATUS: Final = struct.Struct("!cQQQqB")
_UNIX_TO_POSTGRES: Final = 946_684_800_000_000


class XLogData(msgspec.Struct, frozen=True, gc=False):
    """A piece of the log: one message of the output plugin. `lsn` is its WAL record's."""

    lsn: int
    payload: bytes


class Keepalive(msgspec.Struct, frozen=True, gc=False):
    """Everything before `end` has been sent. `reply_requested`: answer or be cut off."""

    end: Lsn
    reply_requested: bool


Frame: TypeAlias = XLogData | Keepalive


def read_frame(data: bytes | memoryview) -> Frame:
    """Raises `ProtocolError` for anything but XLogData and a keepalive."""
    try:
        if data[0] == 0x77:  # w
            lsn, _end, _sent_at = _DATA.unpack_from(data)
            return XLogData(lsn, bytes(data[25:]))
        if data[0] == 0x6B:  # k
            end, _sent_at, reply = _KEEPALIVE.unpack(data)
            return Keepalive(Lsn(end), bool(reply))
    except (struct.error, IndexError) as error:
        raise ProtocolError(f"malformed replication frame: {error}") from error
    raise ProtocolError(f"unknown replication frame of type {bytes(data[:1])!r}")


def write_status(flushed: Lsn, now: int, *, reply_requested: bool = False) -> bytes:
    """The standby status update: everything before `flushed` is durable here."""
    return _STATUS.pack(b"r", flushed, flushed, flushed, now, reply_requested)


def postgres_time(unix_seconds: float) -> int:
    """Microseconds since 2000-01-01 UTC, PostgreSQL's own epoch."""
    return round(unix_seconds * 1_000_000) - _UNIX_TO_POSTGRES
