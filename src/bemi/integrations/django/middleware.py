"""The context of a request: where, how and who, each found out when something is written."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.functional import LazyObject, empty
from django.utils.module_loading import import_string

import bemi
from bemi.integrations.django import options
from bemi.integrations.request import values_of

_SESSION_KEY: Final = "_auth_user_id"


class ContextMiddleware:
    """Sets the context for a request, in synchronous and in asynchronous applications.

    `endpoint`, `method`, `request_id`, `user_id`, and `trace_id` where there is one; what the
    function named by the setting BEMI_CONTEXT returns for the request comes over them.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self._get_response = get_response
        if not apps.is_installed("bemi.integrations.django"):
            raise ImproperlyConfigured(
                'the middleware needs "bemi.integrations.django" in INSTALLED_APPS, which sends'
                " the context"
            )
        self._custom = _custom()
        self._trust = options.load().trust
        self._asynchronous = iscoroutinefunction(get_response)
        if self._asynchronous:
            markcoroutinefunction(self)

    def __call__(self, request: Any) -> Any:
        if self._asynchronous:
            return self._call_async(request)
        with bemi.context(self._values(request)):
            return self._get_response(request)

    async def _call_async(self, request: Any) -> Any:
        with bemi.context(self._values(request)):
            return await self._get_response(request)

    def _values(self, request: Any) -> dict[str, Any]:
        return values_of(
            request.headers.get,
            trust=self._trust,
            endpoint=lambda: _endpoint(request),
            method=request.method,
            user=lambda: _user_id(request),
            customised=partial(self._custom, request) if self._custom else None,
        )


def _custom() -> Callable[[Any], dict[str, Any] | None] | None:
    path = getattr(settings, "BEMI_CONTEXT", None)
    if not path:
        return None
    try:
        function: Callable[[Any], dict[str, Any] | None] = import_string(path)
    except ImportError as error:
        raise ImproperlyConfigured(f"the setting BEMI_CONTEXT: {error}") from error
    return function


def _endpoint(request: Any) -> str:
    """The pattern of the route, which is known when the view is; else the path."""
    match = request.resolver_match
    return request.path if match is None else "/" + match.route.removeprefix("^")


def _user_id(request: Any) -> object:
    """Who it is, without asking the database for the user: the session knows the key."""
    user = getattr(request, "user", None)
    if isinstance(user, LazyObject) and user.__dict__["_wrapped"] is empty:
        return _of_session(request.session)
    return getattr(user, "pk", None)


def _of_session(session: Any) -> object:
    """Read so that the response is what it would be: it varies by the cookie, or takes it away,
    where the view looked at the session, and not where we did."""
    accessed, key = session.accessed, session._session_key  # noqa: SLF001 - what loading changes
    try:
        return session.get(_SESSION_KEY)
    finally:
        session.accessed = accessed
        if session._session_key != key:  # noqa: SLF001 - of a session that is gone
            session._session_key = key  # noqa: SLF001
            del session._session_cache  # noqa: SLF001 - so that the view loads it for itself
