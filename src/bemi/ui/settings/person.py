"""Somebody who may sign in, or might once: another role, other tables, a new link, no access."""

from collections.abc import Callable
from typing import Annotated, Any, Final, Literal, NamedTuple

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import RedirectResponse, Response

from bemi.api.access import Admin, record
from bemi.api.asking import Text
from bemi.api.principals import Principal
from bemi.api.problems import answer
from bemi.api.routes import people as of_api
from bemi.api.serving import Served, Serving
from bemi.errors import UnknownStateError, UsageError
from bemi.store import accesses, completeness, identities, people, sessions
from bemi.store.people import Person
from bemi.ui import links
from bemi.ui.settings import scopes
from bemi.ui.settings.forms import Field, Number, checked, role_of
from bemi.ui.settings.menu import Asking, settings_page
from bemi.ui.settings.people import address, link_page, provider_of

router = APIRouter()

_DONE: Final = {
    "changed": "This is saved, and holds from now on.",
    "disabled": "Disabled: no session and no link of theirs holds any more.",
    "enabled": "Enabled: a new link lets them in again.",
    "forgotten": "Forgotten: the next account that proves to have their address is theirs.",
}


class Typed(NamedTuple):
    """The form, as it was filled in."""

    role: str
    sees: str
    tables: str
    email: str


class OfPerson(Asking):
    id: Annotated[int, Query(ge=1, lt=1 << 31)]
    done: Literal["changed", "disabled", "enabled", "forgotten"] | None = None


@router.get("/settings/person")
def person(
    request: Request, who: Admin, serving: Served, asked: Annotated[OfPerson, Query()]
) -> Response:
    return _show(request, who, serving, asked.id, done=_DONE.get(asked.done or ""))


@router.post("/settings/person")
def change(
    request: Request,
    who: Admin,
    serving: Served,
    id: Number,
    role: Field = "",
    sees: Field = "",
    tables: Field = "",
    email: Annotated[Text | None, Form(max_length=20_000)] = None,
) -> Response:
    """Another role, other tables and columns, or another address."""
    typed = Typed(role_of(role), sees, tables, (email or "").strip())
    record(request, who, {"id": id, **typed._asdict()})

    def done() -> Person:
        given: dict[str, Any] = {"role": role}
        if sees != "same":
            given["scopes"] = scopes.read(sees, tables)
        if email is not None:
            given["email"] = typed.email or None
        return of_api.changed(serving, id, checked(of_api.ChangedPerson, **given))

    return _after(request, who, serving, id, "changed", done, typed)


@router.post("/settings/person/disable")
def disable(
    request: Request, who: Admin, serving: Served, id: Number, revoke_tokens: Field = ""
) -> Response:
    """With `revoke_tokens`, what they made for programs ends, too."""
    given = {"disabled": True, "revoke_tokens": bool(revoke_tokens)}
    return _changed(request, who, serving, id, "disabled", given)


@router.post("/settings/person/enable")
def enable(request: Request, who: Admin, serving: Served, id: Number) -> Response:
    return _changed(request, who, serving, id, "enabled", {"disabled": False})


@router.post("/settings/person/forget")
def forget_account(request: Request, who: Admin, serving: Served, id: Number) -> Response:
    """The account of the provider by which they came in."""
    return _changed(request, who, serving, id, "forgotten", {"forget_account": True})


@router.post("/settings/person/link")
def link(request: Request, who: Admin, serving: Served, id: Number) -> Response:
    """The answer has another link, which is not shown again."""
    record(request, who, {"id": id})
    try:
        found, secret = of_api.linked(serving, id)
    except UsageError as error:
        return _show(request, who, serving, id, problem=error)
    return link_page(request, who, serving, found, secret)


def _changed(
    request: Request, who: Principal, serving: Serving, id: int, word: str, given: dict[str, Any]
) -> Response:
    record(request, who, {"id": id, **given})
    to = checked(of_api.ChangedPerson, **given)
    return _after(request, who, serving, id, word, lambda: of_api.changed(serving, id, to), None)


def _after(
    request: Request,
    who: Principal,
    serving: Serving,
    id: int,
    word: str,
    done: Callable[[], Person],
    typed: Typed | None,
) -> Response:
    """The page of whom it was done to, or the form with what was wrong about it."""
    try:
        changed = done()
    except UsageError as error:
        return _show(request, who, serving, id, typed=typed, problem=error)
    is_out = id == who.holder.person and who.holder.kind == "person" and changed.role != "admin"
    return RedirectResponse("/settings" if is_out else address(id, done=word), 303)


def _show(
    request: Request,
    who: Principal,
    serving: Serving,
    id: int,
    *,
    typed: Typed | None = None,
    problem: UsageError | None = None,
    done: str | None = None,
) -> Response:
    schema = serving.archive.schema
    with serving.archive.connected() as conn:
        found = people.person_of(conn, schema, id)
        if found is None:
            raise UnknownStateError(f"there is no person {id}")
        last = accesses.last(conn, schema).get(f"person {id}")
        covered = completeness.read(conn, schema) if found.scopes else ()
        bound = identities.of_person(conn, schema, id)
        signed_in = len(sessions.of_person(conn, schema, id))
        made = sum(
            each.person == id and each.revoked_at is None for each in people.tokens(conn, schema)
        )
    spelled = scopes.spelled(found.scopes)
    return settings_page(
        request,
        "settings_person.html",
        who,
        200 if problem is None else answer(problem).status_code,
        under="/settings/people",
        person=found,
        is_oneself=who.holder.kind == "person" and who.holder.id == id,
        sees=scopes.words(found.scopes),
        idle=scopes.idle(
            found.scopes, [table.root for source in covered for table in source.tables]
        ),
        seen_at=last,
        signed_in=signed_in,
        tokens=made,
        typed=typed or Typed(found.role, *spelled, found.email or ""),
        provider=provider_of(serving),
        bound=bound,
        can_stay=spelled.sees == "same",
        problem=problem,
        done=done,
        example=scopes.EXAMPLE,
        log=links.url("/settings/accesses", {"by": f"person {id}"}),
    )
