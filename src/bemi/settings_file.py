"""Turns the TOML file of settings into what was given, each value with the words for its place.

A file is for one source, or for several: then its keys are their defaults, and each table
`[sources.NAME]` holds what is a source's own. What the keys mean, `config` knows.
"""

import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from bemi.errors import ConfigError

FILE: Final = "bemi.toml"
FILE_VARIABLE: Final = "BEMI_CONFIG"
SOURCES: Final = "sources"
_NEAR: Final = 0.8


@dataclass(frozen=True, slots=True)
class Given:
    """A value that somebody set, and how messages name it."""

    value: object = field(repr=False)
    name: str
    """A variable, a flag, or a key's full path in the file."""
    file: Path | None = None

    @property
    def place(self) -> str:
        return self.name if self.file is None else f"{self.name} in {self.file}"

    def inside(self, path: str) -> "Given":
        """The place of a part of it, such as `.mask[1]`."""
        return replace(self, name=f"{self.name}{path}")


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """What a file gives: `sources` is empty when it is for one source only."""

    path: Path
    defaults: Mapping[str, Given]
    sources: Mapping[str, Mapping[str, Given]]


def locate(path: Path | None, environ: Mapping[str, str]) -> Path:
    """The file of settings: `path`, or what BEMI_CONFIG names, or the working directory's."""
    return path or Path(environ.get(FILE_VARIABLE) or FILE)


def read(
    path: Path | None, environ: Mapping[str, str], keys: Sequence[str], common: Sequence[str] = ()
) -> SettingsFile:
    """The file's content; nothing, where none is named and there is none. `common`: keys that no
    source has to itself.

    Raises ConfigError for what can't be read, and for keys that are not known.
    """
    file = locate(path, environ)
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if path is None and not environ.get(FILE_VARIABLE):
            return SettingsFile(file, {}, {})
        raise ConfigError(
            f"there is no file {file}, which is named as the file of settings",
            fix="correct its path" + ("" if path else f" or unset {FILE_VARIABLE}"),
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
    several = SOURCES in content
    tables = _tables(content.pop(SOURCES, {}), file)
    if several and not tables:
        raise ConfigError(
            f"{SOURCES} in {file} names no source", fix=f"give each one a table [{SOURCES}.NAME]"
        )
    defaults = _given(content, "", file, (*keys, *common, SOURCES))
    _refuse_own(defaults, ("source", "slot") if several else ())
    sources: dict[str, Mapping[str, Given]] = {}
    for name, table in tables.items():
        sources[name] = _given(table, f"{SOURCES}.{name}.", file, keys)
        _refuse_own(sources[name], ("source",))
    return SettingsFile(file, defaults, sources)


def nearest(name: str, names: Iterable[str], cutoff: float = _NEAR) -> str | None:
    """The known name that was probably meant."""
    lower = {known.lower(): known for known in names}
    found = difflib.get_close_matches(name.lower().replace("-", "_"), lower, n=1, cutoff=cutoff)
    return lower[found[0]] if found else None


def is_slip(name: str, known: str) -> bool:
    """Whether one letter is missing, added or another, or two neighbours are swapped."""
    while name and known and name[0] == known[0]:
        name, known = name[1:], known[1:]
    while name and known and name[-1] == known[-1]:
        name, known = name[:-1], known[:-1]
    return max(len(name), len(known)) <= 1 or (len(name) == 2 and name == known[::-1])


def unknown(given: Given, key: str, keys: Sequence[str]) -> ConfigError:
    """The error that a key, whose full name and place is `given`, is not one of `keys`."""
    near = nearest(key, keys)
    return ConfigError(
        f"{given.place} is not a setting",
        fix=f"did you mean {near}?" if near else f"settings are {', '.join(keys)}",
    )


def _tables(value: object, file: Path) -> dict[str, dict[str, Any]]:
    fix = f"give each source a table [{SOURCES}.NAME]"
    if not isinstance(value, dict):
        raise ConfigError(f"{SOURCES} in {file} is not a table of sources", fix=fix)
    for name, table in value.items():
        if not isinstance(table, dict) or not name:
            raise ConfigError(f"{SOURCES}.{name} in {file} is not a source's table", fix=fix)
    return value


def _given(
    content: Mapping[str, object], prefix: str, file: Path, keys: Sequence[str]
) -> dict[str, Given]:
    read = {key: Given(value, f"{prefix}{key}", file) for key, value in content.items()}
    for key, given in read.items():
        if key not in keys:
            raise unknown(given, key, keys)
    return read


def _refuse_own(read: Mapping[str, Given], keys: Sequence[str]) -> None:
    """What each of several sources has to itself."""
    for key in keys:
        if key in read:
            fix = f"put it into the tables [{SOURCES}.NAME]"
            if key == "source":
                fix = f"name the source in its table's heading, [{SOURCES}.NAME]"
            raise ConfigError(f"{read[key].place} is each source's own", fix=fix)
