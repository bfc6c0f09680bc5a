"""The log of who has read and done what through `bemi serve`."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final, LiteralString

import msgspec
import psycopg
from psycopg import sql
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from bemi.connections import first_line
from bemi.errors import SetupError
from bemi.store.people import Holder
from bemi.store.query import stored_keys
from bemi.store.reader import JsonAsItIs

_BY: Final[Mapping[str, LiteralString]] = {
    "person": "person_id = %s",
    "token": "token_id = %s",
    "embed": "embed_id = %s",
}


class Access(msgspec.Struct, frozen=True):
    """`actor`: the name by then; `by`: who it is, as `person 3`, where that is known; `action`: as
    in `GET /api/v1/changes`; `asked`: its parameters."""

    id: int
    at: datetime
    actor: str
    kind: str
    by: str | None
    address: str
    action: str
    asked: msgspec.Raw
    allowed: bool


class Wanted(msgspec.Struct, frozen=True):
    """Which accesses: those of which all is true that is given. `by`: the kind and the number of
    who it was; `table` and `key`: of what asked for these by their names."""

    by: tuple[str, int] | None = None
    action: str | None = None
    refused: bool = False
    since: datetime | None = None
    until: datetime | None = None
    table: str | None = None
    key: str | None = None


def require_recordable(conn: psycopg.Connection[Any], schema: str) -> None:
    """Raises `SetupError` for a role that may not: it would get no answer at all."""
    # What may be done is looked at for no row, too.
    nothing = sql.SQL("insert into {} (actor) select null where false").format(
        sql.Identifier(schema, "accesses")
    )
    try:
        conn.execute(nothing)
    except psycopg.errors.InsufficientPrivilege as error:
        raise SetupError(
            "the role of the destination's URL can't record who reads the history:"
            f" {first_line(error)}",
            fix='grant it what the page on privileges has for "The web server"',
        ) from error


def _as_found(key: object) -> dict[str, list[str]]:
    """What a record was found by, where that was typed in another way: who looked at it is asked by
    that."""
    if not isinstance(key, str) or _keys(key) == [key]:
        return {}
    return {"key": _keys(key)}


def _keys(text: str) -> list[str]:
    """As it was typed, and as the history may have it."""
    return [*dict.fromkeys([text, *stored_keys(text)])]


def record(
    conn: psycopg.Connection[Any],
    schema: str,
    who: Holder | str,
    *,
    address: str,
    action: str,
    asked: Mapping[str, Any],
    allowed: bool,
) -> None:
    """Committed when it returns, so that nothing is told that was not recorded. `who`: of nobody
    who is known here, what they are called elsewhere."""
    kind, id, name = ("", None, who) if isinstance(who, str) else (who.kind, who.id, who.name)
    conn.execute(
        sql.SQL(
            "insert into {} (person_id, token_id, embed_id, actor, address, action, asked,"
            " allowed) values (%s, %s, %s, %s, %s, %s, %s, %s)"
        ).format(sql.Identifier(schema, "accesses")),
        [
            id if kind == "person" else None,
            id if kind == "token" else None,
            id if kind == "embed" else None,
            name,
            address,
            action,
            Jsonb({**asked, **_as_found(asked.get("key"))}),
            allowed,
        ],
    )


def read(
    conn: psycopg.Connection[Any],
    schema: str,
    wanted: Wanted,
    *,
    behind: int | None = None,
    limit: int,
) -> list[Access]:
    """The newest first; only those before the one with the number `behind`."""
    table = sql.Identifier(schema, "accesses")
    conditions: list[tuple[LiteralString, object]] = [
        *([] if wanted.by is None else [(_BY[wanted.by[0]], wanted.by[1])]),
        ("action = %s", wanted.action),
        ("at >= %s", wanted.since),
        ("at <= %s", wanted.until),
        # Of a parameter that was given several times it is one of several.
        ("asked -> 'table' ?| %s", _spellings(wanted.table)),
        ("asked -> 'key' ?| %s", None if wanted.key is None else _keys(wanted.key)),
    ]
    given = [(sql.SQL(text), value) for text, value in conditions if value is not None]
    parameters = [value for _, value in given]
    wheres: list[sql.Composable] = [sql.SQL("true"), *(text for text, _ in given)]
    if wanted.refused:
        wheres.append(sql.SQL("not allowed"))
    if behind is not None:
        wheres.append(
            sql.SQL("(at, access_id) < ((select at from {} where access_id = %s), %s)").format(
                table
            )
        )
        parameters += [behind, behind]
    with conn.cursor(row_factory=class_row(Access)) as cursor:
        cursor.adapters.register_loader("jsonb", JsonAsItIs)
        return cursor.execute(
            sql.SQL(
                "select access_id as id, at, actor,"
                " case when embed_id is not null then 'embed'"
                " when token_id is not null then 'token' else 'person' end as kind,"
                " coalesce('embed ' || embed_id, 'token ' || token_id, 'person ' || person_id)"
                " as by,"
                " address, action, asked, allowed from {} where {}"
                " order by at desc, access_id desc limit %s"
            ).format(table, sql.SQL(" and ").join(wheres)),
            [*parameters, limit],
        ).fetchall()


def _spellings(table: str | None) -> list[str] | None:
    """All that people write for it."""
    if table is None:
        return None
    return [table, table.removeprefix("public.")] if "." in table else [table, f"public.{table}"]


def last(conn: psycopg.Connection[Any], schema: str) -> dict[str, datetime]:
    """When each person, token and embed was last here, by `person 3`; not of who never was."""
    found = conn.execute(
        sql.SQL(
            "select who, at from (select 'person ' || person_id, (select max(at) from {log} l"
            " where l.person_id = p.person_id) from {people} p"
            " union all select 'token ' || token_id, (select max(at) from {log} l"
            " where l.token_id = t.token_id) from {tokens} t"
            " union all select 'embed ' || embed_id, (select max(at) from {log} l"
            " where l.embed_id = e.embed_id) from {embeds} e) each (who, at)"
            " where at is not null"
        ).format(
            log=sql.Identifier(schema, "accesses"),
            people=sql.Identifier(schema, "people"),
            tokens=sql.Identifier(schema, "api_tokens"),
            embeds=sql.Identifier(schema, "embeds"),
        )
    )
    return dict(found.fetchall())


def forget(conn: psycopg.Connection[Any], schema: str, older_than: timedelta) -> int:
    """Deletes some of those that are older, and older than 30 days: how many; in the end none."""
    row = conn.execute(
        sql.SQL("select {}(%s)").format(sql.Identifier(schema, "forget_accesses")), [older_than]
    ).fetchone()
    assert row is not None
    return int(row[0])
