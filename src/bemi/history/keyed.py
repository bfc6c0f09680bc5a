"""The rows of a table with a key: each is what its last change left, under the key that it had.

A change of the key ends the row under the old one. Queries of the destination; see
`bemi.history.state`.
"""

from typing import Final, LiteralString

from psycopg import sql

ROWS: Final[LiteralString] = """
{present}, last as (
    select distinct on (key) key, image, flags, commit_position, ordinal from (
        select primary_key as key, case when operation <> 'DELETE' then after end as image,
            flags, commit_position, ordinal, 1 as half from present where {of_row}
        union all
        select previous_key, null, null, commit_position, ordinal, 0 from present
        where previous_key is not null and {of_row}
    ) each
    order by key, commit_position desc, ordinal desc, half desc
)
select key, image::text, flags, commit_position, ordinal, commit_position
from last where image is not null and {is_row}
"""

# Backwards from a change that lacks values, to where its row came to be, by the keys that it had.
BEFORE: Final[LiteralString] = """
with recursive back as (
    (select * from {changes}
    where {its} and primary_key = %(key)s and (commit_position, ordinal) = (%(at)s, %(nth)s))
    union all
    select r.* from back b cross join lateral (
        select * from {changes}
        where {its} and primary_key = coalesce(b.previous_key, b.primary_key)
            and (commit_position, ordinal) < (b.commit_position, b.ordinal)
        order by commit_position desc, ordinal desc
        limit 1
    ) r
    where b.operation = 'UPDATE'
        and exists (select from unnest(b.flags) flag where starts_with(flag, 'unchanged:'))
)
select after::text, flags, commit_position, ordinal from back
order by commit_position desc, ordinal desc
"""

_ANY: Final = {"of_row": sql.SQL("true"), "is_row": sql.SQL("true")}
_ONE: Final = {
    "of_row": sql.SQL("(primary_key = %(key)s or previous_key = %(key)s)"),
    "is_row": sql.SQL("key = %(key)s"),
}


def conditions(key: str | None) -> dict[str, sql.SQL]:
    """For `ROWS`, of which rows: all, or the one that has this key, by the indexes on it."""
    return _ANY if key is None else _ONE
