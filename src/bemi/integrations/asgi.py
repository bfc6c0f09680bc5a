"""Requests of ASGI applications (FastAPI, Starlette, Litestar) have their context.

    app.add_middleware(ContextMiddleware)

It says who, where and how; what sends it is the integration of the database's driver. Needs the
standard library only, and knows frameworks by what they leave in the scope.
"""

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from functools import partial
from typing import Any, Final, TypeAlias

from bemi.context import context as in_context
from bemi.context.tracing import TRACEPARENT
from bemi.integrations.request import TRUSTED, Trust, check_options, key_of, quietly, values_of

Scope: TypeAlias = MutableMapping[str, Any]
# Frameworks type these each in a way of its own.
App: TypeAlias = Callable[[Any, Any, Any], Awaitable[None]]

_REQUESTS: Final = ("http", "websocket")


class ContextMiddleware:
    """Sets the context of each request and websocket: `endpoint`, `method`, `request_id`,
    `trace_id` and `user_id`, each where it is known.

    `context`: a function that is given the scope and returns more values, which win; values that
    are known later, such as the user, are functions. `trust`: which members of the caller's
    context are taken over, by name, or all with True. See `bemi.outgoing_headers`.
    """

    def __init__(
        self,
        app: App,
        context: Callable[[Scope], Mapping[str, Any] | None] | None = None,
        *,
        trust: Trust = TRUSTED,
    ) -> None:
        check_options(context, trust)
        self.app = app
        self._context = context
        self._trust = trust

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] not in _REQUESTS:
            await self.app(scope, receive, send)
            return
        root = scope.get("root_path", "")
        path = scope["path"]
        values = values_of(
            lambda name: _header(scope, name),
            trust=self._trust,
            endpoint=lambda: quietly(_route, scope, root) or path,
            method=scope.get("method"),
            user=lambda: _user(scope),
            customised=partial(self._context, scope) if self._context else None,
        )
        with in_context(values):
            await self.app(scope, receive, send)


def _header(scope: Scope, name: str) -> str | None:
    wanted = name.lower().encode()
    found = [value.decode("latin-1") for key, value in scope["headers"] if key == wanted]
    # Of several traces none is the right one.
    return None if not found or (name == TRACEPARENT and len(found) > 1) else found[0]


def _route(scope: Scope, root: str) -> str | None:
    """The template of the route that was taken; known only inside of the application."""
    if scope.get("path_template"):  # Litestar
        return str(scope["path_template"])
    route = scope.get("route")  # Starlette
    # FastAPI's routes in routers that are included don't know under which path.
    included = (scope.get("fastapi") or {}).get("effective_route_context")
    template = getattr(included, "path_format", None) or getattr(route, "path_format", None)
    if not template:
        return None
    # Of what is mounted, the path is below that of the mount.
    mounted = scope.get("root_path", "").removeprefix(root)
    return f"{mounted}{template}"


def _user(scope: Scope) -> object:
    known = key_of(scope.get("user"))
    if known is None and not isinstance(scope.get("auth"), str):  # that may be a token
        known = key_of(scope.get("auth"))
    return known
