"""What PostgreSQL sends, byte by byte and without Bemi's decoder: peeked at with SQL, or read from
a replication connection whose positions the test acknowledges as it likes.

https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
"""

import select
import struct
import time
from types import TracebackType
from typing import Any, NamedTuple, Self

import psycopg
from psycopg import pq

from tests.support.waiting import until


class Frame(NamedTuple):
    """`kind` is the message's first letter: B begin, C commit, I insert, M message, …, and k for a
    keepalive, whose `lsn` is where the server's log ends."""

    kind: str
    lsn: int
    data: bytes
    reply_requested: bool = False

    @property
    def commit(self) -> tuple[int, int]:
        """The LSNs of the commit and of its end, of a C."""
        assert self.kind == "C"
        return struct.unpack(">QQ", self.data[2:18])

    @property
    def xid(self) -> int:
        """Of a B."""
        assert self.kind == "B"
        return int(struct.unpack(">I", self.data[17:21])[0])


def peek(
    conn: psycopg.Connection[Any],
    slot: str,
    *,
    publication: str = "bemi",
    version: int = 1,
    **options: str,
) -> list[Frame]:
    """All that the slot would send now; it stays where it is. Waits until it is free."""
    free(conn, slot)
    given = {
        "proto_version": str(version),
        "publication_names": f'"{publication}"',
        "messages": "true",
        **options,
    }
    flat = [part for pair in given.items() for part in pair]
    rows = conn.execute(
        "select lsn - '0/0', data from "
        "pg_logical_slot_peek_binary_changes(%s, null, null, variadic %s)",
        [slot, flat],
        binary=True,
    )
    return [Frame(chr(data[0]), int(lsn), bytes(data)) for lsn, data in rows]


def kinds(frames: list[Frame], *, of: str = "BIUDTMC") -> str:
    """The letters of the frames; RELATION, TYPE and ORIGIN are left out unless asked for."""
    return "".join(frame.kind for frame in frames if frame.kind in of)


def whole(frames: list[Frame]) -> list[Frame]:
    """Without empty transactions, which versions before 15 send, and without keepalives."""
    found: list[Frame] = []
    for frame in frames:
        if frame.kind == "C" and found and found[-1].kind == "B":
            found.pop()
        elif frame.kind != "k":
            found.append(frame)
    return found


class Replication:
    """A client of a slot that acknowledges only what it is told to."""

    def __init__(self, url: str, slot: str, *, publication: str = "bemi", start: int = 0) -> None:
        self._conn = psycopg.connect(
            url, autocommit=True, replication="database", application_name="a test"
        )
        self.pid = self._conn.info.backend_pid
        self._pgconn = self._conn.pgconn
        result = self._pgconn.exec_(
            f"START_REPLICATION SLOT {slot} LOGICAL {start >> 32:X}/{start & 0xFFFFFFFF:X} "
            f"(proto_version '1', publication_names '\"{publication}\"', messages 'true')".encode()
        )
        if result.status != pq.ExecStatus.COPY_BOTH:
            self._conn.close()
            raise psycopg.errors.error_from_result(result)
        self._pgconn.nonblocking = 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._conn.close()

    @property
    def socket(self) -> int:
        return self._pgconn.socket

    def next(self) -> Frame | None:
        """The next frame, or None when nothing has come. Raises psycopg's error at the end."""
        size, data = self._pgconn.get_copy_data(1)
        if size == 0 and select.select([self._pgconn.socket], [], [], 0)[0]:
            self._pgconn.consume_input()
            size, data = self._pgconn.get_copy_data(1)
        if size == 0:
            return None
        if size < 0:
            result = self._pgconn.get_result()
            assert result is not None
            raise psycopg.errors.error_from_result(result)
        content = bytes(data)
        if content[:1] == b"k":
            end, _, reply = struct.unpack(">QQB", content[1:18])
            return Frame("k", end, b"", bool(reply))
        (start,) = struct.unpack(">Q", content[1:9])
        return Frame(chr(content[25]), start, content[25:])

    def read(self, kind: str, count: int = 1, seconds: float = 60.0) -> list[Frame]:
        """All frames up to and with the `count`th of this kind."""
        found: list[Frame] = []

        def complete() -> bool:
            while (frame := self.next()) is not None:
                found.append(frame)
                if sum(each.kind == kind for each in found) == count:
                    return True
            return False

        until(complete, seconds, f"{count} frames {kind!r} arrive, not only {found}")
        return found

    def ended(self, seconds: float = 60.0) -> psycopg.Error:
        """Waits, reading but answering nothing, until the server ends it; its error."""
        errors: list[psycopg.Error] = []

        def over() -> bool:
            try:
                while self.next() is not None:
                    pass
            except psycopg.Error as error:
                errors.append(error)
            return bool(errors)

        until(over, seconds, "the server ends the stream")
        return errors[0]

    def acknowledge(self, position: int) -> None:
        """A standby status update: all before `position` is said to be safe here."""
        now = int((time.time() - 946_684_800) * 1_000_000)
        self._pgconn.put_copy_data(
            b"r" + struct.pack(">QQQQB", position, position, position, now, 0)
        )
        self._pgconn.flush()


def number(conn: psycopg.Connection[Any], expression: str) -> int:
    """A position of the source, such as `pg_current_wal_flush_lsn()`, as a number."""
    row = conn.execute(f"select ({expression}) - '0/0'::pg_lsn".encode()).fetchone()
    assert row is not None
    return int(row[0])


def confirmed(conn: psycopg.Connection[Any], slot: str) -> int:
    row = conn.execute(
        "select confirmed_flush_lsn - '0/0' from pg_replication_slots where slot_name = %s", [slot]
    ).fetchone()
    assert row is not None
    return int(row[0])


def active(conn: psycopg.Connection[Any], slot: str) -> int | None:
    """The process that holds the slot, if one does."""
    row = conn.execute(
        "select active_pid from pg_replication_slots where slot_name = %s", [slot]
    ).fetchone()
    assert row is not None
    pid: int | None = row[0]
    return pid


def free(conn: psycopg.Connection[Any], slot: str) -> None:
    """Waits until nobody holds the slot."""
    until(lambda: active(conn, slot) is None, 60, f"nobody holds the slot {slot}")
