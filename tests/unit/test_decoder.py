"""Each message kind as the documentation writes it; what is malformed is a ProtocolError."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bemi.capture import messages
from bemi.capture.decoder import decode
from bemi.change import UNCHANGED, Column
from bemi.errors import ProtocolError
from bemi.lsn import Lsn
from tests.support import pgoutput

KINDS = {
    "begin": (
        pgoutput.begin(0x16_B374D848, -5, 4_294_967_295),
        messages.Begin(Lsn(0x16_B374D848), -5, 4_294_967_295),
    ),
    "commit": (
        pgoutput.commit(0x10, 0x20, 3),
        messages.Commit(Lsn(0x10), Lsn(0x20), 3),
    ),
    "origin": (pgoutput.origin(0x99, "away"), messages.Origin(Lsn(0x99), "away")),
    "relation": (
        pgoutput.relation(16385, "app", 'Wéird "T" 🐘', [("id", 20, True), ("note", 25, False)]),
        messages.Relation(
            16385,
            "app",
            'Wéird "T" 🐘',
            "d",
            (Column("id", 20, True), Column("note", 25, False)),
        ),
    ),
    "relation of pg_catalog": (
        pgoutput.relation(3_000_000_000, "", "pg_class", [], identity="f"),
        messages.Relation(3_000_000_000, "pg_catalog", "pg_class", "f", ()),
    ),
    "type": (pgoutput.type_(17000, "app", "mood"), messages.Type(17000, "app", "mood")),
    "type of pg_catalog": (pgoutput.type_(25, "", "text"), messages.Type(25, "pg_catalog", "text")),
    "insert": (
        pgoutput.insert(1, [b"1", None, b"", pgoutput.UNCHANGED]),
        messages.Insert(1, (b"1", None, b"", UNCHANGED)),
    ),
    "insert without columns": (pgoutput.insert(1, []), messages.Insert(1, ())),
    "update": (pgoutput.update(1, [b"2"]), messages.Update(1, None, None, (b"2",))),
    "update of a key": (
        pgoutput.update(1, [b"2", b"x"], [b"1", None], "K"),
        messages.Update(1, "K", (b"1", None), (b"2", b"x")),
    ),
    "update with the old row": (
        pgoutput.update(1, [b"2", pgoutput.UNCHANGED], [b"1", b"long"], "O"),
        messages.Update(1, "O", (b"1", b"long"), (b"2", UNCHANGED)),
    ),
    "delete by key": (
        pgoutput.delete(1, [b"1", None], "K"),
        messages.Delete(1, "K", (b"1", None)),
    ),
    "delete with the old row": (
        pgoutput.delete(1, [b"1", b"x"], "O"),
        messages.Delete(1, "O", (b"1", b"x")),
    ),
    "truncate": (
        pgoutput.truncate(1, 4_294_967_295, options=3),
        messages.Truncate((1, 4_294_967_295), True, True),
    ),
    "truncate with cascade": (
        pgoutput.truncate(1, options=1),
        messages.Truncate((1,), True, False),
    ),
    "truncate with restart": (
        pgoutput.truncate(1, options=2),
        messages.Truncate((1,), False, True),
    ),
    "message": (
        pgoutput.message(b'\xff\0{"a": 1}', "_bemi", lsn=0x77),
        messages.LogicalMessage(True, Lsn(0x77), "_bemi", b'\xff\0{"a": 1}'),
    ),
    "message outside of transactions": (
        pgoutput.message(b"", "", transactional=False, lsn=0),
        messages.LogicalMessage(False, Lsn(0), "", b""),
    ),
}
everything = pytest.mark.parametrize(
    ("payload", "message"), [pytest.param(*case, id=name) for name, case in KINDS.items()]
)


@everything
def test_reads_every_kind(payload: bytes, message: messages.Message) -> None:
    assert decode(payload) == message


def test_reads_1600_columns() -> None:
    columns = [(f"c{number}", 25, number == 0) for number in range(1600)]
    decoded = decode(pgoutput.relation(1, "s", "t", columns))
    assert isinstance(decoded, messages.Relation)
    assert decoded.columns[-1] == Column("c1599", 25, False)
    row = [str(number).encode() for number in range(1600)]
    assert decode(pgoutput.insert(1, row)) == messages.Insert(1, tuple(row))


@everything
def test_a_message_cut_anywhere_is_refused(payload: bytes, message: messages.Message) -> None:
    for size in range(len(payload)):
        with pytest.raises(ProtocolError):
            decode(payload[:size])


@everything
def test_bytes_behind_a_message_are_refused(payload: bytes, message: messages.Message) -> None:
    with pytest.raises(ProtocolError):
        decode(payload + b"\0")


@settings(max_examples=400)
@given(st.sampled_from([payload for payload, _ in KINDS.values()]), st.data())
def test_flipped_bits_give_another_message_or_a_protocol_error(
    payload: bytes, data: st.DataObject
) -> None:
    flipped = bytearray(payload)
    for _ in range(data.draw(st.integers(1, 3))):
        bit = data.draw(st.integers(0, 8 * len(payload) - 1))
        flipped[bit // 8] ^= 1 << bit % 8
    with contextlib.suppress(ProtocolError):
        decode(bytes(flipped))


@settings(max_examples=400)
@given(st.sampled_from(b"BCORYIUDTM\x00A"), st.binary(max_size=60))
def test_any_bytes_give_a_message_or_a_protocol_error(kind: int, rest: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        decode(bytes([kind]) + rest)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (b"S", "Stream Start"),
        (b"E", "Stream Stop"),
        (b"c", "Stream Commit"),
        (b"A", "Stream Abort"),
        (b"b", "Begin Prepare"),
        (b"P", "Prepare"),
        (b"K", "Commit Prepared"),
        (b"r", "Rollback Prepared"),
        (b"p", "Stream Prepare"),
    ],
)
def test_a_later_protocols_kinds_are_refused_by_name(kind: bytes, name: str) -> None:
    with pytest.raises(ProtocolError, match=f"'{name}'.*version 1") as caught:
        decode(kind + bytes(40))
    assert caught.value.fix is not None
    assert "proto_version 1" in caught.value.fix


@pytest.mark.parametrize("payload", [b"", b"z", b"\0", b"\xff" * 30])
def test_an_unknown_kind_is_refused(payload: bytes) -> None:
    with pytest.raises(ProtocolError, match="unknown pgoutput message"):
        decode(payload)


@pytest.mark.parametrize(
    "payload",
    [
        b"I" + pgoutput.int32(1) + b"K" + pgoutput.row([b"1"]),
        b"U" + pgoutput.int32(1) + b"X" + pgoutput.row([b"1"]),
        b"U" + pgoutput.int32(1) + b"O" + pgoutput.row([b"1"]) + b"O" + pgoutput.row([b"1"]),
        b"D" + pgoutput.int32(1) + b"N" + pgoutput.row([b"1"]),
        b"I" + pgoutput.int32(1) + b"N" + pgoutput.int16(1) + b"b" + pgoutput.int32(1) + b"1",
        b"I" + pgoutput.int32(1) + b"N" + pgoutput.int16(1) + b"t" + pgoutput.int32(-1),
        b"T" + pgoutput.int32(-1) + b"\0" + pgoutput.int32(1),
    ],
    ids=[
        "an insert with an old row",
        "an update of unknown tuple kind",
        "an update without a new row",
        "a delete with a new row",
        "a binary value",
        "a value of 4 GB",
        "a truncate of 4 billion tables",
    ],
)
def test_fields_that_make_no_sense_are_refused(payload: bytes) -> None:
    with pytest.raises(ProtocolError, match="malformed"):
        decode(payload)


def test_names_that_are_not_utf8_are_shown_escaped() -> None:
    """A SQL_ASCII server may send them."""
    payload = pgoutput.type_(1, "s", "n").replace(b"n\0", b"caf\xe9\0")
    assert decode(payload) == messages.Type(1, "s", "caf\\xe9")


def test_an_error_shows_no_row_values() -> None:
    payload = pgoutput.insert(1, [b"secret", b"secret"])
    for size in range(len(payload)):
        with pytest.raises(ProtocolError) as caught:
            decode(payload[:size])
        assert "secret" not in str(caught.value)
