"""The tokens of programs: those that hold, one more, and the end of one."""

from datetime import UTC, datetime
from typing import Annotated, NamedTuple

import msgspec
from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from bemi.api.access import Admin, record
from bemi.api.principals import Principal
from bemi.api.problems import answer
from bemi.api.routes import people as of_api
from bemi.api.routing import PREFIX
from bemi.api.serving import Served, Serving
from bemi.errors import UnknownStateError, UsageError
from bemi.store import accesses, people
from bemi.store.people import Token
from bemi.ui import links
from bemi.ui.settings import scopes
from bemi.ui.settings.forms import Field, Number, checked, role_of
from bemi.ui.settings.menu import Asking, settings_page
from bemi.ui.settings.people import MOST

router = APIRouter()

_DAYS = "90"


class Listed(msgspec.Struct, frozen=True):
    """`seen_at`: when it was last used; `log`: the address of what it asked."""

    given: Token
    sees: list[str]
    seen_at: datetime | None
    log: str


class Typed(NamedTuple):
    """The form, as it was filled in."""

    name: str = ""
    role: str = "viewer"
    sees: str = "all"
    tables: str = ""
    days: str = _DAYS


@router.get("/settings/tokens")
def list_tokens(
    request: Request, who: Admin, serving: Served, _asked: Annotated[Asking, Query()]
) -> Response:
    return _show(request, who, serving, Typed(), None)


@router.post("/settings/tokens")
def new_token(
    request: Request,
    who: Admin,
    serving: Served,
    name: Field = "",
    role: Field = "",
    sees: Field = "all",
    tables: Field = "",
    days: Field = "",
) -> Response:
    """For a program. The answer has the token, which is not shown again."""
    typed = Typed(name.strip(), role_of(role), sees, tables, days.strip())
    record(request, who, typed._asdict())
    try:
        new = checked(
            of_api.NewToken,
            name=typed.name,
            role=role,
            scopes=scopes.read(sees, tables),
            days=typed.days or None,
        )
        _, secret = of_api.issued(serving, who, new)
    except UsageError as error:
        return _show(request, who, serving, typed, error)
    return settings_page(
        request,
        "settings_secret.html",
        who,
        under="/settings/tokens",
        title=f"The token {new.name}",
        secret=secret,
        kind="token",
        example=f'curl -H "Authorization: Bearer $TOKEN" {serving.origin}'
        + ("/metrics" if sees == "none" else f"{PREFIX}/changes"),
        provider=None,
        back="/settings/tokens",
        back_to="All tokens",
    )


@router.post("/settings/tokens/revoke")
def revoke_token(request: Request, who: Admin, serving: Served, id: Number) -> Response:
    """It does not hold from now on."""
    record(request, who, {"id": id})
    with serving.archive.connected() as conn:
        if not people.revoke_token(conn, serving.archive.schema, id):
            raise UnknownStateError(f"there is no token {id}")
    return RedirectResponse("/settings/tokens", 303)


def _show(
    request: Request, who: Principal, serving: Serving, typed: Typed, problem: UsageError | None
) -> Response:
    schema = serving.archive.schema
    with serving.archive.connected() as conn:
        found = people.tokens(conn, schema)
        last = accesses.last(conn, schema)
    now = datetime.now(UTC)
    listed = [
        Listed(
            each,
            scopes.brief_words(each.scopes),
            last.get(f"token {each.id}"),
            links.url("/settings/accesses", {"by": f"token {each.id}"}),
        )
        for each in reversed(found)
    ]
    holding = [each for each in listed if _holds(each.given, now)]
    ended = [each for each in listed if not _holds(each.given, now)]
    return settings_page(
        request,
        "settings_tokens.html",
        who,
        200 if problem is None else answer(problem).status_code,
        under="/settings/tokens",
        holding=holding[:MOST],
        ended=ended[:MOST],
        more=max(0, len(holding) - MOST) + max(0, len(ended) - MOST),
        typed=typed,
        problem=problem,
        example=scopes.EXAMPLE,
        json="/api/v1/tokens",
    )


def _holds(token: Token, now: datetime) -> bool:
    return token.revoked_at is None and (token.expires_at is None or token.expires_at > now)
