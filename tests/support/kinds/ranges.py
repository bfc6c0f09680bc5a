"""Ranges and multiranges."""

from typing import Final

from tests.support.kinds.kind import multirange_of, range_of

_INTEGERS: Final = ("-2147483648", "-7", "0", "1", "2", "1000", "2147483646")
_ALL: Final = (
    range_of("int4range", "int4range", _INTEGERS),
    range_of(
        "int8range", "int8range", ("-9223372036854775808", *_INTEGERS[1:], "9223372036854775806")
    ),
    range_of(
        "numrange",
        "numrange",
        ("-Infinity", "-1.50", "0", "0.000", "10.10", "9" * 50, "Infinity", "NaN"),
    ),
    range_of(
        "daterange",
        "daterange",
        ("-infinity", "4713-01-01 BC", "0001-01-01", "2020-02-29", "5874897-12-30"),
    ),
    range_of(
        "tsrange",
        "tsrange",
        (
            "-infinity",
            "4713-01-01 00:00:00 BC",
            "2020-01-01 24:00:00",
            "294276-12-31 23:59:59.999999",
            "infinity",
        ),
    ),
    range_of(
        "tstzrange",
        "tstzrange",
        ("-infinity", "4713-01-01 00:00:00+00 BC", "2020-01-01 00:00:00-15:59", "infinity"),
    ),
    range_of(
        "textrange",
        "app.textrange",
        ("", " ", '"', "(a,b]", "NULL", "[", "\\", "empty", "x,y", "\u00e9", "\U0001f418"),
    ),
    range_of(
        "floatrange",
        "app.floatrange",
        ("-Infinity", "-5e-324", "-0", "5e-324", "1e300", "Infinity", "NaN"),
    ),
    range_of("moodrange", "app.moodrange", ("sad", "ok", '"q"')),
)
_MULTIRANGE_NAMES: Final = {
    "int4range": "int4multirange",
    "int8range": "int8multirange",
    "numrange": "nummultirange",
    "daterange": "datemultirange",
    "tsrange": "tsmultirange",
    "tstzrange": "tstzmultirange",
    "textrange": "app.textmultirange",
    "floatrange": "app.floatmultirange",
}

RANGES: Final = (
    *_ALL,
    *(
        multirange_of(
            kind, _MULTIRANGE_NAMES[kind.name].removeprefix("app."), _MULTIRANGE_NAMES[kind.name]
        )
        for kind in _ALL
        if kind.name in _MULTIRANGE_NAMES
    ),
)
