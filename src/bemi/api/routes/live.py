"""Changes as they are captured, as Server-Sent Events.
https://html.spec.whatwg.org/multipage/server-sent-events.html

The id of each event is where the stream stands behind it, in the logs of all sources: a client that
comes back with it misses nothing and gets nothing twice, also from another server.
"""

import logging
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Annotated, Any, Final

import anyio
from fastapi import APIRouter, Header, Query, Request
from fastapi.sse import format_sse_event
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from bemi.api import showing
from bemi.api.access import RESUMED, Viewer, may_still
from bemi.api.answers import encode, taken
from bemi.api.asking import Streaming, Text
from bemi.api.principals import Principal
from bemi.api.routing import PREFIX, told
from bemi.api.serving import Served, Serving
from bemi.errors import MissingChangesError
from bemi.history.beginning import beginning_of
from bemi.history.feed import Feed
from bemi.store.reader import StoredChange

log = logging.getLogger("bemi.server")

router = APIRouter(prefix=PREFIX, tags=["live"])

EVENTS: Final = "text/event-stream"
_BEAT: Final = 15.0
"""Seconds after which a stream without changes says where it stands, and looks again whether who
listens may."""
_RETRY: Final = 2000


class _Events(StreamingResponse):
    """Of a feed, which is closed in the end."""

    def __init__(self, request: Request, who: Principal, serving: Serving, feed: Feed) -> None:
        self._events = _events(request, who, serving, feed)
        super().__init__(self._events, media_type=EVENTS)
        self.headers["Cache-Control"] = "no-cache"
        self.headers["X-Accel-Buffering"] = "no"
        self._streams, self._feed = serving.streams, feed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, taken(send))
        except TimeoutError:
            log.warning("a stream was not taken")
        finally:
            self._streams.drop(self._feed)
            # Else its connection stays open until garbage is collected.
            with anyio.CancelScope(shield=True):
                await self._events.aclose()


@router.get("/stream", **told((EVENTS,)))
def stream(
    request: Request,
    who: Viewer,
    serving: Served,
    asked: Annotated[Streaming, Query()],
    last_event_id: Annotated[
        Text | None,
        Header(alias=RESUMED, max_length=4000, description="The id of the last event."),
    ] = None,
) -> Response:
    """Changes as they come: events `change`; and `missing` where the history lacks some.

    In the order of each source's log, whole transactions at a time.
    """
    filters = asked.filters(who)
    start = beginning_of(last_event_id or asked.start)
    serving.streams.reserve(who.label)
    try:
        feed = Feed(
            serving.archive.url, serving.archive.schema, filters, start, baseline=asked.baseline
        )
    except BaseException:
        serving.streams.places.give_back(who.label)
        raise
    serving.streams.add(feed, who.label)
    return _Events(request, who, serving, feed)


async def _events(
    request: Request, who: Principal, serving: Serving, feed: Feed
) -> AsyncGenerator[bytes]:
    yield format_sse_event(id=str(feed.cursor), retry=_RETRY)
    found = feed.follow(timeout=_BEAT, until_caught_up=False)
    looked = time.monotonic()
    try:
        while True:
            # Left behind where nobody listens any more: then the feed is closed, which ends it.
            each = await anyio.to_thread.run_sync(
                next, found, None, abandon_on_cancel=True, limiter=serving.streams.threads
            )
            if each is not None:
                event = _event(each, who, str(feed.cursor))
                if event is not None:
                    yield event
            elif serving.streams.closed:
                return
            if each is None or time.monotonic() - looked > _BEAT:
                if not await anyio.to_thread.run_sync(may_still, request, who):
                    return
                looked = time.monotonic()
            if each is None:
                yield format_sse_event(comment="", id=str(feed.cursor))
                found = feed.follow(timeout=_BEAT, until_caught_up=False)
    finally:
        with suppress(ValueError):  # a thread is in it still, and ends it
            found.close()


def _event(each: StoredChange | MissingChangesError, who: Principal, at: str) -> bytes | None:
    if isinstance(each, StoredChange):
        kind, value = "change", encode(showing.change(each, who))
    elif each.root is None or who.sees(each.root):
        kind, value = "missing", encode(_missing(each))
    else:
        return None
    return format_sse_event(event=kind, data_str=value.decode(), id=at)


def _missing(error: MissingChangesError) -> dict[str, Any]:
    return {
        "source": error.source,
        "table": error.table,
        "cause": error.cause,
        "from_position": error.from_position,
        "to_position": error.to_position,
        "message": str(error),
        "fix": error.fix,
    }
