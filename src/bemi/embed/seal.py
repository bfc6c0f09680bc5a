"""Where a page ends, for who may not learn how much others wrote meanwhile, as positions would say.

A cursor is encrypted, and holds for the embed and the tenant that it was made for.
"""

import base64
import binascii
import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bemi.errors import UsageError
from bemi.store.filters import Place

_NONCE: Final = 12


def sealed(place: Place, key: bytes, tenant: str) -> str:
    nonce = os.urandom(_NONCE)
    text = AESGCM(key).encrypt(nonce, str(place).encode(), tenant.encode())
    return base64.urlsafe_b64encode(nonce + text).decode().rstrip("=")


def opened(cursor: str, key: bytes, tenant: str) -> Place:
    """Raises `UsageError`."""
    try:
        given = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True)
        text = AESGCM(key).decrypt(given[:_NONCE], given[_NONCE:], tenant.encode())
        return Place.parse(text.decode())
    except (binascii.Error, InvalidTag, ValueError) as error:
        raise UsageError("behind: this is not where a page of these ended") from error
