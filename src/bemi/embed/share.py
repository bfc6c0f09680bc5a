"""What one token lets somebody see: what its embed allows, and of that what it asks for. Pure.

Each image of a change is looked at by itself: an update that moved a row from one tenant to another
has one that is theirs, and one that is not.
"""

from collections.abc import Mapping
from typing import Any, Final, Self

import msgspec

from bemi.api.principals import ForbiddenError
from bemi.embed.tokens import Claims
from bemi.history.change import Change
from bemi.store.embeds import Embed
from bemi.store.filters import Filters, Place
from bemi.store.own import Own
from bemi.store.query import stored_keys
from bemi.store.scope import TELLING, split

OPERATIONS: Final = ("CREATE", "UPDATE", "DELETE")
"""What was done to one row, and by somebody."""

_REPLACED: Final = ("masked", "hashed", "too_large", "undecodable")
"""Flags of columns whose value is not the one that the row had."""


class Part(msgspec.Struct, frozen=True):
    """Of one table."""

    columns: tuple[str, ...]
    tenant: str | None
    label: str | None


class Share(msgspec.Struct, frozen=True):
    """`key`: of the one record; with it there is one table. `keys`: as the history may have it."""

    source: str
    parts: Mapping[tuple[str, str], Part]
    tenant: str
    tenant_context: str | None
    members: tuple[str, ...]
    key: str | None = None
    keys: frozenset[str] = frozenset()

    @classmethod
    def of(cls, embed: Embed, claims: Claims) -> Self:
        """Raises `ForbiddenError` where the token says more than its embed."""
        if embed.takes_tenant and claims.tenant is None:
            raise ForbiddenError("the token names no tenant, which this embed takes")
        beyond = {*claims.context} - {*embed.context} | {*claims.context} & TELLING
        if beyond:
            raise ForbiddenError(f"the embed does not allow the context's {', '.join(beyond)}")
        parts = {each.parts: Part(each.columns, each.tenant, each.label) for each in embed.tables}
        if claims.tables is not None:
            asked: dict[tuple[str, str], Part] = {}
            for visible in claims.tables:
                part = _part(parts, visible.table)
                columns = part.columns
                if visible.columns is not None:
                    columns = visible.columns
                    if not {*columns} <= {*part.columns}:
                        raise ForbiddenError(
                            f"the embed does not allow all of these columns of {visible.table}"
                        )
                # Of a table that is there twice, what both allow.
                if visible.parts in asked:
                    before = asked[visible.parts].columns
                    columns = tuple(name for name in columns if name in before)
                asked[visible.parts] = msgspec.structs.replace(part, columns=columns)
            parts = asked
        share = cls(
            source=embed.source,
            parts=parts,
            tenant=claims.tenant or "",
            tenant_context=embed.tenant_context,
            members=claims.context,
        )
        if claims.record is not None:
            share = share.narrowed(claims.record.table, claims.record.key)
        return share

    def narrowed(self, table: str | None, key: str | None) -> Self:
        """To a table, or a record of it. Raises `ForbiddenError` for what is not in it already."""
        if table is None:
            if key is not None:
                raise ForbiddenError("a key is one of a table")
            return self
        part = _part(self.parts, table)
        of_table = msgspec.structs.replace(self, parts={split(table): part})
        if key is None:
            return of_table
        keys = frozenset(stored_keys(key))
        if self.key is not None and keys != self.keys:
            raise ForbiddenError("the token is for another record")
        return msgspec.structs.replace(of_table, key=key, keys=keys)

    def filters(self, behind: Place | None, limit: int) -> Filters:
        """Which changes may have something that is told: `sides` says whether one has."""
        record: dict[str, Any] = {}
        if self.key is not None:
            ((schema, table),) = self.parts
            record = {"table": f"{schema}.{table}", "key": self.key}
        context = self.tenant_context
        return Filters(
            source=self.source,
            operation=OPERATIONS,
            own=tuple(
                Own(schema, table, part.tenant, self.tenant)
                for (schema, table), part in self.parts.items()
            ),
            context=() if context is None else ((context, self.tenant),),
            behind=behind,
            limit=limit,
            **record,
        )

    def part_of(self, change: Change) -> Part | None:
        """None where nothing of its table is told, or it was done in the name of another tenant."""
        if change.source != self.source or change.operation not in OPERATIONS:
            return None
        if self.tenant_context is not None:
            said = _text(change.context.get(self.tenant_context))
            if said is None or said != self.tenant:
                return None
        return self.parts.get((change.schema, change.table))

    def sides(self, change: Change, part: Part) -> tuple[bool | None, bool | None]:
        """Whether the image before and the one after are theirs; None where it is not known."""
        key, previous = change.primary_key, change.previous_key
        return (
            self._is_own(change, part, change.before, key if previous is None else previous),
            self._is_own(change, part, change.after, key),
        )

    def _is_own(
        self, change: Change, part: Part, image: Mapping[str, Any], key: str | None
    ) -> bool | None:
        if self.key is not None and key not in self.keys:
            return False
        if not image:
            return None
        if part.tenant is None:
            return True
        if any(f"{flag}:{part.tenant}" in change.flags for flag in _REPLACED):
            return None
        if part.tenant not in image:
            return None
        return _text(image[part.tenant]) == self.tenant


def _part(parts: Mapping[tuple[str, str], Part], table: str) -> Part:
    found = parts.get(split(table))
    if found is None:
        raise ForbiddenError(f"the table {table} is not among those that may be seen")
    return found


def _text(value: Any) -> str | None:
    """Of a text, a whole number or a truth: what else there is names no tenant."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int) else None
