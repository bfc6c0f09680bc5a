"""Undoing: the plan of it, row by row, and that plan, and no other, carried out."""

from collections.abc import Iterable
from typing import Annotated, Final, Literal

import msgspec
from fastapi import APIRouter, Form, Query, Request
from pydantic import Field
from starlette.responses import RedirectResponse, Response

from bemi.api import reverting
from bemi.api.access import Editor, record
from bemi.api.asking import Chosen, Text
from bemi.api.principals import Principal
from bemi.api.problems import answer
from bemi.api.serving import Served, Serving
from bemi.errors import BemiError, ConflictError, UnknownStateError, UsageError
from bemi.history.planning import Narrowing, Plan
from bemi.ui import links, moment
from bemi.ui.chips import WORDS, Chip
from bemi.ui.planned import Shown, records, shown, words
from bemi.ui.rendering import page
from bemi.ui.values import brief, visible

router = APIRouter()

_NARROWED: Final = 300
"""Rows that can be named in an address."""
_MOST_SQL: Final = 20_000
"""Characters of the script that the page shows, of at most so many rows:"""
_ROWS_IN_SQL: Final = 1000
_IN_CHIPS: Final = 80


class Planned(Chosen):
    """The filters, and which of the rows."""

    only: list[Text] = Field([], max_length=_NARROWED)
    without: list[Text] = Field([], max_length=_NARROWED)
    moment: Text | None = None

    @property
    def says_which(self) -> bool:
        names = {*Chosen.model_fields} - {"source"}
        return bool(names & self.model_fields_set)

    def plan(self, serving: Serving, who: Principal) -> Plan:
        """Of what was committed by the moment that was picked. Raises `BemiError`."""
        filters = moment.until(self.filters(who), moment.read(self.moment))
        narrowing = Narrowing(tuple(self.only), tuple(self.without))
        return reverting.plan(serving, who, [filters], narrowing, self.source)


class Script(msgspec.Struct, frozen=True):
    """`text`: as far as it is shown, spelled where it would not be seen."""

    text: str
    cut: bool
    href: str


@router.get("/revert")
def revert(
    request: Request, who: Editor, serving: Served, asked: Annotated[Planned, Query()]
) -> Response:
    """What undoing would do. Nothing is written."""
    who.require_all("a revert")
    if not asked.says_which:
        return _show(request, who, serving, asked, None, None)
    try:
        with reverting.told():
            made = asked.plan(serving, who)
            return _show(request, who, serving, asked, made, None)
    except (ConflictError, UnknownStateError, UsageError) as error:
        return _show(request, who, serving, asked, None, error)


@router.post("/revert")
def apply_revert(
    request: Request,
    who: Editor,
    serving: Served,
    asked: Annotated[Planned, Query()],
    seen: Annotated[Text, Form(max_length=100)],
    typed: Annotated[Text, Form(max_length=1000)] = "",
    skip_conflicts: Annotated[bool, Form()] = False,
) -> Response:
    """Does what the plan says that was `seen`, once its words were `typed`; a plan that has become
    another one is shown instead."""
    record(request, who, {"plan": seen, "skip_conflicts": skip_conflicts})
    made: Plan | None = None
    try:
        if not asked.says_which:
            raise UsageError("what is to be undone is not said")
        with reverting.told():
            made = asked.plan(serving, who)
            if typed.strip() != words(made) and reverting.name(made) == seen:
                raise UsageError(
                    "nothing was written: what was typed is not what was asked for",
                    fix=f"type {words(made)} if it is to be undone",
                )
            applied = reverting.apply(made, seen, who, skip_conflicts=skip_conflicts)
    except (ConflictError, UnknownStateError, UsageError) as error:
        if made is not None and not isinstance(error, reverting.OtherPlanError | UsageError):
            made = _again(serving, who, asked)  # what was in its way came after it was made
        return _show(request, who, serving, asked, made, error)
    return page(
        request,
        "reverted.html",
        who,
        applied=applied,
        source=made.source,
        transaction=None
        if applied.transaction_id is None
        # The log, and so the history, has the 32 bits that rows have.
        else links.transaction(applied.transaction_id & 0xFFFFFFFF, made.source),
        records=records(made),
        altered=[brief(each, 200) for each in applied.altered[:_NARROWED]],
        notes=[visible(each) for each in applied.notes],
        again=links.url("/revert", request.query_params.multi_items()),
    )


@router.get("/revert/sql")
def revert_sql(who: Editor, serving: Served, asked: Annotated[Planned, Query()]) -> Response:
    """The plan as a script, to be read, and run elsewhere."""
    if not asked.says_which:
        raise UsageError("what is to be undone is not said")
    with reverting.told():
        text = asked.plan(serving, who).sql(by=who.name)
    return Response(
        text,
        media_type="text/plain; charset=utf-8",
        headers={"Content-Disposition": 'attachment; filename="revert.sql"'},
    )


@router.get("/revert/narrow")
def narrow(
    request: Request,
    _who: Editor,
    how: Annotated[Literal["only", "without"], Query()],
    row: Annotated[list[Text], Query(max_length=_NARROWED)] = [],  # noqa: B006
) -> Response:
    """The plan of only these rows, or without them, beside what it was narrowed to before."""
    kept = links.without(request.query_params.multi_items(), "how", "row")
    if how == "only" and row:
        kept = links.without(kept, "only")
    kept += [(how, each) for each in row if (how, each) not in kept]
    return RedirectResponse(links.url("/revert", kept), 303)


def _again(serving: Serving, who: Principal, asked: Planned) -> Plan | None:
    try:
        with reverting.told():
            return asked.plan(serving, who)
    except (ConflictError, UnknownStateError, UsageError):
        return None


def _show(
    request: Request,
    who: Principal,
    serving: Serving,
    asked: Planned,
    plan: Plan | None,
    problem: BemiError | None,
) -> Response:
    query = request.query_params.multi_items()
    found: Shown | None = None
    script: Script | None = None
    name = ""
    if plan is not None:
        found = shown(serving, who, plan)
        name = reverting.name(plan)
        if found.todo:
            text = plan.sql(by=who.name) if len(plan.rows) <= _ROWS_IN_SQL else ""
            script = Script(
                visible(text[:_MOST_SQL]), len(text) > _MOST_SQL, links.url("/revert/sql", query)
            )
    filters = links.without(query, "only", "without", "moment")
    return page(
        request,
        "revert.html",
        who,
        200 if problem is None else answer(problem).status_code,
        plan=plan,
        found=found,
        seen=name,
        script=script,
        problem=problem,
        is_other=isinstance(problem, reverting.OtherPlanError),
        chips=[*_chips(filters)],
        narrowed=[*_narrowed(query)],
        query=query,
        activity=links.url("/", filters),
        says_which=asked.says_which,
    )


def _chips(filters: Iterable[tuple[str, str]]) -> Iterable[Chip]:
    for name, value in filters:
        if name in WORDS:
            yield Chip(WORDS[name], brief(value, _IN_CHIPS), "")


def _narrowed(query: list[tuple[str, str]]) -> Iterable[Chip]:
    """Each with the address of the plan without it."""
    for at, (name, value) in enumerate(query):
        if name in ("only", "without"):
            rest = [*query[:at], *query[at + 1 :]]
            yield Chip(name, brief(value, _IN_CHIPS), links.url("/revert", rest))
