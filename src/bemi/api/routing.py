"""How routes are told: their errors in the OpenAPI document, and that each says who may ask it."""

from collections.abc import Iterable
from typing import Any, Final

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic import BaseModel
from starlette.responses import Response
from starlette.routing import BaseRoute

from bemi.api import oidc
from bemi.api.access import Guard, Takes
from bemi.api.problems import MEDIA_TYPE
from bemi.api.shapes import Problem

PREFIX: Final = "/api/v1"


def told(kind: type[BaseModel] | tuple[str, ...], status: int = 200) -> dict[str, Any]:
    """What a route answers, a shape or media types, and that its errors are problems."""
    found: dict[str, Any] = {"description": "Done."}
    if isinstance(kind, tuple):
        found["content"] = {each: {"schema": {"type": "string"}} for each in kind}
    else:
        found["model"] = kind
    problem = {"schema": {"$ref": f"#/components/schemas/{Problem.__name__}"}}
    error = {"description": "What failed, and what to do.", "content": {MEDIA_TYPE: problem}}
    return {
        "responses": {status: found, "default": error},
        "response_model": None,
        "status_code": status,
        **({"response_class": Response} if isinstance(kind, tuple) else {}),
    }


OPEN: Final = frozenset(
    {
        *("/healthz", "/readyz", "/openapi.json", "/embed.js", "/embed/{kid}"),
        *("/sign-in", oidc.START, oidc.CALLBACK),
    }
)
"""Paths that take no token; and below this one, files that are the same for all:"""
STATIC: Final = "/static"


def role_of(route: APIRoute) -> Takes | None:
    """The role that it takes, or `embed`; None where it is open."""
    return next((each.takes for each in _guards(route.dependant)), None)


def routes_of(app: FastAPI) -> list[BaseRoute]:
    """Those of all routers, with mounted applications."""
    return [each.original_route for each in iter_route_contexts(app.routes)]


def require_guards(app: FastAPI) -> None:
    """That no route was forgotten: each takes a role or a token, or is meant to be open.
    Raises RuntimeError."""
    routes = routes_of(app)
    for route in routes:
        path = getattr(route, "path", "")
        if isinstance(route, APIRoute):
            if (role_of(route) is None) != (path in OPEN):
                raise RuntimeError(f"who may ask {path}?")
        elif path not in {*OPEN, STATIC}:
            raise RuntimeError(f"whoever asks for {path} is not looked at")
    if not {getattr(route, "path", "") for route in routes} >= OPEN:
        raise RuntimeError("routes are missing, or are not seen here")


def _guards(dependant: Dependant) -> Iterable[Guard]:
    call: Any = dependant.call
    if isinstance(call, Guard):
        yield call
    for each in dependant.dependencies:
        yield from _guards(each)
