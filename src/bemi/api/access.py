"""Who asks, and whether they may: each route says which role it takes, and gets the principal.

Nothing is told before it was recorded who asked for what.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias

import psycopg
from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.responses import Response

from bemi.api.exports import Owner
from bemi.api.origins import SAFE, is_own
from bemi.api.principals import ForbiddenError, Principal, UnauthenticatedError
from bemi.api.problems import answer, shown
from bemi.api.serving import Serving, serving_of
from bemi.errors import BemiError
from bemi.store import accesses, people
from bemi.store.people import Role

Takes: TypeAlias = Role | Literal["embed"]
_Given: TypeAlias = tuple[str, Literal["session", "token"]]

LONGEST: Final = 32_000
"""Bytes of an address: all of it is recorded, so that nobody hides what they ask for behind what
they don't."""
_MOST: Final = 50_000
"""Characters of a request that the log of accesses keeps."""

RESUMED: Final = "Last-Event-ID"

_bearer = HTTPBearer(
    auto_error=False,
    description="An API token. Pages have a session's cookie in its place.",
    scheme_name="token",
)


class Guard:
    """What a route depends on, and what it takes: a role, or a token that an application signed for
    an embed."""

    def __init__(self, takes: Takes) -> None:
        self.takes = takes


class Needs(Guard):
    """What a route depends on: the principal, who has at least this role, and one of their places
    until the route has its answer, or the beginning of one. Raises `BusyError` without."""

    def __init__(self, role: Role) -> None:
        super().__init__(role)
        self.role = role

    def __call__(
        self,
        request: Request,
        _given: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
    ) -> Iterator[Principal]:
        serving = serving_of(request)
        given = _presented(request, serving)
        with serving.archive.connected() as conn:
            who = _holder(conn, request, serving, given)
            request.state.principal = who
            serving.limits.asks(who.label)
            if given[1] == "session":
                _require_own(request, serving)
            if not who.may(self.role):
                raise ForbiddenError(
                    f"this takes the role {self.role}, and {who.name} is {who.holder.role}"
                )
            _record(conn, request, who, asked(request), allowed=True)
        with serving.questions.held(who.label):
            yield who


# Left when the route is, not when its answer was sent.
VIEWER: Final = Depends(Needs("viewer"), scope="function")
EDITOR: Final = Depends(Needs("editor"), scope="function")
ADMIN: Final = Depends(Needs("admin"), scope="function")

Viewer = Annotated[Principal, VIEWER]
Editor = Annotated[Principal, EDITOR]
Admin = Annotated[Principal, ADMIN]


def authenticated(request: Request) -> Principal:
    """By the header where there is one, else by the cookie, which browsers send of their own
    accord. Raises `UnauthenticatedError`."""
    serving = serving_of(request)
    given = _presented(request, serving)
    with serving.archive.connected() as conn:
        return _holder(conn, request, serving, given)


def owner(request: Request, who: Principal) -> Owner:
    """Of an answer that takes long."""
    return Owner(who.label, lambda: may_still(request, who))


def may_still(request: Request, who: Principal) -> bool:
    """What they might when they asked."""
    try:
        return authenticated(request) == who
    except BemiError:
        return False


def record(request: Request, who: Principal, what: Mapping[str, Any]) -> None:
    """In the log of accesses, beside what is recorded of every request. Raises `BemiError` where
    that can't be."""
    with serving_of(request).archive.connected() as conn:
        _record(conn, request, who, what, allowed=True)


def record_refused(request: Request, who: Principal | str, what: Mapping[str, Any]) -> None:
    """That somebody was not let in, who has proven who they are elsewhere. Raises `BemiError` where
    that can't be."""
    with serving_of(request).archive.connected() as conn:
        _record(conn, request, who, what, allowed=False)


def refused(request: Request, error: Exception) -> Response:
    """The answer to who may not, once that is recorded: of a part that they don't see, too."""
    assert isinstance(error, ForbiddenError)
    who = getattr(request.state, "principal", None)
    if who is not None:
        try:
            with serving_of(request).archive.connected() as conn:
                _record(conn, request, who, asked(request), allowed=False)
        except BemiError as failed:
            return shown(request, answer(failed))
    return shown(request, answer(error))


def _presented(request: Request, serving: Serving) -> _Given:
    """What is to be looked up. Raises `UnauthenticatedError` where there is nothing.

    Another scheme, such as Basic, is for a proxy that has let somebody in: browsers send it along.
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip(), "token"
    session = request.cookies.get(serving.cookie)
    if session is None:
        raise UnauthenticatedError(
            "nobody is signed in", fix="send an API token: Authorization: Bearer TOKEN"
        )
    return session, "session"


def _holder(
    conn: psycopg.Connection[Any], request: Request, serving: Serving, given: _Given
) -> Principal:
    """Raises `UnauthenticatedError`, or `TooManyError` where too much from there did not hold."""
    found = people.holder(conn, serving.archive.schema, *given)
    if found is None:
        serving.limits.failed(address_of(request))
        raise UnauthenticatedError("this token or session does not hold, or not any more")
    return Principal.of(found)


def _require_own(request: Request, serving: Serving) -> None:
    """Raises `ForbiddenError`: a cookie goes along with what pages of others have asked, too."""
    if request.method not in SAFE and not is_own(request.headers, serving.origins):
        raise ForbiddenError("it can't be told that a page of this server asks this")


def _record(
    conn: psycopg.Connection[Any],
    request: Request,
    who: Principal | str,
    what: Mapping[str, Any],
    *,
    allowed: bool,
) -> None:
    path = getattr(request.scope.get("route"), "path", request.url.path)
    accesses.record(
        conn,
        serving_of(request).archive.schema,
        who if isinstance(who, str) else who.holder,
        address=address_of(request),
        action=f"{request.method} {path}",
        asked=_Keeping(_MOST).kept(what),
        allowed=allowed,
    )


def asked(request: Request) -> dict[str, Any]:
    """The parameters of the query and the path: where both have one, the path says what is done.
    And what a token for an embed says, which no parameter changes; and where a stream goes on."""
    found: dict[str, Any] = {}
    for name in request.query_params:
        values = request.query_params.getlist(name)
        found[name] = values[0] if len(values) == 1 else values
    resumed = request.headers.get(RESUMED)
    if resumed is not None:
        found[RESUMED] = resumed
    return found | request.path_params | getattr(request.state, "said", {})


def address_of(request: Request) -> str:
    return "" if request.client is None else request.client.host


class _Keeping:
    """Values as jsonb can have them, until there is no room any more."""

    def __init__(self, room: int) -> None:
        self._room = room

    def kept(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            found: dict[str, Any] = {}
            for name, each in value.items():
                if self._room <= 0:
                    found["…"] = f"{len(value) - len(found)} more"
                    break
                told = self._text(str(name))
                found[told] = self.kept(each)
            return found
        if isinstance(value, list | tuple):
            several: list[Any] = []
            for each in value:
                if self._room <= 0:
                    several.append(f"… {len(value) - len(several)} more")
                    break
                several.append(self.kept(each))
            return several
        if isinstance(value, bool | int | None):
            self._room -= len(str(value))
            return value
        return self._text(str(value))

    def _text(self, value: str) -> str:
        plain = value.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()
        most = max(self._room, 0)
        self._room -= len(plain)
        return plain if len(plain) <= most else f"{plain[:most]}…"
