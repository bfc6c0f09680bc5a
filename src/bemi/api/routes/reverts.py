"""Reverts: a plan, and then that plan, and no other, carried out."""

from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from bemi.api import reverting, shapes
from bemi.api.access import Editor, record
from bemi.api.answers import json_of
from bemi.api.asking import MOST, Sent, Short, Text, narrowed
from bemi.api.principals import Principal
from bemi.api.routing import PREFIX, told
from bemi.api.serving import Served, Serving
from bemi.history.planning import Narrowing, Plan

router = APIRouter(prefix=PREFIX, tags=["reverts"])


class Wanted(Sent):
    """Which changes, and which of their rows."""

    ids: list[Annotated[Text, Field(max_length=50)]] = Field(
        [], max_length=MOST, description="Of changes, of which any is meant."
    )
    only: list[Short] = Field(
        [], max_length=MOST, description="TABLE or TABLE:KEY: only these rows."
    )
    without: list[Short] = Field(
        [], max_length=MOST, description="TABLE or TABLE:KEY: all but these rows."
    )


class Wished(Wanted):
    plan: Text = Field(description="What the plan that was seen is called.")
    skip_conflicts: bool = Field(
        False, description="Leave rows that have conflicts alone, and rows that need these."
    )


@router.post("/reverts/plan", **told(shapes.Plan))
def plan_revert(request: Request, who: Editor, serving: Served, wanted: Wanted) -> Response:
    """What undoing changes would do to the source, row by row, with what stands in the way.
    Nothing is written."""
    with reverting.told():
        made = _plan(request, who, serving, wanted)
        shown = {
            "plan": reverting.name(made),
            "source": made.source,
            "position": str(made.position),
            "changes": made.changes,
            "filters": made.about.filters,
            "rows": made.rows,
            "conflicts": made.conflicts,
            "notes": made.notes,
            "sql": made.sql(by=who.name),
        }
    return json_of(request, shown)


@router.post("/reverts/apply", **told(shapes.Applied))
def apply_revert(request: Request, who: Editor, serving: Served, wanted: Wished) -> Response:
    """Do what a plan says, in one transaction, after looking at each row again; all of it, or,
    with `skip_conflicts`, what can be done. 409 where the plan would be another by now."""
    with reverting.told():
        made = _plan(request, who, serving, wanted)
        applied = reverting.apply(made, wanted.plan, who, skip_conflicts=wanted.skip_conflicts)
    return json_of(request, {"applied": applied, "notes": made.notes})


def _plan(request: Request, who: Principal, serving: Serving, wanted: Wanted) -> Plan:
    record(request, who, wanted.model_dump(exclude_unset=True))
    given = wanted.filters()
    each = [narrowed({**given, "id": id}, who) for id in wanted.ids] or [narrowed(given, who)]
    narrowing = Narrowing(tuple(wanted.only), tuple(wanted.without))
    return reverting.plan(serving, who, each, narrowing, wanted.source)
