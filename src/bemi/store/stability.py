"""Whether a stored value of a column can differ from another though nobody wrote the row.

A type's text may follow the catalog or a setting, DDL may have rewritten the column, and one of
two changes may have the value in another form than the other. Pure.
"""

import re
from typing import Final

from bemi.store.versions import StoredColumn

_FIRST_USER_OID: Final = 16384
# fmt: off
_UNSTABLE_OIDS: Final = frozenset((
    # reg…, money, aclitem: their text follows the catalog, or lc_monetary. And arrays of them.
    24, 1008, 2202, 2207, 2203, 2208, 2204, 2209, 2205, 2210, 2206, 2211, 4096, 4097, 4089, 4090,
    3734, 3735, 3769, 3770, 4191, 4192, 790, 791, 1033, 1034, 194, 8326,
))
_STABLE_TYPES: Final = frozenset((
    '"char"', "bigint", "bit", "bit varying", "boolean", "box", "bytea", "character",
    "character varying", "cid", "cidr", "circle", "date", "datemultirange", "daterange",
    "double precision", "inet", "int4multirange", "int4range", "int8multirange", "int8range",
    "integer", "interval", "json", "jsonb", "jsonpath", "line", "lseg", "macaddr", "macaddr8",
    "name", "numeric", "nummultirange", "numrange", "oid", "path", "pg_lsn", "pg_snapshot",
    "point", "polygon", "real", "smallint", "text", "tid", "time with time zone",
    "time without time zone", "timestamp with time zone", "timestamp without time zone",
    "tsmultirange", "tsquery", "tsrange", "tstzmultirange", "tstzrange", "tsvector",
    "txid_snapshot", "uuid", "xid", "xid8", "xml",
))
# fmt: on
_STABLE_EXTENSIONS: Final = frozenset(("citext", "hstore", "ltree"))
_MODIFIER: Final = re.compile(r"\(-?\d+(,-?\d+)?\)")

_XID_RANGE: Final = 1 << 32
_LAG: Final = 1 << 28
"""Transactions that the catalog may be ahead of the stream when a table is described."""


def stable(column: StoredColumn, *, replaced: bool) -> bool:
    """Whether a value's text stays the same while nobody writes the row.

    An enum's label may be renamed, a composite type altered. `replaced`: the type of the stored
    column is not that of its values.
    """
    if not column.number or not column.type:
        return False
    name = _MODIFIER.sub("", column.type)
    while name.endswith("[]"):
        name = name[:-2]
    if name in _STABLE_TYPES or name.startswith("interval "):
        return True
    if name.rpartition(".")[2] in _STABLE_EXTENSIONS:
        return True
    # A domain has the OID of what it is made of.
    return (
        not replaced and column.type_oid < _FIRST_USER_OID and column.type_oid not in _UNSTABLE_OIDS
    )


def same_form(name: str, last: frozenset[str], now: frozenset[str]) -> bool:
    """Whether a column's values are stored in the same form in both changes."""
    for word in ("text", "json_null"):
        flag = f"{word}:{name}"
        if (flag in last) != (flag in now):
            return False
    lacking = {f"{word}:{name}" for word in ("unchanged", "too_large", "undecodable")}
    # What was not known before a change is known after it.
    return not (lacking & last or (lacking | {f"before_unknown:{name}"}) & now)


def altered_before(column: StoredColumn, last: int, now: int) -> bool:
    """Whether the column was altered last before transaction `last`, going by their numbers.

    `stamp` is the transaction that altered it, in 32 bits, as the catalog told when the table
    was described: about when `now` came, or later by what the stream lagged behind. Of all
    transactions that it may stand for, the latest one is taken.
    """
    latest = now + _LAG
    return column.stamp > 0 and latest - (latest - column.stamp) % _XID_RANGE < last
