"""Signing in by a one-time link, and out."""

from typing import Annotated

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import RedirectResponse, Response

from bemi.api.access import VIEWER, address_of, record
from bemi.api.asking import Text
from bemi.api.origins import is_own
from bemi.api.principals import ForbiddenError, Principal
from bemi.api.serving import Served
from bemi.store import people
from bemi.store.people import SESSION_LASTS, Holder
from bemi.ui.rendering import page

router = APIRouter()

Secret = Annotated[Text, Query(max_length=200)]


@router.get("/sign-in")
def sign_in_page(request: Request, link: Secret = "") -> Response:
    """Shows a button: a link that is only looked at, as chats and mail do, is not used up."""
    return page(request, "sign_in.html", None, link=link, failed=False)


@router.post("/sign-in")
def sign_in(
    request: Request,
    serving: Served,
    link: Annotated[Text, Form(max_length=200)],
    name: Annotated[Text, Form(min_length=1, max_length=100)] = "owner",
) -> Response:
    """Uses the link up, and begins a session."""
    if not is_own(request.headers, serving.origins):
        raise ForbiddenError("it can't be told that a page of this server asks this")
    with serving.archive.connected() as conn:
        found = people.sign_in(conn, serving.archive.schema, link, name.strip() or "owner")
    if found is None:
        serving.limits.failed(address_of(request))
        return page(request, "sign_in.html", None, 403, link="", failed=True)
    person, session = found
    holder = Holder("person", person.id, person.id, person.name, person.role, person.scopes, b"")
    record(request, Principal.of(holder), {})
    answer = RedirectResponse("/", 303)
    answer.set_cookie(
        serving.cookie,
        session,
        max_age=int(SESSION_LASTS.total_seconds()),
        path="/",
        secure=serving.is_secure,
        httponly=True,
        samesite="lax",
    )
    return answer


@router.post("/sign-out", dependencies=[VIEWER])
def sign_out(request: Request, serving: Served) -> Response:
    session = request.cookies.get(serving.cookie)
    if session is not None:
        with serving.archive.connected() as conn:
            people.sign_out(conn, serving.archive.schema, session)
    answer = RedirectResponse("/sign-in", 303)
    answer.delete_cookie(
        serving.cookie, path="/", secure=serving.is_secure, httponly=True, samesite="lax"
    )
    return answer
