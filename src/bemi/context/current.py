"""The context that is current here and now: per thread and per asynchronous task.

It follows `contextvars`: a new asyncio task begins with a copy of its parent's context, a new
thread with an empty one. Nothing here talks to a database.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

# The mappings in it are never changed in place: they are shared by copies of the context.
_current: ContextVar[Mapping[str, Any] | None] = ContextVar("bemi_context", default=None)


@contextmanager
def context(values: Mapping[str, Any] | None = None, /, **more: Any) -> Iterator[dict[str, Any]]:
    """Adds values to the current context for a block; inner ones win over outer ones.

        with bemi.context(user_id=42, endpoint="/todo/complete"):
            ...

    Names that are not Python identifiers go into a mapping: `bemi.context({"trace-id": 7})`.
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
    _current.set({**(values or {}), **more})


def merge_context(values: Mapping[str, Any] | None = None, /, **more: Any) -> None:
    """Adds values to the current context; a name that is there already gets the new value."""
    _current.set({**(_current.get() or {}), **(values or {}), **more})


def current_context() -> dict[str, Any]:
    """A copy of the current context; empty when there is none."""
    return dict(_current.get() or {})


def clear_context() -> None:
    """Empties the current context."""
    _current.set(None)
