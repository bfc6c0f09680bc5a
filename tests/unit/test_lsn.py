"""An LSN is a number that reads and prints as PostgreSQL's pg_lsn does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bemi.lsn import Lsn


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0/0", 0),
        ("0/16B3748", 0x16B3748),
        ("0/16b3748", 0x16B3748),
        ("1/0", 1 << 32),
        ("16/B374D848", 0x16_B374D848),
        ("FFFFFFFF/FFFFFFFF", (1 << 64) - 1),
    ],
)
def test_reads_both_halves(text: str, number: int) -> None:
    assert Lsn.parse(text) == number


@pytest.mark.parametrize(
    "text",
    ["", "/", "0", "0/", "/0", "0/0/0", " 0/0", "0/0\n", "0/123456789", "G/0", "-1/0", "٠/٠"],
)
def test_refuses_what_is_no_lsn(text: str) -> None:
    with pytest.raises(ValueError, match="not an LSN"):
        Lsn.parse(text)


@given(st.integers(0, (1 << 64) - 1))
def test_what_is_printed_reads_back(number: int) -> None:
    assert Lsn.parse(str(Lsn(number))) == number
    assert repr(Lsn(number)) == f"Lsn('{Lsn(number)}')"


@given(st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 64) - 1))
def test_is_ordered_as_the_log_is(one: int, other: int) -> None:
    assert (Lsn(one) < Lsn(other)) == (one < other)
    assert hash(Lsn(one)) == hash(one)
