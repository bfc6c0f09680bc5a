"""How long a primary key's text may be to be kept as it is."""

import hashlib
from typing import Final

MAX_KEY: Final = 2000
"""Bytes of a primary key's text that an index entry is sure to take."""


def digested(key: bytes) -> bytes:
    """The key, or a digest of one that is too long: what stands in its place everywhere."""
    if len(key) <= MAX_KEY:
        return key
    return b"sha256:" + hashlib.sha256(key).hexdigest().encode()
