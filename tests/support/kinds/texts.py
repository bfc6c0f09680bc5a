"""Text, bytes and bits."""

import random
from typing import Final

from hypothesis import strategies as st

from tests.support.kinds.kind import LARGE, Kind, noise

TEXTS: Final = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20
)
ODD_TEXTS: Final = (
    "",
    " ",
    "NULL",
    "null",
    "{}",
    "()",
    '"',
    "\\",
    "'",
    "\\N",
    "\\x",
    "a,b",
    "trailing  ",
    "true",
    "-0",
    "caf\u00e9 \U0001f418",
    "\u2028\ufffe\uffff\ufeff",
    "".join(map(chr, range(1, 32))) + "\x7f\x80\x9f",
    "e\u0301 \u202e",
    "\\u0000",
)


def large_text(rng: random.Random) -> str:
    odd = rng.choice(ODD_TEXTS)
    if rng.random() < 0.1:
        return odd + "compressible " * 800
    return odd + noise(rng, rng.choice([LARGE // 2, LARGE, LARGE, LARGE * 4])) + odd


def _texts(name: str, sql: str = "", size: int = 0) -> Kind:
    if not size:
        return Kind(name, sql or name, ODD_TEXTS, TEXTS, large_text)
    limits = {text[:size] for text in ODD_TEXTS} | {"\U0001f418" * size, "x" * size}
    return Kind(name, sql, tuple(sorted(limits)), TEXTS.map(lambda text: text[:size]))


def _clipped(text: str) -> str:
    """To the 63 bytes of a name."""
    return text.encode()[:63].decode(errors="ignore")


def _bits(name: str, size: int) -> Kind:
    return Kind(
        name,
        name,
        ("0" * size, "1" * size),
        st.integers(0, (1 << size) - 1).map(lambda bits: f"{bits:0{size}b}"),
    )


BYTES: Final = (
    Kind(
        "bytea",
        "bytea",
        ("\\x", "\\x00", "\\x" + bytes(range(256)).hex(), "\\x5c27"),
        st.binary(max_size=20).map(lambda data: "\\x" + data.hex()),
        lambda rng: "\\x" + rng.randbytes(rng.choice([LARGE // 3, LARGE, LARGE * 2])).hex(),
    ),
    _bits("bit(1)", 1),
    _bits("bit(13)", 13),
    Kind(
        "bit varying",
        "bit varying",
        ("", "0", "1" * 64, "0" * 9),
        st.integers(0, 1 << 70).map("{:b}".format),
        lambda rng: f"{rng.getrandbits(LARGE * 8):b}",
    ),
)


TEXT_KINDS: Final = (
    _texts("text"),
    _texts("varchar", "character varying"),
    _texts("varchar(10)", "character varying(10)", 10),
    _texts("char(5)", "character(5)", 5),
    _texts("bpchar"),
    _texts("citext"),
    _texts("refcursor"),
    Kind(
        "char", '"char"', ("", "a", " ", '"', "\\", "'", ",", "{", "\x7f"), st.sampled_from("bcd\n")
    ),
    Kind("char beyond ASCII", '"char"', ("\\377", "\\200"), st.sampled_from(["\\303"]), since=15),
    Kind(
        "name",
        "name",
        tuple(dict.fromkeys(map(_clipped, (*ODD_TEXTS, "x" * 63, "\u00e9" * 31)))),
        TEXTS.map(_clipped),
    ),
)
