"""Tokens that an application signs: who of its customers asks, and for how long they may see what.

JSON Web Tokens of one kind, one algorithm and few claims, each of which is known. Pure.
https://www.rfc-editor.org/rfc/rfc8725
"""

import re
from collections.abc import Collection
from typing import Final

import msgspec
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from bemi.api.principals import UnauthenticatedError
from bemi.api.signing_keys import ALGORITHM
from bemi.store.embeds import Embed
from bemi.store.scope import Visible

TYPE: Final = "bemi-embed+jwt"
"""Of the header, so that no token that the same key signs for something else is taken for one."""
LASTS: Final = 15 * 60
"""Seconds, at most."""
_LONGEST: Final = 8192
_SKEW: Final = 60
"""Seconds by which the application's clock may be ahead."""
_LONGEST_TEXT: Final = 200
_KID: Final = re.compile(r"[0-9a-f]{1,64}")
_LANGUAGE: Final = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}")


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    table: str
    key: str


class Claims(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`tables`: None is all that the embed has, and so are `columns` of one. `sub`: who of the
    tenant it is, for the log."""

    aud: str
    iat: int
    exp: int
    tenant: str | None = None
    sub: str | None = None
    tables: tuple[Visible, ...] | None = None
    record: Record | None = None
    context: tuple[str, ...] = ()
    language: str | None = None


def kid_of(token: str) -> str:
    """Of which embed it says that it is. Raises `UnauthenticatedError`."""
    try:
        if len(token) > _LONGEST:
            raise ValueError("too long")
        header = jws.extract_compact(token.encode()).headers()
        wrong = {*header} != {"alg", "kid", "typ"} or header["typ"] != TYPE
        if wrong or header["alg"] != ALGORITHM:
            raise ValueError("another header")
        kid = header["kid"]
        if not isinstance(kid, str) or not _KID.fullmatch(kid):
            raise ValueError("another name")  # it may be no text that a database can have
    except (JoseError, ValueError, TypeError, RecursionError) as error:
        raise UnauthenticatedError(
            "this is no token for an embed",
            fix=f"sign one with {ALGORITHM}, and with alg, kid and typ {TYPE} in its header",
        ) from error
    return kid


def require_signed(token: str, embed: Embed) -> bytes:
    """What is said in it. Raises `UnauthenticatedError` where the embed's key did not sign it."""
    try:
        key = ECKey.import_key(dict(embed.public_key))
        return jws.deserialize_compact(token, key, algorithms=[ALGORITHM]).payload
    except (JoseError, ValueError) as error:
        raise UnauthenticatedError("the embed's key did not sign this token") from error


def claims_of(payload: bytes, *, audience: Collection[str], now: float) -> Claims:
    """Of a token that was signed. Raises `UnauthenticatedError` for what does not hold, or not any
    more."""
    try:
        claims = msgspec.json.decode(payload, type=Claims)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise UnauthenticatedError(f"the token's claims can't be read: {error}") from error
    if claims.aud not in audience:
        raise UnauthenticatedError(
            "the token is for another server", fix=f"its aud has to be {min(audience)}"
        )
    if claims.exp <= now:
        raise UnauthenticatedError("the token has expired", fix="have another one signed")
    if claims.iat > now + _SKEW:
        raise UnauthenticatedError("the token is signed in the time to come")
    if claims.exp - claims.iat > LASTS:
        raise UnauthenticatedError(f"the token lasts longer than {LASTS // 60} minutes")
    for text in _texts(claims):
        if not text or len(text) > _LONGEST_TEXT or "\0" in text:
            raise UnauthenticatedError(
                f"a text of the token is empty, or longer than {_LONGEST_TEXT} characters"
            )
    if claims.language is not None and not _LANGUAGE.fullmatch(claims.language):
        raise UnauthenticatedError("the token's language is none, such as en or pt-BR")
    return claims


def _texts(claims: Claims) -> list[str]:
    found = [each for each in (claims.tenant, claims.sub) if each is not None]
    found += claims.context
    if claims.record is not None:
        found += [claims.record.table, claims.record.key]
    return found
