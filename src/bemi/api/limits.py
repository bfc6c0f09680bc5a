"""How often somebody may ask. In memory: each process counts for itself."""

import time
from typing import Final

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

from bemi.api.problems import TooManyError

ASKED: Final = RateLimitItemPerMinute(600, namespace="asked")
"""By one person or program."""
ASKED_OF_TENANT: Final = RateLimitItemPerMinute(120, namespace="tenant")
ASKED_OF_EMBED: Final = RateLimitItemPerMinute(3000, namespace="embed")
"""For one tenant of an embed, and for all of them."""
REFUSED: Final = RateLimitItemPerMinute(20, namespace="refused")
"""Secrets that did not hold, from one address."""
SIGNING: Final = RateLimitItemPerMinute(300, namespace="signing")
"""Answers of the OpenID provider that are looked at, from one address: with each it is asked."""


class Limits:
    def __init__(
        self,
        *,
        asked: RateLimitItem = ASKED,
        refused: RateLimitItem = REFUSED,
        signing: RateLimitItem = SIGNING,
        of_tenant: RateLimitItem = ASKED_OF_TENANT,
        of_embed: RateLimitItem = ASKED_OF_EMBED,
    ) -> None:
        self._asked = asked
        self._of_tenant = of_tenant
        self._of_embed = of_embed
        self._refused = refused
        self._signing = signing
        # Of a window the storage keeps a number until it ends; of moving ones each key for ever.
        self._storage = MemoryStorage()
        self._limiter = FixedWindowRateLimiter(self._storage)

    @property
    def counted(self) -> int:
        """How many it keeps numbers of."""
        return len(self._storage.storage)

    def asks(self, label: str) -> None:
        """Raises `TooManyError`."""
        if not self._limiter.hit(self._asked, label):
            self._refuse(self._asked, label)

    def shows(self, label: str, tenant: str) -> None:
        """An embed, to somebody of a tenant. Raises `TooManyError`."""
        for item, key in ((self._of_tenant, f"{label} {tenant}"), (self._of_embed, label)):
            if not self._limiter.hit(item, key):
                self._refuse(item, key)

    def signs_in(self, address: str) -> None:
        """At the provider. Raises `TooManyError`."""
        if not self._limiter.hit(self._signing, address):
            self._refuse(self._signing, address)

    def failed(self, address: str) -> None:
        """A secret from there did not hold. Raises `TooManyError`.

        There is nothing to guess, so what does hold is still let in: an address may be that of a
        proxy or of a whole office, and nobody in it is to keep the others out.
        """
        if not self._limiter.hit(self._refused, address):
            self._refuse(self._refused, address)

    def _refuse(self, item: RateLimitItem, label: str) -> None:
        reset = self._limiter.get_window_stats(item, label).reset_time
        raise TooManyError("asked too often", seconds=max(1, round(reset - time.time() + 0.5)))
