"""What can be set, each setting with its text, its default and its check.

Nothing is read here and nothing is connected to: whether a server is as it must be is
`capture.preflight`'s question. Connection strings hold passwords, so no message and no `repr`
shows one.
"""

import getpass
import hashlib
import os
import re
from dataclasses import dataclass, field, fields
from typing import Final, Literal, NoReturn
from urllib.parse import urlsplit

from bemi.errors import ConfigError
from bemi.rules import NO_RULES, Rules

PREFIX: Final = "BEMI_"

# NAMEDATALEN - 1. https://www.postgresql.org/docs/current/sql-syntax-lexical.html
MAX_IDENTIFIER: Final = 63
SHORTEST_HASH_KEY: Final = 16
_DOMAIN: Final = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_SLOT: Final = re.compile(r"[a-z0-9_]{1,63}")
_HOW_TO_MAKE_A_KEY: Final = (
    f"set {PREFIX}HASH_KEY to a secret, such as `openssl rand -hex 32` makes"
)


@dataclass(frozen=True, slots=True)
class Settings:
    """How one source is captured into one destination. What is left empty gets its default.

    Raises ConfigError for values that can't be right.
    """

    source_url: str = field(
        repr=False,
        metadata={
            "doc": "Connection string of the database to watch, as a URL or in libpq's key=value "
            "form. Its role needs the REPLICATION attribute.",
            "default": "required",
        },
    )
    destination_url: str = field(
        default="",
        repr=False,
        metadata={
            "doc": "Connection string of the database that holds the history.",
            "default": "the source's",
        },
    )
    write_url: str = field(
        default="",
        repr=False,
        metadata={
            "doc": "Connection string for what writes to a database: reverts, replays, restores. "
            "Its role needs no more than the rights to write there.",
            "default": "the source's; a replay has none",
        },
    )
    source: str = field(
        default="",
        metadata={
            "doc": "Name of the source in the history, in its column `source`.",
            "default": "the source's database name",
        },
    )
    schema: str = field(
        default="bemi",
        metadata={"doc": "Schema of the history in the destination; without `%`."},
    )
    slot: str = field(
        default="",
        metadata={
            "doc": "Replication slot on the source: lower-case letters, digits and underscores, "
            "at most 63.",
            "default": "`bemi_` and the source's database name",
        },
    )
    publication: str = field(
        default="bemi",
        metadata={
            "doc": "Publication on the source, without `%`; Bemi makes it and adds tables to it."
        },
    )
    slot_wait: float = field(
        default=90.0,
        metadata={
            "doc": "Seconds to wait for a slot that another process holds, before giving up."
        },
    )
    new_tables: Literal["track", "warn"] = field(
        default="track",
        metadata={
            "doc": "What to do about tables that are created later: `track` adds those that match "
            "`schemas` and `tables` where the role may, `warn` only shows them as untracked."
        },
    )
    schemas: tuple[str, ...] = field(
        default=(),
        metadata={
            "doc": "Schemas to track, as globs. Separated by commas in the variable.",
            "default": "all but the system's and Bemi's own",
        },
    )
    tables: tuple[str, ...] = field(
        default=(),
        metadata={
            "doc": "Tables to track, as globs of the form `schema.table`; without a schema it is "
            "`public`. Separated by commas in the variable.",
            "default": "all in the tracked schemas",
        },
    )
    exclude_tables: tuple[str, ...] = field(
        default=(),
        metadata={
            "doc": "Tables not to track, as globs like those of `tables`, over which they win. "
            "Separated by commas in the variable.",
            "default": "none",
        },
    )
    rules: Rules = field(
        default=NO_RULES,
        metadata={
            "doc": "What of the tracked tables is left out, masked or hashed: the file's table "
            "[`[rules]`](#rules).",
            "default": "everything is stored as it is",
        },
    )
    hash_key: str = field(
        default="",
        repr=False,
        metadata={
            "doc": f"Secret that `hash` of the rules needs, at least {SHORTEST_HASH_KEY} "
            "characters. Values that are equal have equal hashes while it stays the same.",
            "default": "none",
        },
    )

    def __post_init__(self) -> None:
        parse(self.source_url, key="source_url")
        if self.destination_url:
            parse(self.destination_url, key="destination_url")
        else:
            object.__setattr__(self, "destination_url", self.source_url)
        if self.write_url:
            parse(self.write_url, key="write_url")
        else:
            object.__setattr__(self, "write_url", self.source_url)
        if not self.source or not self.slot:
            database = database_name(self.source_url, key="source_url")
            object.__setattr__(self, "source", self.source or database)
            object.__setattr__(self, "slot", self.slot or slot_name(database))
        for key in ("tables", "exclude_tables"):
            globs = getattr(self, key)
            qualified = tuple(glob if "." in glob else f"public.{glob}" for glob in globs)
            object.__setattr__(self, key, qualified)
        self._check()
        check_rules(self.rules)
        self._check_hash_key()

    def _check(self) -> None:
        if _SLOT.fullmatch(self.slot) is None:
            raise WrongValueError(
                "slot",
                f"{self.slot!r} is not a name that PostgreSQL takes for a replication slot",
                fix="use lower-case letters, digits and underscores, at most 63",
            )
        for key in ("schema", "publication"):
            name = getattr(self, key)
            if not name or "\0" in name or len(name.encode()) > MAX_IDENTIFIER:
                raise WrongValueError(
                    key,
                    f"{name!r} is not a name that PostgreSQL takes",
                    fix=f"use 1 to {MAX_IDENTIFIER} bytes",
                )
            if "%" in name:
                raise WrongValueError(
                    key, f"{name!r} has a % in it", fix="name another one, such as bemi"
                )
        if self.schema.startswith("pg_") or self.schema in ("information_schema", "public"):
            raise WrongValueError(
                "schema",
                f"{self.schema!r} can't hold the history, which needs a schema of its own",
                fix="name another one, such as bemi",
            )
        if not 0 <= self.slot_wait < float("inf"):
            raise WrongValueError(
                "slot_wait",
                f"{self.slot_wait} is not a time to wait",
                fix="give a number of seconds, 0 or more",
            )
        for key in ("schemas", "tables", "exclude_tables"):
            of_tables = key != "schemas"
            for glob in getattr(self, key):
                if not all(glob.split(".", 1) if of_tables else [glob]):
                    raise WrongValueError(
                        key,
                        f"{glob!r} names nothing",
                        fix=f"write globs such as {'public.*' if of_tables else 'app_*'}",
                    )

    def _check_hash_key(self) -> None:
        if self.hash_key and len(self.hash_key) < SHORTEST_HASH_KEY:
            raise WrongValueError(
                "hash_key",
                f"it has less than {SHORTEST_HASH_KEY} characters",
                fix=_HOW_TO_MAKE_A_KEY,
            )
        if self.rules.hash and not self.hash_key:
            raise WrongValueError(
                "hash_key", "it is not set, and rules.hash needs it", fix=_HOW_TO_MAKE_A_KEY
            )


@dataclass(frozen=True, slots=True)
class OidcSettings:
    """The OpenID provider at which people sign in to `bemi serve`, whatever sources there are.

    Raises ConfigError for values that can't be right.
    """

    oidc_issuer: str = field(
        metadata={
            "doc": "The provider, as it calls itself: `https://accounts.example`. Without it, "
            "people sign in by links only.",
            "default": "none",
        },
    )
    oidc_client_id: str = field(
        metadata={
            "doc": "How the provider knows this server.",
            "default": "required with `oidc_issuer`",
        },
    )
    oidc_client_secret: str = field(
        default="",
        repr=False,
        metadata={
            "doc": "What proves to the provider that it is this server.",
            "default": "none: a public client",
        },
    )
    oidc_name: str = field(
        default="",
        metadata={
            "doc": "What people call the provider, as in “Sign in with …”.",
            "default": "the issuer's host",
        },
    )
    oidc_domains: tuple[str, ...] = field(
        default=(),
        metadata={
            "doc": "Domains of e-mail addresses: whoever has a verified one there is let in "
            "uninvited, as a viewer of the whole history. Separated by commas in the variable.",
            "default": "none: who was invited",
        },
    )

    def __post_init__(self) -> None:
        host = self._host()
        object.__setattr__(self, "oidc_name", self.oidc_name or host)
        if not self.oidc_client_id:
            raise WrongValueError(
                "oidc_client_id",
                "it is not set, and oidc_issuer needs it",
                fix="register this server at the provider, and set what it is called there",
            )
        object.__setattr__(self, "oidc_domains", tuple(map(str.lower, self.oidc_domains)))
        for domain in self.oidc_domains:
            if _DOMAIN.fullmatch(domain) is None:
                raise WrongValueError(
                    "oidc_domains", f"{domain!r} is no domain", fix="give it as in example.com"
                )

    def _host(self) -> str:
        if is_private_url(self.oidc_issuer):
            parts = urlsplit(self.oidc_issuer)
            if not parts.query and not parts.fragment:
                return parts.netloc
        raise WrongValueError(
            "oidc_issuer",
            f"{self.oidc_issuer!r} is not an https URL without a query",
            fix="give it exactly as the provider's metadata have it, as in https://accounts.example",
        )


def is_private_url(url: str) -> bool:
    """Whether nobody on the way reads what goes there: over TLS, or within this machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return False
    if not host or parts.username is not None:
        return False
    return parts.scheme == "https" or (
        parts.scheme == "http" and host in ("localhost", "127.0.0.1", "::1")
    )


KEYS: Final = tuple(setting.name for setting in fields(Settings))
"""Those of a source; and those that are not:"""
OIDC_KEYS: Final = tuple(setting.name for setting in fields(OidcSettings))
_IN_FILE_ONLY: Final = frozenset({"rules"})


def variable(key: str) -> str:
    """The environment variable of a setting: BEMI_SLOT_WAIT of slot_wait."""
    return PREFIX + key.upper()


def variables() -> dict[str, str]:
    """The settings that the environment can give, by their variables."""
    return {variable(key): key for key in (*KEYS, *OIDC_KEYS) if key not in _IN_FILE_ONLY}


def check_rules(rules: Rules) -> None:
    """Raises ConfigError for globs and operations that are none."""
    try:
        rules.check()
    except ConfigError as error:
        place, _, problem = str(error).partition(": ")
        inside = place.removeprefix("rules")
        raise WrongValueError("rules", problem, fix=error.fix, inside=inside) from None


class WrongValueError(ConfigError):
    """A value of `key`, or what lies at the path `inside` of it, can't be right."""

    def __init__(self, key: str, problem: str, *, fix: str | None, inside: str = "") -> None:
        super().__init__(f"{key}{inside}: {problem}", fix=fix)
        self.key = key
        self.inside = inside
        self.problem = problem


def database_name(url: str, *, key: str) -> str:
    """The database that libpq would connect to; `key` is the setting's name, for the error.

    https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNECT-DBNAME
    """
    parts = parse(url, key=key)
    for value in (parts.get("dbname"), os.environ.get("PGDATABASE")):
        if value:
            return value
    if parts.get("service"):
        raise WrongValueError(
            key,
            "which database its service means can't be seen here",
            fix="add dbname=… to it",
        )
    return parts.get("user") or os.environ.get("PGUSER") or getpass.getuser()


def slot_name(database: str) -> str:
    """`bemi_` and the database's name, in the few characters that a slot's name may have.

    What had to be altered or cut ends in a digest of the name, so that two databases never
    share a slot.
    """
    plain = f"bemi_{database}"
    name = re.sub(r"[^a-z0-9_]", "_", plain.lower())
    if name == plain and len(name) <= MAX_IDENTIFIER:
        return name
    digest = hashlib.sha256(database.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{name[: MAX_IDENTIFIER - 9]}_{digest}"


def parse(url: str, *, key: str) -> dict[str, str]:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        parts = conninfo_to_dict(url)
    except (psycopg.ProgrammingError, UnicodeError):
        # libpq's message quotes pieces of the string, and the password may be among them.
        _refuse(key)
    if not url.strip():
        _refuse(key)
    return {name: str(value) for name, value in parts.items() if value is not None}


def _refuse(key: str) -> NoReturn:
    raise WrongValueError(
        key,
        "not a connection string that PostgreSQL's library understands",
        fix="write it as postgresql://USER:PASSWORD@HOST:PORT/DATABASE; in USER and PASSWORD, "
        "characters such as @ / : % are written as %40 %2F %3A %25",
    )
