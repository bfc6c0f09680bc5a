"""All pages, and how errors look there."""

from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from bemi.api.problems import Problem
from bemi.errors import UsageError
from bemi.ui import (
    activity,
    changes,
    connecting,
    links,
    record,
    revert,
    rules,
    signing,
    sources,
    table,
    travel,
    trends,
    wishes,
)
from bemi.ui.rendering import page
from bemi.ui.settings import accesses, embeds, own, people, person, tokens

ROUTERS: Final[tuple[APIRouter, ...]] = (
    signing.router,
    wishes.router,
    activity.router,
    record.router,
    changes.router,
    revert.router,
    travel.router,
    table.router,
    trends.router,
    sources.router,
    own.router,
    people.router,
    person.router,
    tokens.router,
    embeds.router,
    accesses.router,
    connecting.router,
    rules.router,
)

_KEPT: Final = ("retry-after", "www-authenticate", "allow")


def _back(request: Request) -> str:
    """The page of the form that came to nothing, where it says which; else empty."""
    try:
        return links.url(*links.local(request.query_params.get("back", "")))
    except UsageError:
        return ""


def error(request: Request, problem: Problem) -> Response:
    """What failed, and what to do, for people."""
    who = getattr(request.state, "principal", None)
    shown = page(
        request,
        "error.html",
        who,
        problem.status_code,
        title=problem.members["title"],
        detail=problem.members["detail"],
        fix=problem.members.get("fix"),
        back=_back(request),
    )
    for name in _KEPT:
        if name in problem.headers:
            shown.headers[name] = problem.headers[name]
    return shown
