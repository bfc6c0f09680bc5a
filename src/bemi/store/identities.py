"""Who comes in by an account at an OpenID provider.

An account is its issuer and subject, which never become somebody else's. An e-mail address may: so
it counts once, when the account is bound to whom an admin has invited by it, and only where the
provider says that it is verified. Only ASCII's letters are the same in both cases: others, such as
the sign for kelvin, are small letters of somebody else's address.
"""

from collections.abc import Collection
from datetime import datetime
from typing import Any

import msgspec
import psycopg
from psycopg import sql
from psycopg.rows import class_row

from bemi.errors import BemiError, UsageError
from bemi.store import people, sessions
from bemi.store.people import Person


class Account(msgspec.Struct, frozen=True):
    """What a provider says of who has signed in there. `email`: None where it is not verified."""

    issuer: str
    subject: str
    email: str | None


class Bound(msgspec.Struct, frozen=True):
    issuer: str
    subject: str
    bound_at: datetime


class NotAdmittedError(BemiError):
    """`person`: whom it would have been, where that is known."""

    def __init__(self, message: str, *, fix: str, person: Person | None = None) -> None:
        super().__init__(message, fix=fix)
        self.person = person


def admit(
    conn: psycopg.Connection[Any], schema: str, account: Account, domains: Collection[str]
) -> tuple[Person, str]:
    """The person, and the secret of a new session. `domains`: of addresses that come in uninvited,
    as viewers. Raises `NotAdmittedError`."""
    with conn.transaction():
        _lock(conn, schema)
        person = _person_of(conn, schema, account)
        if person is None:
            person = _invited(conn, schema, account) or _uninvited(conn, schema, account, domains)
            _require_enabled(person)
            _bind(conn, schema, account, person)
        _require_enabled(person)
        return person, people.begin_session(conn, schema, person.id)


def bind(conn: psycopg.Connection[Any], schema: str, account: Account, person_id: int) -> None:
    """The account of somebody who is signed in, whatever its address. Raises `NotAdmittedError`."""
    with conn.transaction():
        _lock(conn, schema)
        person = people.person_of(conn, schema, person_id)
        other = _person_of(conn, schema, account)
        assert person is not None
        _require_enabled(person)
        if other is None:
            _bind(conn, schema, account, person)
        elif other.id != person_id:
            raise NotAdmittedError(
                "this account is somebody else's here",
                fix="sign in at the provider with your own",
                person=person,
            )


def of_person(conn: psycopg.Connection[Any], schema: str, person_id: int) -> list[Bound]:
    with conn.cursor(row_factory=class_row(Bound)) as cursor:
        return cursor.execute(
            sql.SQL(
                "select issuer, subject, bound_at from {} where person_id = %s order by bound_at"
            ).format(sql.Identifier(schema, "identities")),
            [person_id],
        ).fetchall()


def unbind(conn: psycopg.Connection[Any], schema: str, person_id: int) -> None:
    """Whoever next proves to have their address is them; what the account has begun ends."""
    with conn.transaction():
        gone = conn.execute(
            sql.SQL("delete from {} where person_id = %s").format(
                sql.Identifier(schema, "identities")
            ),
            [person_id],
        )
        if gone.rowcount:
            sessions.end_all(conn, schema, person_id)


def set_email(
    conn: psycopg.Connection[Any], schema: str, person: Person, email: str | None
) -> None:
    """Of one that is `held`. With another address they are unbound. Raises `UsageError` for one
    that another has."""
    table = sql.Identifier(schema, "people")
    row = conn.execute(
        sql.SQL(
            'select lower(%(email)s collate "C") is not distinct from %(old)s, exists'
            ' (select from {} where email = lower(%(email)s collate "C") and person_id <> %(id)s)'
        ).format(table),
        {"email": email, "old": person.email, "id": person.id},
    ).fetchone()
    assert row is not None
    is_same, is_taken = row
    if is_same:
        return
    if is_taken:
        raise UsageError(f"somebody else has the address {email}", fix="take it from them first")
    conn.execute(
        sql.SQL('update {} set email = lower(%s collate "C") where person_id = %s').format(table),
        [email, person.id],
    )
    unbind(conn, schema, person.id)


def _lock(conn: psycopg.Connection[Any], schema: str) -> None:
    """Whoever disables somebody just now ends the session that begins here, or is seen here; and of
    two accounts that come in by one address, the second finds the first."""
    conn.execute(
        sql.SQL("lock table {} in share row exclusive mode").format(
            sql.Identifier(schema, "people")
        )
    )


def _bind(conn: psycopg.Connection[Any], schema: str, account: Account, person: Person) -> None:
    """Raises `NotAdmittedError` for who has another account there."""
    bound = conn.execute(
        sql.SQL(
            "insert into {} (issuer, subject, person_id) values (%s, %s, %s)"
            " on conflict (person_id, issuer) do nothing"
        ).format(sql.Identifier(schema, "identities")),
        [account.issuer, account.subject, person.id],
    )
    if not bound.rowcount:
        raise NotAdmittedError(
            f"{person.name} was bound to another account of the provider before",
            fix="ask an admin to forget that account, on your page of the settings",
            person=person,
        )


def _person_of(conn: psycopg.Connection[Any], schema: str, account: Account) -> Person | None:
    row = conn.execute(
        sql.SQL("select person_id from {} where issuer = %s and subject = %s").format(
            sql.Identifier(schema, "identities")
        ),
        [account.issuer, account.subject],
    ).fetchone()
    return None if row is None else people.person_of(conn, schema, row[0])


def _invited(conn: psycopg.Connection[Any], schema: str, account: Account) -> Person | None:
    """Who was, by the address of the account. Raises `NotAdmittedError`."""
    if account.email is None:
        raise NotAdmittedError(
            "the provider does not say that the e-mail address of this account is verified, so it"
            " proves nothing",
            fix="have it verified there, or sign in by a link",
        )
    row = conn.execute(
        sql.SQL(
            "select person_id, exists (select from {} i where i.person_id = p.person_id"
            ' and issuer = %s) from {} p where email = lower(%s collate "C")'
        ).format(sql.Identifier(schema, "identities"), sql.Identifier(schema, "people")),
        [account.issuer, account.email],
    ).fetchone()
    if row is None:
        return None
    person = people.person_of(conn, schema, row[0])
    if person is not None and row[1]:
        raise NotAdmittedError(
            f"{account.email} was bound to another account of the provider when it was first used",
            fix="ask an admin to forget that account, on your page of the settings",
            person=person,
        )
    return person


def _uninvited(
    conn: psycopg.Connection[Any], schema: str, account: Account, domains: Collection[str]
) -> Person:
    """Somebody new. Raises `NotAdmittedError`."""
    email = account.email or ""
    # Of bytes, these are the letters of ASCII alone.
    if email.rpartition("@")[2].encode().lower().decode() in domains:
        try:
            return people.add_person(conn, schema, email, "viewer", None, email)
        except UsageError as error:
            raise NotAdmittedError(
                f"{error}, and not with this address",
                fix="ask an admin to give that person this address",
            ) from error
    raise NotAdmittedError(
        f"{email} is not invited here", fix="ask an admin to invite you with this address"
    )


def _require_enabled(person: Person) -> None:
    """Raises `NotAdmittedError`."""
    if person.disabled_at is not None:
        raise NotAdmittedError(
            f"{person.name} is disabled here", fix="ask an admin to enable you", person=person
        )
