"""Whose a row is: by what stands in one of its columns. Pure."""

import msgspec


class Own(msgspec.Struct, frozen=True):
    """Rows of a table that belong to a tenant: those with its name in `column`, as text; without
    a column, all."""

    schema: str
    table: str
    column: str | None
    tenant: str
