"""Answers: JSON that is ready as bytes, so that no number passes through a float, with an ETag; and
streams of lines, which end when nobody takes them any more."""

import hashlib
import itertools
import logging
from collections.abc import Generator, Iterator
from typing import Any, Final

import anyio
import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

log = logging.getLogger("bemi.server")

NDJSON: Final = "application/x-ndjson"
_PIECE: Final = 1 << 16
_TAKEN_WITHIN: Final = 60.0
"""Seconds in which a client takes a piece of what it has asked for."""

encode: Final = msgspec.json.Encoder(decimal_format="number").encode
"""Numbers stay numbers, with all of their digits."""


def json_of(request: Request, value: Any, status: int = 200) -> Response:
    """What was answered before, by its ETag, is not sent again; but asked for again it must be,
    since who asks may not be allowed to any more."""
    body = encode(value)
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache", "Vary": "Authorization, Cookie"}
    given = request.headers.get("if-none-match", "")
    if request.method == "GET" and etag in [
        each.strip().removeprefix("W/") for each in given.split(",")
    ]:
        return Response(None, 304, headers=headers)
    return Response(body, status, media_type="application/json", headers=headers)


def taken(send: Send) -> Send:
    """The same; raises TimeoutError where nobody takes what is sent: its place is for others."""

    async def sent(message: Message) -> None:
        with anyio.fail_after(_TAKEN_WITHIN):
            await send(message)

    return sent


class Streamed(StreamingResponse):
    """Of bytes that a generator makes in threads, which is closed in the end, whatever that is.

    The first of them are asked for before the answer begins, so that errors can be told.
    """

    def __init__(self, pieces: Generator[bytes], media_type: str, **headers: str) -> None:
        self._pieces = pieces
        first = list(itertools.islice(pieces, 1))
        super().__init__(
            itertools.chain(first, pieces),
            media_type=media_type,
            headers={name.replace("_", "-"): value for name, value in headers.items()},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, taken(send))
        except TimeoutError:
            log.warning("an answer was not taken")
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._pieces.close)


def lines(values: Iterator[Any]) -> Generator[bytes]:
    """Each as JSON on a line, several together."""
    waiting = bytearray()
    for value in values:
        waiting += encode(value).replace(b"\n", b" ") + b"\n"
        if len(waiting) >= _PIECE:
            yield bytes(waiting)
            waiting.clear()
    yield bytes(waiting)
