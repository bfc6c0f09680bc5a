"""Turns flags, BEMI_* variables and bemi.toml into checked `Settings`, in that order of weight.

Everything is checked here, at the start, and nothing is connected to: whether a server is as it
must be is `capture.preflight`'s question. Connection strings hold passwords, so no message and no
`repr` shows one.
"""

import contextlib
import difflib
import getpass
import hashlib
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal, NoReturn, TypeAlias, get_origin, get_type_hints

import msgspec

from bemi.errors import ConfigError

PREFIX: Final = "BEMI_"
FILE: Final = "bemi.toml"
FILE_VARIABLE: Final = "BEMI_CONFIG"

# NAMEDATALEN - 1. https://www.postgresql.org/docs/current/sql-syntax-lexical.html
MAX_IDENTIFIER: Final = 63
_SLOT: Final = re.compile(r"[a-z0-9_]{1,63}")
_NEAR: Final = 0.8


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

    def __post_init__(self) -> None:
        _parse(self.source_url, key="source_url")
        if self.destination_url:
            _parse(self.destination_url, key="destination_url")
        else:
            object.__setattr__(self, "destination_url", self.source_url)
        if not self.source or not self.slot:
            database = database_name(self.source_url, key="source_url")
            object.__setattr__(self, "source", self.source or database)
            object.__setattr__(self, "slot", self.slot or slot_name(database))
        qualified = tuple(glob if "." in glob else f"public.{glob}" for glob in self.tables)
        object.__setattr__(self, "tables", qualified)
        self._check()

    def _check(self) -> None:
        if _SLOT.fullmatch(self.slot) is None:
            raise _WrongValueError(
                "slot",
                f"{self.slot!r} is not a name that PostgreSQL takes for a replication slot",
                fix="use lower-case letters, digits and underscores, at most 63",
            )
        for key in ("schema", "publication"):
            name = getattr(self, key)
            if not name or "\0" in name or len(name.encode()) > MAX_IDENTIFIER:
                raise _WrongValueError(
                    key,
                    f"{name!r} is not a name that PostgreSQL takes",
                    fix=f"use 1 to {MAX_IDENTIFIER} bytes",
                )
            if "%" in name:
                raise _WrongValueError(
                    key, f"{name!r} has a % in it", fix="name another one, such as bemi"
                )
        if self.schema.startswith("pg_") or self.schema in ("information_schema", "public"):
            raise _WrongValueError(
                "schema",
                f"{self.schema!r} can't hold the history, which needs a schema of its own",
                fix="name another one, such as bemi",
            )
        if not 0 <= self.slot_wait < float("inf"):
            raise _WrongValueError(
                "slot_wait",
                f"{self.slot_wait} is not a time to wait",
                fix="give a number of seconds, 0 or more",
            )
        for key in ("schemas", "tables"):
            for glob in getattr(self, key):
                if not all(glob.split(".", 1) if key == "tables" else [glob]):
                    raise _WrongValueError(
                        key,
                        f"{glob!r} names nothing",
                        fix=f"write globs such as {'public.*' if key == 'tables' else 'app_*'}",
                    )


KEYS: Final = tuple(setting.name for setting in fields(Settings))
_TYPES: Final = get_type_hints(Settings)


def variable(key: str) -> str:
    """The environment variable of a setting: BEMI_SLOT_WAIT of slot_wait."""
    return PREFIX + key.upper()


def load(
    overrides: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    path: Path | None = None,
) -> Settings:
    """Settings from flags (`overrides`; None means not given), then variables, then a file.

    The file is `path`, or what BEMI_CONFIG names, or bemi.toml in the working directory when there
    is one. Raises ConfigError, which names the key and where it was read.
    """
    read = _read(overrides, environ, path)
    if "source_url" not in read:
        raise ConfigError(
            "source_url is not set: which database shall be watched?", fix=_how_to_set("source_url")
        )
    values: dict[str, Any] = {key: _convert(key, *given) for key, given in read.items()}
    with _places(read):
        return Settings(**values)


@dataclass(frozen=True, slots=True)
class History:
    """Where the history is: all that reading it takes."""

    url: str = field(repr=False)
    schema: str


def load_history(
    overrides: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    path: Path | None = None,
) -> History:
    """As `load`, for who only reads: the destination is enough, the source needn't be known."""
    read = _read(overrides, environ, path)
    key = next((key for key in ("destination_url", "source_url") if key in read), None)
    if key is None:
        raise ConfigError(
            "destination_url is not set: which database holds the history?",
            fix=_how_to_set("destination_url")
            + "; where it is in the source's own database, source_url is enough",
        )
    values: dict[str, Any] = {
        name: _convert(name, *given) for name, given in read.items() if name in (key, "schema")
    }
    url = values.pop(key)
    with _places({"source_url": read[key], **read}):
        settings = Settings(source_url=url, source="history", slot="history", **values)
    return History(settings.source_url, settings.schema)


def is_set(key: str, environ: Mapping[str, str] | None = None, path: Path | None = None) -> bool:
    """Whether a variable or the file gives this setting."""
    return key in _read(None, environ, path)


def _how_to_set(key: str) -> str:
    return (
        f"set it in the environment, as in "
        f"{variable(key)}=postgresql://USER:PASSWORD@HOST/DATABASE, "
        f'or write {key} = "…" into {FILE}'
    )


class _WrongValueError(ConfigError):
    def __init__(self, key: str, problem: str, *, fix: str) -> None:
        super().__init__(f"{key}: {problem}", fix=fix)
        self.key = key
        self.problem = problem


@contextlib.contextmanager
def _places(read: "_Read") -> Iterator[None]:
    """Errors about a key name the place where it was read instead."""
    try:
        yield
    except _WrongValueError as error:
        place = read[error.key][1] if error.key in read else error.key
        raise ConfigError(f"{place}: {error.problem}", fix=error.fix) from None


# Each way to give settings yields what was given and the words for where that was.
_Read: TypeAlias = dict[str, tuple[object, str]]


def _read(
    overrides: Mapping[str, object] | None, environ: Mapping[str, str] | None, path: Path | None
) -> _Read:
    environ = os.environ if environ is None else environ
    return {**_from_file(path, environ), **_from_environment(environ), **_from_flags(overrides)}


def _from_flags(overrides: Mapping[str, object] | None) -> _Read:
    return {
        key: (value, f"--{key.replace('_', '-')}")
        for key, value in (overrides or {}).items()
        if value is not None
    }


def _from_environment(environ: Mapping[str, str]) -> _Read:
    read: _Read = {}
    names = {variable(key): key for key in KEYS}
    for name, text in environ.items():
        if name in names and text:
            value: object = text
            if get_origin(_TYPES[names[name]]) is tuple:
                value = [part for part in map(str.strip, text.split(",")) if part]
            read[names[name]] = (value, name)
        elif name.startswith(PREFIX) and name not in names:
            # Others may have variables of that prefix too; one letter off is a slip of the pen,
            # and to go on without it might track other tables than were meant.
            near = _nearest(name, names, cutoff=0.92)
            if near is not None:
                raise ConfigError(
                    f"{name} in the environment is not a setting", fix=f"did you mean {near}?"
                )
    return read


def _from_file(path: Path | None, environ: Mapping[str, str]) -> _Read:
    named = path or (Path(text) if (text := environ.get(FILE_VARIABLE)) else None)
    file = named or Path(FILE)
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if named is None:
            return {}
        raise ConfigError(
            f"there is no file {named}, which is named as the file of settings",
            fix=f"correct its path or unset {FILE_VARIABLE}",
        ) from error
    except OSError as error:
        raise ConfigError(
            f"{file} can't be read: {error.strerror}", fix="correct its path or its permissions"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not UTF-8 text", fix="save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        # Its message has the line, never the line's content.
        raise ConfigError(
            f"{file} is not valid TOML: {error}", fix="correct it; see https://toml.io"
        ) from error
    for key in content:
        if key not in KEYS:
            near = _nearest(key, KEYS)
            raise ConfigError(
                f"{key} in {file} is not a setting",
                fix=f"did you mean {near}?" if near else f"settings are {', '.join(KEYS)}",
            )
    return {key: (value, f"{key} in {file}") for key, value in content.items()}


def _convert(key: str, value: object, place: str) -> object:
    try:
        # A variable is always a text; flags and the file have types of their own.
        return msgspec.convert(value, _TYPES[key], strict=not place.startswith(PREFIX))
    except msgspec.ValidationError as error:
        # msgspec's message names types and, of values, only those of a fixed list.
        raise ConfigError(f"{place}: {error}", fix=f"give {_expected(key)}") from None


def _expected(key: str) -> str:
    kind = _TYPES[key]
    if get_origin(kind) is tuple:
        return "a list of names"
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, kind.__args__))
    return {str: "a text", float: "a number"}[kind]


def _nearest(name: str, names: Iterable[str], cutoff: float = _NEAR) -> str | None:
    lower = {known.lower(): known for known in names}
    found = difflib.get_close_matches(name.lower().replace("-", "_"), lower, n=1, cutoff=cutoff)
    return lower[found[0]] if found else None


def database_name(url: str, *, key: str) -> str:
    """The database that libpq would connect to; `key` is the setting's name, for the error.

    https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNECT-DBNAME
    """
    parts = _parse(url, key=key)
    for value in (parts.get("dbname"), os.environ.get("PGDATABASE")):
        if value:
            return value
    if parts.get("service"):
        raise _WrongValueError(
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


def _parse(url: str, *, key: str) -> dict[str, str]:
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
    raise _WrongValueError(
        key,
        "not a connection string that PostgreSQL's library understands",
        fix="write it as postgresql://USER:PASSWORD@HOST:PORT/DATABASE; in USER and PASSWORD, "
        "characters such as @ / : % are written as %40 %2F %3A %25",
    )
