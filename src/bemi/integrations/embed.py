"""Tokens that let a customer of the application see their own history, in its pages.

    token = bemi.embed_token(key, audience="https://history.example", tenant=customer.id)

The server knows the key's public half, and what a token may let somebody see at most. In another
language, sign a JSON Web Token with this header and these claims.
"""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from bemi.errors import BemiError

TYPE: Final = "bemi-embed+jwt"
LASTS: Final = 600
"""Seconds. The server takes tokens of 15 minutes at most."""


def embed_token(
    key: str | Mapping[str, str],
    /,
    *,
    audience: str,
    tenant: str | int | None = None,
    subject: str | int | None = None,
    tables: Iterable[str] | Mapping[str, Iterable[str] | None] | None = None,
    record: tuple[str, object] | None = None,
    context: Iterable[str] = (),
    language: str | None = None,
    lasts: int = LASTS,
    kid: str | None = None,
) -> str:
    """A signed token, for `<bemi-history>` or its frame.

    `key`: the embed's private key, as JSON or a mapping; a PEM, with the embed's `kid`. `audience`:
    the origin of the Bemi server. `tenant`: whose history it is. `subject`: who of them looks, for
    the log. `tables`: only these of the embed's, or of each these columns only. `record`: only
    this one, as its table and its key, a composite one as a tuple. `context`: members that say who
    made a change. `language`: such as `de`. `lasts`: seconds. Raises `BemiError` for what is no
    such key.
    """
    try:
        signing = _key(key)
        name = kid or signing.kid
        if not signing.is_private or signing.curve_name != "P-256" or not name:
            raise ValueError("it is not private, not on the curve P-256, or has no kid")
    except (JoseError, ValueError, TypeError) as error:
        raise BemiError(
            "this is no key that signs tokens for an embed",
            fix="give the private_key that making the embed answered, or a PEM and its kid",
        ) from error
    now = int(time.time())
    columns = tables if isinstance(tables, Mapping) or tables is None else dict.fromkeys(tables)
    claims: dict[str, Any] = {
        "aud": audience,
        "iat": now,
        "exp": now + lasts,
        "tenant": None if tenant is None else str(tenant),
        "sub": None if subject is None else str(subject),
        "tables": None if columns is None else [_table(*each) for each in columns.items()],
        "record": None if record is None else {"table": record[0], "key": _key_text(record[1])},
        "context": [*context] or None,
        "language": language,
    }
    given = {name: value for name, value in claims.items() if value is not None}
    header = {"alg": "ES256", "kid": str(name), "typ": TYPE}
    return jws.serialize_compact(header, json.dumps(given).encode(), signing)


def _table(name: str, columns: Iterable[str] | None) -> dict[str, Any]:
    return {"table": name, **({} if columns is None else {"columns": [*columns]})}


def _key(key: str | Mapping[str, str]) -> ECKey:
    if isinstance(key, str) and key.lstrip().startswith("{"):
        key = json.loads(key)
    return ECKey.import_key(key if isinstance(key, str) else dict(key))


def _key_text(key: object) -> str:
    if isinstance(key, Sequence) and not isinstance(key, str):
        return json.dumps([str(part) for part in key], separators=(",", ":"), ensure_ascii=False)
    return str(key)
