"""A type with its values, as the text that PostgreSQL reads, and types made of other types."""

import base64
import functools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

LARGE: Final = 6000
"""Bytes of a large value, about: some of each row's stay below the 2 kB at which TOAST begins."""

_ELEMENTS: Final = 2000
"""Elements that a large array has at most."""


@dataclass(frozen=True)
class Value:
    """The text of a value, or None for null, and where it came from."""

    text: str | None
    sort: str
    """null, limit, random or large."""


@dataclass(frozen=True, eq=False)
class Kind:
    """A type as it is declared, and its values."""

    name: str
    sql: str
    limits: tuple[str, ...]
    others: SearchStrategy[str]
    large: Callable[[random.Random], str] | None = None
    delimiter: str = ","
    nullable: bool = True
    since: int = 0
    """The first version of PostgreSQL that has it."""

    @functools.cached_property
    def small(self) -> SearchStrategy[str]:
        return st.one_of(self.others, st.sampled_from(self.limits))

    @functools.cached_property
    def values(self) -> SearchStrategy[Value]:
        limits = st.sampled_from(self.limits).map(lambda text: Value(text, "limit"))
        others = self.others.map(lambda text: Value(text, "random"))
        choices = [others, limits, others, limits, others]
        if self.large is not None:
            large = self.large
            choices.append(
                st.integers(0, 1 << 20).map(lambda seed: Value(large(random.Random(seed)), "large"))
            )
        if self.nullable:
            choices.append(st.just(Value(None, "null")))
        return st.one_of(choices)


@functools.cache
def array_of(kind: Kind) -> Kind:
    """Arrays of up to three dimensions, with bounds of their own."""
    element = st.one_of(kind.small, kind.small, st.none()) if kind.nullable else kind.small
    shapes = st.sampled_from([[1], [2], [3], [1, 2], [2, 2], [2, 1, 2]])
    lower = st.sampled_from([None, None, None, 0, -3, 5])

    def literal(flat: Sequence[str | None], shape: Sequence[int]) -> str:
        elements = iter(flat)

        def level(depth: int) -> str:
            if depth == len(shape):
                element = next(elements)
                if element is None:
                    return "NULL"
                return '"' + element.replace("\\", "\\\\").replace('"', '\\"') + '"'
            parts = [level(depth + 1) for _ in range(shape[depth])]
            return "{" + kind.delimiter.join(parts) + "}"

        return level(0)

    @st.composite
    def others(draw: st.DrawFn) -> str:
        shape = draw(shapes)
        count = 1
        for size in shape:
            count *= size
        flat = [draw(element) for _ in range(count)]
        bounds = draw(lower)
        prefix = ""
        if bounds is not None:
            prefix = "".join(f"[{bounds}:{bounds + size - 1}]" for size in shape) + "="
        return prefix + literal(flat, shape)

    def large(rng: random.Random) -> str:
        if kind.large is not None and rng.random() < 0.5:
            flat = [kind.large(rng)]
        else:
            flat = [rng.choice(kind.limits)]
        while sum(map(len, flat)) < LARGE:
            flat += rng.choices(kind.limits, k=50)
        return literal(flat[:_ELEMENTS], [min(len(flat), _ELEMENTS)])

    first = kind.limits[0]
    limits = ["{}", literal([first], [1]), "[-5:-4]=" + literal([first, first], [2])]
    if kind.nullable:
        limits += [literal([None], [1]), literal([None, first], [2])]
    limits += [literal([limit], [1]) for limit in kind.limits if len(limit) < 1000]
    return Kind(
        f"{kind.name}[]", f"{kind.sql}[]", tuple(limits), others(), large, nullable=kind.nullable
    )


def composite_of(name: str, sql: str, fields: Sequence[Kind]) -> Kind:
    def literal(values: Sequence[str | None]) -> str:
        return "(" + ",".join(map(quoted_field, values)) + ")"

    def field(kind: Kind) -> SearchStrategy[str | None]:
        return st.one_of(kind.small, kind.small, st.none()) if kind.nullable else kind.small

    def large(rng: random.Random) -> str:
        return literal(
            [
                kind.large(rng) if kind.large is not None else rng.choice(kind.limits)
                for kind in fields
            ]
        )

    longest = max(len(kind.limits) for kind in fields)
    limits = [
        literal([kind.limits[at % len(kind.limits)] for kind in fields])
        for at in range(min(longest, 12))
    ]
    if all(kind.nullable for kind in fields):
        limits.append(literal([None] * len(fields)))
    return Kind(
        name, sql, tuple(limits), st.tuples(*[field(kind) for kind in fields]).map(literal), large
    )


def quoted_field(value: str | None) -> str:
    if value is None:
        return ""
    return '"' + value.replace("\\", "\\\\").replace('"', '""') + '"'


def range_of(name: str, sql: str, ordered: Sequence[str], *limits: str) -> Kind:
    """Ranges between the ordered values; the empty one and those without bounds are limits."""

    def text(bounds: tuple[int, int], brackets: str) -> str:
        low, high = (ordered[at] for at in sorted(bounds))
        if low == high:
            brackets = "[]"
        return f"{brackets[0]}{quoted_field(low)},{quoted_field(high)}{brackets[1]}"

    places = st.integers(0, len(ordered) - 1)
    others = st.builds(text, st.tuples(places, places), st.sampled_from(["[]", "[)", "(]", "()"]))
    first, last = quoted_field(ordered[0]), quoted_field(ordered[-1])
    made = ("empty", "(,)", f"[{first},)", f"(,{last}]", f"[{first},{last}]")
    return Kind(name, sql, (*made, *limits), others)


def multirange_of(kind: Kind, name: str, sql: str) -> Kind:
    def large(rng: random.Random) -> str:
        # Discrete or not: ranges that neither touch nor overlap are kept apart.
        return "{" + ",".join(f"[{n * 10},{n * 10 + rng.randint(1, 8)})" for n in range(600)) + "}"

    numeric = kind.name in ("int8range", "int4range", "numrange", "floatrange")
    limits = ("{}", *("{" + limit + "}" for limit in kind.limits))
    others = st.lists(kind.others, max_size=3).map(lambda ranges: "{" + ",".join(ranges) + "}")
    return Kind(name, sql, limits, others, large if numeric else None)


def domain_of(name: str, sql: str, kind: Kind, *, nullable: bool = True) -> Kind:
    nullable = nullable and kind.nullable
    return Kind(name, sql, kind.limits, kind.others, kind.large, ",", nullable, kind.since)


def noise(rng: random.Random, size: int) -> str:
    return base64.b64encode(rng.randbytes(size * 3 // 4)).decode()


def integers(name: str, low: int, high: int) -> Kind:
    limits = tuple(map(str, sorted({low, high, 0, 1, max(low, -1)})))
    return Kind(name, name, limits, st.integers(low, high).map(str))
