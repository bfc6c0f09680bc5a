"""What can be asked for, as parameters of a query and members of a body: the one filter language,
narrowed to what whoever asks may see."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Annotated, Any, Final, Literal, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from bemi.api.principals import Principal
from bemi.errors import UsageError
from bemi.history.asking import dimension_of, filters_of
from bemi.store.dimensions import Dimension
from bemi.store.filters import Filters
from bemi.store.trends import Every

MOST: Final = 1000
_PAGE: Final = 50
_CONDITIONS: Final = 50
"""That a filter may have of each kind: PostgreSQL plans thousands of them for a minute."""

_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")


def _storable(text: str) -> str:
    if _UNSTORABLE.search(text):
        raise ValueError("no text that a database can have")
    return text


Text = Annotated[str, AfterValidator(_storable)]
Short = Annotated[Text, Field(max_length=1000)]
"""In a body, of which the log of accesses keeps the beginning."""
Operation = Literal["create", "update", "delete", "truncate", "snapshot"]
Format = Literal["ndjson", "csv"]


class Asked(BaseModel):
    """A parameter that is misspelled must not let through what it was to keep back."""

    model_config = ConfigDict(extra="forbid")


class OfSource(Asked):
    source: Text | None = Field(None, description="Name of the source.")


class Chosen(OfSource):
    """The filters but for the page; all that are given must be true of a change."""

    table: Text | None = Field(
        None, description="SCHEMA.TABLE, or a table in the schema public.", examples=["todo"]
    )
    key: Text | None = Field(
        None, description='Primary key of the row; a composite one as JSON: `["1","2"]`.'
    )
    trace: Text | None = Field(None, description="A trace_id or request_id in the context.")
    operation: list[Operation] = Field(
        [], max_length=_CONDITIONS, description="What was done; repeatable."
    )
    since: Text | None = Field(
        None, description="Committed at or after: `2h`, `yesterday 14:30`, `2026-05-03T14:02Z`."
    )
    until: Text | None = Field(None, description="Committed at or before; written like `since`.")
    transaction: int | None = Field(None, description="Number of the transaction on the source.")
    context: list[Text] = Field(
        [],
        max_length=_CONDITIONS,
        description="KEY=VALUE in the context, compared as text; a dotted KEY reaches nested ones;"
        " repeatable.",
        examples=[["user_id=42"]],
    )
    before: list[Text] = Field(
        [],
        max_length=_CONDITIONS,
        description="COLUMN=VALUE in the row before the change, compared as text; repeatable.",
    )
    after: list[Text] = Field(
        [],
        max_length=_CONDITIONS,
        description="COLUMN=VALUE in the row after the change, compared as text; repeatable.",
    )
    changed: Text | None = Field(None, description="Column that an update changed.")
    from_position: Text | None = Field(
        None, description="Committed at this position of the source's log or behind it."
    )
    to_position: Text | None = Field(None, description="Committed at this position or before it.")
    id: Text | None = Field(None, description="Of one change.")

    def filters(self, who: Principal, **more: Any) -> Filters:
        """Raises `UsageError`, and `ForbiddenError` for what may not be asked for."""
        given = self.model_dump(include={*Chosen.model_fields, *_PAGED})
        for name in ("context", "before", "after"):
            given[name] = _pairs(name, given[name])
        return narrowed({**given, **more}, who)


_PAGED: Final = ("oldest_first", "behind", "limit")
"""Those of the filters that only some of these have."""


class Listed(Chosen):
    """The filters, and which page."""

    oldest_first: bool = Field(False, description="The oldest come first, instead of the newest.")
    behind: Text | None = Field(None, description="What `next` was: the page that follows.")
    limit: int = Field(_PAGE, ge=1, le=MOST, description="At most so many.")


class Exported(Chosen):
    oldest_first: bool = Field(False, description="The oldest come first, instead of the newest.")
    limit: int | None = Field(None, ge=1, description="At most so many; without it, all.")
    format: Format = Field("ndjson", description="One JSON object per line, or CSV.")


class Streaming(Chosen):
    start: Text | None = Field(
        None,
        description="Where to begin, without `Last-Event-ID`: an event's id, `now`, `beginning`, a"
        " time, a position or a change's id. By default now.",
    )
    baseline: bool = Field(False, description="The rows that baselines read, too.")


class Counted(Chosen):
    by: list[Text] = Field(
        [],
        max_length=2,
        description="table, operation, source, user, transaction or context.KEY; at most twice.",
    )
    every: Every | None = Field(
        None, description="How long each bucket is, in UTC; without it what fits the range."
    )
    top: int | None = Field(
        None, ge=1, le=MOST, description="The largest so many values, and all others together."
    )

    def dimensions(self, who: Principal) -> list[Dimension]:
        found = [dimension_of(name) for name in self.by]
        for each in found:
            if each.path:
                who.require_member(".".join(each.path))
        return found


class OfTable(OfSource):
    table: Text = Field(description="SCHEMA.TABLE, or a table in the schema public.")


class OfRecord(OfTable):
    key: Text = Field(description='Primary key; a composite one as JSON: `["1","2"]`.')


_WHEN: Final = "A time such as `yesterday 09:00`, a position like `0/1A2B3C4D`, or a change's id."


class TableAt(OfTable):
    when: Text = Field(description=_WHEN)
    allow_gaps: bool = Field(
        False, description="Tell what there is where the history does not know all."
    )


class TableExported(TableAt):
    format: Format = Field("ndjson", description="One JSON object per row and line, or CSV.")


class RecordAt(TableAt):
    key: Text = Field(description='Primary key; a composite one as JSON: `["1","2"]`.')


class TableBetween(OfTable):
    key: Text | None = Field(None, description="Only the record with this key.")
    start: Text = Field(description=_WHEN)
    end: Text | None = Field(None, description="The same; by default what was captured last.")


Plain = Text | bool | int | None
"""As filters compare it: a number with a fraction is given as its text."""


class Sent(Asked):
    """The filters as members of a body; all that are given must be true of a change."""

    source: Short | None = None
    table: Short | None = None
    key: Short | None = None
    trace: Short | None = None
    operation: list[Operation] = Field([], max_length=5)
    since: Short | None = None
    until: Short | None = None
    transaction: int | None = None
    context: dict[Text, Plain] = Field({}, max_length=_CONDITIONS)
    before: dict[Text, Plain] = Field({}, max_length=_CONDITIONS)
    after: dict[Text, Plain] = Field({}, max_length=_CONDITIONS)
    changed: Short | None = None
    from_position: Short | None = None
    to_position: Short | None = None

    def filters(self) -> dict[str, Any]:
        """By their names, without what else a body has."""
        return self.model_dump(include=set(Sent.model_fields), exclude_unset=True)


def narrowed(given: Mapping[str, Any], who: Principal) -> Filters:
    """Filters by their names, as `bemi.History` takes them; only of what may be seen."""
    found = filters_of(**cast(Any, {k: v for k, v in given.items() if v is not None}))
    if who.scope is None:
        return found
    if found.table is not None:
        who.require_table(found.table)
    columns = [name for name, _ in (*found.before, *found.after)]
    for column in [*columns, *([found.changed] if found.changed is not None else [])]:
        who.require_column(column, found.table)
    for path, _ in found.context:
        who.require_member(path)
    return replace(found, scope=who.scope)


def _pairs(name: str, given: Iterable[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise UsageError(f"{name}: {text!r} is not of the form KEY=VALUE, as in user_id=42")
        if pairs.setdefault(key, value) != value:
            raise UsageError(f"{name}: {key} can't have two values at once")
    return pairs
