"""The last stored image of rows, by their keys: what a row was before the next change came.

Only images that nothing can have outdated unseen are `trusted`: they lie in the interval that
is still open, whose membership in the publication is what it was, and no gap of their table
ends behind them.

An image may lack a value that its change did not alter and did not send: a baseline's row may
come into the history before a change that was stored when it was not there yet. The image before
has it then, under the key that the row had.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, LiteralString

import msgspec
import psycopg
from psycopg import sql

from bemi.store.versions import Place


class Wanted(msgspec.Struct, frozen=True):
    """A row: of `relation`, which the history knows by `names`, with the text of its key."""

    relation: int
    membership: int
    names: tuple[str, ...]
    key: str


class Image(msgspec.Struct, frozen=True):
    """A row as the last change left it; `after` has its columns' JSON, None for a deleted row."""

    after: dict[str, msgspec.Raw] | None
    flags: frozenset[str]
    place: Place
    rules: int | None
    earlier: "tuple[Image, ...]" = ()
    """What the row was before, the newest first, as long as the one behind lacks a value."""

    def lacks(self, column: str) -> bool:
        """Whether the change left the column as it was, without telling what that is."""
        return f"{UNSENT}{column}" in self.flags


UNSENT: Final = "unchanged:"
"""Begins the flag of a column that a change did not alter and did not send."""

_decode: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

_LAST: Final[LiteralString] = """
select w.relation::bigint, w.key, r.operation, r.after::text, r.flags, r.epoch,
    r.commit_position, r.ordinal,
    (select c.rules from {contexts} c where c.id = r.context_id)
from unnest(%(relations)s::oid[], %(memberships)s::oid[], %(names)s::text[], %(keys)s::text[])
    w (relation, membership, name, key)
join {intervals} i
    on i.source_id = %(source_id)s and i.relation = w.relation and i.to_position is null
    and i.membership = w.membership and i.epoch = %(epoch)s
cross join lateral (
    select * from {row_changes} r
    where r."table" = w.name and r.primary_key = w.key and r.relation = w.relation
        and r.epoch = i.epoch and r.commit_position >= i.from_position
    order by r.commit_position desc, r.ordinal desc
    limit 1
) r
where not exists (
    select from {gaps} g
    where g.source_id = %(source_id)s and g.epoch = r.epoch
        and (g.relation = w.relation or g.relation is null and g.cause = 'chain')
        and g.columns is null and g.to_position > r.commit_position
)
"""

# Backwards from images that lack values, each by the key that the row had.
_EARLIER: Final[LiteralString] = """
with recursive back as (
    select w.relation, w.key, coalesce(r.previous_key, r.primary_key) as was, i.epoch,
        i.from_position, r.operation, r.after, r.flags, r.commit_position, r.ordinal, r.context_id
    from unnest(%(relations)s::oid[], %(keys)s::text[], %(positions)s::bigint[],
        %(ordinals)s::int[]) w (relation, key, position, ordinal)
    join {intervals} i
        on i.source_id = %(source_id)s and i.relation = w.relation and i.to_position is null
        and i.epoch = %(epoch)s
    join {row_changes} r
        on r."table" = any(%(names)s) and r.primary_key = w.key and r.relation = w.relation
        and r.epoch = i.epoch and r.commit_position = w.position and r.ordinal = w.ordinal
    union all
    select b.relation, b.key, coalesce(r.previous_key, r.primary_key), b.epoch,
        b.from_position, r.operation, r.after, r.flags, r.commit_position, r.ordinal, r.context_id
    from back b cross join lateral (
        select each.* from unnest(%(names)s::text[]) n (name) cross join lateral (
            select * from {row_changes} r
            where r."table" = n.name and r.primary_key = b.was and r.relation = b.relation
                and r.epoch = b.epoch and r.commit_position >= b.from_position
                and (r.commit_position, r.ordinal) < (b.commit_position, b.ordinal)
            order by r.commit_position desc, r.ordinal desc
            limit 1
        ) each
        order by each.commit_position desc, each.ordinal desc
        limit 1
    ) r
    where b.operation = 'UPDATE' and r.operation <> 'DELETE'
        and exists (select from unnest(b.flags) flag where starts_with(flag, %(unsent)s))
        and not exists (
            select from {gaps} g
            where g.source_id = %(source_id)s and g.epoch = r.epoch
                and (g.relation = b.relation or g.relation is null and g.cause = 'chain')
                and g.columns is null and g.to_position > r.commit_position
        )
)
select b.relation::bigint, b.key, b.operation, b.after::text, b.flags, b.epoch,
    b.commit_position, b.ordinal,
    (select c.rules from {contexts} c where c.id = b.context_id)
from back b
order by b.relation, b.key, b.commit_position desc, b.ordinal desc
"""

# Whatever lies between then and now: for who compares what was with what is.
_LATEST: Final[LiteralString] = """
select w.relation::bigint, w.key, r.operation, r.after::text, r.flags, r.epoch,
    r.commit_position, r.ordinal,
    (select c.rules from {contexts} c where c.id = r.context_id)
from unnest(%(relations)s::oid[], %(memberships)s::oid[], %(names)s::text[], %(keys)s::text[])
    w (relation, membership, name, key)
cross join lateral (
    select * from (
        (select r.operation, r.after, r.flags, r.epoch, r.commit_position, r.ordinal, r.context_id
        from {row_changes} r
        where r."table" = w.name and r.primary_key = w.key and r.relation = w.relation
            and r.epoch = any(%(epochs)s)
            and (r.epoch < %(epoch)s or r.commit_position < %(before)s)
        order by r.epoch desc, r.commit_position desc, r.ordinal desc
        limit 1)
        union all
        (select 'DELETE', null, null, r.epoch, r.commit_position, r.ordinal, r.context_id
        from {row_changes} r
        where r."table" = w.name and r.previous_key = w.key and r.relation = w.relation
            and r.epoch = any(%(epochs)s)
            and (r.epoch < %(epoch)s or r.commit_position < %(before)s)
        order by r.epoch desc, r.commit_position desc, r.ordinal desc
        limit 1)
    ) each
    order by epoch desc, commit_position desc, ordinal desc
    limit 1
) r
"""


def trusted(
    cursor: psycopg.Cursor[Any],
    schema: str,
    source_id: int,
    epoch: int,
    wanted: Sequence[Wanted],
) -> dict[tuple[int, str], Image]:
    """The images of these rows as the history's end has them, by relation and key.

    In the cursor's transaction, whose own rows count. A row is left out when the history does
    not have it, or can't vouch for it.
    """
    parameters = {"source_id": source_id, "epoch": epoch}
    found = _read(cursor, schema, _LAST, wanted, parameters)
    lacking = {
        at: image
        for at, image in found.items()
        if any(flag.startswith(UNSENT) for flag in image.flags)
    }
    if lacking:
        found |= _with_earlier(cursor, schema, wanted, lacking, parameters)
    return found


def _with_earlier(
    cursor: psycopg.Cursor[Any],
    schema: str,
    wanted: Sequence[Wanted],
    lacking: dict[tuple[int, str], Image],
    parameters: Mapping[str, object],
) -> dict[tuple[int, str], Image]:
    _run(
        cursor,
        schema,
        _EARLIER,
        {
            **parameters,
            "relations": [relation for relation, _ in lacking],
            "keys": [key for _, key in lacking],
            "positions": [int(image.place[1]) for image in lacking.values()],
            "ordinals": [image.place[2] for image in lacking.values()],
            "names": list({name for row in wanted for name in row.names}),
            "unsent": UNSENT,
        },
    )
    chains: dict[tuple[int, str], list[Image]] = {}
    for relation, key, *columns in cursor:
        chains.setdefault((relation, key), []).append(_image(*columns))
    return {
        at: msgspec.structs.replace(last, earlier=tuple(earlier))
        for at, (last, *earlier) in chains.items()
    }


def latest(
    cursor: psycopg.Cursor[Any],
    schema: str,
    source_id: int,
    wanted: Sequence[Wanted],
    *,
    epoch: int,
    before: int,
) -> dict[tuple[int, str], Image]:
    """The images of these rows before commit position `before` of `epoch`, over gaps too.

    A row that was deleted or given another key has an image without `after`. Whether the whole
    table was emptied since is another question: see `emptied`.
    """
    epochs = [
        row[0]
        for row in cursor.execute(
            sql.SQL("select epoch from {} where source_id = %s and epoch <= %s").format(
                sql.Identifier(schema, "epochs")
            ),
            [source_id, epoch],
        )
    ]
    parameters = {"source_id": source_id, "epoch": epoch, "epochs": epochs, "before": before}
    return _read(cursor, schema, _LATEST, wanted, parameters)


def emptied(
    conn: psycopg.Connection[Any],
    schema: str,
    source_id: int,
    relation: int,
    names: Sequence[str],
    *,
    after: Place,
    epoch: int,
    before: int,
) -> Place | None:
    """Where the table was truncated last, behind `after` and before a position of `epoch`."""
    row = conn.execute(
        sql.SQL(
            "select r.epoch, r.commit_position, r.ordinal from {row_changes} r "
            'where r."table" = any(%(names)s) and r.relation = %(relation)s '
            "and r.operation = 'TRUNCATE' and r.epoch in "
            "(select epoch from {epochs} where source_id = %(source)s and epoch <= %(epoch)s) "
            "and (r.epoch < %(epoch)s or r.commit_position < %(before)s) "
            "and (r.epoch, r.commit_position, r.ordinal) > (%(e)s, %(c)s, %(o)s) "
            "and (r.epoch > %(e)s or r.commit_position >= %(c)s) "
            "order by r.epoch desc, r.commit_position desc, r.ordinal desc limit 1"
        ).format(
            row_changes=sql.Identifier(schema, "row_changes"),
            epochs=sql.Identifier(schema, "epochs"),
        ),
        {
            "names": list(names),
            "relation": relation,
            "source": source_id,
            "epoch": epoch,
            "before": before,
            "e": after[0],
            "c": after[1],
            "o": after[2],
        },
    ).fetchone()
    return None if row is None else (row[0], row[1], row[2])


def _read(
    cursor: psycopg.Cursor[Any],
    schema: str,
    query: LiteralString,
    wanted: Sequence[Wanted],
    parameters: Mapping[str, object],
) -> dict[tuple[int, str], Image]:
    rows = [(row, name) for row in wanted for name in row.names]
    if not rows:
        return {}
    _run(
        cursor,
        schema,
        query,
        {
            **parameters,
            "relations": [row.relation for row, _ in rows],
            "memberships": [row.membership for row, _ in rows],
            "names": [name for _, name in rows],
            "keys": [row.key for row, _ in rows],
        },
    )
    found: dict[tuple[int, str], Image] = {}
    for relation, key, *columns in cursor:
        image = _image(*columns)
        known = found.get((relation, key))
        if known is None or known.place < image.place:
            found[relation, key] = image
    return found


def _run(
    cursor: psycopg.Cursor[Any],
    schema: str,
    query: LiteralString,
    parameters: Mapping[str, object],
) -> None:
    tables = ("contexts", "intervals", "row_changes", "gaps")
    cursor.execute(
        sql.SQL(query).format(**{name: sql.Identifier(schema, name) for name in tables}),
        parameters,
    )


def _image(
    operation: str,
    after: str | None,
    flags: list[str] | None,
    epoch: int,
    position: int,
    ordinal: int,
    rules: int | None,
) -> Image:
    return Image(
        None if after is None or operation in ("DELETE", "TRUNCATE") else _decode(after),
        frozenset(flags or ()),
        (epoch, position, ordinal),
        rules,
    )
