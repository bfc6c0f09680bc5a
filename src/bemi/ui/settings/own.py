"""What everybody may know of themselves here, and the end of their sessions."""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from bemi.api.access import Viewer
from bemi.api.serving import Served
from bemi.store import sessions
from bemi.ui.settings import scopes
from bemi.ui.settings.menu import Asking, settings_page
from bemi.ui.signing import signed_out

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
    if who.holder.kind == "person":
        with serving.archive.connected() as conn:
            found = sessions.of_person(conn, serving.archive.schema, who.holder.id)
    return settings_page(
        request,
        "settings_own.html",
        who,
        under="/settings",
        may=MAY[who.holder.role],
        sees=scopes.words(who.holder.scopes),
        sessions=[(each, each.digest == who.holder.digest) for each in found],
        json="/api/v1/me",
    )


@router.post("/settings/sign-out")
def sign_out_everywhere(who: Viewer, serving: Served) -> Response:
    """Here, and on all other devices."""
    if who.holder.kind == "person":
        with serving.archive.connected() as conn:
            sessions.end_all(conn, serving.archive.schema, who.holder.id)
    return signed_out(serving)
