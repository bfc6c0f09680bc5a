"""Somebody who may sign in, or might once: another role, other tables, a new link, no access."""

from collections.abc import Callable
from typing import Annotated, Any, Final, Literal, NamedTuple

from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from bemi.api.access import Admin, record
from bemi.api.principals import Principal
from bemi.api.problems import answer
from bemi.api.routes import people as of_api
from bemi.api.serving import Served, Serving
from bemi.errors import UnknownStateError, UsageError
from bemi.store import accesses, people, sessions
from bemi.store.people import Person
from bemi.ui import links
from bemi.ui.settings import scopes
from bemi.ui.settings.forms import Field, Number, checked, role_of
from bemi.ui.settings.menu import Asking, settings_page
from bemi.ui.settings.people import address, link_page

router = APIRouter()

_DONE: Final = {
    "changed": "This is saved, and holds from now on.",
    "disabled": "Disabled: no session and no link of theirs holds any more.",
    "enabled": "Enabled: a new link lets them in again.",
}


class Typed(NamedTuple):
    """The form, as it was filled in."""

    role: str
    sees: str
    tables: str


class OfPerson(Asking):
    id: Annotated[int, Query(ge=1, lt=1 << 31)]
    done: Literal["changed", "disabled", "enabled"] | None = None


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
) -> Response:
    """Another role, or other tables and columns."""
    typed = Typed(role_of(role), sees, tables)
    record(request, who, {"id": id, **typed._asdict()})

    def done() -> Person:
        given: dict[str, Any] = {"role": role}
        if sees != "same":
            given["scopes"] = scopes.read(sees, tables)
        return of_api.changed(serving, id, checked(of_api.ChangedPerson, **given))

    return _after(request, who, serving, id, "changed", done, typed)


@router.post("/settings/person/disable")
def disable(
    request: Request, who: Admin, serving: Served, id: Number, revoke_tokens: Field = ""
) -> Response:
    """With `revoke_tokens`, what they made for programs ends, too."""
    to = of_api.ChangedPerson(disabled=True, revoke_tokens=bool(revoke_tokens))
    record(request, who, {"id": id, **to.model_dump(exclude_unset=True)})
    return _after(
        request, who, serving, id, "disabled", lambda: of_api.changed(serving, id, to), None
    )


@router.post("/settings/person/enable")
def enable(request: Request, who: Admin, serving: Served, id: Number) -> Response:
    record(request, who, {"id": id, "disabled": False})
    to = of_api.ChangedPerson(disabled=False, revoke_tokens=False)
    return _after(
        request, who, serving, id, "enabled", lambda: of_api.changed(serving, id, to), None
    )


@router.post("/settings/person/link")
def link(request: Request, who: Admin, serving: Served, id: Number) -> Response:
    """The answer has another link, which is not shown again."""
    record(request, who, {"id": id})
    try:
        found, secret = of_api.linked(serving, id)
    except UsageError as error:
        return _show(request, who, serving, id, problem=error)
    return link_page(request, who, found, secret)


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
        seen_at=last,
        signed_in=signed_in,
        tokens=made,
        typed=typed or Typed(found.role, *spelled),
        can_stay=spelled.sees == "same",
        problem=problem,
        done=done,
        example=scopes.EXAMPLE,
        log=links.url("/settings/accesses", {"by": f"person {id}"}),
    )
