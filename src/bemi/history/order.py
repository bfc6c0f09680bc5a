"""In which order rows are written, so that foreign keys and unique indexes accept it. Pure.

Where rows need each other in a circle, a column that takes null is null for a while.
"""

from collections.abc import Iterator, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Literal, TypeAlias

import msgspec

from bemi.history.op import Need, Op

Part: TypeAlias = Literal["loosen", "write", "fill"]


class Write(msgspec.Struct, frozen=True, eq=False):
    """One row, written once: `loosen` sets `columns` to null beforehand, `write` leaves them null
    in a row that comes, `fill` gives them their values."""

    op: Op
    part: Part
    columns: tuple[str, ...] = ()


class CircleError(Exception):
    """Rows that need each other, with no column that could be null."""

    def __init__(self, ops: Sequence[Op], constraint: str) -> None:
        super().__init__(constraint)
        self.ops = ops
        self.constraint = constraint


def rounds(ops: Sequence[Op], needs: Sequence[Need]) -> list[list[Write]]:
    """What can be written at once, round by round. Raises `CircleError`."""
    numbers = {id(op): n for n, op in enumerate(ops)}
    strict = [need for need in needs if not need.waits and id(need.op) in numbers]
    strict = [need for need in strict if id(need.first) in numbers]
    loosened: set[str] = set()
    while True:
        try:
            return _rounds(ops, numbers, strict, loosened)
        except CycleError as error:
            circle = [ops[node[0]] for node in error.args[1]]
            loosened.add(_loosenable(circle, strict, loosened))


def _loosenable(circle: Sequence[Op], needs: Sequence[Need], loosened: set[str]) -> str:
    """A constraint of the circle that null would satisfy for a while."""
    within = {id(op) for op in circle}
    among = [need for need in needs if id(need.op) in within and id(need.first) in within]
    for need in among:
        name = _name(need)
        nullable = all(need.of.table.columns[column].nullable for column in need.columns)
        if nullable and name not in loosened:
            return name
    raise CircleError(circle, among[0].constraint if among else "")


def _name(need: Need) -> str:
    return f"{need.of.table.oid} {need.constraint}"


_Node: TypeAlias = tuple[int, Part]


def _rounds(
    ops: Sequence[Op], numbers: dict[int, int], needs: Sequence[Need], loosened: set[str]
) -> list[list[Write]]:
    sorter: TopologicalSorter[_Node] = TopologicalSorter()
    extra: dict[_Node, dict[str, None]] = {}
    for n, _ in enumerate(ops):
        sorter.add((n, "write"))
    for need in needs:
        op, first = numbers[id(need.op)], numbers[id(need.first)]
        if _name(need) not in loosened:
            sorter.add((op, "write"), (first, "write"))
        elif need.of is need.op:
            # What comes refers to nothing, until there is what it refers to.
            node: _Node = (op, "fill")
            sorter.add(node, (op, "write"), (first, "write"))
            extra.setdefault(node, {}).update(dict.fromkeys(need.columns))
        else:
            # What stands in the way gives its value up beforehand.
            node = (first, "loosen")
            sorter.add((op, "write"), node)
            sorter.add((first, "write"), node)
            extra.setdefault(node, {}).update(dict.fromkeys(need.columns))
    sorter.prepare()
    found = []
    while sorter.is_active():
        ready = sorter.get_ready()
        found.append(
            [Write(ops[n], part, tuple(_columns_of(n, part, extra))) for n, part in sorted(ready)]
        )
        sorter.done(*ready)
    return found


def _columns_of(n: int, part: Part, extra: dict[_Node, dict[str, None]]) -> Iterator[str]:
    yield from extra.get((n, "fill" if part == "write" else part), ())
