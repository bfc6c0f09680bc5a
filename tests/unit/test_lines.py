"""Lines of the file of settings that pages show are read as what they were written from."""

import tomllib
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from bemi.api import previewing
from bemi.rules import Rules, Skip
from bemi.settings import parse
from bemi.ui import lines

_TEXT: Final = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
_TABLE: Final = st.sampled_from(["jobs", "audit.*", '"a.b".c'])
_GLOBS: Final = st.lists(
    st.sampled_from(["*.email", "a.b.c", '"x.y"', "\x7f", "\t\\"]), max_size=30
)
_SKIPS: Final = st.builds(
    Skip, tables=st.lists(_TABLE, min_size=1).map(tuple), context=st.dictionaries(_TEXT, _TEXT)
)
_RULES: Final = st.builds(
    Rules,
    ignore=_GLOBS.map(tuple),
    mask=_GLOBS.map(tuple),
    hash=_GLOBS.map(tuple),
    skip=st.lists(_SKIPS, max_size=3).map(tuple),
)


@given(_RULES, st.none() | _TEXT)
def test_rules_are_read_as_they_were_written(rules: Rules, source: str | None) -> None:
    assert previewing.read(lines.rules(rules, source)) == rules


@given(_TEXT, _TEXT, st.lists(_TEXT, max_size=9), st.lists(_TEXT, max_size=9))
def test_a_source_is_read_as_it_was_written(
    name: str, user: str, schemas: list[str], tables: list[str]
) -> None:
    address = lines.address(user, "::1", 5432, name)
    text = lines.source(name, address, schemas=schemas, tables=tables)
    (found,) = tomllib.loads(text)["sources"].values()
    assert found.get("schemas", []) == schemas
    assert found.get("tables", []) == tables
    assert tomllib.loads(text)["sources"].keys() == {name}
    if "\0" not in user + name:
        parts = parse(found["source_url"], key="source_url")
        assert (parts["user"], parts["dbname"], parts["host"]) == (user, name, "::1")


def test_a_command_is_one_that_a_shell_takes() -> None:
    assert lines.command("init", "a b", ("--full", "x'y"), ("--ddl", None)) == (
        "bemi init --full 'x'\"'\"'y' --ddl --source 'a b'"
    )
    assert lines.command("init", None, ("--full", "-x")) == "bemi init --full=-x"
    assert lines.command("init", "\u202e") == ""
