"""What everybody may know of themselves here, and the end of their sessions."""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from bemi.api.access import Viewer
from bemi.api.oidc import SignInError
from bemi.api.origins import host_of
from bemi.api.serving import Served
from bemi.errors import UsageError
from bemi.store import identities, sessions
from bemi.ui.settings import scopes
from bemi.ui.settings.menu import Asking, settings_page
from bemi.ui.signing import keep_for_binding, provider_of, signed_out

router = APIRouter()

MAY: Final = {
    "viewer": "read the history",
    "editor": "read the history, and undo changes",
    "admin": "read the history, undo changes, and say who else may",
}
"""What each role may do."""


@router.get("/settings")
def own(
    request: Request, who: Viewer, serving: Served, _asked: Annotated[Asking, Query()]
) -> Response:
    """Who one is, what one may see, and where one is signed in."""
    found: list[sessions.Session] = []
    accounts: list[identities.Bound] = []
    if who.holder.kind == "person":
        with serving.archive.connected() as conn:
            found = sessions.of_person(conn, serving.archive.schema, who.holder.id)
            accounts = identities.of_person(conn, serving.archive.schema, who.holder.id)
    provider = serving.provider
    may_bind = provider is not None and provider.issuer not in [each.issuer for each in accounts]
    return settings_page(
        request,
        "settings_own.html",
        who,
        under="/settings",
        may=MAY[who.holder.role],
        sees=scopes.words(who.holder.scopes),
        accounts=accounts,
        provider=provider.name if provider is not None and may_bind else None,
        sessions=[(each, each.digest == who.holder.digest) for each in found],
        json="/api/v1/me",
    )


@router.post("/settings/account")
def bind_account(request: Request, who: Viewer, serving: Served) -> Response:
    """Leads to the provider, of whose account one is to come in by. A page with a link, since
    browsers take no form to another origin."""
    if request.headers.get("host", "").lower() != host_of(serving.origin):
        raise UsageError("this works under one name of this server", fix=f"go to {serving.origin}")
    provider = provider_of(serving)
    problem: SignInError | None = None
    address = secret = ""
    try:
        address, secret = provider.begin()
    except SignInError as error:
        problem = error
    answer = settings_page(
        request,
        "settings_account.html",
        who,
        200 if problem is None else 503,
        under="/settings",
        provider=provider.name,
        address=address,
        problem=problem,
    )
    keep_for_binding(answer, serving, who, secret)
    return answer


@router.post("/settings/sign-out")
def sign_out_everywhere(who: Viewer, serving: Served) -> Response:
    """Here, and on all other devices."""
    if who.holder.kind == "person":
        with serving.archive.connected() as conn:
            sessions.end_all(conn, serving.archive.schema, who.holder.id)
    return signed_out(serving)
