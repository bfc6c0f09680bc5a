"""A record: what it is and who set what, what happened to it, and two of its versions beside each
other."""

from collections.abc import Sequence
from contextlib import closing
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, cast
from uuid import UUID

import msgspec
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from bemi.api import showing
from bemi.api.access import Viewer
from bemi.api.answers import encode
from bemi.api.asking import OfSource, Text, narrowed
from bemi.api.principals import Principal
from bemi.api.problems import answer
from bemi.api.routes.changes import one
from bemi.api.routes.changes import page as changes_page
from bemi.api.routes.records import columns
from bemi.api.serving import Served, Serving
from bemi.api.states import rows_at
from bemi.errors import BemiError, UnknownStateError, UsageError
from bemi.history.blame import Blame
from bemi.history.change import Change, Row
from bemi.lsn import Lsn
from bemi.store import completeness
from bemi.store.reader import StoredChange
from bemi.ui import links, moment, related, versions
from bemi.ui.actors import Actor, actor_of
from bemi.ui.rendering import iso, page
from bemi.ui.telling import MOST_CHARACTERS, Line, name_of, tell
from bemi.ui.undo import may_undo, refused
from bemi.ui.values import UNKNOWN, Shown, brief, is_replaced, named, pair, shown

router = APIRouter()

_PAGE: Final = 20
_COLUMNS: Final = 30
_TABLES: Final = 1000


class OfRecord(OfSource):
    table: Text | None = None
    key: Text | None = None
    behind: Text | None = None
    a: Text | None = None
    b: Text | None = None
    moment: Text | None = None


class Setter(msgspec.Struct, frozen=True):
    """A column, its value, and the change that it is of."""

    name: str
    value: Shown
    previous: Shown | None
    exact: bool
    change: Change
    actor: Actor


class Start(msgspec.Struct, frozen=True):
    """A change from which on all can be undone."""

    position: str
    text: str
    when: datetime


class Version(msgspec.Struct, frozen=True):
    """The record behind a change, as far as it is known; without a row it was not there."""

    change: StoredChange
    row: Row | None
    uncertain: str | None
    actor: Actor


class Compared(msgspec.Struct, frozen=True):
    old: Version
    new: Version
    differing: list[Line]
    same: list[Line]


@router.get("/record")
def record(
    request: Request, who: Viewer, serving: Served, asked: Annotated[OfRecord, Query()]
) -> Response:
    if not asked.table or asked.key is None:
        return _find(request, who, serving, asked)
    when = moment.read(asked.moment)
    filters = narrowed(
        {
            "table": asked.table,
            "key": asked.key,
            "source": asked.source,
            "behind": asked.behind,
            "limit": _PAGE,
        },
        who,
    )
    found = changes_page(serving, who, moment.until(filters, when))
    if not found["changes"] and asked.behind is None:
        unknown = UnknownStateError(
            f"the history has no change of {asked.table} {asked.key}"
            + ("" if when is None else " by then"),
            fix='look at the table and the key; a composite key is JSON, as ["7","2026-05-03"]',
        )
        return _find(request, who, serving, asked, unknown)
    table = _qualified(asked.table)
    source = _source(asked, found["changes"])
    query = request.query_params.multi_items()
    first, following = links.pages("/record", query, found["next"])
    problem: BemiError | None = None
    setters: list[Setter] = []
    then: Row | None = None
    uncertain: str | None = None
    compared: Compared | None = None
    known: dict[str, Any] = {}
    try:
        if when is None:
            blamed = _blamed(serving, who, table, asked.key, asked.source)
            setters = [_setter(each) for each in blamed]
            known = {each.column: _known(each.column, each.value, each.change) for each in blamed}
        else:
            then, uncertain = _row(serving, who, when.isoformat(), table, asked.key, asked.source)
            if then is not None:
                known = {name: _known(name, value, then) for name, value in then.values.items()}
        if asked.a is not None and asked.b is not None:
            compared = _compared(serving, who, table, asked.a, asked.b, asked.source)
    except (UsageError, UnknownStateError) as error:
        problem = error  # what is known of the record stands there all the same
    return page(
        request,
        "record.html",
        who,
        name=f"{name_of(*table.split('.', 1))} {brief(asked.key, 80)}",
        table=asked.table,
        key=asked.key,
        source=asked.source,
        told=[tell(each, columns=_COLUMNS) for each in found["changes"]],
        setters=setters,
        then=None if then is None else _lines(then),
        uncertain=uncertain,
        compared=compared,
        picked=_picked(compared, found["changes"]),
        starts=_starts(found["changes"]) if may_undo(serving, who) else [],
        refused=refused(serving, who),
        back=_back(serving, who, when, asked, source),
        undone_of=source,
        related=related.of(serving, who, source, table, known),
        version=lambda when: links.url(
            "/record",
            {"table": asked.table, "key": asked.key, "source": asked.source, "moment": when},
        ),
        slider=versions.slider(serving, who, filters, when),
        problem=problem,
        first=first,
        following=following,
        also=_also(found["changes"], table, asked.key),
        activity=links.url("/", {"table": asked.table, "key": asked.key, "source": asked.source}),
        json=links.url(
            "/api/v1/record/changes",
            {"table": asked.table, "key": asked.key, "source": asked.source},
        ),
    )


def _starts(changes: list[StoredChange]) -> list[Start]:
    return [
        Start(
            str(Lsn(each.commit_position)),
            "".join(bit.text for bit in tell(each).sentence),
            each.committed_at,
        )
        for each in changes
    ]


def _source(asked: OfRecord, changes: list[StoredChange]) -> str | None:
    """Whose log a position is of."""
    return changes[0].source if changes else asked.source


def _back(
    serving: Serving,
    who: Principal,
    when: datetime | None,
    asked: OfRecord,
    source: str | None,
) -> str:
    """The plan that makes the record again what it was at the moment."""
    if when is None or not may_undo(serving, who):
        return ""
    since = iso(when + timedelta(microseconds=1))
    query = {"table": asked.table, "key": asked.key, "source": source, "since": since}
    return links.url("/revert", query)


def _also(changes: list[StoredChange], table: str, key: str) -> list[tuple[str, str]]:
    """What else it was called, or is by now: names, and where they lead."""
    keys = [each for change in changes for each in (change.previous_key, change.primary_key)]
    return [
        (brief(each, 80), links.record(table, each))
        for each in dict.fromkeys(keys)
        if each is not None and each != key and len(each) <= links.LONGEST
    ]


def _find(
    request: Request,
    who: Principal,
    serving: Serving,
    asked: OfRecord,
    problem: BemiError | None = None,
) -> Response:
    with serving.archive.connected() as conn:
        covered = completeness.read(conn, serving.archive.schema)
    names = {
        table.root.removeprefix("public.")
        for each in covered
        for table in each.tables
        if who.sees(table.root)
    }
    return page(
        request,
        "find.html",
        who,
        200 if problem is None else answer(problem).status_code,
        problem=problem,
        table=asked.table or "",
        key=asked.key or "",
        tables=sorted(names)[:_TABLES],
    )


def _blamed(
    serving: Serving, who: Principal, table: str, key: str, source: str | None
) -> list[Blame]:
    names = columns(serving, who, table)
    found = serving.archive.history.blame(table, key, source=source)
    return [each for each in found if names is None or each.column in names]


def _known(column: str, value: Any, of: Change | Row) -> Any:
    """None for what only stands in the place of the value."""
    return None if is_replaced(column, of.flags) else value


def _setter(found: Blame) -> Setter:
    flags = found.change.flags
    is_unknown = found.value is None and not (
        found.column in found.change.after or found.column in found.change.before
    )
    value = UNKNOWN if is_unknown else shown(found.value, MOST_CHARACTERS, found.column, flags)
    previous = None
    if found.previous is not None:
        previous, value = pair(found.previous, found.value, MOST_CHARACTERS, found.column, flags)
    context = msgspec.Raw(encode(found.change.context))
    return Setter(
        brief(found.column, MOST_CHARACTERS),
        value,
        previous,
        found.exact,
        found.change,
        actor_of(context),
    )


def _row(
    serving: Serving, who: Principal, when: str, table: str, key: str, source: str | None
) -> tuple[Row | None, str | None]:
    """As it was, and why that is not surely known."""
    names = columns(serving, who, table)
    rows = rows_at(serving.archive, when, table, key, source=source, allow_gaps=True)
    with closing(rows):
        uncertain = next(rows)
        row = cast(Row | None, next(rows, None))
    shown = None if row is None else showing.row(row, names)
    return shown, None if uncertain is None else str(uncertain)


def _version(serving: Serving, who: Principal, table: str, id: str, source: str | None) -> Version:
    change = one(serving, who, id, source)
    if f"{change.schema}.{change.table}" != table or change.primary_key is None:
        raise UsageError(f"the change {change.id} is of another record")
    row, uncertain = _row(serving, who, str(change.id), table, change.primary_key, change.source)
    return Version(change, row, uncertain, actor_of(showing.change(change, who).context))


def _compared(
    serving: Serving, who: Principal, table: str, a: str, b: str, source: str | None
) -> Compared:
    """The older one first."""
    old, new = sorted(
        (_version(serving, who, table, id, source) for id in (a, b)),
        key=lambda version: version.change.place,
    )
    before = {} if old.row is None else old.row.values
    after = {} if new.row is None else new.row.values
    flags = [*(old.row.flags if old.row else ()), *(new.row.flags if new.row else ())]
    differing: list[Line] = []
    same: list[Line] = []
    for name in {**before, **after}:
        told = brief(name, MOST_CHARACTERS)
        if name in before and name in after:
            sides = pair(before[name], after[name], MOST_CHARACTERS, name, flags)
            line = Line(told, *sides)
            (same if repr(before[name]) == repr(after[name]) else differing).append(line)
            continue
        # A column that the row lacks on one side was not there, or is not known.
        lacking = UNKNOWN if f"unchanged:{name}" in flags else None
        differing.append(
            Line(
                told,
                shown(before[name], MOST_CHARACTERS, name, flags) if name in before else lacking,
                shown(after[name], MOST_CHARACTERS, name, flags) if name in after else lacking,
            )
        )
    return Compared(old, new, differing, same)


def _picked(
    compared: Compared | None, changes: Sequence[StoredChange]
) -> tuple[UUID | None, UUID | None]:
    """The old side and the new one of the form: what is compared, else the last change."""
    if compared is not None:
        return compared.old.change.id, compared.new.change.id
    if len(changes) < 2:
        return None, None
    return changes[1].id, changes[0].id


def _lines(row: Row) -> list[Line]:
    return [
        Line(
            brief(name, MOST_CHARACTERS),
            after=shown(row.values[name], MOST_CHARACTERS, name, row.flags)
            if name in row.values
            else UNKNOWN,
        )
        for name in dict.fromkeys([*row.values, *named(row.flags, "unchanged")])
    ]


def _qualified(table: str) -> str:
    return table if "." in table else f"public.{table}"
