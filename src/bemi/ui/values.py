"""A value of a row as pages show it: nothing in it can hide, and what is long is cut in the middle,
with what differs left to be seen. Pure.
"""

import re
from collections.abc import Collection, Iterable
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import msgspec

# Control characters but tabs and ends of lines, those that turn the direction of the text around
# them, and those without a shape.
_HIDDEN: Final = re.compile(
    "[\0-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\U000e0000-\U000e007f\ud800-\udfff]"
)
_AROUND: Final = 24
"""Characters that are left on each side of what differs."""
_encode: Final = msgspec.json.Encoder(decimal_format="number").encode

Kind: TypeAlias = Literal["text", "number", "json", "none", "note"]


class Piece(NamedTuple):
    text: str
    differs: bool = False


class Shown(msgspec.Struct, frozen=True):
    """`kind` is how it looks: a `note` stands in the place of a value, and `why` says why."""

    kind: Kind
    pieces: tuple[Piece, ...]
    why: str | None = None

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)


UNKNOWN: Final = Shown("note", (Piece("not known"),), "The history does not have this value.")

# What stands in the place of a value, by the flag that says so.
_REPLACED: Final[tuple[tuple[str, str, str], ...]] = (
    ("masked", "masked", "A rule put this in the place of the value: it was never stored."),
    ("hashed", "hashed", "A keyed digest, by a rule: the value itself was never stored."),
    ("too_large", "too large", "The value was too large to be stored."),
    ("undecodable", "not text", "Bytes that are no text; each is written as \\xNN."),
)


def named(flags: Iterable[str], flag: str) -> list[str]:
    """What such a flag stands at, most often columns: `due` of `unchanged:due`."""
    return [each.partition(":")[2] for each in flags if each.startswith(f"{flag}:")]


def is_replaced(column: str, flags: Collection[str]) -> bool:
    """Whether something stands in the place of the value."""
    return any(f"{flag}:{column}" in flags for flag, _, _ in _REPLACED)


def visible(text: str) -> str:
    """With each character that would not be seen, or would move others, spelled: `\\u202e`."""
    return _HIDDEN.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def brief(text: str, most: int) -> str:
    """On one line, and cut in the middle."""
    return cut(visible(" ".join(text.split())), most)


def cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    head = (most - 1) * 2 // 3
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"


def spoken(value: Any) -> str:
    """As people read it in JSON, texts bare, with all digits."""
    return value if isinstance(value, str) else _encode(value).decode()


def shown(value: Any, most: int, column: str = "", flags: Collection[str] = ()) -> Shown:
    """One value, by what the flags of its change say of its column."""
    return _as(value, [Piece(cut(visible(spoken(value)), most))], column, flags)


def pair(
    before: Any, after: Any, most: int, column: str = "", flags: Collection[str] = ()
) -> tuple[Shown, Shown]:
    """Two that differ; where texts are alike at both ends, what is between is marked."""
    sides = (before, after)
    texts = [spoken(value) for value in sides]
    first = _alike(texts[0], texts[1])
    last = _alike(texts[0][first:][::-1], texts[1][first:][::-1])
    longest = max(map(len, texts))
    alike = first + last
    if not (isinstance(before, str) and isinstance(after, str)) and not (
        isinstance(before, dict | list) and isinstance(after, dict | list)
    ):
        alike = 0
    if alike * 2 < longest:
        first = last = 0
    old, new = (
        _as(value, _cut_around(text, first, last, most), column, flags)
        for value, text in zip(sides, texts, strict=True)
    )
    return old, new


def _alike(one: str, other: str) -> int:
    """How many characters they begin with alike. By halves: values may be long."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _cut_around(text: str, first: int, last: int, most: int) -> list[Piece]:
    """`first` and `last` characters are the other side's, too."""
    if not first and not last:
        return [Piece(cut(visible(text), most))]
    head, middle, tail = text[:first], text[first : len(text) - last], text[len(text) - last :]
    if len(text) > most:
        if len(head) > _AROUND:
            head = f"…{head[-_AROUND:]}"
        if len(tail) > _AROUND:
            tail = f"{tail[:_AROUND]}…"
    pieces = (
        Piece(visible(head)),
        Piece(cut(visible(middle), most), differs=True),
        Piece(visible(tail)),
    )
    return [piece for piece in pieces if piece.text]


def _as(value: Any, pieces: list[Piece], column: str, flags: Collection[str]) -> Shown:
    for flag, words, why in _REPLACED:
        if f"{flag}:{column}" in flags:
            # An old row from before the rule still has the value.
            return Shown("note", (*pieces, Piece(f" ({words})")), why)
    if value is None:
        if f"json_null:{column}" in flags:
            return Shown("none", (Piece("null"),), "JSON's null, which is not SQL's NULL.")
        return Shown("none", (Piece("null"),), "NULL")
    if value == "" and isinstance(value, str):
        return Shown("none", (Piece("empty"),), "A text of no characters.")
    if isinstance(value, str):
        return Shown("text", tuple(pieces))
    return Shown("json" if isinstance(value, dict | list) else "number", tuple(pieces))
