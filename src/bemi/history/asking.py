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
from bemi.store.dimensions import Dimension
from bemi.store.filters import Filters, Place

_Kind = TypeVar("_Kind")

# NUL, and halves of what two of them are in UTF-16.
_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")

_LONGEST_NAME: Final = 63
"""Bytes of an identifier."""

_DEEPEST: Final = 100
"""Levels of a context that a name reaches: of some thousands PostgreSQL can't read the JSON."""

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


class Choosing(Filtering, total=False):
    """The filters of a plan, of which `id` may be of several changes."""

    id: UUID | str | Iterable[UUID | str] | None  # type: ignore[misc]  # wider than Filtering's


def chosen(filters: Choosing) -> list[Filters]:
    """What changes have to be to be meant: one of these. Raises `UsageError`."""
    given: dict[str, Any] = dict(filters)
    id = given.pop("id", None)
    ids = [id] if id is None or isinstance(id, UUID | str) else [*_is(Iterable, id)]  # type: ignore[type-abstract]
    return [filters_of(**given, id=each) for each in ids]


def key_of(key: object) -> str:
    """A key's text, as the history has it. Raises `BemiError` for what is no key."""
    if isinstance(key, str):
        try:
            return _text(key)
        except ValueError as error:
            raise UsageError(f"key: {error}") from error
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


def dimension_of(name: str) -> Dimension:
    """Raises `UsageError`."""
    try:
        return Dimension.parse(_reaching(name))
    except ValueError as error:
        raise UsageError(str(error)) from error


def change_of(what: UUID | str) -> UUID | None:
    """The id of a change, or None for the name of a table. Raises `UsageError`."""
    if isinstance(what, UUID):
        return what
    try:
        name = _text(what)
    except ValueError as error:
        raise UsageError(str(error)) from error
    try:
        return UUID(name)
    except ValueError:
        return None


def id_of(id: UUID | str) -> UUID:
    """Raises `UsageError`."""
    try:
        return _id(id)
    except ValueError as error:
        raise UsageError(str(error)) from error


def name_of(what: str, name: object) -> str:
    """A text that may be a name. Raises `UsageError`, with what it was to be the name of."""
    try:
        return _text(name)
    except ValueError as error:
        raise UsageError(f"{what}: {error}") from error


def source_name_of(source: str | None) -> str | None:
    return None if source is None else name_of("source", source)


def table_of(table: str) -> str:
    """With its schema, which is `public` where none is given."""
    name = name_of("table", table)
    return name if "." in name else f"public.{name}"


def tables_of(tables: Iterable[str]) -> list[str]:
    """Globs, of which a text is one."""
    return [name_of("table", each) for each in ([tables] if isinstance(tables, str) else tables)]


def seconds_of(what: str, value: object) -> float:
    """For how long to wait; True is for ever, False not at all. Raises `UsageError`."""
    if isinstance(value, bool):
        return float("inf") if value else 0.0
    if not isinstance(value, int | float) or not value >= 0:
        raise UsageError(f"{what}: {value!r} is no number of seconds")
    return float(value)


def dimensions_of(by: str | Iterable[str]) -> list[Dimension]:
    """Raises `UsageError`."""
    try:
        names = (by,) if isinstance(by, str) else tuple(_is(Iterable, by))  # type: ignore[type-abstract]
    except ValueError as error:
        raise UsageError(f"by: {error}") from error
    return [dimension_of(each) for each in names]


def schema_of(name: object) -> str:
    """The name of a schema that can be made. Raises `UsageError`."""
    text = name_of("into", name)
    if not text or len(text.encode()) > _LONGEST_NAME or text.startswith("pg_"):
        raise UsageError(
            f"{text!r} can be the name of no schema", fix="choose another one with --into, or into="
        )
    return text


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
    if not isinstance(value, str):
        return _is(UUID, value)
    try:
        return UUID(value)
    except ValueError:
        raise ValueError(f"{value!r} is not the id of a change: those are UUIDs") from None


def _members(value: object) -> tuple[tuple[str, str], ...]:
    """Those of a mapping within get a dotted name."""
    found: list[tuple[str, str]] = []
    for name, member in _is(Mapping, value).items():  # type: ignore[type-abstract]
        if isinstance(member, Mapping) and member:
            found += (
                (_reaching(f"{_text(name)}.{inner}"), text) for inner, text in _members(member)
            )
        else:
            found.append((_reaching(name), _member(member)))
    return tuple(found)


def _reaching(name: object) -> str:
    text = _text(name)
    if text.count(".") >= _DEEPEST:
        raise ValueError(f"a name with dots reaches {_DEEPEST} levels deep at most")
    return text


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
