"""Which columns a glob names, and what is said of a glob that names none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bemi.errors import ConfigError
from bemi.rules import Rules, Skip, TableRules, split

COLUMNS = ("id", "email", "updated_at", "posts_cached_counter", "a.b")


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("public.users.updated_at", {2}),
        ("users.updated_at", {2}),
        ("*.updated_at", {2}),
        ("updated_at", {2}),
        ("*_cached_counter", {3}),
        ("public.users.*", {0, 1, 2, 3, 4}),
        ("p*.u*.e*", {1}),
        ("other.users.email", set()),
        ("orders.email", set()),
        ("EMAIL", set()),
        ('public.users."a.b"', {4}),
        ('"*".updated_at', set()),
    ],
)
def test_a_glob_names_columns(glob: str, expected: set[int]) -> None:
    found = Rules(ignore=(glob,)).for_table("public", "users", COLUMNS)
    assert found.ignore == expected


def test_the_strictest_rule_holds() -> None:
    rules = Rules(exclude=("email",), mask=("e*",), hash=("*.email", "id"))
    found = rules.for_table("public", "users", COLUMNS)
    assert [set(each) for each in (found.exclude, found.mask, found.hash)] == [{1}, set(), {0}]
    assert [found.treatment(at) for at in range(3)] == ["hash", "exclude", "as it is"]
    assert found.replaced == {0, 1}


def test_no_rules_are_false_and_store_everything() -> None:
    assert not Rules()
    assert Rules(mask=("email",))
    assert Rules().for_table("public", "users", COLUMNS) == TableRules()


def test_a_skip_without_a_schema_is_for_public() -> None:
    rules = Rules(skip=(Skip(tables=("jobs",)), Skip(operations=("delete",))))
    assert len(rules.for_table("public", "jobs", ()).skip) == 2
    assert rules.for_table("app", "jobs", ()).skip == (Skip(operations=("delete",)),)


@pytest.mark.parametrize(
    ("rules", "place"),
    [
        (Rules(mask=("ok", "a..b")), r"rules\.mask\[1\]"),
        (Rules(hash=("a.b.c.d",)), r"rules\.hash\[0\]"),
        (Rules(ignore=('"open',)), r"rules\.ignore\[0\]"),
        (Rules(exclude=("",)), r"rules\.exclude\[0\]"),
        (Rules(skip=(Skip(),)), r"rules\.skip\[0\]"),
        (Rules(skip=(Skip(tables=("a.b.c",)),)), r"rules\.skip\[0\]\.tables\[0\]"),
        (Rules(skip=(Skip(operations=("upsert",)),)), r"rules\.skip\[0\]\.operations\[0\]"),
    ],
)
def test_a_rule_that_means_nothing_is_an_error_with_its_place(rules: Rules, place: str) -> None:
    with pytest.raises(ConfigError, match=place) as caught:
        rules.check()
    assert caught.value.fix


@given(st.text(min_size=1))
def test_any_name_can_be_quoted(name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    assert split(quoted) is not None
    assert Rules(mask=(quoted,)).for_table("s", "t", (name, name + "x")).mask == {0}


def test_what_matches_nothing_is_named_with_its_place() -> None:
    rules = Rules(
        ignore=("*.updated_at", "*.changed_at"),
        mask=("public.users.emial", "orders.total"),
        skip=(Skip(operations=("delete",)), Skip(tables=("users", "ordr_items", "shop.*"))),
    )
    tables = [("public", "users", COLUMNS), ("shop", "orders", ("total",)), ("public", "none", ())]
    assert rules.unmatched(tables) == [
        "rules.ignore[1] '*.changed_at' matches no column of a tracked table",
        "rules.mask[0] 'public.users.emial' matches no column of a tracked table",
        "rules.skip[1].tables[1] 'ordr_items' matches no tracked table",
    ]
    assert Rules().unmatched([]) == []
