"""What of the history somebody may see: tables by globs, and of them all columns or some. Pure.

A scope narrows what is read, in the SELECT itself and in the images that come out of it. The key of
a row is always seen: without it, nothing could be said of the row.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final, Self

import msgspec

from bemi.errors import UsageError

TELLING: Final = frozenset({"SQL", "revert", "replay"})
"""Members of a context that may hold values of any table and column: of a statement, and of the
filters that chose what to revert. One context is of all that its transaction wrote."""


class Visible(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`table`: `schema.table`, in which `*` stands for anything; `columns`: None is all."""

    table: str
    columns: tuple[str, ...] | None = None

    @property
    def parts(self) -> tuple[str, str]:
        return split(self.table)

    def covers(self, schema: str, table: str) -> bool:
        return all(
            _matches(glob, name) for glob, name in zip(self.parts, (schema, table), strict=True)
        )


class Scope(msgspec.Struct, frozen=True):
    """What is in none of the entries is not seen; without entries, nothing is."""

    entries: tuple[Visible, ...]

    @classmethod
    def read(cls, value: object) -> Self:
        """From its JSON, a list of entries. Raises `UsageError`."""
        try:
            entries = msgspec.convert(value, tuple[Visible, ...])
        except msgspec.ValidationError as error:
            raise UsageError(
                f"scopes: {error}",
                fix='give a list such as [{"table": "public.todo", "columns": ["id", "task"]}]',
            ) from error
        for entry in entries:
            if "\0" in "".join([entry.table, *(entry.columns or ())]) or not all(entry.parts):
                raise UsageError(f"scopes: {entry.table!r} names no table")
        return cls(entries)

    def sees(self, table: str) -> bool:
        """`table`: `schema.table`, or one in the schema public."""
        return self.covers(*split(table))

    def covers(self, schema: str, table: str) -> bool:
        return any(entry.covers(schema, table) for entry in self.entries)

    def columns(self, schema: str, table: str) -> frozenset[str] | None:
        """Those of a table that may be seen; None: all."""
        found: set[str] = set()
        for entry in self.entries:
            if entry.covers(schema, table):
                if entry.columns is None:
                    return None
                found.update(entry.columns)
        return frozenset(found)

    def shows_column(self, column: str, table: str | None) -> bool:
        """Whether a filter may ask for a column: of this table, or of whichever may be seen."""
        if table is not None:
            known = self.columns(*split(table))
            return known is None or column in known
        return all(entry.columns is None or column in entry.columns for entry in self.entries)


def split(table: str) -> tuple[str, str]:
    """Schema and table, by the first dot; without one it is in public."""
    schema, dot, name = table.partition(".")
    return (schema, name) if dot else ("public", schema)


def shown(names: frozenset[str] | None, values: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in values.items() if names is None or name in names}


def shown_flags(names: frozenset[str] | None, flags: Sequence[str]) -> list[str]:
    """Without those that are about other columns."""
    if names is None:
        return list(flags)
    found = []
    for flag in flags:
        about = flag.partition(":")[2]
        if not about or any(about == name or about.startswith(f"{name}:") for name in names):
            found.append(flag)
    return found


def like(glob: str) -> str:
    """A glob as a pattern of SQL's LIKE."""
    return re.sub(r"([\\%_])", r"\\\1", glob).replace("*", "%")


def _matches(glob: str, name: str) -> bool:
    pattern = ".*".join(map(re.escape, glob.split("*")))
    return re.fullmatch(pattern, name, re.DOTALL) is not None
