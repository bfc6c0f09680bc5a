"""The context that an application attaches to what it changes."""

from bemi.context.command import command_context
from bemi.context.current import (
    clear_context,
    context,
    current_context,
    merge_context,
    set_context,
)
from bemi.context.tracing import outgoing_headers

__all__ = [
    "clear_context",
    "command_context",
    "context",
    "current_context",
    "merge_context",
    "outgoing_headers",
    "set_context",
]
