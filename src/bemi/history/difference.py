"""What a row differs in, between two states or by one change. Pure."""

from collections.abc import Mapping, Set
from typing import Any, Final, Literal, Self, TypeAlias

import msgspec

from bemi.errors import UnknownStateError
from bemi.history.change import Change, Row

Kind: TypeAlias = Literal["added", "removed", "changed"]

_KINDS: Final[Mapping[str, Kind]] = {
    "CREATE": "added",
    "SNAPSHOT": "added",
    "UPDATE": "changed",
    "DELETE": "removed",
}


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A row that was added, removed or changed.

    `columns` that differ, each with the value before and the one after: None where there is none.
    `unknown`: those of them of which the history does not know one side. `key` is the one that the
    row has in the end, `previous_key` the one that it had before, where it had another. Of rows
    without a key `count` are alike.
    """

    kind: Kind
    key: str | None
    previous_key: str | None = None
    columns: dict[str, tuple[Any, Any]]
    unknown: tuple[str, ...] = ()
    count: int = 1

    @classmethod
    def of_change(cls, change: Change) -> Self:
        """Raises `UnknownStateError` for a TRUNCATE, which does not say what rows there were."""
        if change.operation == "TRUNCATE":
            raise UnknownStateError(
                f"the change {change.id} is a TRUNCATE, which ended all rows of"
                f" {change.schema}.{change.table} at once",
                fix="`bemi diff TABLE --from WHEN --to WHEN` shows which there were",
            )
        kind = _KINDS[change.operation]
        flags = {*change.flags}
        # What was not sent because it was left alone is no difference.
        kept = {name for name in (*change.before, *change.after) if f"unchanged:{name}" in flags}
        before = {name: value for name, value in change.before.items() if name not in kept}
        after = {name: value for name, value in change.after.items() if name not in kept}
        return cls.of(
            kind,
            change.primary_key,
            before,
            after,
            flags,
            flags,
            # An update has both sides of all columns, known or not.
            unknown={*before} ^ {*after} if kind == "changed" else set(),
            previous_key=change.previous_key,
        )

    @classmethod
    def of_rows(cls, before: Row | None, after: Row | None, *, count: int = 1) -> Self:
        """Of one of which at least one side is there."""
        kind: Kind = "added" if before is None else "removed" if after is None else "changed"
        last = after if after is not None else before
        assert last is not None
        moved = before is not None and before.key != last.key
        old = {} if before is None else before.values
        new = {} if after is None else after.values
        flags_before = set() if before is None else {*before.flags}
        flags_after = set() if after is None else {*after.flags}
        return cls.of(
            kind,
            last.key,
            old,
            new,
            flags_before,
            flags_after,
            # Else the table does not have it on that side.
            unknown=_of(flags_before) - {*old} | _of(flags_after) - {*new},
            previous_key=before.key if before is not None and moved else None,
            count=count,
        )

    @classmethod
    def of(
        cls,
        kind: Kind,
        key: str | None,
        before: Mapping[str, Any],
        after: Mapping[str, Any],
        flags_before: Set[str],
        flags_after: Set[str],
        *,
        unknown: Set[str],
        previous_key: str | None = None,
        count: int = 1,
    ) -> Self:
        columns = {}
        for name in {**before, **after}:
            if name in before and name in after:
                old, new = before[name], after[name]
                if _form(old, name, flags_before) == _form(new, name, flags_after):
                    continue
            elif (
                kind == "changed"
                and name not in unknown
                and before.get(name) is None
                and after.get(name) is None
            ):
                continue  # null, in a column that the table does not have on the other side
            columns[name] = (before.get(name), after.get(name))
        return cls(
            kind=kind,
            key=key,
            previous_key=previous_key,
            columns=columns,
            unknown=tuple(name for name in columns if name in unknown),
            count=count,
        )


def _of(flags: Set[str]) -> set[str]:
    """The columns that flags are about."""
    return {flag.partition(":")[2] for flag in flags}


def _form(value: Any, name: str, flags: Set[str]) -> str:
    """Equal for equal values only: 1 is not true, nor 1.0 what 1.00 is, nor JSON's null NULL."""
    return repr((value, *(flag for flag in (f"text:{name}", f"json_null:{name}") if flag in flags)))
