"""The form in which a context travels: the prefix and content of a logical message.

The contract for all languages is in `spec/context.md`. Standard library only, no I/O. Encoding
never fails, since a write must not fail because of its context: what can't be encoded is replaced
or shortened, and listed under `_bemi`.
"""

import bisect
import dataclasses
import datetime as dt
import decimal
import enum
import json
import math
import re
import uuid
from collections.abc import Mapping
from typing import Final, TypeAlias

from bemi.context.lazy import Lazy

PREFIX: Final = "_bemi"
LIMIT: Final = 1 << 20
"""Bytes of the whole encoded context. The worker drops what is larger."""

NOTES: Final = "_bemi"
"""The member of a context in which a client says what it had to alter."""

# Deep enough for any request, far from where parsers give up.
_MAX_DEPTH: Final = 64
# The server's jsonb would take longer ones, but not every language's parser.
_MAX_BITS: Final = 1024
# No more fit into the limit; what refers to itself twice would go on for ever.
_MAX_VALUES: Final = LIMIT // 2
_MAX_NOTES: Final = 100
_MAX_PATH: Final = 200
# Left free for the notes themselves, which grow while values are being cut.
_ROOM_FOR_NOTES: Final = 2 * _MAX_NOTES * (_MAX_PATH + 4)
_ELLIPSIS: Final = "…"
_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")

REDACTED: Final = "***"
# Letters and digits only, in lower case, at the end of a member's name.
SECRET_NAMES: Final = (
    "password|passwd|pwd|passphrase|secret|secretkey|accesskey|apikey|privatekey|token|jwt"
    "|authorization|cookie|sessionid|sessionkey|credential|creditcard|cardnumber|cvv|cvc"
)
_SECRET: Final = re.compile(rf"(?:{SECRET_NAMES})(?P<plural>s?)\d*$")
_SEPARATORS: Final = re.compile(r"[\W_]+")

Json: TypeAlias = "str | int | float | bool | list[Json] | dict[str, Json] | None"


def encode(context: Mapping[str, object], *, redact: bool = True, limit: int = LIMIT) -> str:
    """The content of the message: one JSON object, in ASCII, of at most `limit` bytes, which are
    at least a thousand. Never raises.

    `redact`: members whose names look like those of secrets are left out; see the contract.
    """
    encoder = _Encoder(redact=redact)
    value = encoder.value(context, (), 0)
    if not isinstance(value, dict):
        value = {}
    notes = value.pop(NOTES, {})
    if not isinstance(notes, dict):
        encoder.replaced(NOTES)
        notes = {}
    text = _dump(_noted(value, notes, encoder))
    if len(text) <= limit:
        return text
    cut = _cut_members(value, limit - min(_ROOM_FOR_NOTES, limit // 2), (), encoder)
    # Notes that came in with the context may be the large ones.
    notes = notes if len(_dump(notes)) < _MAX_PATH else {}
    text = _dump(_noted(cut, notes, encoder))
    if len(text) <= limit:
        return text
    return _dump({**cut, NOTES: {kind: [_ELLIPSIS] for kind in encoder.notes}})


class _Encoder:
    """Turns values into what JSON has, and remembers which ones it altered."""

    def __init__(self, *, redact: bool) -> None:
        self._redact = redact
        self.notes: dict[str, list[str]] = {}
        self._left = _MAX_VALUES

    def replaced(self, *path: str) -> None:
        self._note("replaced", path)

    def truncated(self, *path: str) -> None:
        self._note("truncated", path)

    def redacted(self, *path: str) -> None:
        self._note("redacted", path)

    def _note(self, kind: str, path: tuple[str, ...]) -> None:
        noted = self.notes.setdefault(kind, [])
        text = ".".join(path)
        if len(_dump(text)) > _MAX_PATH:
            # No character takes more than the twelve of an escaped surrogate pair.
            text = text[: _MAX_PATH // 12] + _ELLIPSIS
        if text in noted or len(noted) > _MAX_NOTES:
            return
        noted.append(text if len(noted) < _MAX_NOTES else _ELLIPSIS)

    def value(self, value: object, path: tuple[str, ...], depth: int) -> Json:
        try:
            return self._value(value, path, depth)
        except Exception:  # noqa: BLE001 - the application's own classes may raise anything
            return self._name_of(value, path)

    def _value(self, value: object, path: tuple[str, ...], depth: int) -> Json:
        match value:
            case None | bool():
                return value
            case enum.Enum():
                return self.value(value.value, path, depth)
            case str():
                return self.text(str(value), path)
            case int():
                if value.bit_length() > _MAX_BITS:
                    return self._name_of(value, path)
                return int(value)
            case float():
                return float(value) if math.isfinite(value) else _infinite(value)
            case decimal.Decimal() | uuid.UUID() | dt.timedelta():
                return str(value)
            case dt.datetime() | dt.date() | dt.time():
                return value.isoformat()
        self._left -= 1
        if depth >= _MAX_DEPTH or self._left < 0:
            return self._name_of(value, path)
        if type(value).__name__ == "__proxy__":
            return self.text(str(value), path)  # Django's lazy strings
        if isinstance(value, Lazy):
            return self.value(value(), path, depth)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            members = {
                field.name: getattr(value, field.name) for field in dataclasses.fields(value)
            }
            return self.mapping(members, path, depth)
        if isinstance(value, Mapping):
            return self.mapping(value, path, depth)
        if isinstance(value, list | tuple | set | frozenset):
            return [
                self.value(item, (*path, str(index)), depth + 1) for index, item in enumerate(value)
            ]
        return self._name_of(value, path)

    def mapping(
        self,
        value: Mapping[object, object] | Mapping[str, object],
        path: tuple[str, ...],
        depth: int,
    ) -> dict[str, Json]:
        members: dict[str, Json] = {}
        for key, member in value.items():
            name = self._key(key, path)
            if self._redact and is_secret(name, member):
                self.redacted(*path, name)
                members[name] = REDACTED
                continue
            encoded = self.value(member, (*path, name), depth + 1)
            if encoded is not None or not isinstance(member, Lazy):
                members[name] = encoded
        return members

    def text(self, value: str, path: tuple[str, ...]) -> str:
        text, count = _UNSTORABLE.subn("\ufffd", value)
        if count:
            self.replaced(*path)
        return text

    def _key(self, key: object, path: tuple[str, ...]) -> str:
        if isinstance(key, str) and not isinstance(key, enum.Enum):
            text = _UNSTORABLE.sub("\ufffd", key)
            if text != key:
                self.replaced(*path, text)
            return text
        encoded = self.value(key, path, _MAX_DEPTH)
        return encoded if isinstance(encoded, str) else _dump(encoded)

    def _name_of(self, value: object, path: tuple[str, ...]) -> str:
        self.replaced(*path)
        return type(value).__qualname__


def is_secret(name: str, value: object = None) -> bool:
    """Whether a member of this name is left out."""
    found = _SECRET.search(_SEPARATORS.sub("", name.lower()))
    # `tokens` may be counted.
    return found is not None and not (found["plural"] and isinstance(value, int | float))


def _infinite(value: float) -> str:
    """As PostgreSQL spells them, since JSON has no number for them."""
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def _dump(value: Json) -> str:
    # ASCII, because a server in another encoding refuses characters that it does not have, and
    # the application's transaction would fail.
    return json.dumps(value, separators=(",", ":"))


def _noted(value: dict[str, Json], given: dict[str, Json], encoder: _Encoder) -> dict[str, Json]:
    notes: dict[str, Json] = {**given}
    for kind, paths in encoder.notes.items():
        earlier = given.get(kind)
        before = earlier if isinstance(earlier, list) else []
        notes[kind] = [*before, *(path for path in paths if path not in before)]
    return {**value, NOTES: notes} if notes else value


def _cut(value: Json, room: int, path: tuple[str, ...], encoder: _Encoder) -> Json:
    """`value`, made to fit into `room` characters of JSON."""
    text = _dump(value)
    if len(text) <= room:
        return value
    if isinstance(value, dict) and value:
        return _cut_members(value, room, path, encoder)
    encoder.truncated(*path)
    # A list loses its end, but not in the midst of an item; a text keeps its beginning.
    if isinstance(value, list):
        kept: list[Json] = []
        for item in value:
            room -= len(_dump(item)) + 1
            if room < 2:
                break
            kept.append(item)
        return kept
    if not isinstance(value, str):
        return None
    return value[: _fitting(value, room - len(_dump(_ELLIPSIS)))] + _ELLIPSIS


def _cut_members(
    value: dict[str, Json], room: int, path: tuple[str, ...], encoder: _Encoder
) -> dict[str, Json]:
    """Cuts the largest members down to one common size, the greatest that fits."""
    names = {name: len(_dump(name)) + 2 for name in value}
    sizes = {name: len(_dump(member)) for name, member in value.items()}
    smallest = 16  # an ellipsis in quotes, or a number
    left = room - 2 - len(_dump(".".join(path)))
    kept = []
    for name in value:
        left -= names[name] + min(sizes[name], smallest)
        if left < 0:
            encoder.truncated(*path)  # the object itself lost its last members
            break
        kept.append(name)
    available = room - 2 - sum(names[name] for name in kept)
    share = _level([sizes[name] for name in kept], available)
    return {name: _cut(value[name], share, (*path, name), encoder) for name in kept}


def _level(sizes: list[int], room: int) -> int:
    """The greatest size to which all larger ones can be cut so that their sum fits `room`."""
    for index, size in enumerate(rising := sorted(sizes)):
        share = room // (len(rising) - index)
        if size > share:
            return share
        room -= size
    return room + (rising[-1] if sizes else 0)


def _fitting(text: str, room: int) -> int:
    """How many characters of `text` take at most `room` when encoded, quotes included."""
    sizes = range(min(len(text), max(room, 0)) + 1)
    return max(bisect.bisect_right(sizes, room, key=lambda count: len(_dump(text[:count]))) - 1, 0)
