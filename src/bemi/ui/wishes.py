"""What forms ask for, turned into the address of the page that shows it: so the address is the
state, without a script."""

from typing import Annotated, Final, Literal

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import RedirectResponse, Response

from bemi.api.access import Viewer
from bemi.api.asking import Chosen, Text
from bemi.api.serving import Served
from bemi.errors import UsageError
from bemi.ui import links
from bemi.ui.moment import read
from bemi.ui.rendering import THEME, iso

router = APIRouter()

_YEAR: Final = 365 * 24 * 3600
_REPEATABLE: Final = ("operation", "context", "before", "after")
_USER: Final = "user"
"""Short for the context's `user_id`."""


@router.get("/filter")
def add_filter(
    request: Request, _who: Viewer, on: Annotated[Literal["/", "/trends"], Query()] = "/"
) -> Response:
    """The Activity, or the Trends, with one filter more: `add` and `value`, beside those that
    there are."""
    query = request.query_params
    add, value = query.get("add", ""), query.get("value", "").strip()
    kept = links.without(query.multi_items(), "on", "add", "value", "behind")
    if add == _USER:
        add, value = "context", f"user_id={value}" if value else ""
    if add not in Chosen.model_fields:
        raise UsageError(f"there is no filter {add}")
    if not value:
        return RedirectResponse(links.url(on, kept), 303)
    if add not in _REPEATABLE:
        kept = links.without(kept, add)
    if (add, value) not in kept:
        kept.append((add, value))
    return RedirectResponse(links.url(on, kept), 303)


@router.get("/moment")
def pick_moment(
    _who: Viewer,
    when: Annotated[Text, Query(max_length=100)],
    back: Annotated[Text, Query(max_length=8000)] = "/",
) -> Response:
    """The page `back` as of `when`, such as `yesterday 09:00`, which means one moment from then
    on; nothing is now."""
    path, query = links.local(back)
    query = links.without(query, "moment", "behind")
    moment = read(when.strip() or None)
    if moment is not None:
        query.append(("moment", iso(moment)))
    return RedirectResponse(links.url(path, query), 303)


@router.post("/theme")
def choose_theme(
    _who: Viewer,
    serving: Served,
    theme: Annotated[Literal["system", "light", "dark"], Form()],
    back: Annotated[Text, Form(max_length=8000)] = "/",
) -> Response:
    answer = RedirectResponse(links.url(*links.local(back)), 303)
    answer.set_cookie(
        THEME,
        theme,
        max_age=0 if theme == "system" else _YEAR,
        path="/",
        secure=serving.is_secure,
        httponly=True,
        samesite="lax",
    )
    return answer
