"""The keys that sign tokens for embeds: ECDSA on the curve P-256, which is JOSE's ES256. Pure.

https://www.rfc-editor.org/rfc/rfc7518#section-3.4
"""

from typing import Any, Final

from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from bemi.errors import UsageError

ALGORITHM: Final = "ES256"
CURVE: Final = "P-256"


def new_pair() -> tuple[dict[str, str], dict[str, str]]:
    """A public key and its private one, as JSON Web Keys."""
    key = ECKey.generate_key(CURVE)
    return _members(key, private=False), _members(key, private=True)


def read_public(text: str) -> dict[str, str]:
    """Of an application's own PEM. Raises `UsageError`."""
    try:
        key = ECKey.import_key(text)
        is_private, curve = key.is_private, key.curve_name
    except (JoseError, ValueError, TypeError, AttributeError) as error:
        raise UsageError(
            "public_key is no PEM of a public key on the curve P-256",
            fix="make one: openssl ecparam -name prime256v1 -genkey -noout | openssl ec -pubout",
        ) from error
    if is_private:
        raise UsageError(
            "that is a private key, which nobody but the application should have",
            fix="give its public half, and make another one if this one was sent in the clear",
        )
    if curve != CURVE:
        raise UsageError(f"public_key is on the curve {curve}, not on P-256")
    return _members(key, private=False)


def _members(key: ECKey, *, private: bool) -> dict[str, str]:
    found: dict[str, Any] = dict(key.as_dict(private=private))
    return {name: str(found[name]) for name in ("kty", "crv", "x", "y", "d") if name in found}
