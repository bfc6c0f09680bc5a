"""Errors as they are answered: problem+json, with what failed and what to do, and nothing of the
server's own. https://www.rfc-editor.org/rfc/rfc9457
"""

import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final, TypeAlias

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from psycopg.errors import QueryCanceled
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from bemi.api.principals import ForbiddenError, UnauthenticatedError
from bemi.errors import (
    BemiError,
    ConflictError,
    NotYetError,
    PassingError,
    UnknownStateError,
    UsageError,
)

log = logging.getLogger("bemi.server")

MEDIA_TYPE: Final = "application/problem+json"
SIGN_IN: Final = "/sign-in"

_STATUSES: Final[tuple[tuple[type[BemiError], int, str], ...]] = (
    (UnauthenticatedError, 401, "unauthenticated"),
    (ForbiddenError, 403, "forbidden"),
    (UsageError, 400, "wrong-use"),
    (NotYetError, 409, "not-yet"),
    (UnknownStateError, 404, "unknown"),
    (ConflictError, 409, "conflict"),
    (PassingError, 503, "passing"),
)


class TooManyError(BemiError):
    """Asked more often than is allowed; `seconds` until it may be asked again."""

    def __init__(self, message: str, *, seconds: int) -> None:
        super().__init__(message, fix=f"ask again in {seconds} seconds")
        self.seconds = seconds


class BusyError(BemiError):
    """As many are at it as there may be at once."""


class Problem(Response):
    """`members`: what it says, for who shows it in another form."""

    def __init__(self, members: Mapping[str, Any], status: int, headers: Mapping[str, str]) -> None:
        self.members = members
        super().__init__(
            msgspec.json.encode(members), status, media_type=MEDIA_TYPE, headers=dict(headers)
        )


AsPage: TypeAlias = Callable[[Request, Problem], Response]


def problem(
    status: int,
    kind: str,
    detail: str,
    *,
    fix: str | None = None,
    headers: Mapping[str, str] | None = None,
    **members: Any,
) -> Problem:
    body = {
        "type": f"urn:bemi:{kind}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        **({"fix": fix} if fix else {}),
        **members,
    }
    return Problem(body, status, headers or {})


def answer(error: BemiError) -> Problem:
    if isinstance(error, TooManyError):
        headers = {"Retry-After": str(error.seconds)}
        return problem(429, "too-many", str(error), fix=error.fix, headers=headers)
    if isinstance(error, BusyError):
        headers = {"Retry-After": "5"}
        return problem(503, "busy", str(error), fix=error.fix, headers=headers)
    if isinstance(error.__cause__, QueryCanceled):
        return problem(
            503,
            "too-long",
            "it would have taken longer than a question may",
            fix="ask for less: a table, a shorter time",
        )
    status, name = next(
        ((status, name) for kind, status, name in _STATUSES if isinstance(error, kind)),
        (500, "setup"),
    )
    if status >= 500:
        # What the server is connected to is not for everybody's eyes.
        log.error("can't answer", extra={"reason": str(error)})
        return problem(
            503,
            name,
            "the history can't be read just now; the server's log says why",
            headers={"Retry-After": "5"},
        )
    members: dict[str, Any] = {}
    if isinstance(error, ConflictError):
        members["conflicts"] = error.conflicts
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    return problem(status, name, str(error), fix=error.fix, headers=headers, **members)


def shown(request: Request, found: Problem) -> Response:
    """As a page, to a browser that asks for one."""
    as_page: AsPage | None = request.app.state.as_page
    return as_page(request, found) if as_page is not None and _is_a_page(request) else found


def handle(app: FastAPI) -> None:
    """Lets the application answer all errors so."""

    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, BemiError)
        if isinstance(error, UnauthenticatedError) and _is_a_page(request):
            return RedirectResponse(SIGN_IN, 303)
        return shown(request, answer(error))

    async def of_the_framework(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        detail = HTTPStatus(error.status_code).description or str(error.detail)
        return shown(request, problem(error.status_code, "http", detail, headers=error.headers))

    async def wrong_values(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        # Not with what was given, which may be long, or secret.
        errors = [
            {"at": [str(part) for part in each["loc"]], "message": str(each["msg"])}
            for each in error.errors()
        ]
        told = "; ".join(f"{'.'.join(each['at'])}: {each['message']}" for each in errors[:5])
        return shown(request, problem(422, "wrong-values", told, errors=errors[:50]))

    async def unexpected(request: Request, _error: Exception) -> Response:
        return shown(
            request, problem(500, "unexpected", "something failed; the server's log says what")
        )

    app.add_exception_handler(BemiError, ours)
    app.add_exception_handler(HTTPException, of_the_framework)
    app.add_exception_handler(RequestValidationError, wrong_values)
    app.add_exception_handler(Exception, unexpected)


def _is_a_page(request: Request) -> bool:
    return "/api/" not in request.url.path and "text/html" in request.headers.get("accept", "")
