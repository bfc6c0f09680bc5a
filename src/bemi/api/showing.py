"""What is told of changes, rows and differences to who may see a part of their columns. Pure."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from bemi.api.principals import Principal
from bemi.history.blame import Blame
from bemi.history.change import Row
from bemi.history.difference import Difference
from bemi.store.reader import StoredChange
from bemi.store.scope import TELLING, shown, shown_flags

_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def change(stored: StoredChange, who: Principal) -> StoredChange:
    """With the images cut to what may be seen; the values in them stay the bytes that they are."""
    if who.scope is None:
        return stored
    names = who.scope.columns(stored.schema, stored.table)
    replaced: dict[str, Any] = {}
    if names is not None:
        for image in ("before", "after"):
            replaced[image] = _cut(getattr(stored, image), names)
        if stored.flags is not None:
            replaced["flags"] = shown_flags(names, stored.flags)
    members = _members(stored.context)
    if TELLING & members.keys():
        replaced["context"] = msgspec.Raw(msgspec.json.encode(context(members, who)))
    return msgspec.structs.replace(stored, **replaced)


def row(found: Row, names: frozenset[str] | None) -> Row:
    """`names`: of the columns that may be seen; None: all."""
    if names is None:
        return found
    return Row(
        key=found.key,
        values=shown(names, found.values),
        flags=tuple(shown_flags(names, found.flags)),
    )


def difference(found: Difference, names: frozenset[str] | None) -> dict[str, Any] | None:
    """None for a row that differs in nothing that may be seen. `names` as for rows."""
    columns: dict[str, Any] = {}
    for name, (before, after) in found.columns.items():
        if names is not None and name not in names:
            continue
        sides = {"before": before, "after": after}
        for side, kind in (("before", "added"), ("after", "removed")):
            # A side that is not there, or not known, has no member.
            if found.kind == kind or (name in found.unknown and sides[side] is None):
                del sides[side]
        columns[name] = sides
    if found.kind == "changed" and found.previous_key is None and found.columns and not columns:
        return None
    return {
        "kind": found.kind,
        "key": found.key,
        "previous_key": found.previous_key,
        "count": found.count,
        "columns": columns,
        "unknown": [name for name in found.unknown if name in columns],
    }


def blame(found: Blame, names: frozenset[str] | None, who: Principal) -> dict[str, Any] | None:
    if names is not None and found.column not in names:
        return None
    by = found.change
    return {
        "column": found.column,
        "value": found.value,
        "previous": found.previous,
        "exact": found.exact,
        "change": {
            "id": by.id,
            "operation": by.operation,
            "committed_at": by.committed_at,
            "transaction_id": by.transaction_id,
            "source": by.source,
            "context": context(by.context, who),
        },
    }


def context(members: Mapping[str, Any], who: Principal) -> dict[str, Any]:
    hidden = frozenset[str]() if who.scope is None else TELLING
    return {name: value for name, value in members.items() if name not in hidden}


def _cut(image: msgspec.Raw, names: frozenset[str]) -> msgspec.Raw:
    kept = {name: value for name, value in _members(image).items() if name in names}
    return msgspec.Raw(msgspec.json.encode(kept))
