"""The types that were defined at a position: which of them tables need, and what each is made of.

Pure.
"""

from collections.abc import Mapping

from bemi.history.respelling import respelled
from bemi.store.definitions import Definition


class DefinedTypes:
    """By their OIDs; under that of a multirange is the range that it comes with."""

    def __init__(self, defined: Mapping[tuple[str, int], Definition]) -> None:
        self._by_oid = {oid: each for (kind, oid), each in defined.items() if kind != "table"}
        for each in [*self._by_oid.values()]:
            if each.kind == "range" and (each.definition or {})["multirange_oid"]:
                self._by_oid[(each.definition or {})["multirange_oid"]] = each

    def get(self, oid: int | None) -> Definition | None:
        return self._by_oid.get(oid or 0)

    def needed(self, tables: Mapping[int, Definition]) -> list[Definition]:
        """Those that have to be made for these tables, since no extension brings them."""
        found: dict[int, Definition] = {}
        oids = [
            oid
            for each in tables.values()
            for column in (each.definition or {})["columns"]
            for oid in (column["type_oid"], column["element_oid"])
        ]
        while oids:
            each = self.get(oids.pop())
            if each is None or each.oid in found or _is_brought(each):
                continue
            assert each.definition is not None
            if each.definition.get("relation") in tables:
                continue
            found[each.oid] = each
            oids += self.parts(each)
        return list(found.values())

    def parts(self, each: Definition) -> list[int]:
        """The types that a type is made of; of arrays, by the names of those that spell them."""
        definition = each.definition or {}
        spelled = [
            definition.get("type"),
            definition.get("subtype"),
            *(attribute["type"] for attribute in definition.get("attributes", ())),
        ]
        oids = [
            definition.get("type_oid"),
            definition.get("subtype_oid"),
            *(attribute["type_oid"] for attribute in definition.get("attributes", ())),
        ]
        arrays = [
            other.oid
            for other in self._by_oid.values()
            for text in spelled
            if text is not None and text.endswith("[]") and _spells(text, other)
        ]
        return [oid for oid in oids if oid] + arrays


def _is_brought(each: Definition) -> bool:
    return each.kind == "base" or (each.definition or {}).get("extension") is not None


def _spells(text: str, each: Definition) -> bool:
    return respelled(text, {(each.schema, each.name): ("", "")}) != text
