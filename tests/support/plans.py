"""What a query reads, which does not depend on the machine's speed."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import psycopg


class Plan(NamedTuple):
    found: int
    read: int
    sorted: int
    relations: frozenset[str]
    """Those that were looked into."""
    whole: frozenset[str]
    """Partitions that were read from end to end, and were not empty."""


def plan(
    conn: psycopg.Connection[Any], query: Any, parameters: Sequence[Any] | None = None
) -> Plan:
    explained = b"explain (analyze, timing off, format json) "
    statement = query.encode() if isinstance(query, str) else query.as_bytes(conn)
    row = conn.execute(explained + statement, parameters).fetchone()
    assert row is not None
    (top,) = row[0]
    read = rows_sorted = 0
    whole = set()
    relations = set()
    for node in nodes(top["Plan"]):
        loops = node["Actual Loops"]
        kind, relation = node["Node Type"], node.get("Relation Name", "")
        if loops:
            relations.add(relation)
        if "Scan" in kind:
            removed = sum(
                node.get(f"Rows Removed by {why}", 0) for why in ("Filter", "Index Recheck")
            )
            here = round(loops * (node["Actual Rows"] + removed))
            read += here
            if kind == "Seq Scan" and here and relation.startswith(("row_changes", "contexts")):
                whole.add(relation)
        if "Sort" in kind:
            (below,) = node["Plans"]
            rows_sorted += round(below["Actual Rows"] * below["Actual Loops"])
    return Plan(
        top["Plan"]["Actual Rows"], read, rows_sorted, frozenset(relations), frozenset(whole)
    )


def nodes(top: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The node of a plan, and those below."""
    yield top
    for node in top.get("Plans", []):
        yield from nodes(node)


def judge(found: Plan, *, read: int, rows: int | None = None) -> None:
    """Reads at most `read` rows, in every part of the plan together; sorts no more than those."""
    assert not found.whole, f"reads the whole of {sorted(found.whole)}"
    assert found.read <= read, found
    assert found.sorted <= read, found
    if rows is None:
        assert found.found > 0
    else:
        assert found.found == rows
