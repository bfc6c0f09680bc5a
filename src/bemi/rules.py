"""What of the tracked tables is left out, masked or hashed: globs of columns, and their meaning.

A column's glob has one to three parts, `schema.table.column`, `table.column` (in any schema) or
`column` (of any table); `*` stands for anything, and `"…"` for a part with dots in it. Knows no
database: what a table's columns are is told to `for_table`.
"""

import functools
import re
from collections.abc import Collection, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Final

import msgspec

from bemi.errors import ConfigError

OPERATIONS: Final = ("create", "update", "delete", "truncate")
_PART: Final = re.compile(r'"((?:[^"]|"")+)"|([^".]+)')


class Skip(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Changes that are not stored: all that is given must be true of them."""

    tables: tuple[str, ...] = ()
    """Globs `schema.table`; without a schema in `public`. None: every table."""
    operations: tuple[str, ...] = ()
    """Of create, update, delete, truncate. None: all of them."""
    context: dict[str, str] = msgspec.field(default_factory=dict)
    """Members of the context: texts, numbers and booleans, compared as text; the context has to be
    sent before the change."""


class Rules(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The rules of one source. Empty rules store everything as it is."""

    ignore: tuple[str, ...] = ()
    """Columns whose change alone makes no change, the key's apart; it is recorded with others'."""
    exclude: tuple[str, ...] = ()
    """Columns that are never stored, and whose change alone makes no change."""
    mask: tuple[str, ...] = ()
    """Columns whose values are stored as `***`."""
    hash: tuple[str, ...] = ()
    """Columns whose values are stored as keyed digests, so that equal ones stay comparable."""
    skip: tuple[Skip, ...] = ()

    def __bool__(self) -> bool:
        return self != NO_RULES

    def check(self) -> None:
        """Raises `ConfigError` that names the place (`rules.mask[1]`) and the fix."""
        for kind in ("ignore", "exclude", "mask", "hash"):
            for at, glob in enumerate(getattr(self, kind)):
                parts = split(glob)
                if parts is None or len(parts) > 3:
                    raise ConfigError(
                        f"rules.{kind}[{at}]: {glob!r} names no column",
                        fix="write public.users.email, users.email, *.email or *_token",
                    )
        for at, skip in enumerate(self.skip):
            if not (skip.tables or skip.operations or skip.context):
                raise ConfigError(
                    f"rules.skip[{at}]: without tables, operations or context it would leave"
                    " out everything",
                    fix="say what to leave out",
                )
            for number, glob in enumerate(skip.tables):
                parts = split(glob)
                if parts is None or len(parts) > 2:
                    raise ConfigError(
                        f"rules.skip[{at}].tables[{number}]: {glob!r} names no table",
                        fix="write public.jobs, or audit.*",
                    )
            for number, name in enumerate(skip.operations):
                if name not in OPERATIONS:
                    raise ConfigError(
                        f"rules.skip[{at}].operations[{number}]: {name!r} is no operation",
                        fix=f"give some of {', '.join(OPERATIONS)}",
                    )

    def unmatched(self, tables: Iterable[tuple[str, str, Sequence[str]]]) -> list[str]:
        """What matches nothing of these tables (schema, name, columns), each in a sentence.

        It is misspelt, or for what is still to come, or a rename has disarmed it.
        """
        known = list(tables)
        found = [
            f"rules.{kind}[{at}] {glob!r} matches no column of a tracked table"
            for kind in ("ignore", "exclude", "mask", "hash")
            for at, glob in enumerate(getattr(self, kind))
            if not any(_named(glob, schema, name, columns) for schema, name, columns in known)
        ]
        found += [
            f"rules.skip[{at}].tables[{number}] {glob!r} matches no tracked table"
            for at, skip in enumerate(self.skip)
            for number, glob in enumerate(skip.tables)
            if not any(_covers(Skip(tables=(glob,)), schema, name) for schema, name, _ in known)
        ]
        return found

    def for_table(
        self, schema: str, name: str, columns: Sequence[str], key: Collection[int] = ()
    ) -> "TableRules":
        """What the rules mean for a table: where several name a column, the strictest holds.

        From the strictest: exclude, mask, hash. Columns of the `key` are never ignored: by
        another key it is another row.
        """

        def found(globs: tuple[str, ...]) -> frozenset[int]:
            return frozenset().union(*(_named(glob, schema, name, columns) for glob in globs))

        exclude = found(self.exclude)
        mask = found(self.mask) - exclude
        return TableRules(
            ignore=found(self.ignore) - {*key},
            exclude=exclude,
            mask=mask,
            hash=found(self.hash) - mask - exclude,
            skip=tuple(skip for skip in self.skip if _covers(skip, schema, name)),
        )


class TableRules(msgspec.Struct, frozen=True):
    """The rules for one table; columns by their places in it."""

    ignore: frozenset[int] = frozenset()
    exclude: frozenset[int] = frozenset()
    mask: frozenset[int] = frozenset()
    hash: frozenset[int] = frozenset()
    skip: tuple[Skip, ...] = ()

    @property
    def silent(self) -> frozenset[int]:
        """Columns whose change alone makes no change: the ignored ones, and what is not stored."""
        return self.ignore | self.exclude

    @property
    def replaced(self) -> frozenset[int]:
        """Columns that are not stored as they are."""
        return self.exclude | self.mask | self.hash

    def treatment(self, at: int) -> str:
        """How a column is stored: `as it is`, `exclude`, `mask` or `hash`."""
        for kind in ("exclude", "mask", "hash"):
            if at in getattr(self, kind):
                return kind
        return "as it is"


NO_RULES: Final = Rules()


@functools.lru_cache(maxsize=1024)
def split(glob: str) -> tuple[str, ...] | None:
    """The parts of a glob, unquoted; a quoted part matches itself. None: it is no glob."""
    parts: list[str] = []
    at = 0
    while True:
        match = _PART.match(glob, at)
        if match is None:
            return None
        quoted, plain = match.groups()
        parts.append(plain if quoted is None else _literally(quoted.replace('""', '"')))
        at = match.end()
        if at == len(glob):
            return tuple(parts)
        if glob[at] != ".":
            return None
        at += 1


def _literally(text: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", text)


def _named(glob: str, schema: str, table: str, columns: Sequence[str]) -> set[int]:
    """The places of the columns that a glob names."""
    parts = split(glob)
    if parts is None:
        return set()
    *above, wanted = ("*",) * (3 - len(parts)) + parts
    if not _all_match(above, (schema, table)):
        return set()
    return {at for at, column in enumerate(columns) if fnmatchcase(column, wanted)}


def _covers(skip: Skip, schema: str, table: str) -> bool:
    if not skip.tables:
        return True
    for glob in skip.tables:
        parts = split(glob)
        if parts is not None:
            pattern = parts if len(parts) == 2 else ("public", *parts)
            if _all_match(pattern, (schema, table)):
                return True
    return False


def _all_match(globs: Iterable[str], names: Iterable[str]) -> bool:
    return all(fnmatchcase(name, glob) for name, glob in zip(names, globs, strict=True))
