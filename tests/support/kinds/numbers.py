"""Numbers."""

import random
from typing import Final

from hypothesis import strategies as st

from tests.support.kinds.kind import LARGE, Kind, integers


def float_text(number: float) -> str:
    return {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}.get(repr(number), repr(number))


FLOATS: Final = st.floats().map(float_text)
FLOAT8S: Final = (
    "0",
    "-0",
    "NaN",
    "Infinity",
    "-Infinity",
    "5e-324",
    "-5e-324",
    "2.2250738585072009e-308",
    "2.2250738585072014e-308",
    "1.7976931348623157e308",
    "-1.7976931348623157e308",
    "0.1",
    "1e15",
    "999999999999999.9",
    "123456789012345680",
    "9007199254740993",
    "1e-4",
    "1e-5",
)
_FLOAT4S: Final = (
    "0",
    "-0",
    "NaN",
    "Infinity",
    "-Infinity",
    "1e-45",
    "-1e-45",
    "1.1754942e-38",
    "1.17549435e-38",
    "3.4028235e38",
    "-3.4028235e38",
    "0.1",
    "999999",
    "1000000",
    "16777217",
    "1e-4",
    "1e-5",
)
_NUMERICS: Final = (
    "0",
    "-0.00",
    "NaN",
    "Infinity",
    "-Infinity",
    "1.50",
    "0." + "0" * 400 + "10",
    "-" + "9" * 1000,
    "1" + "0" * 1000 + "." + "0" * 50,
    "9223372036854775808",
    "0.1",
)


def _large_number(rng: random.Random) -> str:
    size = rng.choice([LARGE * 2, LARGE * 2, LARGE * 3, 131_000 // 4])
    digits = str(rng.randrange(1, 10)) + "".join(rng.choices("0123456789", k=size))
    return rng.choice(["", "-"]) + digits + "." + "".join(rng.choices("0123456789", k=2000))


NUMBERS: Final = (
    Kind("boolean", "boolean", ("t", "f"), st.sampled_from(["true", "false"])),
    integers("smallint", -(1 << 15), (1 << 15) - 1),
    integers("integer", -(1 << 31), (1 << 31) - 1),
    integers("bigint", -(1 << 63), (1 << 63) - 1),
    Kind("real", "real", _FLOAT4S, st.floats(width=32).map(float_text)),
    Kind("double precision", "double precision", FLOAT8S, FLOATS),
    Kind(
        "numeric",
        "numeric",
        _NUMERICS,
        st.decimals(allow_nan=False, allow_infinity=False, places=12).map(lambda n: f"{n:f}")
        | st.integers(-(10**60), 10**60).map(str),
        _large_number,
    ),
    Kind(
        "numeric(30,10)",
        "numeric(30,10)",
        ("0", "NaN", "9" * 20 + "." + "9" * 10, "-0.0000000001", "1"),
        st.integers(-(10**29), 10**29).map(lambda n: f"{n}e-10"),
    ),
    Kind(
        "money",
        "money",
        ("0", "-92233720368547758.08", "92233720368547758.07", "-0.01", "1234567.89"),
        st.integers(-(10**15), 10**15).map(lambda cents: f"{cents / 100:.2f}"),
    ),
)
