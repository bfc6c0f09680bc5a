"""Declares types and sequences as their definitions in the history say. Pure."""

from collections.abc import Mapping
from typing import Any

from bemi.history.respelling import Name, quoted, respelled
from bemi.store.definitions import Definition


def options(sequence: Mapping[str, Any]) -> str:
    """Of a sequence, or of the one of an identity column."""
    cycle = "cycle" if sequence["cycle"] else "no cycle"
    return (
        f"start {sequence['start']} increment {sequence['increment']} minvalue {sequence['min']}"
        f" maxvalue {sequence['max']} cache {sequence['cache']} {cycle}"
    )


def type_statement(each: Definition, name: str, names: Mapping[Name, Name]) -> str:
    """What follows `create`. `name`: quoted; `names`: what is called otherwise than it was."""
    definition = each.definition or {}
    if each.kind == "enum":
        labels = ", ".join("'" + label.replace("'", "''") + "'" for label in definition["labels"])
        return f"type {name} as enum ({labels})"
    if each.kind == "composite":
        attributes = ", ".join(
            f"{quoted(attribute['name'])} {respelled(attribute['type'], names)}"
            + (f" collate {attribute['collation']}" if attribute["collation"] else "")
            for attribute in definition["attributes"]
        )
        return f"type {name} as ({attributes})"
    if each.kind == "range":
        options = {
            "subtype": respelled(definition["subtype"], names),
            "subtype_opclass": definition["opclass"],
            "collation": definition["collation"],
            "subtype_diff": definition["subtype_diff"],
        }
        given = [f"{option} = {value}" for option, value in options.items() if value]
        if definition["multirange"]:
            schema = next((to for of, to in names.items() if quoted(*to) == name), ("", ""))[0]
            given.append(f"multirange_type_name = {quoted(schema, definition['multirange'])}")
        return f"type {name} as range ({', '.join(given)})"
    text = f"domain {name} as {respelled(definition['type'], names)}"
    if definition["collation"]:
        text += f" collate {definition['collation']}"
    if definition["default"] is not None:
        text += f" default {respelled(definition['default'], names)}"
    for constraint in definition["constraints"]:
        checked = respelled(constraint["definition"], names)
        text += f" constraint {quoted(constraint['name'])} {checked}"
    return text + (" not null" if definition["not_null"] else "")
