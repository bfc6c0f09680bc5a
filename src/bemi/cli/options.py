"""Flags that commands share, and what is made of them: settings, filters."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, cast
from uuid import UUID

from cyclopts import Group, Parameter, Token, validators

from bemi import config, times
from bemi.config import History, Settings
from bemi.errors import UsageError
from bemi.lsn import Lsn
from bemi.store.dimensions import Dimension
from bemi.store.filters import Filters, Place

_CONNECTION = Group.create_ordered("Connection")
_FILTERS = Group.create_ordered("Filters")

Operation = Literal["create", "update", "delete", "truncate", "snapshot"]


def _texts(_type: Any, value: Any) -> None:
    """Arguments that are not UTF-8 can't be in any history, and PostgreSQL would refuse them."""
    for text in value if isinstance(value, tuple) else (value,):
        try:
            "".join(text or ()).encode()
        except UnicodeEncodeError:
            raise ValueError("not UTF-8 text") from None


Text = Annotated[str | None, Parameter(validator=_texts)]
Required = Annotated[str, Parameter(validator=_texts)]
Names = Annotated[tuple[str, ...], Parameter(validator=_texts)]


@Parameter(name="*", group=_CONNECTION)
@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigFlags:
    """Where the settings come from, for commands that reach only for the history."""

    destination_url: str | None = None
    "Database that holds the history, instead of BEMI_DESTINATION_URL."
    config: Path | None = None
    "File of settings, instead of bemi.toml in the working directory."

    def history(self) -> History:
        """Raises ConfigError."""
        return config.load_history({"destination_url": self.destination_url}, path=self.config)


@Parameter(name="*", group=_CONNECTION)
@dataclass(frozen=True, slots=True, kw_only=True)
class SourcesFlags:
    """Where the settings come from, for commands that work with sources."""

    source_url: str | None = None
    "Database to watch, instead of BEMI_SOURCE_URL. (Others may see it in the list of processes.)"
    destination_url: str | None = None
    "Database that holds the history, instead of BEMI_DESTINATION_URL."
    config: Path | None = None
    "File of settings, instead of bemi.toml in the working directory."

    def one(self, name: str | None, **flags: object) -> Settings:
        """Settings of the source called `name`, over which `flags` of the command's own win.

        Without a name, of the only one there is. Raises ConfigError.
        """
        return config.load({**self._own, "source": name, **flags}, path=self.config)

    def several(self, names: Sequence[str], **flags: object) -> tuple[Settings, ...]:
        """Settings of the sources with these names; without any, of all. Raises ConfigError."""
        return config.load_all({**self._own, **flags}, path=self.config, sources=names)

    def history(self, name: str | None = None) -> History:
        """Where the history is, of the source called `name` where they have several."""
        return config.load_history({**self._own, "source": name}, path=self.config)

    @property
    def _own(self) -> dict[str, object]:
        return {"source_url": self.source_url, "destination_url": self.destination_url}


@Parameter(name="*", group=_CONNECTION)
@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsFlags(SourcesFlags):
    """Where the settings come from, for commands that work with one source."""

    source: Text = None
    "Name of the source, where the file has several; instead of BEMI_SOURCE."

    def settings(self, **flags: object) -> Settings:
        """Settings, over which `flags` of the command's own win. Raises ConfigError."""
        return self.one(self.source, **flags)


def _moment(_type: Any, tokens: Sequence[Token]) -> datetime:
    return times.parse(tokens[0].value, now=datetime.now(UTC))


def _pairs(_type: Any, tokens: Sequence[Token]) -> tuple[tuple[str, str], ...]:
    pairs = []
    for token in tokens:
        key, equals, value = token.value.partition("=")
        if not key or not equals:
            raise ValueError(f"{token.value!r} is not of the form KEY=VALUE, as in user_id=42")
        pairs.append((key, value))
    return tuple(pairs)


def _dimension(_type: Any, tokens: Sequence[Token]) -> Dimension:
    return Dimension.parse(tokens[0].value)


def _dimensions(_type: Any, tokens: Sequence[Token]) -> tuple[Dimension, ...]:
    return tuple(Dimension.parse(token.value) for token in tokens)


def _place(_type: Any, tokens: Sequence[Token]) -> Place:
    return Place.parse(tokens[0].value)


def _position(_type: Any, tokens: Sequence[Token]) -> int:
    return int(Lsn.parse(tokens[0].value))


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class FormFlags:
    """In which form a command prints what it lists."""

    json: bool = False
    "Print one JSON value: a list of objects."
    ndjson: bool = False
    "Print one JSON object per line, as they are read."
    csv: bool = False
    "Print CSV with a header, as they are read; JSON as its text, null as nothing."

    def __post_init__(self) -> None:
        """Raises UsageError."""
        require_one_form(json=self.json, ndjson=self.ndjson, csv=self.csv)


def require_one_form(**given: bool) -> None:
    """Raises UsageError."""
    names = [f"--{name}" for name, is_given in given.items() if is_given]
    if len(names) > 1:
        raise UsageError(
            f"{' and '.join(names)} are {'two' if len(names) == 2 else 'several'} forms of output",
            fix="give one of them",
        )


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class ListFlags(FormFlags):
    """The same of one that lists changes, which can be grouped."""

    json: bool = False
    "Print one JSON value: a list of changes, with the columns of the relation `changes`."
    group_by: Annotated[Dimension | None, Parameter(converter=_dimension, n_tokens=1)] = None
    "Changes that follow each other and have the same: transaction, table, operation, source, \
user, or context.KEY; --ndjson and --csv begin each line with group_number and group_value."


Dimensions = Annotated[tuple[Dimension, ...], Parameter(converter=_dimensions, n_tokens=1)]
Pairs = Annotated[
    tuple[tuple[str, str], ...], Parameter(converter=_pairs, n_tokens=1, validator=_texts)
]
Position = Annotated[int | None, Parameter(converter=_position, n_tokens=1)]
Moment = Annotated[datetime | None, Parameter(converter=_moment, n_tokens=1)]


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class RowFormFlags(FormFlags):
    """The same of one that shows rows."""

    json: bool = False
    "Print one JSON value: a list of rows as objects; with a KEY, the row or null."
    ndjson: bool = False
    "Print one row per line, as a JSON object, as they are read."
    csv: bool = False
    "Print CSV with a header, behind the last row that is read; JSON as its text, null as nothing."


class _Filtering:
    """What groups of flags are made into. A group is in a command where its question is open."""

    def filters(self, **more: Any) -> Filters:
        """`more`: what the command says itself, or takes by its place."""
        given = {each.name: getattr(self, each.name) for each in fields(cast(Any, self))}
        return _made({**given, **more})


def _made(given: dict[str, Any]) -> Filters:
    operation = tuple(name.upper() for name in given.get("operation", ()))
    return Filters(**{**given, "operation": operation})


@dataclass(frozen=True, kw_only=True)
class RowFlags(_Filtering):
    """Of which table and row."""

    table: Text = None
    "SCHEMA.TABLE, or a table in the schema public."
    key: Text = None
    'Primary key of the row; a composite one as JSON: \'["1","2"]\'.'


@dataclass(frozen=True, kw_only=True)
class TraceFlags(_Filtering):
    trace: Text = None
    "A trace_id or request_id in the context: all that one request did."


@dataclass(frozen=True, kw_only=True)
class OrderFlags(_Filtering):
    oldest_first: bool = False
    "The oldest come first, instead of the newest."


@dataclass(frozen=True, kw_only=True)
class ChangeFlags(_Filtering):
    """All others. Times without an offset are in UTC."""

    operation: tuple[Operation, ...] = ()
    "What was done; repeatable."
    since: Moment = None
    "Committed at or after: 15m, 2h, 3d, today, yesterday 14:30, 2026-05-03, 2026-05-03T14:02Z."
    until: Moment = None
    "Committed at or before; written like --since."
    transaction: int | None = None
    "Number of the transaction on the source."
    context: Pairs = ()
    "KEY=VALUE in the context, compared as text; a dotted KEY reaches nested ones; repeatable."
    before: Pairs = ()
    "COLUMN=VALUE in the row before the change, compared as text; repeatable."
    after: Pairs = ()
    "COLUMN=VALUE in the row after the change, compared as text; repeatable."
    changed: Text = None
    "Column that an update changed."
    from_position: Position = None
    "Committed at this position of the source's log or behind it, like 0/1A2B3C4D."
    to_position: Position = None
    "Committed at this position or before it."
    source: Text = None
    "Name of the source."


@dataclass(frozen=True, kw_only=True)
class PageFlags(_Filtering):
    """Which part of what there is."""

    behind: Annotated[Place | None, Parameter(converter=_place, n_tokens=1, accepts_keys=False)] = (
        None
    )
    "What follows this place, which the end of a page names: the next page."
    limit: Annotated[int, Parameter(validator=validators.Number(gte=1), show_default=True)] = 20
    "At most so many."


@Parameter(name="*", group=_FILTERS)
@dataclass(frozen=True, kw_only=True)
class FilterFlags(PageFlags, ChangeFlags, OrderFlags, TraceFlags, RowFlags):
    """All filters."""


@Parameter(name="*", group=_FILTERS)
@dataclass(frozen=True, kw_only=True)
class OfRowFlags(PageFlags, ChangeFlags, OrderFlags, TraceFlags):
    """Those of a command that takes the row by its place."""


@Parameter(name="*", group=_FILTERS)
@dataclass(frozen=True, kw_only=True)
class OfTraceFlags(PageFlags, ChangeFlags, RowFlags):
    """Those of a command that takes the trace by its place, and tells it in order."""


def _ids(_type: Any, tokens: Sequence[Token]) -> tuple[UUID, ...]:
    found = []
    for token in tokens:
        try:
            found.append(UUID(token.value))
        except ValueError:
            raise ValueError(f"{token.value!r} is no id of a change") from None
    return tuple(found)


@Parameter(name="*", group=_FILTERS)
@dataclass(frozen=True, kw_only=True)
class ChosenFlags(ChangeFlags, TraceFlags, RowFlags):
    """Those of a command that does something with all changes that match."""

    change: Annotated[tuple[UUID, ...], Parameter(converter=_ids, n_tokens=1)] = ()
    "Id of a change; repeatable."
    only: Names = ()
    "TABLE or TABLE:KEY: only these rows; repeatable."
    without: Annotated[tuple[str, ...], Parameter(name="--except", validator=_texts)] = ()
    "TABLE or TABLE:KEY: all but these rows; repeatable."

    def several(self) -> list[Filters]:
        """What changes have to be to be chosen: one of these."""
        given = {each.name: getattr(self, each.name) for each in fields(cast(Any, self))}
        ids = given.pop("change")
        del given["only"], given["without"]
        filters = _made(given)
        return [dataclasses.replace(filters, id=id) for id in ids] or [filters]


@Parameter(name="*", group=_FILTERS)
@dataclass(frozen=True, kw_only=True)
class PagelessFlags(ChangeFlags, TraceFlags, RowFlags):
    """Those of a command that has no pages, and one order."""
