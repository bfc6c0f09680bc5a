"""What all routes of one server share."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Final, TypeAlias

from fastapi import Depends, Request

from bemi.api.archive import Archive
from bemi.api.background import Background
from bemi.api.connecting import Connector, checking
from bemi.api.exports import Exports
from bemi.api.limits import Limits
from bemi.api.lives import Lives
from bemi.api.metrics import Metrics
from bemi.api.oidc import Provider
from bemi.api.origins import host_of
from bemi.api.places import Places
from bemi.api.readiness import Readiness
from bemi.api.streams import Streams

_COOKIE: Final = "bemi_session"

KEEPS_ACCESSES: Final = timedelta(days=400)
"""Auditors look back for a year."""
QUESTIONS: Final = 10
"""Threads in which they are answered. Some need two connections; exports have their own."""
WAITING: Final = 50
"""Questions that wait for a thread, or for those before them."""
QUESTIONS_OF_ONE: Final = 6
"""As many as a browser sends to a server at once."""


EMBEDDED: Final = 6
"""Of these threads, those that answer customers: who looks after the history has the rest."""
EMBEDDED_OF_TENANT: Final = 3


class Serving:
    """`origins`: those under which it is reached, the first of which goes into links. `write_urls`:
    by the names of their sources, for reverts. `connector`: what looks at sources themselves."""

    def __init__(
        self,
        archive: Archive,
        origins: tuple[str, ...],
        *,
        write_urls: Mapping[str, str] | None = None,
        connector: Connector,
        limits: Limits | None = None,
        keeps_accesses: timedelta = KEEPS_ACCESSES,
        provider: Provider | None = None,
    ) -> None:
        self.archive = archive
        self.origin = origins[0]
        self.origins = frozenset(origins)
        self.hosts = frozenset(map(host_of, origins))
        self.write_urls = write_urls or {}
        self.connector = connector
        self.lives = Lives(archive, connector)
        self.checks = checking()
        self.limits = limits or Limits()
        self.keeps_accesses = keeps_accesses
        self.provider = provider
        self.metrics = Metrics(archive)
        self.streams = Streams(self.metrics.streams)
        self.questions = Places("questions", QUESTIONS + WAITING, QUESTIONS_OF_ONE)
        self.embedded = Places("questions", EMBEDDED, EMBEDDED_OF_TENANT)
        self.exports = Exports()
        self.background = Background()
        self.readiness = Readiness(archive)

    @property
    def is_secure(self) -> bool:
        return self.origin.startswith("https:")

    @property
    def cookie(self) -> str:
        """With that prefix no other host of the domain can set it."""
        return f"__Host-{_COOKIE}" if self.is_secure else _COOKIE

    def link(self, secret: str) -> str:
        return f"{self.origin}/sign-in?link={secret}"


def serving_of(request: Request) -> Serving:
    found = request.app.state.serving
    assert isinstance(found, Serving)
    return found


Served: TypeAlias = Annotated[Serving, Depends(serving_of)]
"""What a route takes it as."""
