"""Who may sign in: all of them, and a form to invite one more."""

from datetime import datetime
from typing import Annotated, Final, NamedTuple

import msgspec
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from bemi.api.access import Admin, record
from bemi.api.principals import Principal
from bemi.api.problems import answer
from bemi.api.routes import people as of_api
from bemi.api.serving import Served, Serving
from bemi.errors import UsageError
from bemi.store import accesses, people
from bemi.store.people import Person
from bemi.ui import links
from bemi.ui.settings import scopes
from bemi.ui.settings.forms import Field, checked, role_of
from bemi.ui.settings.menu import Asking, settings_page

router = APIRouter()

MOST: Final = 500
"""People, or tokens, that a page shows."""


class Listed(msgspec.Struct, frozen=True):
    """`seen_at`: when they were last here."""

    given: Person
    href: str
    sees: list[str]
    seen_at: datetime | None


class Typed(NamedTuple):
    """The form, as it was filled in."""

    name: str = ""
    email: str = ""
    role: str = "viewer"
    sees: str = "all"
    tables: str = ""


@router.get("/settings/people")
def list_people(
    request: Request, who: Admin, serving: Served, _asked: Annotated[Asking, Query()]
) -> Response:
    return _show(request, who, serving, Typed(), None)


@router.post("/settings/people")
def invite(
    request: Request,
    who: Admin,
    serving: Served,
    name: Field = "",
    email: Field = "",
    role: Field = "",
    sees: Field = "all",
    tables: Field = "",
) -> Response:
    """Somebody new. The answer has their link, which is not shown again."""
    typed = Typed(name.strip(), email.strip(), role_of(role), sees, tables)
    record(request, who, typed._asdict())
    try:
        new = checked(
            of_api.NewPerson,
            name=typed.name,
            email=typed.email or None,
            role=role,
            scopes=scopes.read(sees, tables),
        )
        person, link = of_api.invited(serving, new)
    except UsageError as error:
        return _show(request, who, serving, typed, error)
    return link_page(request, who, serving, person, link)


def link_page(
    request: Request, who: Principal, serving: Serving, person: Person, link: str
) -> Response:
    return settings_page(
        request,
        "settings_secret.html",
        who,
        under="/settings/people",
        title=f"A link for {person.name}",
        secret=link,
        kind="link",
        provider=None if person.email is None else provider_of(serving),
        back="/settings/people",
        back_to="All people",
    )


def provider_of(serving: Serving) -> str | None:
    """The name of the one at which people sign in."""
    return None if serving.provider is None else serving.provider.name


def address(id: int, **more: str) -> str:
    """Of somebody's page."""
    return links.url("/settings/person", {"id": id, **more})


def _show(
    request: Request, who: Principal, serving: Serving, typed: Typed, problem: UsageError | None
) -> Response:
    schema = serving.archive.schema
    with serving.archive.connected() as conn:
        found = people.people(conn, schema)
        last = accesses.last(conn, schema)
    found.sort(key=lambda each: each.disabled_at is not None)
    listed = [
        Listed(
            each, address(each.id), scopes.brief_words(each.scopes), last.get(f"person {each.id}")
        )
        for each in found[:MOST]
    ]
    return settings_page(
        request,
        "settings_people.html",
        who,
        200 if problem is None else answer(problem).status_code,
        under="/settings/people",
        people=listed,
        more=len(found) - len(listed),
        typed=typed,
        problem=problem,
        example=scopes.EXAMPLE,
        provider=provider_of(serving),
        json="/api/v1/people",
    )
