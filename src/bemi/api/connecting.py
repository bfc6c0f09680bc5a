"""What the server may ask sources themselves: those of its own settings, and others only where
whoever started it said so.

Whoever starts it gives it what asks them: the read side knows no capture. A password that somebody
typed is in the settings of one request, and nowhere else.
"""

import re
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Final, Literal, Protocol

import psycopg
from psycopg.conninfo import make_conninfo
from pydantic import Field, SecretStr

from bemi.api.asking import Asked, Short, Text
from bemi.api.places import Places
from bemi.config import Settings
from bemi.connections import describe
from bemi.errors import UsageError
from bemi.observed import Fate, Finding, KnownTable, Offered, Seen
from bemi.rules import Rules
from bemi.store.extent import SourceCoverage
from bemi.store.reader import SourceStatus, StoredChange
from bemi.store.sources import Setup

MOST: Final = 4
MOST_OF_ONE: Final = 2

# A name or an address: no folder of sockets, and no second host.
_HOST: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252})|[0-9a-fA-F:.]{2,45}")
_LIBRARY_HIDES_FILES: Final = 160000
"""The version of PostgreSQL's library from which on it can be told to send no certificate."""


class Connector(Protocol):
    """See `bemi.capture.connector`."""

    takes_any: bool

    @property
    def settings(self) -> Mapping[str, Settings]: ...

    def look(self, source: SourceStatus, covered: SourceCoverage, setup: Setup | None) -> Seen: ...

    def checks(self, settings: Settings) -> Generator[Finding]: ...

    def tables(self, settings: Settings, setup: Setup | None) -> Sequence[Offered]: ...

    def preview(
        self, rules: Rules, tables: Iterable[KnownTable], changes: Iterable[StoredChange]
    ) -> Sequence[tuple[Fate, StoredChange | None]]: ...


class Target(Asked):
    """A source of the server's settings by its name; or a database by its address."""

    source: Short | None = Field(None, description="Name of a source in the server's settings.")
    host: Text = Field("", max_length=253)
    port: int = Field(5432, ge=1, le=65535)
    database: Text = Field("", max_length=63)
    user: Text = Field("", max_length=63)
    password: SecretStr = Field(
        SecretStr(""), max_length=1000, description="Used for this request, and kept nowhere."
    )
    sslmode: Literal["prefer", "require"] = Field(
        "prefer", description="Whether the connection has to be encrypted."
    )

    @property
    def told(self) -> dict[str, object]:
        """All but the password, for the log of accesses."""
        if self.source is not None:
            return {"source": self.source}
        return self.model_dump(include={"host", "port", "database", "user", "sslmode"})


def settings_of(target: Target, connector: Connector, *, url: str, schema: str) -> Settings:
    """Settings to look at it with; of one that was typed with the history at `url`. Raises
    `UsageError`."""
    known = connector.settings
    if target.source is not None:
        if target.source not in known:
            raise UsageError(
                f"this server has no source {target.source} in its settings",
                fix=f"its sources: {', '.join(known)}" if known else "give `bemi serve` some",
            )
        return known[target.source]
    if not connector.takes_any:
        raise UsageError(
            "this server looks at the sources of its own settings only",
            fix="choose one of them; `bemi serve --connect-any` lets admins type others",
        )
    _check(target)
    return Settings(source_url=_conninfo(target), destination_url=url, schema=schema)


def place_of(settings: Settings) -> str:
    """`host:port/database`, without user and password."""
    return describe(settings.source_url)


def checking() -> Places:
    return Places("checks of sources", MOST, MOST_OF_ONE)


def _check(target: Target) -> None:
    """Raises `UsageError`."""
    for name in ("host", "database", "user"):
        if not getattr(target, name):
            raise UsageError(f"the {name} is missing")
    if not target.password.get_secret_value():
        # Else the library would look for one in the files of whoever runs this server.
        raise UsageError("the password is missing", fix="give the role one, and type it")
    if not _HOST.fullmatch(target.host):
        raise UsageError(
            "the host is not the name or the address of one", fix="write db.example, or 10.0.0.5"
        )


def _conninfo(target: Target) -> str:
    """With nothing that is this server's own: neither its files, nor what its environment says."""
    own = {"sslcertmode": "disable"} if psycopg.pq.version() >= _LIBRARY_HIDES_FILES else {}
    return make_conninfo(
        "",
        host=target.host,
        port=str(target.port),
        dbname=target.database,
        user=target.user,
        password=target.password.get_secret_value(),
        sslmode=target.sslmode,
        connect_timeout="5",
        gssencmode="disable",
        **own,
    )
