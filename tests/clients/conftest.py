"""A source and a destination that are tracked, for clients that read the history."""

from tests.integration.conftest import empty_history, tracked

__all__ = ["empty_history", "tracked"]
