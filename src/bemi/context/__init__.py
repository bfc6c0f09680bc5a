"""The context that an application attaches to what it changes."""

from bemi.context.current import (
    clear_context,
    context,
    current_context,
    merge_context,
    set_context,
)

__all__ = ["clear_context", "context", "current_context", "merge_context", "set_context"]
