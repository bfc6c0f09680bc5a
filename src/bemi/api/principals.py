"""Who asks: a person or a program, with a role and what may be seen. Pure."""

from typing import Final, NoReturn, Self

import msgspec

from bemi.errors import BemiError
from bemi.store.people import Holder, Role
from bemi.store.scope import TELLING, Scope

ROLES: Final[tuple[Role, ...]] = ("viewer", "editor", "admin")
"""Each may do what those before it may."""


class UnauthenticatedError(BemiError):
    """Nobody is known to ask."""


class ForbiddenError(BemiError):
    """Who asks may not."""


class Principal(msgspec.Struct, frozen=True):
    """`scope`: None is the whole history."""

    holder: Holder
    scope: Scope | None

    @classmethod
    def of(cls, holder: Holder) -> Self:
        return cls(holder, None if holder.scopes is None else Scope.read(holder.scopes))

    @property
    def name(self) -> str:
        return self.holder.name

    @property
    def label(self) -> str:
        """For the log, which has no names."""
        return f"{self.holder.kind} {self.holder.id}"

    @property
    def rights(self) -> str:
        """Who it is, and what may be seen: what was made for others is not for them."""
        return f"{self.label}: {self.scope}"

    def may(self, role: Role) -> bool:
        return ROLES.index(self.holder.role) >= ROLES.index(role)

    def sees(self, table: str | None) -> bool:
        return self.scope is None or (table is not None and self.scope.sees(table))

    def require_table(self, table: str) -> None:
        """Raises `ForbiddenError`, also for a table that there is not: nothing is told of those."""
        if not self.sees(table):
            self.refuse_table(table)

    def refuse_table(self, table: str) -> NoReturn:
        """Raises `ForbiddenError`."""
        raise ForbiddenError(f"the table {table} is not among those that you may see")

    def require_column(self, column: str, table: str | None) -> None:
        """Raises `ForbiddenError`: to look for a value is to read it."""
        if self.scope is not None and not self.scope.shows_column(column, table):
            raise ForbiddenError(
                f"the column {column} is not among those that you may see",
                fix="leave it out of the filters"
                + ("" if table else ", or name a table in which you may see it"),
            )

    def require_member(self, path: str) -> None:
        """Of a context. Raises `ForbiddenError` for those that may hold values of columns."""
        if self.scope is not None and path.partition(".")[0] in TELLING:
            raise ForbiddenError(f"{path} is told to nobody who may see a part only")

    def require_all(self, what: str) -> None:
        """Raises `ForbiddenError` for who may see a part only."""
        if self.scope is not None:
            raise ForbiddenError(f"{what} takes the right to see all tables and columns")
