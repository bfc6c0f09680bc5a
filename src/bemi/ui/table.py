"""A table as it was: its rows, page by page, and what they differ in from another moment."""

from collections.abc import Generator
from contextlib import closing
from datetime import datetime
from typing import Annotated, Any, Final, cast

import msgspec
from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import RedirectResponse, Response

from bemi.api import showing
from bemi.api.access import Viewer
from bemi.api.asking import OfSource, Text
from bemi.api.principals import Principal
from bemi.api.problems import answer
from bemi.api.routes.records import columns
from bemi.api.serving import Served, Serving
from bemi.errors import BemiError, UnknownStateError, UsageError
from bemi.history import moments, paging
from bemi.history.change import Row
from bemi.history.comparing import Compared, compare
from bemi.history.difference import Difference
from bemi.history.moments import Moment
from bemi.store import reader
from bemi.ui import links, moment
from bemi.ui.rendering import iso, page
from bemi.ui.telling import MOST_CHARACTERS, Line, name_of
from bemi.ui.values import UNKNOWN, Shown, brief, named, pair, shown, spoken

router = APIRouter()

_PAGE: Final = 50
_COLUMNS: Final = 30
_IN_CELLS: Final = 60
_DIFFERENCES: Final = 100
_NOW: Final = "now"


class OfTable(OfSource):
    """`versus`: another moment, or `now`; `behind`: the key that the page is behind."""

    table: Text
    moment: Text | None = None
    behind: Text | None = None
    versus: Text | None = Field(None, max_length=100)
    allow_gaps: bool = False


class Cells(msgspec.Struct, frozen=True):
    """A row: `href` leads to its record."""

    key: str
    href: str
    cells: list[Shown | None]
    uncertain: bool


class Rows(msgspec.Struct, frozen=True):
    """`key`: what the keys are called."""

    key: str
    columns: list[str]
    more: int
    rows: list[Cells]


class Differing(msgspec.Struct, frozen=True):
    """A row that is another one at the other moment. `kind` is its hue, too."""

    kind: str
    name: str
    href: str
    count: int
    lines: list[Line]
    more: int


@router.get("/table")
def table(
    request: Request, who: Viewer, serving: Served, asked: Annotated[OfTable, Query()]
) -> Response:
    """A page of its rows as they were; or what they differ in from another moment."""
    query = request.query_params.multi_items()
    when = moment.read(asked.moment)
    other = _other(asked.versus)
    if isinstance(other, datetime) and asked.versus != iso(other):
        # Words such as `yesterday` mean something else tomorrow.
        kept = links.without(query, "versus", "behind")
        return RedirectResponse(links.url("/table", [*kept, ("versus", iso(other))]), 303)
    names = columns(serving, who, asked.table)
    name = asked.table if "." in asked.table else f"public.{asked.table}"
    problem: BemiError | None = None
    place: Moment | None = None
    found: paging.Page | None = None
    differing: list[Differing] = []
    ends: tuple[datetime | None, datetime | None] = (None, None)
    more = False
    try:
        place = _place(serving, when, name, asked.source)
        if other is None:
            found = _page(serving, place, name, asked)
        else:
            ends = (when, None if other == _NOW else cast(datetime, other))
            places = (place, _place(serving, ends[1], name, place.source))
            if (places[0].epoch, places[0].position) > (places[1].epoch, places[1].position):
                ends, places = ends[::-1], places[::-1]
            differing, more = _differing(serving, who, Compared(name, *places), names)
    except (UnknownStateError, UsageError) as error:
        problem = error
    rest = links.without(query, "behind")
    first, following = links.pages("/table", query, None if found is None else found.following)
    export = {
        "table": asked.table,
        "source": asked.source,
        "when": None if place is None else iso(when) if when else str(place.position),
        "allow_gaps": "true" if asked.allow_gaps else None,
    }
    return page(
        request,
        "table.html",
        who,
        200 if problem is None else answer(problem).status_code,
        name=name_of(*name.split(".", 1)),
        given=[(key, value) for key, value in rest if key != "versus"],
        problem=problem,
        # Where there is no such place, there is nothing that could be shown.
        allowed=links.url("/table", [*rest, ("allow_gaps", "true")])
        if isinstance(problem, UnknownStateError)
        and place is not None
        and not asked.allow_gaps
        and other is None
        else "",
        uncertain=None if found is None else found.uncertain,
        rows=None if found is None else _rows(found, asked.table, names, asked.source),
        cut=found is not None and found.cut,
        first=first,
        following=following,
        versus=other,
        ends=ends,
        differing=differing,
        more=more,
        back=links.url("/table", links.without(rest, "versus")),
        whole=links.url(
            "/api/v1/table/diff",
            {
                "table": asked.table,
                "source": asked.source,
                "start": export["when"] if ends[0] is None else iso(ends[0]),
                "end": None if ends[1] is None else iso(ends[1]),
            },
        ),
        exports=[
            (form, links.url("/api/v1/table/at", {**export, "format": form.lower()}))
            for form in ("CSV", "NDJSON")
        ]
        if place is not None and problem is None
        else [],
        activity=links.url("/", {"table": asked.table, "source": asked.source}),
    )


def _other(text: str | None) -> datetime | str | None:
    """The moment to compare with, or `now`. Raises `UsageError`."""
    words = (text or "").strip()
    if not words or words.lower() == _NOW:
        return words.lower() or None
    return moment.read(words)


def _place(serving: Serving, when: datetime | None, name: str, source: str | None) -> Moment:
    archive = serving.archive
    with archive.connected() as conn:
        if when is not None:
            return moments.find(conn, archive.schema, when, name, source)
        return moments.newest(
            conn, archive.schema, source or reader.source_of(conn, archive.schema, name)
        )


def _page(serving: Serving, place: Moment, name: str, asked: OfTable) -> paging.Page:
    archive = serving.archive
    with archive.connected() as conn:
        return paging.page(
            conn,
            archive.schema,
            place,
            name,
            behind=asked.behind,
            limit=_PAGE,
            allow_gaps=asked.allow_gaps,
        )


def _rows(found: paging.Page, table: str, names: frozenset[str] | None, source: str | None) -> Rows:
    seen = [showing.row(row, names) for row in found.rows]
    several = dict.fromkeys(
        column for row in seen for column in (*row.values, *named(row.flags, "unchanged"))
    )
    every = dict.fromkeys([each for each in found.columns if each in several]) | several
    # Where the key is a column, it stands there once.
    key = next((name for name in every if all(_is_key(row, name) for row in seen)), "")
    every.pop(key, None)
    shown_columns = [*every][:_COLUMNS]
    return Rows(
        brief(key, _IN_CELLS) or "row",
        [brief(each, _IN_CELLS) for each in shown_columns],
        len(every) - len(shown_columns),
        [
            Cells(
                "" if row.key is None else brief(row.key, _IN_CELLS),
                links.record(table, row.key, source),
                [_cell(row, column) for column in shown_columns],
                "uncertain" in row.flags,
            )
            for row in seen
        ],
    )


def _is_key(row: Row, column: str) -> bool:
    return column in row.values and row.key == spoken(row.values[column])


def _cell(row: Row, column: str) -> Shown | None:
    """None for a column that the row did not have."""
    if column in row.values:
        value = shown(row.values[column], _IN_CELLS, column, row.flags)
        if f"stale:{column}" in row.flags:
            why = "A change of the table may have rewritten it since."
            return msgspec.structs.replace(value, why=why)
        return value
    return UNKNOWN if f"unchanged:{column}" in row.flags else None


def _differing(
    serving: Serving,
    who: Principal,
    asked: Compared,
    names: frozenset[str] | None,
) -> tuple[list[Differing], bool]:
    """The first ones, and whether there are others. It may take as long as an export, and has a
    place as one."""
    archive = serving.archive
    several: list[Differing] = []
    with (
        serving.exports.places.held(who.label),
        archive.connected() as conn,
        closing(cast(Generator[Difference], compare(conn, archive.schema, asked))) as found,
    ):
        for each in found:
            if showing.difference(each, names) is None:
                continue
            if len(several) == _DIFFERENCES:
                return several, True
            several.append(_told(each, asked.table, names, asked.start.source))
    return several, False


def _told(found: Difference, table: str, names: frozenset[str] | None, source: str) -> Differing:
    lines = [
        _line(column, sides, found)
        for column, sides in found.columns.items()
        if names is None or column in names
    ]
    key = found.key if found.key is not None else found.previous_key
    words = "" if key is None else f" {brief(key, _IN_CELLS)}"
    moved = (
        ""
        if found.previous_key is None or found.previous_key == key
        else f", {brief(found.previous_key, _IN_CELLS)} before"
    )
    return Differing(
        {"added": "create", "removed": "delete", "changed": "update"}[found.kind],
        f"{name_of(*table.split('.', 1))}{words}{moved}",
        links.record(table, key, source),
        found.count,
        lines[:_COLUMNS],
        max(0, len(lines) - _COLUMNS),
    )


def _line(column: str, sides: tuple[Any, Any], found: Difference) -> Line:
    told = brief(column, MOST_CHARACTERS)
    before, after = sides
    if found.kind == "added":
        return Line(told, after=shown(after, MOST_CHARACTERS))
    if found.kind == "removed":
        return Line(told, before=shown(before, MOST_CHARACTERS))
    if column in found.unknown:
        return Line(
            told,
            UNKNOWN if before is None else shown(before, MOST_CHARACTERS),
            UNKNOWN if after is None else shown(after, MOST_CHARACTERS),
        )
    return Line(told, *pair(before, after, MOST_CHARACTERS))
