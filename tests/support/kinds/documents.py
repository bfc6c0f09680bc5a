"""JSON, xml, hstore and text search."""

import json
import random
from typing import Final

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from tests.support.kinds.kind import LARGE, Kind, noise
from tests.support.kinds.texts import TEXTS

_JSON_VALUES: Final = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | TEXTS
    | st.floats(allow_nan=False, width=32).filter(lambda number: abs(number) != float("inf")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
_JSON_LIMITS: Final = (
    "null",
    "{}",
    "[]",
    '""',
    '"null"',
    "true",
    "0",
    '{"a": null}',
    "1.50",
    "1e400",
    "1E-400",
    "-12345678901234567890.123456789012345678901234567890",
    '"\\ud83d\\udc18 caf\\u00e9 \\u0001 \\\\u0000"',
    '{"": [[], {}, [null], ""], "a": {"b": [1, 2, {"c": null}]}}',
    "[" * 100 + "]" * 100,
    "[" * 600 + "]" * 600,
    '"{1,2}"',
    "[1, null, [2]]",
)
_ONLY_JSON_LIMITS: Final = (
    " null ",
    "\n[ 1 ,\t2 ]\r\n",
    '{"a": 1, "a": 2}',
    '{"b": {"a": 1, "a": 2}, "a": 1}',
    '"\\u0000"',
    '{"\\u0000": "\\ud800"}',
    "-0",
    "[-0.0, -0e5]",
    "1" * 20_000,
    "1e100000",
    '"\\/"',
)


def _large_json(rng: random.Random) -> str:
    value: object = {"a": noise(rng, LARGE), "b": list(range(rng.randrange(50)))}
    if rng.random() < 0.3:
        value = [noise(rng, 30) for _ in range(LARGE // 30)]
    return json.dumps(value)


def _json_texts() -> SearchStrategy[str]:
    return st.builds(
        lambda value, ascii_only: json.dumps(value, ensure_ascii=ascii_only),
        _JSON_VALUES,
        st.booleans(),
    )


_LEXEME: Final = TEXTS.filter(bool).map(
    lambda text: "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
)


def _large_vector(rng: random.Random) -> str:
    return " ".join(f"'{noise(rng, 20)}':{rng.randint(1, 16383)}A" for _ in range(LARGE // 20))


def _pair(text: str | None) -> str:
    if text is None:
        return "NULL"
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


DOCUMENTS: Final = (
    Kind("json", "json", (*_JSON_LIMITS, *_ONLY_JSON_LIMITS), _json_texts(), _large_json),
    Kind("jsonb", "jsonb", _JSON_LIMITS, _json_texts(), _large_json),
    Kind(
        "jsonpath",
        "jsonpath",
        ("$", 'strict $."x y"[*] ? (@ > 1 && @.a == "\\"")', "lax $.**{2 to last}", "$.a[0 to 2]"),
        st.lists(st.sampled_from(["a", '"b c"', '"\\u00e9"', "*"]), min_size=1, max_size=4).map(
            lambda keys: "$." + ".".join(keys)
        ),
    ),
    Kind(
        "hstore",
        "hstore",
        ("", '"a"=>NULL', '"a"=>"NULL"', '""=>""', '"\\""=>"\\\\", "b,"=>"=>"'),
        st.dictionaries(TEXTS, st.none() | TEXTS, max_size=4).map(
            lambda pairs: ",".join(f"{_pair(key)}=>{_pair(value)}" for key, value in pairs.items())
        ),
        lambda rng: ",".join(f"k{n}=>{_pair(noise(rng, 60))}" for n in range(LARGE // 60)),
    ),
    Kind(
        "tsvector",
        "tsvector",
        ("", "'a':1A,2B,16383 'b c'", "'''':1 '\\\\':2D", "'caf\u00e9'"),
        st.lists(_LEXEME, max_size=4).map(" ".join),
        _large_vector,
    ),
    Kind(
        "tsquery",
        "tsquery",
        ("", "'a' & !'b':*A | ('c' <-> 'd')", "!!'a' <7> 'b':BD", "'''' | '\\\\'"),
        st.lists(_LEXEME, min_size=1, max_size=4).map(" & ".join),
    ),
)

XML: Final = Kind(
    "xml",
    "xml",
    (
        "",
        "text",
        "<a/>",
        " <a>&lt;\u00e9</a> ",
        "<a/><b/>",
        "<!-- c --><a b='\"'/>",
        '<?xml version="1.0" standalone="yes"?><a/>',
        '<?xml version="1.0" encoding="UTF-8"?><a/>',
        "<!DOCTYPE a><a/>",
    ),
    TEXTS.map(lambda text: "<a>" + "".join(c for c in text if c.isalnum()) + "</a>"),
    lambda rng: f"<a>{noise(rng, LARGE)}</a>",
)
