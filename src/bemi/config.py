"""Turns flags, BEMI_* variables and bemi.toml into checked `Settings`, in that order of weight.

The file may have several sources, each with its own table; then the rest of it are their defaults.
Everything is checked here, at the start, and nothing is connected to.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeAlias

from bemi import settings_file
from bemi.errors import ConfigError
from bemi.settings import (
    KEYS,
    OIDC_KEYS,
    PREFIX,
    OidcSettings,
    Settings,
    database_name,
    parse,
    slot_name,
    variable,
    variables,
)
from bemi.settings_file import FILE, SOURCES, Given
from bemi.settings_values import check_rules, convert, is_list, places

__all__ = [
    "KEYS",
    "OIDC_KEYS",
    "PREFIX",
    "History",
    "OidcSettings",
    "Settings",
    "database_name",
    "file_of",
    "is_set",
    "load",
    "load_all",
    "load_history",
    "load_oidc",
    "load_write_url",
    "slot_name",
    "variable",
    "variables",
]


def load(
    overrides: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    path: Path | None = None,
) -> Settings:
    """Settings of one source: from flags (`overrides`; None means not given), then variables,
    then a file.

    The file is `path`, or what BEMI_CONFIG names, or bemi.toml in the working directory when there
    is one. Where it has several sources, `source` says which one is meant. Raises ConfigError,
    which names the key and where it was read.
    """
    return _settings(_Layers.read(overrides, environ, path).one())


def load_all(
    overrides: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    path: Path | None = None,
    *,
    sources: Sequence[str] = (),
) -> tuple[Settings, ...]:
    """Settings of all sources of the file, or of those that are named, in the file's order.

    As `load`; and no two of them may use the same slot or publication.
    """
    layers = _Layers.read(overrides, environ, path)
    names = layers.chosen(sources)
    if not names:
        if len(sources) > 1:
            raise ConfigError(
                f"{layers.file.path} has no tables [{SOURCES}.NAME], so there is one source only",
                fix="name one source, or none",
            )
        named = Given(sources[0], "--source") if sources else None
        return (_settings(layers.of(None) | ({"source": named} if named else {})),)
    if len(names) > 1:
        for key in _OWN:
            if key in layers.flags:
                raise ConfigError(
                    f"{layers.flags[key].place} can't be that of several sources:"
                    f" {', '.join(names)}",
                    fix="say which one is meant: --source NAME",
                )
    found = tuple(_settings(layers.of(name)) for name in names)
    _refuse_twins(found, layers.file.path)
    return found


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
    """As `load`, for who only reads: the destination is enough, the source needn't be known.

    Sources of the file that share a history need not be told apart.
    """
    layers = _Layers.read(overrides, environ, path)
    names = layers.chosen()
    found = {_history(layers.of(name)) for name in names} if names else {_history(layers.of(None))}
    if len(found) > 1:
        raise ConfigError(
            f"the sources of {layers.file.path} have histories of their own: {', '.join(names)}",
            fix=f"say which one is meant: {variable('source')}, or --destination-url",
        )
    return found.pop()


def load_write_url(
    overrides: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    path: Path | None = None,
    *,
    or_source: bool = True,
) -> str:
    """As `load`, the connection string of what is written to: `write_url`, or the source's."""
    read = _Layers.read(overrides, environ, path).one()
    keys = ("write_url", "source_url") if or_source else ("write_url",)
    key = next((key for key in keys if key in read), None)
    if key is None:
        raise ConfigError(
            "write_url is not set: which database shall be written to?",
            fix=_how_to_set("write_url"),
        )
    url = convert(key, read[key])
    with places(read):
        parse(str(url), key=key)
    return str(url)


def load_oidc(
    environ: Mapping[str, str] | None = None, path: Path | None = None
) -> OidcSettings | None:
    """As `load`, where people sign in; None where nothing of that is set."""
    layers = _Layers.read(None, environ, path)
    read = {
        key: given
        for key, given in {**layers.file.defaults, **layers.variables}.items()
        if key in OIDC_KEYS
    }
    if not read:
        return None
    values: dict[str, Any] = {key: convert(key, given) for key, given in read.items()}
    if "oidc_issuer" not in values:
        raise ConfigError(
            f"{next(iter(read.values())).place} is set, and oidc_issuer is not",
            fix=f'set {variable("oidc_issuer")}, or write oidc_issuer = "…" into {FILE}',
        )
    with places(read):
        return OidcSettings(**{"oidc_client_id": "", **values})


def is_set(key: str, environ: Mapping[str, str] | None = None, path: Path | None = None) -> bool:
    """Whether a variable or the file gives this setting."""
    layers = _Layers.read(None, environ, path)
    return any(key in layers.of(name) for name in (*layers.file.sources, None))


def file_of(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Path:
    """The file that the functions above read, where there is one."""
    return settings_file.locate(path, os.environ if environ is None else environ)


def _settings(read: "_Read") -> Settings:
    if "source_url" not in read:
        raise ConfigError(
            "source_url is not set: which database shall be watched?", fix=_how_to_set("source_url")
        )
    values: dict[str, Any] = {
        key: convert(key, given) for key, given in read.items() if key in KEYS
    }
    with places(read):
        return Settings(**values)


def _history(read: "_Read") -> History:
    key = next((key for key in ("destination_url", "source_url") if key in read), None)
    if key is None:
        raise ConfigError(
            "destination_url is not set: which database holds the history?",
            fix=_how_to_set("destination_url")
            + "; where it is in the source's own database, source_url is enough",
        )
    values: dict[str, Any] = {
        name: convert(name, given) for name, given in read.items() if name in (key, "schema")
    }
    url = values.pop(key)
    with places({**read, "source_url": read[key]}):
        settings = Settings(source_url=url, source="history", slot="history", **values)
    return History(settings.source_url, settings.schema)


def _how_to_set(key: str) -> str:
    return (
        f"set it in the environment, as in "
        f"{variable(key)}=postgresql://USER:PASSWORD@HOST/DATABASE, "
        f'or write {key} = "…" into {FILE}'
    )


_Read: TypeAlias = Mapping[str, Given]

_OWN: Final = ("source_url", "write_url", "slot")
"""What one of several sources can't share with the others."""


@dataclass(frozen=True, slots=True)
class _Layers:
    """All that was given, by where it was."""

    flags: _Read
    variables: _Read
    file: settings_file.SettingsFile

    @classmethod
    def read(
        cls,
        overrides: Mapping[str, object] | None,
        environ: Mapping[str, str] | None,
        path: Path | None,
    ) -> "_Layers":
        environ = os.environ if environ is None else environ
        file = settings_file.read(path, environ, KEYS, OIDC_KEYS)
        layers = cls(_from_flags(overrides), _from_environment(environ), file)
        if (rules := file.defaults.get("rules")) is not None:
            check_rules(rules)  # here, since a source's place would be named later
        if len(file.sources) > 1:
            # Exported for one source, it would turn the others' histories over to it.
            for key in _OWN:
                if key in layers.variables:
                    raise ConfigError(
                        f"{layers.variables[key].place} can't be that of several sources, which"
                        f" {file.path} has: {', '.join(file.sources)}",
                        fix=f"unset it, and give each source {key} in its table [{SOURCES}.NAME]",
                    )
        return layers

    def chosen(self, names: Sequence[str] = ()) -> tuple[str, ...]:
        """The file's sources that are meant, in its order; none when it has no such tables."""
        known = self.file.sources
        if not known:
            return ()
        given = [Given(name, "--source") for name in names]
        if not given:
            given = [each["source"] for each in (self.flags, self.variables) if "source" in each]
            given = given[:1] or [Given(name, name) for name in known]
        for each in given:
            if each.value not in known:
                near = settings_file.nearest(str(each.value), known, cutoff=0.6)
                raise ConfigError(
                    f"{each.place}: {self.file.path} has no source {each.value}",
                    fix=f"did you mean {near}?" if near else f"its sources: {', '.join(known)}",
                )
        wanted = {each.value for each in given}
        return tuple(name for name in known if name in wanted)

    def one(self) -> dict[str, Given]:
        """What holds for the one source that is meant. Raises ConfigError where several are."""
        names = self.chosen()
        if len(names) > 1:
            raise ConfigError(
                f"{self.file.path} has several sources: {', '.join(sorted(names))}",
                fix=f"say which one is meant: --source NAME, or {variable('source')}",
            )
        return self.of(names[0] if names else None)

    def of(self, name: str | None) -> dict[str, Given]:
        """What holds for one source: flags over variables over its table over the defaults."""
        read = {**self.file.defaults}
        if name is not None:
            read |= self.file.sources[name]
            if (own := self.file.sources[name].get("rules")) is not None:
                read["rules"] = _joined(self.file.defaults.get("rules"), own)
        read |= {**self.variables, **self.flags}
        if name is not None:
            read["source"] = Given(name, f"{SOURCES}.{name}", self.file.path)
        return read


def _joined(common: Given | None, own: Given) -> Given:
    """The common rules, but for the kinds of which a source has its own.

    Kind by kind, so that one rule of a source's own takes away no mask that is meant for all.
    """
    if common is None or not isinstance(common.value, dict) or not isinstance(own.value, dict):
        return own
    return replace(own, value={**common.value, **own.value})


_FLAGS: Final = {"schemas": "--schema", "tables": "--table"}
"""Those that are repeated for each of several values."""


def _from_flags(overrides: Mapping[str, object] | None) -> _Read:
    return {
        key: Given(value, _FLAGS.get(key, f"--{key.replace('_', '-')}"))
        for key, value in (overrides or {}).items()
        if value is not None
    }


def _from_environment(environ: Mapping[str, str]) -> _Read:
    read: dict[str, Given] = {}
    names = variables()
    in_file = {variable(key): key for key in KEYS if key not in names.values()}
    for name, text in environ.items():
        if name in in_file and text:
            key = in_file[name]
            raise ConfigError(
                f"{name} in the environment is not a setting",
                fix=f"write a table [{key}] into {FILE}",
            )
        if name in names and text:
            value: object = text
            if is_list(names[name]):
                value = [part for part in map(str.strip, text.split(",")) if part]
            read[names[name]] = Given(value, name)
        elif name.startswith(PREFIX) and name not in names:
            # Others may have variables of that prefix too; one letter off is a slip of the pen,
            # and to go on without it might track other tables than were meant.
            near = next(
                (known for known in names if settings_file.is_slip(name, known)),
                settings_file.nearest(name, names, cutoff=0.92),
            )
            if near is not None:
                raise ConfigError(
                    f"{name} in the environment is not a setting", fix=f"did you mean {near}?"
                )
    return read


def _refuse_twins(found: Sequence[Settings], path: Path) -> None:
    """Slots are the servers', publications the databases': two sources share neither."""
    seen: dict[tuple[object, ...], str] = {}
    for settings in found:
        parts = parse(settings.source_url, key="source_url")
        server = [parts.get(key) for key in ("host", "hostaddr", "port", "service")]
        database = parts.get("dbname") or parts.get("user")
        for key, at in (
            ("slot", (*server, settings.slot)),
            ("publication", (*server, database, settings.publication)),
        ):
            other = seen.setdefault((key, *at), settings.source)
            if other != settings.source:
                raise ConfigError(
                    f"{SOURCES}.{settings.source} in {path} uses the same {key} of the same server"
                    f" as {SOURCES}.{other}: {getattr(settings, key)}",
                    fix=f"name another {key} in one of the two",
                )
