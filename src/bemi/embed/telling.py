"""What of a change a customer is told: columns that may be told, of images that are theirs. Pure.

Nothing of the key, the transaction, the place in the log or the flags goes out.
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias

import msgspec

from bemi.embed.share import Part, Share
from bemi.history.change import Change
from bemi.history.difference import Difference
from bemi.store.reader import StoredChange
from bemi.store.scope import TELLING
from bemi.ui.values import cut, spoken, visible

Kind: TypeAlias = Literal["created", "changed", "deleted", "added", "removed"]

_LONGEST: Final = 500
_LONGEST_NAME: Final = 100
_NOTES: Final = ("masked", "hashed", "too_large", "undecodable")
_TOO_DEEP: Final = "too_deep"


class Value(msgspec.Struct, frozen=True):
    """`text`: None for NULL. `note`: why it is not the value itself."""

    text: str | None
    note: str | None = None


class Column(msgspec.Struct, frozen=True, omit_defaults=True):
    """A side that there is not, or that is not known, is missing."""

    name: str
    before: Value | None = None
    after: Value | None = None


class Told(msgspec.Struct, frozen=True):
    at: datetime
    kind: Kind
    table: str
    label: str | None
    context: dict[str, str]
    columns: tuple[Column, ...]


def tell(stored: StoredChange, share: Share) -> Told | None:
    """None for what is not theirs, or differs in nothing that may be told."""
    if (stored.schema, stored.table) not in share.parts:
        return None
    try:
        change = Change.of(stored)
    except RecursionError:
        return None  # nested so deep that it can't be said whose it is
    part = share.part_of(change)
    if part is None:
        return None
    own_before, own_after = share.sides(change, part)
    kind = _kind(change, own_before, own_after)
    if kind is None:
        return None
    before = _shown(change.before, part.columns) if own_before else {}
    after = _shown(change.after, part.columns) if own_after else {}
    columns = _columns(change, kind, before, after)
    if kind == "changed" and not columns:
        return None
    # Whoever moved a row, or may have, may be of the other tenant, unless the context says it.
    is_known = share.tenant_context is not None or part.tenant is None or own_before is not None
    moved = kind in ("added", "removed") or (kind == "changed" and not is_known)
    members = () if moved else share.members
    return Told(
        at=change.committed_at,
        kind=kind,
        table=f"{change.schema}.{change.table}",
        label=_label(part, after or before, change.flags),
        context={name: text for name in members if (text := _member(change.context, name))},
        columns=columns,
    )


def _kind(change: Change, before: bool | None, after: bool | None) -> Kind | None:
    """What it is to whom only the images are told that are theirs."""
    if change.operation == "CREATE":
        # From another partition, which may be another tenant's.
        return None if not after else "added" if "moved" in change.flags else "created"
    if change.operation == "DELETE":
        return "deleted" if before else None
    if after:
        return "added" if before is False else "changed"
    return "removed" if before and after is False else None


def _columns(
    change: Change, kind: Kind, before: Mapping[str, Any], after: Mapping[str, Any]
) -> tuple[Column, ...]:
    flags = {*change.flags}
    if kind == "changed":
        cut_to = msgspec.structs.replace(change, before=dict(before), after=dict(after))
        names = [*Difference.of_change(cut_to).columns]
    else:
        names = [*before, *after]
    return tuple(
        Column(
            cut(visible(name), _LONGEST_NAME),
            _value(before[name], name, flags) if name in before else None,
            _value(after[name], name, flags) if name in after else None,
        )
        for name in names
    )


def _value(value: Any, name: str, flags: Collection[str]) -> Value:
    note = next((each for each in _NOTES if f"{each}:{name}" in flags), None)
    if value is None:
        return Value(None, note)
    try:
        return Value(cut(visible(spoken(value)), _LONGEST), note)
    except RecursionError:
        return Value("…", _TOO_DEEP)


def _shown(image: Mapping[str, Any], columns: Collection[str]) -> dict[str, Any]:
    """In the order in which they are allowed."""
    return {name: image[name] for name in columns if name in image}


def _label(part: Part, image: Mapping[str, Any], flags: Collection[str]) -> str | None:
    if part.label not in part.columns or image.get(part.label) is None:
        return None
    text = _value(image[part.label], part.label, flags).text
    return None if text is None else cut(text, _LONGEST_NAME)


def _member(context: Mapping[str, Any], name: str) -> str | None:
    """One that is a text, a number or a truth."""
    value = context.get(name)
    if name in TELLING or value is None or isinstance(value, dict | list):
        return None
    return cut(visible(spoken(value)), _LONGEST_NAME) or None
