"""Requests of WSGI applications (Flask and any other) have their context.

    app.wsgi_app = ContextMiddleware(app.wsgi_app)

It says who, where and how; what sends it is the integration of the database's driver. Needs the
standard library only, and knows frameworks by what they leave in the environment.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, TypeAlias

from bemi.context import context as in_context
from bemi.context import current
from bemi.context.lazy import Lazy
from bemi.integrations.request import TRUSTED, Trust, check_options, key_of, quietly, values_of

Environ: TypeAlias = dict[str, Any]
App: TypeAlias = Callable[[Any, Any], Iterable[bytes]]


class ContextMiddleware:
    """Sets the context of each request: `endpoint`, `method`, `request_id`, `trace_id` and
    `user_id`, each where it is known.

    `context`: a function that is given the environment and returns more values, which win; values
    that are known later, such as the user, are functions. `trust`: which members of the caller's
    context are taken over, by name, or all with True. See `bemi.outgoing_headers`.
    """

    def __init__(
        self,
        app: App,
        context: Callable[[Environ], Mapping[str, Any] | None] | None = None,
        *,
        trust: Trust = TRUSTED,
    ) -> None:
        check_options(context, trust)
        self.app = app
        self._context = context
        self._trust = trust

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = _path(environ)
        endpoint = Lazy(lambda: quietly(_route, environ) or path)

        def start(*arguments: Any) -> Any:
            # Flask forgets the route before a body is streamed, which may write, too.
            endpoint()
            return start_response(*arguments)

        values = values_of(
            lambda name: environ.get("HTTP_" + name.upper().replace("-", "_")),
            trust=self._trust,
            endpoint=endpoint,
            method=environ.get("REQUEST_METHOD"),
            user=lambda: _user(environ),
            customised=partial(self._context, environ) if self._context else None,
        )
        with in_context(values):
            body = self.app(environ, start)
            inside = current.peek()
        # Nothing runs any more for what is a list already, and servers know its length; what a
        # server wraps a file in is its own, to be sent in its own way.
        wrapper = environ.get("wsgi.file_wrapper")
        if isinstance(body, list | tuple) or (
            isinstance(wrapper, type) and isinstance(body, wrapper)
        ):
            return body
        return _Body(body, inside)


class _Body:
    """A response that is made while it is sent: each piece of it in the request's context."""

    def __init__(self, body: Iterable[bytes], inside: Mapping[str, Any]) -> None:
        self._body = body
        self._pieces: Iterator[bytes] | None = None
        self._inside = inside

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        piece: bytes = self._in_context(self._next)
        return piece

    def close(self) -> None:
        close = getattr(self._body, "close", None)
        if close is not None:
            self._in_context(close)

    def _next(self) -> bytes:
        if self._pieces is None:
            self._pieces = iter(self._body)
        return next(self._pieces)

    def _in_context(self, function: Callable[[], Any]) -> Any:
        before = current.swap(self._inside)
        try:
            return function()
        finally:
            self._inside = current.swap(before)


def _path(environ: Environ) -> str:
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    return str(path).encode("latin-1", "replace").decode("utf-8", "replace") or "/"


def _route(environ: Environ) -> str | None:
    """The rule by which Flask has routed the request; known only inside of the application."""
    request = environ.get("werkzeug.request")
    rule = getattr(getattr(request, "url_rule", None), "rule", None)
    return f"{environ.get('SCRIPT_NAME', '')}{rule}" if rule else None


def _user(environ: Environ) -> object:
    login: Any = sys.modules.get("flask_login")
    user: Any = login and quietly(login.current_user._get_current_object)  # noqa: SLF001
    known = key_of(user)
    return known if known is not None else environ.get("REMOTE_USER") or None
