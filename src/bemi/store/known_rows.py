"""What the history has of a table's rows already, for who reads them: which of them a look did not
see as they are, which lack a value, and which were there before.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import psycopg
from psycopg import sql

from bemi.lsn import Lsn
from bemi.store import gaps
from bemi.store.baselines import Interval

_BATCH: Final = 1000

_LACKS: Final = sql.SQL("array_to_string(r.flags, chr(10)) ~ '(^|\\n)unchanged:'")


class Touched(msgspec.Struct, frozen=True):
    """A change of a table whose transaction a look did not see, and where it is stored."""

    operation: str
    key: str | None
    previous_key: str | None
    before: dict[str, msgspec.Raw] | None
    after: dict[str, msgspec.Raw] | None
    flags: frozenset[str]
    rules: int | None
    commit_position: int
    ordinal: int


def touched(
    conn: psycopg.Connection[Any],
    schema: str,
    interval: Interval,
    *,
    xmax: int,
    in_progress: Sequence[int],
    next_xid: int,
    position: Lsn,
    keys: Sequence[str] | None,
) -> list[Touched]:
    """The stored changes of a table whose transactions a look did not see, in their order.

    Of those that committed before `position`, all of which the caller knows to be stored. With
    `keys`, only what touches these rows, or rows that are not told.
    """
    contexts = [
        row[0]
        for row in conn.execute(
            sql.SQL(
                "select id from {} where transaction_id = any(%s) "
                "or transaction_id >= %s and transaction_id < %s"
            ).format(sql.Identifier(schema, "contexts")),
            [list(in_progress), xmax, next_xid],
        )
    ]
    if not contexts:
        return []
    rows = conn.execute(
        sql.SQL(
            "select r.operation, r.primary_key, r.previous_key, {images} r.flags, "
            "r.commit_position, r.ordinal, "
            "(select c.rules from {contexts} c where c.id = r.context_id) "
            "from {row_changes} r "
            "where r.context_id = any(%(contexts)s) and r.relation = %(relation)s "
            "and r.epoch = %(epoch)s and r.commit_position < %(position)s "
            "and (%(keys)s::text[] is null or r.primary_key is null "
            "or r.primary_key = any(%(keys)s) or r.previous_key = any(%(keys)s)) "
            "order by r.commit_position, r.ordinal"
        ).format(
            images=sql.SQL(
                "coalesce(r.before, r.after || r.changed)::text, r.after::text,"
                if keys is None
                else "null, null,"
            ),
            **_tables(schema),
        ),
        {
            "contexts": contexts,
            "relation": interval.relation,
            "epoch": interval.epoch,
            "position": int(position),
            "keys": None if keys is None else list(keys),
        },
    )
    return [
        Touched(
            operation=operation,
            key=key,
            previous_key=previous,
            before=None if before is None else _image(before),
            after=None if after is None else _image(after),
            flags=frozenset(flags or ()),
            rules=rules,
            commit_position=commit,
            ordinal=ordinal,
        )
        for operation, key, previous, before, after, flags, commit, ordinal, rules in rows
    ]


def left_out(
    conn: psycopg.Connection[Any],
    schema: str,
    interval: Interval,
    *,
    xmax: int,
    in_progress: Sequence[int],
    next_xid: int,
) -> bool:
    """Whether rules left out changes of a table, or may have, that a look did not see.

    Once all that committed before the look's place is stored. Its rows may be out of date then,
    and nothing tells which.
    """
    row = conn.execute(
        sql.SQL(
            "with its as (select transaction_id from {} where epoch = %(epoch)s "
            "and relation = %(relation)s) "
            "select exists (select from its where transaction_id = any(%(in_progress)s) "
            "or transaction_id >= %(xmax)s and transaction_id < %(next_xid)s) "
            "or exists (select from unnest(%(in_progress)s) open (id) "
            "where id < (select max(transaction_id) - %(remembered)s from its))"
        ).format(sql.Identifier(schema, "left_out")),
        {
            "epoch": interval.epoch,
            "relation": interval.relation,
            "in_progress": list(in_progress),
            "xmax": xmax,
            "next_xid": next_xid,
            "remembered": gaps.REMEMBERED,
        },
    ).fetchone()
    assert row is not None
    return bool(row[0])


def lacking(
    conn: psycopg.Connection[Any], schema: str, interval: Interval, names: Sequence[str]
) -> list[str]:
    """Keys of rows of which the interval nowhere tells a value that their changes did not alter."""
    parameters: dict[str, object] = {
        "names": list(names),
        "relation": interval.relation,
        "epoch": interval.epoch,
        "from": interval.from_position,
        "nth": 0,
    }
    emptied = conn.execute(
        sql.SQL(
            'select r.commit_position, r.ordinal from {row_changes} r where r."table" = any('
            "%(names)s) and r.relation = %(relation)s and r.epoch = %(epoch)s "
            "and r.commit_position >= %(from)s and r.operation = 'TRUNCATE' "
            "order by 1 desc, 2 desc limit 1"
        ).format(**_tables(schema)),
        parameters,
    ).fetchone()
    if emptied is not None:
        parameters["from"], parameters["nth"] = emptied
    found = conn.execute(
        sql.SQL(
            "select distinct r.primary_key from {row_changes} r "
            'where r."table" = any(%(names)s) and r.relation = %(relation)s '
            "and r.epoch = %(epoch)s and r.commit_position >= %(from)s "
            "and (r.commit_position, r.ordinal) > (%(from)s, %(nth)s) "
            "and r.operation = 'UPDATE' and r.primary_key is not null and {lacks}"
        ).format(lacks=_LACKS, **_tables(schema)),
        parameters,
    ).fetchall()
    keys = [row[0] for row in found]
    still: list[str] = []
    for at in range(0, len(keys), _BATCH):
        batch = keys[at : at + _BATCH]
        events = conn.execute(
            sql.SQL(
                "select r.primary_key, r.previous_key, r.operation, coalesce({lacks}, false) "
                'from {row_changes} r where r."table" = any(%(names)s) '
                "and r.relation = %(relation)s and r.epoch = %(epoch)s "
                "and (r.commit_position, r.ordinal) > (%(from)s, %(nth)s) "
                "and (r.primary_key = any(%(keys)s) or r.previous_key = any(%(keys)s)) "
                "order by r.commit_position, r.ordinal"
            ).format(lacks=_LACKS, **_tables(schema)),
            {**parameters, "keys": batch},
        )
        whole = dict.fromkeys(batch, False)
        for key, previous, operation, lacks in events:
            if previous in whole:
                whole[previous] = True  # nobody has this key now
            if key in whole:
                # A row that keeps its key keeps what is known of it.
                stays = operation == "UPDATE" and previous is None
                whole[key] = not lacks or (stays and whole[key])
        still += [key for key in batch if not whole[key]]
    return still


def names(conn: psycopg.Connection[Any], schema: str, source_id: int, relation: int) -> list[str]:
    """What a table was called in the history."""
    rows = conn.execute(
        sql.SQL(
            'select "table" from {intervals} where source_id = %(source)s '
            "and relation = %(relation)s union "
            'select "table" from {table_versions} where source_id = %(source)s '
            "and relation = %(relation)s"
        ).format(**_tables(schema)),
        {"source": source_id, "relation": relation},
    )
    return [row[0] for row in rows]


def keys_before(
    conn: psycopg.Connection[Any],
    schema: str,
    source_id: int,
    interval: Interval,
    *,
    table: str,
    after: str | None,
    limit: int,
) -> list[str]:
    """Keys that the history knew from before an interval, in their order, behind `after`."""
    rows = conn.execute(
        sql.SQL(
            "select distinct r.primary_key from {row_changes} r "
            'where r."table" = %(table)s and r.relation = %(relation)s '
            "and r.primary_key is not null and {behind} and (r.epoch = %(epoch)s "
            "and r.commit_position < %(from)s or r.epoch <> %(epoch)s and r.epoch in "
            "(select epoch from {epochs} where source_id = %(source)s)) "
            "order by r.primary_key limit %(limit)s"
        ).format(
            behind=sql.SQL("true" if after is None else "r.primary_key > %(after)s"),
            **_tables(schema),
        ),
        {
            "source": source_id,
            "table": table,
            "relation": interval.relation,
            "after": after,
            "epoch": interval.epoch,
            "from": interval.from_position,
            "limit": limit,
        },
    )
    return [row[0] for row in rows]


_image: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def _tables(schema: str) -> dict[str, sql.Identifier]:
    names = ("contexts", "epochs", "intervals", "row_changes", "table_versions")
    return {name: sql.Identifier(schema, name) for name in names}
