"""The context of one request to a web application, from what its interface tells of it.

Knows neither ASGI nor WSGI: they say how to look up a header, and who, where and how, as functions
where that is known later than the request begins.
"""

import inspect
import uuid
import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, TypeAlias

from bemi.context import tracing
from bemi.context.lazy import Lazy

Trust: TypeAlias = "bool | Collection[str]"
"""Which members of its caller's context a service takes over: names, or all, or none."""

TRUSTED: Final = ("request_id", "trace_id")
"""What is taken from anybody: ids that tie requests together and grant nothing."""

# What is an application's own, whoever calls it.
_OWN: Final = ("endpoint", "method")
# What classes of users call their key; a name that is shown to people comes last.
_KEYS: Final = ("id", "pk", "user_id", "sub", "uid", "identity", "username")


def check_options(context: object, trust: Trust) -> None:
    """Raises TypeError for what would fail, or do something else, with each request."""
    if context is not None and not callable(context):
        raise TypeError(f"context= takes a function, not {context!r}")
    if inspect.iscoroutinefunction(context):
        raise TypeError("context= takes a function that is not async")
    if isinstance(trust, str):  # each of its parts would count as a name
        raise TypeError(f"trust= takes names, as in trust=({trust!r},), or True")


def values_of(
    header: Callable[[str], str | None],
    *,
    trust: Trust,
    endpoint: Callable[[], object],
    method: str | None,
    user: Callable[[], object],
    customised: Callable[[], Mapping[str, Any] | None] | None,
) -> dict[str, Any]:
    """The context with which a request begins."""
    taken = _trusted(header, trust)
    caller = taken.get("user_id")

    def user_id() -> object:
        known = quietly(user)
        return caller if known is None else known

    values: dict[str, Any] = {
        "request_id": tracing.new_request_id(),
        "trace_id": tracing.open_telemetry,
        **taken,
        "endpoint": endpoint,
        # Who it is may not be known yet when something is written first.
        "user_id": Lazy(user_id, settles=False),
    }
    if method is not None:
        values["method"] = method
    if customised is not None:
        try:
            values.update(customised() or {})
        except Exception as error:  # noqa: BLE001 - a request must not fail because of its context
            warnings.warn(
                f"bemi: the function given as context= failed, its values are missing: {error!r}",
                RuntimeWarning,
                stacklevel=3,
            )
    return values


def _trusted(header: Callable[[str], str | None], trust: Trust) -> dict[str, Any]:
    def trusts(name: str) -> bool:
        return trust if isinstance(trust, bool) else name in trust

    if trust is True or not set(trust or ()) <= set(TRUSTED):
        carried = tracing.read_context(header(tracing.CONTEXT))
    else:
        carried = {}
    taken = {name: each for name, each in carried.items() if trusts(name) and name not in _OWN}
    found = {
        "request_id": tracing.read_request_id(header(tracing.REQUEST_ID)),
        "trace_id": tracing.read_traceparent(header(tracing.TRACEPARENT)),
    }
    return {**taken, **{name: each for name, each in found.items() if each and trusts(name)}}


def key_of(user: object) -> object:
    """What identifies a user, whatever class it is of; None when that can't be told."""
    if user is None or isinstance(user, str | int | uuid.UUID):
        return None if isinstance(user, bool) else user or None
    if getattr(user, "is_authenticated", True) is False:
        return None
    for name in _KEYS:
        key = user.get(name) if isinstance(user, Mapping) else quietly(getattr, user, name, None)
        if isinstance(key, str | int | uuid.UUID) and key != "":
            return key
    return quietly(user.get_id) if hasattr(user, "get_id") else None  # Flask-Login


def quietly(function: Callable[..., object], *arguments: object) -> object:
    """What a function of the application's returns; None where it fails."""
    try:
        return function(*arguments)
    except Exception:  # noqa: BLE001 - the application's own classes may raise anything
        return None
