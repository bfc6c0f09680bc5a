"""Who asks for an embed: somebody to whom an application gave a token, on a page of its origins.

No cookie is looked at, so no page can have somebody's browser ask in their name.
"""

import time
from collections.abc import Iterator
from typing import Annotated, Any, Final

import msgspec
from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from bemi.api.access import Guard, address_of, asked, record
from bemi.api.principals import ForbiddenError, Principal, UnauthenticatedError
from bemi.api.serving import Serving, serving_of
from bemi.embed.share import Share
from bemi.embed.tokens import Claims, claims_of, kid_of, require_signed
from bemi.store import embeds
from bemi.store.embeds import Embed
from bemi.store.people import Holder
from bemi.store.scope import Scope

_bearer = HTTPBearer(
    auto_error=False,
    description="A token that an application has signed for one of its customers.",
    scheme_name="embed",
)


class Visitor(msgspec.Struct, frozen=True):
    """A customer, and what they may see."""

    embed: Embed
    claims: Claims
    share: Share


class Signed(Guard):
    """A token for an embed. What it lets somebody see is in it and in the embed; parameters of
    the request are recorded, and not looked at here."""

    def __init__(self) -> None:
        super().__init__("embed")

    def __call__(
        self,
        request: Request,
        _given: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
    ) -> Iterator[Visitor]:
        serving = serving_of(request)
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise UnauthenticatedError("there is no token", fix="Authorization: Bearer TOKEN")
        with serving.archive.connected() as conn:
            embed = _signer(conn, request, serving, token.strip())
        claims = _claims(request, serving, embed, token.strip())
        who = principal_of(embed)
        request.state.principal = who
        request.state.said = _said(claims)
        # Where all are shown the same, nobody is to use up what others may ask.
        asking = claims.tenant or claims.sub or address_of(request)
        serving.limits.shows(who.label, asking)
        share = Share.of(embed, claims)
        record(request, who, asked(request))
        with serving.embedded.held(f"{who.label} {asking}"):
            yield Visitor(embed, claims, share)


class Preflight(Guard):
    """What browsers ask before a page of another origin asks, without the token."""

    def __init__(self) -> None:
        super().__init__("embed")

    def __call__(self, request: Request) -> None:
        """Raises `ForbiddenError` for a page of which no embed knows the origin."""
        archive = serving_of(request).archive
        origin = request.headers.get("origin", "")
        with archive.connected() as conn:
            if not embeds.has_origin(conn, archive.schema, origin):
                raise ForbiddenError("pages of this origin may show nothing from here")
        request.state.answers_to = origin


SIGNED: Final = Depends(Signed(), scope="function")


def principal_of(embed: Embed) -> Principal:
    """For the logs. Where it is taken for somebody who signed in, it sees nothing."""
    holder = Holder("embed", embed.id, None, embed.name, "viewer", [], b"")
    return Principal(holder, Scope(()))


def _signer(conn: Any, request: Request, serving: Serving, token: str) -> Embed:
    """The embed that it names, if this page may show it. Raises `UnauthenticatedError`, and
    `ForbiddenError`."""
    try:
        embed = embeds.embed_of(conn, serving.archive.schema, kid_of(token))
        if embed is None:
            raise UnauthenticatedError("there is no embed of this name, or not any more")
    except UnauthenticatedError:
        serving.limits.failed(address_of(request))
        raise
    origin = request.headers.get("origin")
    if origin is None:
        if request.headers.get("sec-fetch-site") not in (None, "none", "same-origin"):
            raise ForbiddenError("a page of another origin had this asked")
    elif origin in embed.origins:
        request.state.answers_to = origin
    elif origin not in serving.origins:
        raise ForbiddenError("pages of this origin may not show this embed")
    return embed


def _claims(request: Request, serving: Serving, embed: Embed, token: str) -> Claims:
    try:
        payload = require_signed(token, embed)
    except UnauthenticatedError:
        serving.limits.failed(address_of(request))
        raise
    return claims_of(payload, audience=serving.origins, now=time.time())


def _said(claims: Claims) -> dict[str, Any]:
    """By the token, for the log: of a record as parameters say it."""
    record = claims.record
    found = {
        "tenant": claims.tenant,
        "sub": claims.sub,
        "table": None if record is None else record.table,
        "key": None if record is None else record.key,
    }
    return {name: value for name, value in found.items() if value is not None}
