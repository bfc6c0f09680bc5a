"""Who may use this server, and who has read and done what here. For admins; and who one is."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Request
from pydantic import Field
from starlette.responses import Response

from bemi import times
from bemi.api import shapes
from bemi.api.access import ADMIN, Admin, Viewer, record
from bemi.api.answers import json_of
from bemi.api.asking import MOST, Asked, Text
from bemi.api.principals import Principal
from bemi.api.routing import PREFIX, told
from bemi.api.serving import Served, Serving
from bemi.errors import UnknownStateError, UsageError
from bemi.store import accesses, identities, people
from bemi.store.accesses import Access, Wanted
from bemi.store.people import Person, Role
from bemi.store.scope import Scope

router = APIRouter(prefix=PREFIX, tags=["people"])

Number = Annotated[int, Path(ge=1, lt=1 << 31)]
Name = Annotated[Text, Field(min_length=1, max_length=100, description="As the log has it.")]


Email = Annotated[
    Text,
    Field(
        max_length=254,
        pattern=r"^[^@\s]+@[^@\s]+$",
        description="Whoever proves to the OpenID provider to have it comes in as them.",
    ),
]


class Seen(Asked):
    """A table, in which `*` stands for anything, and its columns that may be seen."""

    table: Text = Field(examples=["public.todo"])
    columns: list[Text] | None = Field(None, description="Null: all of them.")


Scopes = Annotated[
    list[Seen] | None,
    Field(
        description="What may be seen, and nothing else: null is the whole history, [] nothing of"
        " it. The keys of rows are always seen."
    ),
]


class NewPerson(Asked):
    name: Name
    email: Email | None = None
    role: Role
    scopes: Scopes = None


class ChangedPerson(Asked):
    """What is not given stays as it is."""

    role: Role | None = None
    scopes: Scopes = None
    email: Email | None = Field(None, description="With another one the account is forgotten.")
    forget_account: bool = Field(
        False,
        description="The account of the provider that came in as them does not any more, and their"
        " sessions end.",
    )
    disabled: bool | None = Field(None, description="Their sessions end with it.")
    revoke_tokens: bool = Field(
        False, description="Also end the tokens that they made, or a token of theirs did."
    )


class NewToken(Asked):
    name: Name
    role: Role
    scopes: Scopes = None
    days: int | None = Field(None, ge=1, le=3650, description="Null: until it is revoked.")


class Chosen(Asked):
    """Which accesses: those of which all is true that is given."""

    by: Text | None = Field(
        None, description="Who: `person 3`, `token 4` or `embed 5`.", examples=["person 3"]
    )
    action: Text | None = Field(
        None, description="As the log has it.", examples=["GET /api/v1/changes"]
    )
    refused: bool = Field(False, description="Only what was refused.")
    since: Text | None = Field(None, description="At or after: `2h`, `yesterday 14:30`.")
    until: Text | None = Field(None, description="At or before; written like `since`.")
    table: Text | None = Field(None, description="What asked for this table by its name.")
    key: Text | None = Field(None, description="What asked for a record by this key.")

    def wanted(self) -> Wanted:
        """Raises `UsageError`."""
        return Wanted(
            by=None if self.by is None else _who(self.by),
            action=self.action,
            refused=self.refused,
            since=_time("since", self.since),
            until=_time("until", self.until),
            table=self.table,
            key=self.key,
        )


class Paged(Chosen):
    behind: int | None = Field(None, ge=1, lt=1 << 63, description="What `next` was.")
    limit: int = Field(50, ge=1, le=MOST)


@router.get("/me", **told(shapes.Me))
def me(request: Request, who: Viewer) -> Response:
    """Who asks, and what may be seen."""
    holder = who.holder
    return json_of(
        request,
        {"kind": holder.kind, "name": holder.name, "role": holder.role, "scopes": holder.scopes},
    )


@router.get("/people", dependencies=[ADMIN], **told(shapes.People))
def list_people(request: Request, serving: Served) -> Response:
    """Who may sign in, and who might once."""
    with serving.archive.connected() as conn:
        return json_of(request, {"people": people.people(conn, serving.archive.schema)})


@router.post("/people", **told(shapes.Invited, 201))
def invite_person(request: Request, who: Admin, serving: Served, new: NewPerson) -> Response:
    """Somebody new, and the link by which they sign in, once."""
    record(request, who, new.model_dump())
    person, link = invited(serving, new)
    return json_of(request, {"person": person, "link": link}, 201)


@router.patch("/people/{id}", **told(shapes.Person))
def change_person(
    request: Request, id: Number, who: Admin, serving: Served, to: ChangedPerson
) -> Response:
    """Another role or other tables; or disable somebody, whose sessions end with it, and with
    `revoke_tokens` the tokens, too, that they made for programs."""
    record(request, who, {"id": id, **to.model_dump(exclude_unset=True)})
    return json_of(request, changed(serving, id, to))


@router.post("/people/{id}/link", dependencies=[ADMIN], **told(shapes.Invited, 201))
def link_person(request: Request, id: Number, serving: Served) -> Response:
    """Another link to sign in; one that was not used ends."""
    person, link = linked(serving, id)
    return json_of(request, {"person": person, "link": link}, 201)


@router.get("/tokens", dependencies=[ADMIN], **told(shapes.Tokens))
def list_tokens(request: Request, serving: Served) -> Response:
    """Those of programs, without what they are."""
    with serving.archive.connected() as conn:
        return json_of(request, {"tokens": people.tokens(conn, serving.archive.schema)})


@router.post("/tokens", **told(shapes.IssuedToken, 201))
def new_token(request: Request, who: Admin, serving: Served, new: NewToken) -> Response:
    """For a program."""
    record(request, who, new.model_dump())
    id, secret = issued(serving, who, new)
    return json_of(request, {"id": id, "token": secret}, 201)


@router.delete("/tokens/{id}", dependencies=[ADMIN], **told(shapes.Tokens))
def revoke_token(request: Request, id: Number, serving: Served) -> Response:
    """It does not hold from now on."""
    with serving.archive.connected() as conn:
        if not people.revoke_token(conn, serving.archive.schema, id):
            raise UnknownStateError(f"there is no token {id}")
        return json_of(request, {"tokens": people.tokens(conn, serving.archive.schema)})


@router.get("/accesses", dependencies=[ADMIN], **told(shapes.Accesses))
def list_accesses(request: Request, serving: Served, asked: Annotated[Paged, Query()]) -> Response:
    """Who has asked for what here, the newest first."""
    found, following = logged(serving, asked)
    return json_of(request, {"accesses": found, "next": following})


# --- what pages do, too -------------------------------------------------------------------------


def invited(serving: Serving, new: NewPerson) -> tuple[Person, str]:
    """With their link. Raises `UsageError`."""
    scopes = _scopes(new.role, new.scopes)
    schema = serving.archive.schema
    with serving.archive.connected() as conn, conn.transaction():
        person = people.add_person(conn, schema, new.name, new.role, scopes, new.email)
        return person, serving.link(people.link(conn, schema, person.id))


def changed(serving: Serving, id: int, to: ChangedPerson) -> Person:
    """Raises `UsageError`, and `UnknownStateError` where there is nobody."""
    schema = serving.archive.schema
    with serving.archive.connected() as conn, people.held(conn, schema, id) as found:
        before = _there(found, id)
        role = to.role or before.role
        given = to.scopes if "scopes" in to.model_fields_set else _seen(before.scopes)
        if "email" in to.model_fields_set:
            identities.set_email(conn, schema, before, to.email)
        if to.forget_account:
            identities.unbind(conn, schema, id)
        return people.change_person(
            conn,
            schema,
            id,
            role=role,
            scopes=_scopes(role, given),
            disabled=before.disabled_at is not None if to.disabled is None else to.disabled,
            revoke_tokens=to.revoke_tokens,
        )


def linked(serving: Serving, id: int) -> tuple[Person, str]:
    """With another link. Raises `UsageError`, and `UnknownStateError` where there is nobody."""
    schema = serving.archive.schema
    with serving.archive.connected() as conn, people.held(conn, schema, id) as found:
        person = _there(found, id)
        if person.disabled_at is not None:
            raise UsageError(f"{person.name} is disabled", fix="enable them first")
        return person, serving.link(people.link(conn, schema, id))


def issued(serving: Serving, who: Principal, new: NewToken) -> tuple[int, str]:
    """The number of a token and its secret. Raises `UsageError`."""
    with serving.archive.connected() as conn:
        return people.add_token(
            conn,
            serving.archive.schema,
            new.name,
            new.role,
            _scopes(new.role, new.scopes),
            created_by=who.name,
            person=who.holder.person,
            lasts=None if new.days is None else timedelta(days=new.days),
        )


def logged(serving: Serving, asked: Paged) -> tuple[list[Access], int | None]:
    """A page, and what the next one is behind. Raises `UsageError`."""
    with serving.archive.connected() as conn:
        found = accesses.read(
            conn,
            serving.archive.schema,
            asked.wanted(),
            behind=asked.behind,
            limit=asked.limit + 1,
        )
    following = found[asked.limit - 1].id if len(found) > asked.limit else None
    return found[: asked.limit], following


_WHO: Final = re.compile(r"(person|token|embed) ([1-9][0-9]{0,8})")


def _who(by: str) -> tuple[str, int]:
    """Raises `UsageError`."""
    found = _WHO.fullmatch(by)
    if found is None:
        raise UsageError(
            f"by: {by!r} names nobody", fix="give it as `person 3`, `token 4` or `embed 5`"
        )
    return found[1], int(found[2])


def _time(name: str, text: str | None) -> datetime | None:
    """Raises `UsageError`."""
    if text is None:
        return None
    try:
        return times.parse(text, now=datetime.now(UTC))
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from error


def _there(found: Person | None, id: int) -> Person:
    if found is None:
        raise UnknownStateError(f"there is no person {id}")
    return found


def _seen(scopes: list[Any] | None) -> list[Seen] | None:
    return None if scopes is None else [Seen(**each) for each in scopes]


def _scopes(role: Role, given: list[Seen] | None) -> list[Any] | None:
    """As they are stored. Raises `UsageError`."""
    if given is None:
        return None
    if role == "admin":
        raise UsageError(
            "an admin sees everything, and could let themselves see it",
            fix="give scopes to a viewer or an editor, or null",
        )
    value = [each.model_dump() for each in given]
    Scope.read(value)
    return value
