"""The application: all routes, each with who may ask it, and one way to answer errors."""

import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import anyio
import anyio.to_thread
from fastapi import APIRouter, FastAPI

import bemi
from bemi.api import background
from bemi.api.access import refused
from bemi.api.principals import ForbiddenError
from bemi.api.problems import AsPage, handle
from bemi.api.routes import (
    changes,
    connecting,
    embeds,
    exports,
    live,
    observing,
    people,
    records,
    reverts,
    sources,
)
from bemi.api.serving import QUESTIONS, Serving
from bemi.api.shapes import Problem
from bemi.errors import BemiError
from bemi.store import accesses

log = logging.getLogger("bemi.server")

LARGEST_BODY: Final = 1 << 20
_FORGETS: Final = 3600.0
"""Seconds after which it is looked for accesses that were kept for long enough."""

_DESCRIPTION: Final = """\
The history of a PostgreSQL database, for programs. Numbers in JSON have all of their digits: read \
them with a parser that keeps them. Errors are `application/problem+json`, with `detail` and `fix`.
"""


class _Application(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """With the shape of problems, which no route's own answer has."""
        found = super().openapi()
        found["components"]["schemas"].setdefault(Problem.__name__, Problem.model_json_schema())
        return found


def application(
    serving: Serving, pages: Iterable[APIRouter] = (), as_page: AsPage | None = None
) -> FastAPI:
    """`pages`: routers of what people see, which are not in the OpenAPI document; `as_page`: how
    errors look there."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = QUESTIONS
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_forget_exports, serving)
            tasks.start_soon(_forget_accesses, serving)
            yield
            tasks.cancel_scope.cancel()
        serving.streams.close()
        await anyio.to_thread.run_sync(serving.background.close)

    app = _Application(
        title="Bemi",
        summary="Who changed what, when and why",
        description=_DESCRIPTION,
        version=bemi.__version__,
        docs_url=None,  # they load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        max_body_size=LARGEST_BODY,
        lifespan=lifespan,
        separate_input_output_schemas=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.serving = serving
    app.state.as_page = as_page
    handle(app)
    app.add_exception_handler(ForbiddenError, refused)
    for each in (sources, connecting, changes, records, live, exports, reverts, people, embeds):
        app.include_router(each.router)
    app.include_router(observing.router)
    for router in pages:
        app.include_router(router, include_in_schema=False)
    return app


async def _forget_exports(serving: Serving) -> None:
    """Also where nobody asks for one any more: what is in them is not for disks to keep."""
    while True:
        await anyio.sleep(background.LOOKS)
        with suppress(OSError):
            await anyio.to_thread.run_sync(serving.background.forget)


async def _forget_accesses(serving: Serving) -> None:
    """Of what was asked here, what is older than it is to be kept."""
    while True:
        await anyio.to_thread.run_sync(_forget_old, serving)
        await anyio.sleep(_FORGETS)


def _forget_old(serving: Serving) -> None:
    archive = serving.archive
    try:
        with archive.connected() as conn:
            while accesses.forget(conn, archive.schema, serving.keeps_accesses):
                pass
    except BemiError as error:
        log.warning("can't delete old accesses", extra={"reason": str(error)})
