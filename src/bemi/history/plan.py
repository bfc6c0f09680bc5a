"""What a revert or a replay would do: row by row, with what stands in the way."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias
from uuid import UUID

import msgspec

from bemi.errors import ConflictError
from bemi.history.effect import Action
from bemi.lsn import Lsn

Mark: TypeAlias = Literal["set", "done", "conflict"]


class PlannedField(msgspec.Struct, frozen=True):
    """A column of a row, with values as PostgreSQL's texts.

    `expected`: what it holds if nothing else has set it. `target`: what it is to hold. `mark`:
    `done` where it does already. `between`: the change that has set it since, if one is known.
    """

    column: str
    present: str | None
    expected: str | None
    target: str | None
    mark: Mark
    between: UUID | None = None


class Conflict(msgspec.Struct, frozen=True):
    """Why a row can't be brought to where it should be; `change`: by which change, if one did.

    `kind`: `changed` (a column is not what it should be), `gone`, `taken` (the key, by another
    row), `lost` (the history does not have the value), `children`, `parent`, `unique`, `cycle` (of
    foreign keys), `table`, `type`, or `depends` on a row with a conflict.
    """

    table: str
    key: str | None
    kind: str
    message: str
    change: UUID | None = None


class PlannedRow(msgspec.Struct, frozen=True):
    """A row, by its key's text. `changes`: those that this is the effect of."""

    table: str
    key: str
    action: Action
    done: bool
    fields: tuple[PlannedField, ...]
    conflicts: tuple[Conflict, ...]
    changes: tuple[UUID, ...]


class Applied(msgspec.Struct, frozen=True):
    """What was written. `skipped`: rows left alone for their conflicts; `done`: those that were as
    they should be. `altered`: columns, as `table key column`, in which triggers have put another
    value than the plan's; `*` for a row without a key that they have written once more, or taken
    away. `transaction_id` is None where there was nothing to write. `notes`: what
    else was worth knowing, as the plan has it.
    """

    rows: int
    skipped: int
    done: int
    changes: int
    transaction_id: int | None
    altered: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def conflicting(conflicts: Sequence[Conflict]) -> ConflictError:
    first = conflicts[0]
    more = f", and {len(conflicts) - 1:,} more" if len(conflicts) > 1 else ""
    where = first.table if first.key is None else f"{first.table} {first.key}"
    return ConflictError(
        f"nothing was written: {where}: {first.message}{more}",
        conflicts=tuple(conflicts),
        fix="leave these rows out, or skip all that have conflicts",
    )


class Look(msgspec.Struct, frozen=True):
    """The plan as the database was when it was looked at."""

    rows: tuple[PlannedRow, ...]
    conflicts: tuple[Conflict, ...]
    notes: tuple[str, ...]


class About(msgspec.Struct, frozen=True):
    """What a plan is of. `what`: revert or replay; `position`: until where the history was read."""

    what: Literal["revert", "replay"]
    source: str
    position: Lsn
    changes: int
    ids: tuple[UUID, ...]
    filters: Mapping[str, Any]
