"""The frames of streaming replication, byte by byte as the documentation has them."""

import contextlib
import datetime as dt
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bemi.capture.protocol import Keepalive, XLogData, postgres_time, read_frame, write_status
from bemi.errors import ProtocolError
from bemi.lsn import Lsn

DATA = b"w" + struct.pack("!QQq", 0x16_B374D848, 0x16_B374D900, 5)
KEEPALIVE = b"k" + struct.pack("!QqB", 0x16_B374D848, 5, 1)


def test_reads_a_piece_of_the_log() -> None:
    assert read_frame(DATA + b"payload") == XLogData(0x16_B374D848, b"payload")
    assert read_frame(DATA) == XLogData(0x16_B374D848, b"")


def test_reads_what_libpq_gives_and_keeps_no_hold_of_it() -> None:
    frame = read_frame(memoryview(DATA + b"payload"))
    assert isinstance(frame, XLogData)
    assert type(frame.payload) is bytes
    assert frame.payload == b"payload"
    assert read_frame(memoryview(KEEPALIVE)) == read_frame(KEEPALIVE)


def test_reads_a_keepalive() -> None:
    assert read_frame(KEEPALIVE) == Keepalive(Lsn(0x16_B374D848), True)
    assert read_frame(KEEPALIVE[:-1] + b"\0") == Keepalive(Lsn(0x16_B374D848), False)


@pytest.mark.parametrize("frame", [DATA, KEEPALIVE], ids=["data", "keepalive"])
def test_a_frame_cut_anywhere_is_refused(frame: bytes) -> None:
    for size in range(len(frame)):
        with pytest.raises(ProtocolError):
            read_frame(frame[:size])


def test_a_keepalive_with_bytes_behind_it_is_refused() -> None:
    with pytest.raises(ProtocolError):
        read_frame(KEEPALIVE + b"\0")


@pytest.mark.parametrize("frame", [b"", b"x" + bytes(30), b"r" + bytes(33)])
def test_other_frames_are_refused(frame: bytes) -> None:
    with pytest.raises(ProtocolError):
        read_frame(frame)


@given(st.binary(max_size=40))
def test_any_bytes_give_a_frame_or_a_protocol_error(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        read_frame(data)


@pytest.mark.parametrize("reply", [False, True])
def test_a_status_says_one_position_thrice(reply: bool) -> None:
    """Written, flushed, applied: for us they are the same, durable in the destination."""
    status = write_status(Lsn(0x16_B374D848), -7, reply_requested=reply)
    assert len(status) == 34
    assert status[:1] == b"r"
    assert struct.unpack("!QQQqB", status[1:]) == (*[0x16_B374D848] * 3, -7, reply)


def test_postgres_counts_from_2000() -> None:
    assert postgres_time(dt.datetime(2000, 1, 1, tzinfo=dt.UTC).timestamp()) == 0
    assert postgres_time(dt.datetime(2000, 1, 2, tzinfo=dt.UTC).timestamp()) == 86_400_000_000
    assert postgres_time(dt.datetime(1999, 12, 31, tzinfo=dt.UTC).timestamp()) == -86_400_000_000
