"""Geometry and addresses."""

import random
from typing import Final

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from tests.support.kinds.kind import LARGE, Kind
from tests.support.kinds.numbers import FLOAT8S, FLOATS, float_text

_COORDINATES: Final = st.sampled_from(FLOAT8S) | FLOATS


def _points(count: int) -> SearchStrategy[str]:
    point = st.builds("({},{})".format, _COORDINATES, _COORDINATES)
    return st.lists(point, min_size=count, max_size=count).map(",".join)


def _many_points(rng: random.Random) -> str:
    return ",".join(f"({rng.uniform(-1e9, 1e9)},{rng.random()})" for _ in range(LARGE // 10))


_ADDRESSES: Final = (
    "0.0.0.0/0",
    "255.255.255.255",
    "::",
    "::ffff:1.2.3.4",
    "2001:db8::/32",
    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
)

SHAPES: Final = (
    Kind("point", "point", ("(0,-0)", "(NaN,Infinity)", "(5e-324,-1e308)"), _points(1)),
    Kind(
        "line",
        "line",
        ("{1,-1,0}", "{0,1,-0}", "{1,5e-324,1e300}"),
        st.builds("{{1,{},{}}}".format, _COORDINATES, _COORDINATES),
    ),
    Kind("lseg", "lseg", ("[(0,0),(0,0)]",), _points(2).map("[{}]".format)),
    Kind("box", "box", ("(0,0),(0,0)", "(NaN,1),(2,-0)"), _points(2), delimiter=";"),
    Kind(
        "path",
        "path",
        ("[(0,0)]", "((0,0),(1,1))"),
        _points(3).map("[{}]".format) | _points(2).map("({})".format),
        lambda rng: f"[{_many_points(rng)}]",
    ),
    Kind(
        "polygon",
        "polygon",
        ("((0,0))", "((NaN,0),(1,-0))"),
        _points(3).map("({})".format),
        lambda rng: f"({_many_points(rng)})",
    ),
    Kind(
        "circle",
        "circle",
        ("<(0,0),0>", "<(-0,NaN),Infinity>"),
        st.builds("<({},{}),{}>".format, _COORDINATES, _COORDINATES, st.floats(0).map(float_text)),
    ),
    Kind("inet", "inet", (*_ADDRESSES, "1.2.3.4/8"), st.ip_addresses().map(str)),
    Kind("cidr", "cidr", ("0.0.0.0/0", "10.0.0.0/8", "::/0"), st.ip_addresses().map(str)),
    Kind(
        "macaddr",
        "macaddr",
        ("00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff"),
        st.binary(min_size=6, max_size=6).map(bytes.hex),
    ),
    Kind(
        "macaddr8",
        "macaddr8",
        ("00:00:00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff:ff:ff"),
        st.binary(min_size=8, max_size=8).map(bytes.hex),
    ),
)
