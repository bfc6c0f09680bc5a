"""The context that is current here and now: per thread and per asynchronous task.

It follows `contextvars`: a new asyncio task begins with a copy of its parent's context, a new
thread with an empty one. Nothing here talks to a database.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, Final

from bemi.context.lazy import Lazy

_EMPTY: Final[Mapping[str, Any]] = MappingProxyType({})

# The mappings in it are never changed in place: they are shared by copies of the context.
_current: ContextVar[Mapping[str, Any] | None] = ContextVar("bemi_context", default=None)


@contextmanager
def context(values: Mapping[str, Any] | None = None, /, **more: Any) -> Iterator[dict[str, Any]]:
    """Adds values to the current context for a block; inner ones win over outer ones.

        with bemi.context(user_id=42, endpoint="/todo/complete"):
            ...

    Names that are not Python identifiers go into a mapping: `bemi.context({"trace-id": 7})`.
    A function stands for what it returns: it is called when the context is first sent, once, and
    not at all where nothing is written. Where it returns None there is no such value.
    """
    before = _current.get()
    merge_context(values, **more)
    try:
        yield current_context()
    finally:
        # Not reset(token): that fails where a generator is closed in another context.
        _current.set(before)


def set_context(values: Mapping[str, Any] | None = None, /, **more: Any) -> None:
    """Replaces the whole current context."""
    _current.set(_lazily({**(values or {}), **more}))


def merge_context(values: Mapping[str, Any] | None = None, /, **more: Any) -> None:
    """Adds values to the current context; a name that is there already gets the new value."""
    _current.set({**(_current.get() or {}), **_lazily({**(values or {}), **more})})


def current_context() -> dict[str, Any]:
    """A copy of the current context; empty when there is none."""
    return dict(_current.get() or {})


def clear_context() -> None:
    """Empties the current context."""
    _current.set(None)


def peek() -> Mapping[str, Any]:
    """The current context itself: the same object as long as it has not changed."""
    return _current.get() or _EMPTY


def swap(mapping: Mapping[str, Any]) -> Mapping[str, Any]:
    """Makes what `peek` once gave the current context again; the one before."""
    before = peek()
    _current.set(mapping)
    return before


def _lazily(values: dict[str, Any]) -> dict[str, Any]:
    """With functions wrapped, so that all who share the context share their values."""
    for name, value in values.items():
        if callable(value) and not isinstance(value, Lazy | type):
            values[name] = Lazy(value)
    return values
