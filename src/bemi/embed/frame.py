"""The script that shows a history in pages of an application, and a page of ours to be framed.

Both are the same for everybody: the token comes to them in the browser.
"""

import gzip
import hashlib
from importlib import resources
from typing import Annotated, Final

from fastapi import APIRouter, Path, Request
from starlette.responses import HTMLResponse, Response

from bemi.api.asking import Text
from bemi.api.serving import Served
from bemi.errors import UnknownStateError
from bemi.store import embeds
from bemi.ui.rendering import written

router = APIRouter()

_SCRIPT: Final = resources.files("bemi.embed").joinpath("static", "bemi-embed.js").read_bytes()
_ZIPPED: Final = gzip.compress(_SCRIPT, mtime=0)
_ETAG: Final = f'"{hashlib.sha256(_SCRIPT).hexdigest()[:32]}"'
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; base-uri 'none';"
    " form-action 'none'; frame-ancestors "
)
_FOR_ALL: Final = {
    "Access-Control-Allow-Origin": "*",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Cache-Control": "public, max-age=300",
    "Vary": "Accept-Encoding",
    "ETag": _ETAG,
}


@router.get("/embed.js")
def script(request: Request) -> Response:
    """The element `<bemi-history>`."""
    if _ETAG in request.headers.get("if-none-match", ""):
        return Response(None, 304, headers=_FOR_ALL)
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers = {**_FOR_ALL, "Content-Encoding": "gzip"}
        return Response(_ZIPPED, media_type="text/javascript", headers=headers)
    return Response(_SCRIPT, media_type="text/javascript", headers=_FOR_ALL)


@router.get("/embed/{kid}")
def frame(kid: Annotated[Text, Path()], serving: Served) -> Response:
    """A page with nothing but that element, for pages of the embed's origins to frame."""
    with serving.archive.connected() as conn:
        embed = embeds.embed_of(conn, serving.archive.schema, kid)
    if embed is None:
        raise UnknownStateError("there is no embed of this name, or not any more")
    allowed = [*dict.fromkeys([serving.origin, *embed.origins])]
    return HTMLResponse(
        written("embed.html", origins=" ".join(allowed)),
        headers={
            "Content-Security-Policy": _POLICY + " ".join(allowed),
            "Cross-Origin-Resource-Policy": "cross-origin",
        },
    )
