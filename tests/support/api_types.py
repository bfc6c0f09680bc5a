"""The HTTP API's types for TypeScript, out of `spec/openapi.json`.

`python -m tests.support.api_types` writes them; a test asserts that they are up to date. What is
generated is small enough to be read, and knows only what the API's description has.
"""

import json
import re
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
FILE: Final = ROOT / "packages" / "js" / "src" / "internal" / "api" / "types.ts"
PREFIX: Final = "/api/v1"

_HEAD = """\
// Made by `python -m tests.support.api_types` from spec/openapi.json; not to be edited.

/** What the API takes and gives, by the names of its description. */
export interface Schemas {
"""
_PATHS = """
/** What can be asked, below `/api/v1`. */
export interface Paths {
"""


def types() -> str:
    described = json.loads((ROOT / "spec" / "openapi.json").read_text(encoding="utf-8"))
    names = _names(described["components"]["schemas"])
    lines = [_HEAD.rstrip("\n")]
    for name, schema in described["components"]["schemas"].items():
        lines += _member(names[name], schema, names, required=True)
    lines += ["}", _PATHS.rstrip("\n")]
    for path, operations in described["paths"].items():
        if path.startswith(PREFIX):
            lines += [f"  {json.dumps(path.removeprefix(PREFIX))}: {{"]
            for method, operation in operations.items():
                lines += _operation(method, operation, names)
            lines += ["  };"]
    return "\n".join([*lines, "}", ""])


def _names(schemas: dict[str, Any]) -> dict[str, str]:
    """Without the modules before some of them, which stay where there are two of a name."""
    short = {name: name.rpartition("__")[2] for name in schemas}
    twice = {name for name in short.values() if [*short.values()].count(name) > 1}
    return {
        name: "".join(part.title().replace("_", "") for part in name.split("__")[-2:])
        if plain in twice
        else plain
        for name, plain in short.items()
    }


def _operation(method: str, operation: dict[str, Any], names: dict[str, str]) -> list[str]:
    given: dict[str, list[str]] = {"query": [], "path": []}
    for parameter in operation.get("parameters", ()):
        if (kind := parameter["in"]) in given:
            schema = {**parameter["schema"], "description": parameter.get("description")}
            if kind == "path":
                schema = {"anyOf": [{"type": "string"}, {"type": "integer"}]}
            given[kind] += _member(
                parameter["name"], schema, names, required=parameter["required"], indent=8
            )
    answered = next(value for key, value in operation["responses"].items() if key[0] == "2")
    answers = answered.get("content", {})
    kinds = {kind: _type(content["schema"], names, 6) for kind, content in answers.items()}
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    lines = [*_comment(operation.get("description") or operation["summary"], 4)]
    lines += [f"    {method}: {{"]
    for kind, members in given.items():
        lines += (
            [f"      {kind}: {{", *members, "      };"] if members else [f"      {kind}: {{}};"]
        )
    lines += [f"      body: {_type(body['schema'], names, 6) if body else 'undefined'};"]
    lines += [f"      answer: {kinds.get('application/json', 'undefined')};"]
    lines += [f"      lines: {'true' if 'application/x-ndjson' in kinds else 'false'};"]
    return [*lines, "    };"]


def _member(
    name: str, schema: dict[str, Any], names: dict[str, str], *, required: bool, indent: int = 2
) -> list[str]:
    space = " " * indent
    label = name if re.fullmatch(r"[A-Za-z_]\w*", name) else json.dumps(name)
    kind = _type(schema, names, indent)
    told = f"{space}{label}{'' if required else '?'}: {kind}{'' if required else ' | undefined'};"
    return [*_comment(schema.get("description"), indent), told]


def _type(schema: dict[str, Any], names: dict[str, str], indent: int) -> str:
    if "$ref" in schema:
        return f'Schemas["{names[schema["$ref"].rpartition("/")[2]]}"]'
    if "anyOf" in schema:
        return " | ".join(dict.fromkeys(_type(each, names, indent) for each in schema["anyOf"]))
    if "enum" in schema:
        return " | ".join(map(json.dumps, schema["enum"]))
    match schema.get("type"):
        case "string":
            return "string"
        case "integer" | "number":
            return "number"
        case "boolean":
            return "boolean"
        case "null":
            return "null"
        case "array":
            item = _type(schema["items"], names, indent)
            return f"({item})[]" if " | " in item else f"{item}[]"
        case "object" if schema.get("properties"):
            members: list[str] = []
            for name, each in schema["properties"].items():
                needed = name in schema.get("required", ())
                members += _member(name, each, names, required=needed, indent=indent + 2)
            return "\n".join(["{", *members, " " * indent + "}"])
        case "object":
            more = schema.get("additionalProperties", True)
            value = "unknown" if more is True else _type(more, names, indent)
            return f"{{ [name: string]: {value} }}"
    return "unknown"


def _comment(text: str | None, indent: int) -> list[str]:
    if not text:
        return []
    space = " " * indent
    lines = text.replace("*/", "* /").splitlines()
    if len(lines) == 1:
        return [f"{space}/** {lines[0]} */"]
    return [f"{space}/**", *(f"{space} * {line}".rstrip() for line in lines), f"{space} */"]


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(types(), encoding="utf-8")
