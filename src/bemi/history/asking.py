"""What people write in Python, turned into filters, keys and moments, or refused.

Pure but for the clock, from which `2h` counts back.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final, TypedDict, TypeVar, Unpack
from uuid import UUID

import msgspec

from bemi import times
from bemi.context import wire
from bemi.errors import BemiError, UsageError
from bemi.integrations.reading import key_text, stored_key
from bemi.lsn import Lsn
from bemi.store.filters import Filters, Place

_Kind = TypeVar("_Kind")

# NUL, and halves of what two of them are in UTF-16.
_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")

_OPERATIONS: Final = ("CREATE", "UPDATE", "DELETE", "TRUNCATE", "SNAPSHOT")


class Filtering(TypedDict, total=False):
    """The filters, all of which must be true of a change.

    `table`: `schema.table`, or a table in the schema `public`. `key`: the primary key's value, for
    a composite one a tuple; a text is taken as it stands. `trace`: a `trace_id` or `request_id` of
    the context. `oldest_first`: the other order. `operation`: one or several of create, update,
    delete, truncate, snapshot. `since`, `until`: when it was committed, both bounds included, as a
    datetime that is aware or a text such as `2h` or `yesterday 09:00`. `transaction`: its number
    on the source. `context`, `before`, `after`: members and columns with their values, compared as
    text; a dotted name, or a mapping within, reaches into a context. `changed`: a column that an
    update changed. `from_position`, `to_position`: LSNs of commits. `source`: its name. `behind`:
    a change's `cursor`. `limit`: at most so many. `id`: of one change.
    """

    table: str | None
    key: object
    trace: str | None
    oldest_first: bool
    operation: str | Iterable[str] | None
    since: datetime | str | None
    until: datetime | str | None
    transaction: int | None
    context: Mapping[str, object] | None
    before: Mapping[str, object] | None
    after: Mapping[str, object] | None
    changed: str | None
    from_position: int | str | None
    to_position: int | str | None
    source: str | None
    behind: str | None
    limit: int | None
    id: UUID | str | None


def filters_of(**given: Unpack[Filtering]) -> Filters:
    """Raises `UsageError`, with the filter's name, for a value that means nothing."""
    read: dict[str, Any] = {}
    for name, value in given.items():
        if name not in _READERS:
            raise UsageError(f"there is no filter {name}", fix=f"there are {', '.join(_READERS)}")
        if value is not None:
            try:
                read[name] = _READERS[name](value)
            except ValueError as error:
                raise UsageError(f"{name}: {error}") from error
    return Filters(**read)


def key_of(key: object) -> str:
    """A key's text, as the history has it. Raises `BemiError` for what is no key."""
    if isinstance(key, str):
        return _text(key)
    parts = key if isinstance(key, tuple | list) else (key,)
    if not parts:
        raise UsageError("a key has at least one value")
    return stored_key([key_text(part) for part in parts])


def moment_of(when: object) -> datetime | Lsn | UUID:
    """A time, a position or a change. Raises `UsageError`."""
    if isinstance(when, UUID | Lsn):
        return when
    if isinstance(when, str):
        for read in (UUID, Lsn.parse):
            with suppress(ValueError):
                return read(when)
    try:
        return _moment(when)
    except ValueError as error:
        raise UsageError(str(error)) from error


def id_of(id: UUID | str) -> UUID:
    """Raises `UsageError`."""
    try:
        return _id(id)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _is(kind: type[_Kind], value: object) -> _Kind:
    # True is an int of Python's, and no number of anything.
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{value!r} is no {kind.__name__}")
    return value


def _text(value: object) -> str:
    text = _is(str, value)
    if _UNSTORABLE.search(text):
        raise ValueError(f"{text!r} is no text that a database can have")
    return text


def _key(value: object) -> str:
    try:
        return key_of(value)
    except BemiError as error:
        raise ValueError(str(error)) from error


def _operations(value: object) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else tuple(_is(Iterable, value))  # type: ignore[type-abstract]
    found = tuple(_text(name).upper() for name in names)
    for name in found:
        if name not in _OPERATIONS:
            raise ValueError(f"there is no operation {name}; there are {', '.join(_OPERATIONS)}")
    return found


def _moment(value: object) -> datetime:
    if isinstance(value, str):
        return times.parse(value, now=datetime.now(UTC))
    moment = _is(datetime, value)
    if moment.tzinfo is None:
        raise ValueError(
            f"{moment} has no time zone, and could be anywhere: give an aware datetime"
        )
    return moment


def _position(value: object) -> int:
    return int(Lsn.parse(value)) if isinstance(value, str) else _number(value)


def _number(value: object) -> int:
    number = _is(int, value)
    if not 0 <= number < 1 << 63:
        raise ValueError(f"{number} is out of range")
    return number


def _limit(value: object) -> int:
    if not (number := _number(value)):
        raise ValueError("it is at least 1")
    return number


def _id(value: object) -> UUID:
    return UUID(value) if isinstance(value, str) else _is(UUID, value)


def _members(value: object) -> tuple[tuple[str, str], ...]:
    """Those of a mapping within get a dotted name."""
    found: list[tuple[str, str]] = []
    for name, member in _is(Mapping, value).items():  # type: ignore[type-abstract]
        if isinstance(member, Mapping) and member:
            found += ((f"{_text(name)}.{inner}", text) for inner, text in _members(member))
        else:
            found.append((_text(name), _member(member)))
    return tuple(found)


def _member(value: object) -> str:
    """A value of a context as text, turned into JSON as it was when it was sent."""
    encoded = wire.encode({"": value}, redact=False)
    sent = bytes(msgspec.json.decode(encoded, type=dict[str, msgspec.Raw])[""]).decode()
    return _text(json.loads(sent)) if sent.startswith('"') else sent


def _columns(value: object) -> tuple[tuple[str, str], ...]:
    return tuple((_text(name), _column(each)) for name, each in _is(Mapping, value).items())  # type: ignore[type-abstract]


def _column(value: object) -> str:
    """A value of a row as the history has it, but for texts, which stand bare."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    if isinstance(value, str):
        return _text(value)
    try:
        return key_text(value)
    except BemiError as error:
        raise ValueError(f"values of the type {type(value).__name__} are not looked for") from error


_READERS: Final[Mapping[str, Callable[[Any], object]]] = {
    "table": _text,
    "key": _key,
    "trace": _text,
    "oldest_first": lambda value: _is(bool, value),
    "operation": _operations,
    "since": _moment,
    "until": _moment,
    "transaction": _number,
    "context": _members,
    "before": _columns,
    "after": _columns,
    "changed": _text,
    "from_position": _position,
    "to_position": _position,
    "source": _text,
    "behind": lambda value: Place.parse(_text(value)),
    "limit": _limit,
    "id": _id,
}
