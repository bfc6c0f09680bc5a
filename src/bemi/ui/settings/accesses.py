"""The log of who has read and done what here, with filters."""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from bemi.api.access import Admin
from bemi.api.asking import Text
from bemi.api.problems import answer
from bemi.api.routes import people as of_api
from bemi.api.serving import Served
from bemi.errors import UsageError
from bemi.store import embeds, people
from bemi.store.accesses import Access
from bemi.ui import links
from bemi.ui.settings import deeds
from bemi.ui.settings.menu import settings_page
from bemi.ui.values import brief, visible

router = APIRouter()

_BRIEF: Final = 120
_RIGHT_BEHIND: Final = timedelta(seconds=1)
_PARAMETERS: Final = 12
"""Of a request, that the page shows; the JSON has them all."""


class Asking(of_api.Paged):
    moment: Text | None = None


class Told(msgspec.Struct, frozen=True):
    """`words`: what was done; `who`, `which`: addresses of all by them, and of all of this kind."""

    given: Access
    words: str
    who: str
    which: str
    asked: list[tuple[str, str]]
    more: int


@router.get("/settings/accesses")
def list_accesses(
    request: Request, who: Admin, serving: Served, asked: Annotated[Asking, Query()]
) -> Response:
    """The newest first."""
    query = links.without(request.query_params.multi_items(), "moment")
    problem: UsageError | None = None
    found: list[Access] = []
    following: int | None = None
    try:
        found, following = of_api.logged(serving, asked)
    except UsageError as error:
        problem = error
    with serving.archive.connected() as conn:
        schema = serving.archive.schema
        names = [(f"person {each.id}", each.name) for each in people.people(conn, schema)]
        shown = [(f"embed {each.id}", each.name) for each in embeds.embeds(conn, schema)]
        programs = [(f"token {each.id}", each.name) for each in people.tokens(conn, schema)]
    if asked.by is not None and asked.by not in dict([*names, *programs]):
        programs.append((asked.by, asked.by))
    first, more = links.pages(
        "/settings/accesses", query, None if following is None else str(following)
    )
    return settings_page(
        request,
        "settings_accesses.html",
        who,
        200 if problem is None else answer(problem).status_code,
        under="/settings/accesses",
        told=[_told(each) for each in _once(found)],
        asked=asked,
        people=names,
        programs=programs,
        embeds=shown,
        actions=_actions(asked.action),
        is_filtered=bool(links.without(query, "behind", "limit")),
        problem=problem,
        first=first,
        following=more,
        json=links.url("/api/v1/accesses", query),
    )


@router.get("/settings/accesses/filter")
def filter_accesses(request: Request, _who: Admin) -> Response:
    """The log with what a form says, without what it leaves empty."""
    given = [(name, value) for name, value in request.query_params.multi_items() if value.strip()]
    return RedirectResponse(links.url("/settings/accesses", given), 303)


def _once(found: Sequence[Access]) -> Iterable[Access]:
    """Without the first of the two lines that something sent has: that it was let in, and, right
    behind that, what it said."""
    for number, each in enumerate(found):
        if each.action.startswith("GET ") or not number or not _is_said(each, found[number - 1]):
            yield each


_OF_ADDRESSES: Final = frozenset({"id"})


def _is_said(first: Access, second: Access) -> bool:
    """Whether the second one says all that the first one does, and more. Of two that were sent at
    once, one never stands for what was sent with the other."""
    said, more = _parameters(first), _parameters(second)
    return (
        (first.by, first.action, first.address) == (second.by, second.action, second.address)
        and first.allowed
        and second.at - first.at < _RIGHT_BEHIND
        and len(said) < len(more)
        and said.keys() <= _OF_ADDRESSES
        and all(str(value) == str(more.get(name)) for name, value in said.items())
    )


def _parameters(access: Access) -> dict[str, Any]:
    found = msgspec.json.decode(access.asked)
    return found if isinstance(found, dict) else {}


def _told(access: Access) -> Told:
    pairs = [*_parameters(access).items()]
    shown = [(visible(name), _brief(value)) for name, value in pairs[:_PARAMETERS]]
    return Told(
        given=access,
        words=deeds.words(access.action),
        who=links.url("/settings/accesses", {"by": access.by}) if access.by else "",
        which=links.url("/settings/accesses", {"action": access.action}),
        asked=[(name, value) for name, value in shown if value],
        more=max(0, len(pairs) - _PARAMETERS),
    )


def _brief(value: object) -> str:
    """Nothing for what was not given."""
    if value in (None, "", [], {}):
        return ""
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return brief(text, _BRIEF)


def _actions(chosen: str | None) -> list[tuple[str, str]]:
    """What can be chosen: actions and their words; also one that has none."""
    known = [*deeds.WORDS.items()]
    return known if chosen is None or chosen in deeds.WORDS else [*known, (chosen, chosen)]
