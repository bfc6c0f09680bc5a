"""Who may use `bemi serve`: people, their one-time links and sessions, and the tokens of programs.

A secret is 256 random bits; the store has its SHA-256 alone, and is asked by that. So who reads the
store gets in nowhere, and nobody learns a secret from how long an answer takes.
"""

import hashlib
import hmac
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, Final, Literal, TypeAlias

import msgspec
import psycopg
from psycopg import sql
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from bemi.errors import UsageError
from bemi.store import sessions

Role: TypeAlias = Literal["viewer", "editor", "admin"]

LINK_LASTS: Final = timedelta(hours=24)
SESSION_LASTS: Final = timedelta(days=7)


class Person(msgspec.Struct, frozen=True):
    id: int
    name: str
    email: str | None
    role: Role
    scopes: list[Any] | None
    created_at: datetime
    disabled_at: datetime | None


class Token(msgspec.Struct, frozen=True):
    """What is known of a program's token: not what it is. `person`: who made it, where that is
    known; `created_by`: the name by then."""

    id: int
    name: str
    role: Role
    scopes: list[Any] | None
    person: int | None
    created_by: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


class Holder(msgspec.Struct, frozen=True):
    """Whose secret it was, or for which embed a token was signed. `person`: who it is, or who made
    the token."""

    kind: Literal["person", "token", "embed"]
    id: int
    person: int | None
    name: str
    role: Role
    scopes: list[Any] | None
    digest: bytes


def new_secret() -> str:
    return secrets.token_urlsafe(32)


def digest_of(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def holder(
    conn: psycopg.Connection[Any], schema: str, secret: str, kind: Literal["session", "token"]
) -> Holder | None:
    """Of a session or a token that holds now; None where there is none."""
    digest = digest_of(secret)
    if kind == "session":
        query = sql.SQL(
            "select 'person' as kind, p.person_id as id, p.person_id as person, p.name, p.role,"
            " p.scopes, s.digest"
            " from {} s join {} p using (person_id)"
            " where s.digest = %s and s.expires_at > now() and p.disabled_at is null"
        ).format(sql.Identifier(schema, "sessions"), sql.Identifier(schema, "people"))
    else:
        query = sql.SQL(
            "select 'token' as kind, token_id as id, person_id as person, name, role, scopes,"
            " digest from {}"
            " where digest = %s and revoked_at is null"
            " and (expires_at is null or expires_at > now())"
        ).format(sql.Identifier(schema, "api_tokens"))
    with conn.cursor(row_factory=class_row(Holder)) as cursor:
        found = cursor.execute(query, [digest]).fetchone()
    if found is None or not hmac.compare_digest(found.digest, digest):
        return None
    return found


# --- signing in -------------------------------------------------------------------------------


def first_admin(conn: psycopg.Connection[Any], schema: str) -> int | None:
    """None where nobody could let others in."""
    row = conn.execute(
        sql.SQL(
            "select min(person_id) from {} where role = 'admin' and disabled_at is null"
        ).format(sql.Identifier(schema, "people"))
    ).fetchone()
    assert row is not None
    return None if row[0] is None else int(row[0])


def owner_link(conn: psycopg.Connection[Any], schema: str) -> str:
    """The secret of a link whose first follower becomes an admin; earlier ones of these end."""
    with conn.transaction():
        _end_owner_links(conn, schema)
        return _link(conn, schema, None)


def link(conn: psycopg.Connection[Any], schema: str, person_id: int) -> str:
    """The secret of a link by which this person signs in, once; earlier ones end."""
    with conn.transaction():
        conn.execute(
            sql.SQL("delete from {} where person_id = %s").format(
                sql.Identifier(schema, "sign_in_links")
            ),
            [person_id],
        )
        return _link(conn, schema, person_id)


def _end_owner_links(conn: psycopg.Connection[Any], schema: str) -> None:
    conn.execute(
        sql.SQL("delete from {} where person_id is null").format(
            sql.Identifier(schema, "sign_in_links")
        )
    )


def _link(conn: psycopg.Connection[Any], schema: str, person_id: int | None) -> str:
    secret = new_secret()
    conn.execute(
        sql.SQL(
            "insert into {} (digest, person_id, expires_at) values (%s, %s, now() + %s)"
        ).format(sql.Identifier(schema, "sign_in_links")),
        [digest_of(secret), person_id, LINK_LASTS],
    )
    return secret


def sign_in(
    conn: psycopg.Connection[Any], schema: str, secret: str, owner: str
) -> tuple[Person, str] | None:
    """Uses a link up: the person, and the secret of a new session. None where it does not hold.

    `owner`: how the person is to be called that a link makes the owner. Raises `UsageError` for a
    name that another has.
    """
    with conn.transaction():
        # Whoever disables them just now ends the session that begins here, or is seen here. Before
        # the link, which they delete behind that.
        conn.execute(
            sql.SQL(
                "select from {} where person_id = (select person_id from {} where digest = %s)"
                " for share"
            ).format(sql.Identifier(schema, "people"), sql.Identifier(schema, "sign_in_links")),
            [digest_of(secret)],
        )
        row = conn.execute(
            sql.SQL(
                "delete from {} where digest = %s returning person_id, expires_at > now()"
            ).format(sql.Identifier(schema, "sign_in_links")),
            [digest_of(secret)],
        ).fetchone()
        if row is None or not row[1]:
            return None
        if row[0] is None:
            # Of two servers that were started at once, each may have made one.
            _end_owner_links(conn, schema)
            if first_admin(conn, schema) is not None:
                return None
            person: Person | None = add_person(conn, schema, owner, "admin", None)
        else:
            person = person_of(conn, schema, row[0])
        if person is None or person.disabled_at is not None:
            return None
        return person, begin_session(conn, schema, person.id)


def begin_session(conn: psycopg.Connection[Any], schema: str, person_id: int) -> str:
    """Its secret, which nobody sees again."""
    sessions = sql.Identifier(schema, "sessions")
    secret = new_secret()
    conn.execute(sql.SQL("delete from {} where expires_at < now()").format(sessions))
    conn.execute(
        sql.SQL(
            "insert into {} (digest, person_id, expires_at) values (%s, %s, now() + %s)"
        ).format(sessions),
        [digest_of(secret), person_id, SESSION_LASTS],
    )
    return secret


def sign_out(conn: psycopg.Connection[Any], schema: str, session: str) -> None:
    conn.execute(
        sql.SQL("delete from {} where digest = %s").format(sql.Identifier(schema, "sessions")),
        [digest_of(session)],
    )


# --- people -----------------------------------------------------------------------------------

_PERSON: Final = sql.SQL("person_id as id, name, email, role, scopes, created_at, disabled_at")


def people(conn: psycopg.Connection[Any], schema: str) -> list[Person]:
    with conn.cursor(row_factory=class_row(Person)) as cursor:
        return cursor.execute(
            sql.SQL("select {} from {} order by person_id").format(
                _PERSON, sql.Identifier(schema, "people")
            )
        ).fetchall()


def person_of(conn: psycopg.Connection[Any], schema: str, id: int) -> Person | None:
    with conn.cursor(row_factory=class_row(Person)) as cursor:
        return cursor.execute(
            sql.SQL("select {} from {} where person_id = %s").format(
                _PERSON, sql.Identifier(schema, "people")
            ),
            [id],
        ).fetchone()


def add_person(
    conn: psycopg.Connection[Any],
    schema: str,
    name: str,
    role: Role,
    scopes: list[Any] | None,
    email: str | None = None,
) -> Person:
    """Raises `UsageError` for a name or an e-mail address that another has."""
    with conn.cursor(row_factory=class_row(Person)) as cursor:
        found = cursor.execute(
            sql.SQL(
                "insert into {} (name, role, scopes, email)"
                ' values (%s, %s, %s, lower(%s collate "C"))'
                " on conflict do nothing returning {}"
            ).format(sql.Identifier(schema, "people"), _PERSON),
            [name, role, None if scopes is None else Jsonb(scopes), email],
        ).fetchone()
    if found is None:
        raise UsageError(
            f"there is a person called {name} already"
            + ("" if email is None else f", or one with the address {email}"),
            fix="take another name" + ("" if email is None else ", or look for them among people"),
        )
    return found


@contextmanager
def held(conn: psycopg.Connection[Any], schema: str, id: int) -> Iterator[Person | None]:
    """The person as they are until the end, meanwhile: nobody else changes people."""
    with conn.transaction():
        # So that two who take each other's rights away don't both succeed.
        conn.execute(
            sql.SQL("lock table {} in share row exclusive mode").format(
                sql.Identifier(schema, "people")
            )
        )
        yield person_of(conn, schema, id)


def change_person(
    conn: psycopg.Connection[Any],
    schema: str,
    id: int,
    *,
    role: Role,
    scopes: list[Any] | None,
    disabled: bool,
    revoke_tokens: bool = False,
) -> Person:
    """Of one that is `held`. Raises `UsageError` for what would leave nobody who lets others in.

    Who is disabled has no session any more. `revoke_tokens`: nor has what they made for programs.
    """
    people = sql.Identifier(schema, "people")
    with conn.transaction():
        with conn.cursor(row_factory=class_row(Person)) as cursor:
            found = cursor.execute(
                sql.SQL(
                    "update {} set role = %s, scopes = %s,"
                    " disabled_at = case when %s then coalesce(disabled_at, now()) end"
                    " where person_id = %s returning {}"
                ).format(people, _PERSON),
                [role, None if scopes is None else Jsonb(scopes), disabled, id],
            ).fetchone()
        assert found is not None
        if first_admin(conn, schema) is None:
            raise UsageError(
                f"{found.name} is the last admin", fix="make somebody else an admin first"
            )
        if disabled:
            sessions.end_all(conn, schema, id)
        if revoke_tokens:
            conn.execute(
                sql.SQL(
                    "update {} set revoked_at = now() where person_id = %s and revoked_at is null"
                ).format(sql.Identifier(schema, "api_tokens")),
                [id],
            )
        return found


# --- tokens -----------------------------------------------------------------------------------


def tokens(conn: psycopg.Connection[Any], schema: str) -> list[Token]:
    with conn.cursor(row_factory=class_row(Token)) as cursor:
        return cursor.execute(
            sql.SQL(
                "select token_id as id, name, role, scopes, person_id as person, created_by,"
                " created_at, expires_at, revoked_at from {} order by token_id"
            ).format(sql.Identifier(schema, "api_tokens"))
        ).fetchall()


def add_token(
    conn: psycopg.Connection[Any],
    schema: str,
    name: str,
    role: Role,
    scopes: list[Any] | None,
    *,
    created_by: str,
    lasts: timedelta | None,
    person: int | None = None,
) -> tuple[int, str]:
    """Its number, and the secret, which nobody sees again but the `person` who made it."""
    secret = new_secret()
    row = conn.execute(
        sql.SQL(
            "insert into {} (digest, name, role, scopes, created_by, person_id, expires_at)"
            " values (%s, %s, %s, %s, %s, %s, now() + %s) returning token_id"
        ).format(sql.Identifier(schema, "api_tokens")),
        [
            digest_of(secret),
            name,
            role,
            None if scopes is None else Jsonb(scopes),
            created_by,
            person,
            lasts,
        ],
    ).fetchone()
    assert row is not None
    return row[0], secret


def revoke_token(conn: psycopg.Connection[Any], schema: str, id: int) -> bool:
    """Whether there is one; from now on it does not hold."""
    done = conn.execute(
        sql.SQL(
            "update {} set revoked_at = coalesce(revoked_at, now()) where token_id = %s"
        ).format(sql.Identifier(schema, "api_tokens")),
        [id],
    )
    return done.rowcount > 0
