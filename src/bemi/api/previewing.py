"""What rules would make of the last changes of a source: for routes and pages."""

import tomllib
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from bemi.api.principals import Principal
from bemi.api.routes import changes
from bemi.api.serving import Serving
from bemi.errors import ConfigError, UsageError
from bemi.history.asking import filters_of
from bemi.observed import Fate
from bemi.rules import Rules, TableRules
from bemi.settings_file import Given
from bemi.settings_values import check_rules, convert
from bemi.store import reader, shapes
from bemi.store.reader import StoredChange

MOST: Final = 100
"""Changes that are looked at, of at most so many tables:"""
_TABLES: Final = 20
_MOST_RULES: Final = 200
"""Each is held against each column of each table."""
_LONGEST: Final = 200
"""Characters of a name. What is written in brackets takes the square of its length."""
_KEY: Final = "rules"
_UNTOUCHED: Final = TableRules()


class Effect(msgspec.Struct, frozen=True):
    """`stored`: None where the change would not be."""

    fate: Fate
    change: StoredChange
    stored: StoredChange | None


class Preview(msgspec.Struct, frozen=True):
    """`tables`: those that the rules are about, of which `looked_at` are looked at. `unmatched`:
    rules that match nothing that the history knows, each in a sentence."""

    effects: list[Effect]
    tables: int
    looked_at: int
    unmatched: list[str]

    @property
    def counts(self) -> Counter[Fate]:
        return Counter(each.fate for each in self.effects)


def rules_of(given: Any) -> Rules:
    """As the file of settings has them. Raises `UsageError` that names the place."""
    value = Given(given, _KEY)
    try:
        check_rules(value)
        rules = convert(_KEY, value)
    except ConfigError as error:
        raise UsageError(str(error), fix=error.fix) from None
    assert isinstance(rules, Rules)
    globs = [*rules.ignore, *rules.exclude, *rules.mask, *rules.hash]
    globs += (glob for skip in rules.skip for glob in skip.tables or ("*",))
    if len(globs) > _MOST_RULES:
        raise UsageError(f"these are more than {_MOST_RULES} rules", fix="look at some of them")
    if any(len(glob) > _LONGEST for glob in globs):
        raise UsageError(f"a name of more than {_LONGEST} characters is none")
    return rules


def read(text: str) -> Rules:
    """Of lines of the file: a table `[rules]`, that of one source, or what is in one of these.
    Raises `UsageError`, with the line or the place."""
    try:
        given: Any = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"not valid TOML: {error}", fix="see https://toml.io") from None
    except RecursionError:
        raise UsageError("not valid TOML: it is nested too deeply") from None
    match given:
        case {"rules": rules, **others} if not others:
            given = rules
        case {"sources": {**sources}, **others} if not others and len(sources) == 1:
            match next(iter(sources.values())):
                case {"rules": rules, **others} if not others:
                    given = rules
    return rules_of(given)


def preview(
    serving: Serving, who: Principal, rules: Rules, *, source: str | None, table: str | None
) -> Preview:
    """Raises `UsageError`."""
    who.require_all("a preview of rules")
    archive = serving.archive
    with archive.connected() as conn:
        name = source_of(reader.sources(conn, archive.schema), source)
        tables = shapes.last(conn, archive.schema, name)
    wanted = [
        f"{each.schema}.{each.name}"
        for each in tables
        if rules.for_table(each.schema, each.name, each.columns) != _UNTOUCHED
    ]
    if table:
        wanted = [name for name in wanted if name in (table, f"public.{table}")]
    looked_at = wanted[:_TABLES]
    found: list[StoredChange] = []
    for named in looked_at:
        # Each by itself: the last changes of all may be of one table alone.
        filters = filters_of(source=name, table=named, limit=MOST // len(looked_at))
        found += changes.page(serving, who, filters)["changes"]
    found.sort(key=lambda change: change.place, reverse=True)
    made = serving.connector.preview(rules, tables, found)
    return Preview(
        [Effect(fate, each, stored) for each, (fate, stored) in zip(found, made, strict=True)],
        len(wanted),
        len(looked_at),
        rules.unmatched((each.schema, each.name, each.columns) for each in tables),
    )


def source_of(names: Sequence[str], source: str | None) -> str:
    """The source that is meant. Raises `UsageError`."""
    if source is None and len(names) == 1:
        return names[0]
    if source is None or source not in names:
        raise UsageError(
            "it is not said of which source" if source is None else f"there is no source {source}",
            fix=f"the history has {', '.join(names)}" if names else "run `bemi init`",
        )
    return source
