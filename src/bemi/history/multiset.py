"""Counts the rows of a table without a key: equal ones that came, less those that went.

Rows are the same when their values are: in the columns of the last shape, and whatever form the
flags of a change say that a value has. What went is one of what came; where it is like none of
them, or not told, the rows are not known. Queries of the destination; see `bemi.history.state`.
"""

from collections.abc import Sequence
from typing import Final, LiteralString

import msgspec
from psycopg import sql

from bemi.history.shapes import sources
from bemi.store.shapes import Shape

# What a float, for one, may be written as in either form; a cast of more than that may fail.
_NUMBER: Final = r"^(?!-0(\.0*)?([eE]|$))-?\d{1,255}(\.\d{1,255})?([eE][-+]?\d{1,3})?$"

_COUNTED: Final[LiteralString] = """
{present}, shape as (
    select * from jsonb_to_recordset(%(shapes)s) s (position bigint, ordinal int, columns jsonb)
),
moved as (
    select r.commit_position, r.ordinal, r.flags, each.n, each.image, (
        select s.columns from shape s
        where (s.position, s.ordinal) <= (r.commit_position, r.ordinal)
        order by s.position desc, s.ordinal desc limit 1
    ) as columns
    from present r, lateral (
        select 1 as n, r.after as image where r.after is not null
        union all
        select -1, coalesce(r.before, r.after || r.changed)
        where r.operation in ('UPDATE', 'DELETE')
    ) each
),
counted as (
    select sum(n) as n, bool_or(image is null) as untold, min(commit_position) as oldest,
        max(array[commit_position, ordinal]) filter (where n > 0) as latest
    from moved, lateral (
        select
            array_to_string(flags, chr(10)) ~ '(^|\n)(text|json_null):' as other_form,
            (select array_agg(f) from unnest(flags) f where f like 'sha256:%%') as digests
    ) its
    group by digests, case
        when columns is null and other_form is not true then image::text
        when image is not null then (
            select coalesce(jsonb_object_agg(called, case
                when 'text:' || source = any(flags) and value <> 'null' then case
                    when value #>> '{{}}' ~ {number}
                        then to_jsonb((value #>> '{{}}')::numeric)
                    when value in ('"NaN"', '"Infinity"', '"-Infinity"') then value
                    else jsonb_build_object('text', value)
                end
                when 'json_null:' || source = any(flags) and value = 'null'
                    then '{{"text": "null"}}'
                else value
            end), '{{}}')::text
            from (
                select c.called, c.source,
                    coalesce(image -> c.source, case when not c.filled then 'null'::jsonb end)
                        as value
                from jsonb_to_recordset(columns) c (called text, source text, filled bool)
                union all
                select e.key, e.key, e.value from jsonb_each(image) e where columns is null
            ) c where value is not null
        )
    end
)
"""

UNTOLD: Final[LiteralString] = """
{counted} select exists (select from counted where untold or n < 0)
"""

ROWS: Final[LiteralString] = """
{counted}
select null, after::text, flags, commit_position, ordinal, oldest
from counted
join {changes} on commit_position = latest[1] and ordinal = latest[2] and {its},
generate_series(1, n)
where n > 0
"""


def counted(present: sql.Composable) -> sql.Composed:
    """The CTEs up to `counted`, from those up to `present`."""
    return sql.SQL(_COUNTED).format(present=present, number=sql.Literal(_NUMBER))


def by_place(shapes: Sequence[Shape]) -> list[dict[str, object]]:
    """From where on images have which shape, and where they have the columns of the last one.

    The parameter `shapes` of the queries here.
    """
    last = shapes[-1] if shapes else None
    if last is None or all(shape.columns == last.columns for shape in shapes):
        return []
    return [
        {
            "position": shape.place[0],
            "ordinal": shape.place[1],
            "columns": None
            if shape.columns == last.columns
            else msgspec.to_builtins(sources(shape, last)),
        }
        for shape in shapes
    ]
