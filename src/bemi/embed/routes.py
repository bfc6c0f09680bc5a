"""The one route that customers ask: what happened to what is theirs, page by page.

Everything that may be seen stands in the token and in its embed; parameters only narrow it.
"""

import time
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query
from pydantic import Field
from starlette.responses import Response

from bemi.api import shapes
from bemi.api.answers import encode
from bemi.api.asking import Asked, Text
from bemi.api.routing import PREFIX, told
from bemi.api.serving import Served, Serving
from bemi.embed.guard import SIGNED, Preflight, Visitor
from bemi.embed.seal import opened, sealed
from bemi.embed.share import Share
from bemi.embed.telling import Told, tell
from bemi.store import reader
from bemi.store.filters import Place

router = APIRouter(prefix=PREFIX, tags=["embeds"])

_MOST: Final = 100
_PAGE: Final = 20
_LOOKED_AT: Final = 500
"""Changes, for one page: of those that are theirs, some differ in nothing that may be told."""
_PATIENCE: Final = 5
"""Seconds for a page: nobody's customers keep the history from those who look after it."""
_CORS: Final = {
    "Access-Control-Allow-Methods": "GET",
    "Access-Control-Allow-Headers": "Authorization",
    "Access-Control-Max-Age": "600",
}


class Shown(Asked):
    table: Text | None = Field(None, description="Only this one of the token's tables.")
    key: Text | None = Field(None, description="Only this record of the table.")
    behind: Text | None = Field(None, description="What `next` was: the page that follows.")
    limit: int = Field(_PAGE, ge=1, le=_MOST)


@router.options("/embed/changes", dependencies=[Depends(Preflight())], include_in_schema=False)
def may_ask() -> Response:
    """Whether pages of this origin may ask the same with a token."""
    return Response(None, 204, headers=_CORS)


@router.get("/embed/changes", **told(shapes.EmbeddedChanges))
def embedded_changes(
    serving: Served, visitor: Annotated[Visitor, SIGNED], asked: Annotated[Shown, Query()]
) -> Response:
    """What happened, the newest first, for a customer of an application: of what the token says,
    and told so that no number loses digits in a browser. A page may be shorter than its limit."""
    embed, share = visitor.embed, visitor.share.narrowed(asked.table, asked.key)
    behind = None if asked.behind is None else opened(asked.behind, embed.seal, share.tenant)
    found, end = _page(serving, share, behind, asked.limit)
    body = {
        "changes": found,
        "next": None if end is None else sealed(end, embed.seal, share.tenant),
        "language": visitor.claims.language,
    }
    return Response(encode(body), media_type="application/json")


def _page(
    serving: Serving, share: Share, behind: Place | None, limit: int
) -> tuple[list[Told], Place | None]:
    """What is told, and behind what there may be more."""
    found: list[Told] = []
    looked_at, until = 0, time.monotonic() + _PATIENCE
    while looked_at < _LOOKED_AT and time.monotonic() < until:
        filters = share.filters(behind, limit + 1)
        with serving.archive.connected() as conn, conn.transaction():
            conn.execute(f"set local statement_timeout to '{_PATIENCE}s'".encode())
            rows = list(reader.changes(conn, serving.archive.schema, filters))
        for stored in rows:
            if len(found) == limit:
                return found, behind
            behind = stored.place
            shown = tell(stored, share)
            if shown is not None:
                found.append(shown)
        if len(rows) <= limit:
            return found, None
        looked_at += len(rows)
    return found, behind
