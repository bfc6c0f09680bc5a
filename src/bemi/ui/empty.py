"""Why there is nothing to see, and what to do about it, with the exact command."""

from collections.abc import Iterable
from typing import Any

import msgspec
import psycopg

from bemi.api.principals import Principal
from bemi.store import reader


class Empty(msgspec.Struct, frozen=True):
    """`command`: what to run."""

    title: str
    text: str
    command: str = ""


def reason(
    conn: psycopg.Connection[Any], schema: str, who: Principal, narrowed: Iterable[object]
) -> Empty:
    """`narrowed`: whatever keeps something back, such as filters and a moment."""
    if any(each is not None for each in narrowed):
        return Empty("No changes match", "Take a filter away, or look at a longer time.")
    if who.scope is not None:
        return Empty(
            "No changes of what you may see",
            "There are none yet of your tables; an admin can tell which these are.",
        )
    names = reader.sources(conn, schema)
    if not names:
        return Empty(
            "No source yet",
            "The history is empty, since nothing is set up to be captured. This connects a"
            " database, and says what else it takes:",
            "bemi init",
        )
    if not reader.has_changes(conn, schema):
        return Empty(
            "No changes yet",
            "The source is set up. Changes come while the worker runs:",
            "bemi run",
        )
    return Empty("No changes here", "They may have been pruned.")
