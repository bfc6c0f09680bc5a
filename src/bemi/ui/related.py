"""What a record has to do with others, by the foreign keys of its table: the rows that it refers
to, and where those are that refer to it."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import msgspec

from bemi.api.principals import ForbiddenError, Principal
from bemi.api.routes.records import columns
from bemi.api.serving import Serving
from bemi.errors import BemiError
from bemi.history.asking import key_of
from bemi.store import definitions
from bemi.store.definitions import ForeignKey
from bemi.ui import links
from bemi.ui.telling import name_of
from bemi.ui.values import brief

_MOST: Final = 20
_CHARACTERS: Final = 60
_PLAIN: Final = (str, int, bool)


class Related(msgspec.Struct, frozen=True):
    """`by`: the columns that refer, and what they are called by whom."""

    text: str
    href: str
    by: str


class Relations(msgspec.Struct, frozen=True):
    """`parents`: records that it refers to. `children`: changes of rows that refer to it."""

    parents: list[Related] = []
    children: list[Related] = []


def of(
    serving: Serving, who: Principal, source: str | None, table: str, row: Mapping[str, Any]
) -> Relations:
    """Of a row, as far as it is known: what can't be told is left out."""
    found = Relations()
    if source is None or not row:
        return found
    archive = serving.archive
    with archive.connected() as conn:
        keys = definitions.foreign_keys(conn, archive.schema, source, table)
    for key in keys:
        if key.child == table and _sees(serving, who, key.parent, key.referenced):
            found.parents.extend(_parent(key, row, source))
        if key.parent == table and _sees(serving, who, key.child, key.columns):
            found.children.extend(_children(key, row, source))
    return Relations(found.parents[:_MOST], found.children[:_MOST])


def _sees(serving: Serving, who: Principal, table: str, wanted: Collection[str]) -> bool:
    try:
        names = columns(serving, who, table)
    except ForbiddenError:
        return False
    return names is None or {*wanted} <= {*names}


def _parent(key: ForeignKey, row: Mapping[str, Any], source: str) -> list[Related]:
    values = _values(row, key.columns)
    if values is None:
        return []
    by = dict(zip(key.referenced, values, strict=True))
    name = name_of(*key.parent.split(".", 1))
    if sorted(key.parent_key) == sorted(key.referenced):
        try:
            its = key_of([by[column] for column in key.parent_key])
        except BemiError:
            return []
        href, text = links.record(key.parent, its, source), f"{name} {brief(its, _CHARACTERS)}"
    else:
        href, text = _changes(key.parent, by, source), f"{name}, {_told(by)}"
    return [Related(text, href, _names(key.columns))] if href else []


def _children(key: ForeignKey, row: Mapping[str, Any], source: str) -> list[Related]:
    values = _values(row, key.referenced)
    if values is None:
        return []
    by = dict(zip(key.columns, values, strict=True))
    href = _changes(key.child, by, source)
    name = name_of(*key.child.split(".", 1))
    return [Related(f"{name}, {_told(by)}", href, _names(key.columns))] if href else []


def _values(row: Mapping[str, Any], names: Sequence[str]) -> list[Any] | None:
    """None where one is not known, is empty, or is nothing that can be looked for."""
    values = [row.get(name) for name in names]
    return values if all(isinstance(value, _PLAIN) for value in values) else None


def _changes(table: str, by: Mapping[str, Any], source: str) -> str:
    """Empty where no address takes it."""
    after = [f"{name}={_text(value)}" for name, value in by.items()]
    if any(len(each) > links.LONGEST or "=" in name for each, name in zip(after, by, strict=True)):
        return ""
    query = [("table", table), *(("after", each) for each in after), ("source", source)]
    return links.url("/", query)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _told(by: Mapping[str, Any]) -> str:
    return brief(", ".join(f"{name} {_text(value)}" for name, value in by.items()), _CHARACTERS)


def _names(columns: Sequence[str]) -> str:
    return brief(", ".join(columns), _CHARACTERS)
