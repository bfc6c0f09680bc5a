"""Random values of every type that a column can have, as the text that PostgreSQL reads.

A kind is a type with its values: its limits, others at random, and large ones, which are
stored apart from their row (TOAST) when they can't be compressed.
"""

from typing import Final

from tests.support.kinds.applications import APPLICATION_TYPES, application_kinds
from tests.support.kinds.documents import DOCUMENTS, XML
from tests.support.kinds.kind import Kind, Value, array_of
from tests.support.kinds.numbers import NUMBERS
from tests.support.kinds.objects import OBJECTS
from tests.support.kinds.ranges import RANGES
from tests.support.kinds.shapes import SHAPES
from tests.support.kinds.texts import BYTES, TEXT_KINDS
from tests.support.kinds.times import TIMES

__all__ = ["APPLICATION_TYPES", "NOT_READ_BACK", "Kind", "Value", "array_of", "kinds"]

NOT_READ_BACK: Final = frozenset(
    {
        "gtsvector",
        "pg_brin_bloom_summary",
        "pg_brin_minmax_multi_summary",
        "pg_dependencies",
        "pg_mcv_list",
        "pg_ndistinct",
        "pg_node_tree",
    }
)
"""Types whose input function refuses everything."""


def kinds(version: int, *, xml: bool) -> list[Kind]:
    """All that a server of this version has; `xml`, whether it was built with it."""
    found = [*NUMBERS, *TIMES, *BYTES, *TEXT_KINDS, *DOCUMENTS, *SHAPES, *OBJECTS, *RANGES]
    if xml:
        found.append(XML)
    found += application_kinds(found)
    return [kind for kind in found if kind.since <= version]
