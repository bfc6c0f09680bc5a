"""What two successive changes of a row prove, and what they don't."""

from typing import Any

import msgspec
import pytest

from bemi.rules import NO_RULES, Rules
from bemi.store.links import Event, Finding, Judge, Known, KnownGap, Link, Problem, Stretch
from bemi.store.versions import StoredColumn, StoredVersion

RELATION, EPOCH = 500, 3
ID = StoredColumn("id", 1, "integer", 23, 700)
NAME = StoredColumn("name", 2, "text", 25, 700)
VERSION = StoredVersion(
    RELATION, "app", "t", None, (ID, NAME), ("id",), "f", 9, False, 90, (EPOCH, 100, 1)
)
LATER = msgspec.structs.replace(VERSION, place=(EPOCH, 350, 1))
KNOWN = Known(
    versions={RELATION: [VERSION]},
    rules={None: NO_RULES},
    stretches={RELATION: [Stretch(EPOCH, 50, 10_000, 60)]},
    gaps=[],
    emptied={},
    rewritten={},
)


def event(position: int, **changed: Any) -> Event:
    plain = Event(f"change-{position}", position, 1, 1000 + position, None, frozenset())
    return msgspec.structs.replace(plain, **changed)


def link(problem: Problem = "differs", **changed: Any) -> Link:
    plain = Link(
        RELATION,
        EPOCH,
        problem,
        event(400),
        None if problem == "never" else event(300),
        ("name",) if problem == "differs" else (),
    )
    return msgspec.structs.replace(plain, **changed)


def judge(found: Link, **changed: Any) -> Finding | None:
    return Judge(msgspec.structs.replace(KNOWN, **changed)).judge(found)


def version(**changed: Any) -> dict[int, list[StoredVersion]]:
    return {RELATION: [msgspec.structs.replace(VERSION, **changed)]}


def test_each_problem_is_a_change_that_is_missing_between_two() -> None:
    assert judge(link()) == Finding(
        RELATION, EPOCH, "differs", 300, 400, ("name",), "change-400", "change-300"
    )
    for problem in ("living", "dead"):
        found = judge(link(problem))
        assert found is not None
        assert (found.problem, found.from_position, found.to_position) == (problem, 300, 400)
    never = judge(link("never"))
    assert never == Finding(RELATION, EPOCH, "never", 50, 400, (), "change-400")


@pytest.mark.parametrize("problem", ["differs", "living", "dead", "never"])
@pytest.mark.parametrize(
    "known",
    [
        {"stretches": {}},
        {"stretches": {RELATION: [Stretch(EPOCH, 50, 400, 60)]}},
        {"stretches": {RELATION: [Stretch(EPOCH + 1, 50, 10_000, 60)]}},
        {"stretches": {RELATION: [Stretch(EPOCH, 350, 10_000, None)]}},
        {"versions": {}},
        {"versions": version(inferred=True)},
        {"versions": version(primary_key=())},
        {"versions": version(replica_identity="i")},
        {"versions": version(columns=(msgspec.structs.replace(ID, type="mood", type_oid=20_000),))},
        {"versions": version(columns=(msgspec.structs.replace(ID, number=0, type=""),))},
        # Another key since.
        {
            "versions": {
                RELATION: [
                    VERSION,
                    msgspec.structs.replace(
                        VERSION, primary_key=("id", "name"), place=(EPOCH, 350, 1)
                    ),
                ]
            }
        },
        {"gaps": [KnownGap(EPOCH, RELATION, 350, 351)]},
        {"gaps": [KnownGap(EPOCH, None, 350, 351)]},
        {"gaps": [KnownGap(EPOCH, RELATION, 400, 401)]},
    ],
)
def test_what_keeps_a_row_from_being_followed(problem: Problem, known: dict[str, Any]) -> None:
    assert judge(link(problem), **known) is None


@pytest.mark.parametrize(
    "known",
    [
        {"gaps": [KnownGap(EPOCH, RELATION + 1, 350, 351)]},
        {"gaps": [KnownGap(EPOCH + 1, RELATION, 350, 351)]},
        {"gaps": [KnownGap(EPOCH, RELATION, 401, 500)]},
        {"gaps": [KnownGap(EPOCH, RELATION, 350, 351, frozenset(["other"]))]},
        {"stretches": {RELATION: [Stretch(EPOCH, 300, 401, None)]}},
        {
            "versions": {
                RELATION: [VERSION, msgspec.structs.replace(VERSION, place=(EPOCH, 350, 1))]
            }
        },
        {"emptied": {RELATION: [(EPOCH, 299, 1), (EPOCH, 401, 1), (EPOCH - 1, 350, 1)]}},
        {"rewritten": {RELATION: [(EPOCH, 200, 0), (EPOCH, 401, 0)]}},
        {"rules": {None: Rules(mask=("app.t.other",), ignore=("app.u.name",))}},
    ],
)
def test_what_does_not(known: dict[str, Any]) -> None:
    for places in known.get("emptied", {}).values():
        places.sort()
    assert judge(link(), **known) is not None


@pytest.mark.parametrize(
    "found",
    [
        link(now=event(400, ambiguous=True)),
        link(last=event(300, ambiguous=True)),
        link(now=event(400, flags=frozenset(["undecodable:id"]))),
        link(last=event(300, flags=frozenset(["undecodable:id"]))),
        link(now=event(400, flags=frozenset(["text:name"]))),
        link(last=event(300, flags=frozenset(["json_null:name"]))),
        link(last=event(300, flags=frozenset(["unchanged:name"]))),
        link(now=event(400, flags=frozenset(["too_large:name"]))),
        link(now=event(400, flags=frozenset(["undecodable:name"]))),
        link(now=event(400, flags=frozenset(["before_unknown:name"]))),
        link(now=event(400, rules=7)),
        link(columns=("dropped",)),
        # Written before the column was altered last, as far as numbers tell.
        link(last=event(300, transaction_id=700)),
        link(last=event(300, transaction_id=699)),
    ],
)
def test_what_a_change_itself_leaves_open(found: Link) -> None:
    assert judge(found) is None


@pytest.mark.parametrize(
    "found",
    [
        link(now=event(400, flags=frozenset(["text:name"])),
             last=event(300, flags=frozenset(["text:name"]))),
        link(last=event(300, flags=frozenset(["before_unknown:name"]))),
        link(last=event(300, flags=frozenset(["before_unknown"]))),
        link(now=event(400, flags=frozenset(["text:other", "context_dropped"]))),
    ],
)  # fmt: skip
def test_what_it_does_not_leave_open(found: Link) -> None:
    assert judge(found) is not None


@pytest.mark.parametrize(
    ("type_", "oid", "stable"),
    [
        ("integer", 23, True),
        ("numeric(10,2)", 1700, True),
        ("character varying(20)[]", 1015, True),
        ("timestamp(3) with time zone", 1184, True),
        ("interval day to second", 1186, True),
        ('"char"', 18, True),
        ("app.positive", 23, True),  # a domain
        ("citext", 16_500, True),
        ("public.hstore", 16_600, True),
        ("app.mood", 16_700, False),
        ("app.mood[]", 16_701, False),
        ("money", 790, False),
        ("regclass", 2205, False),
        ("regclass[]", 2210, False),
        ("app.kind", 2205, False),  # a domain
        ("", 25, False),
    ],
)
def test_types_whose_text_stays(type_: str, oid: int, stable: bool) -> None:
    column = msgspec.structs.replace(NAME, type=type_, type_oid=oid)
    found = judge(link(), versions=version(columns=(ID, column)))
    assert (found is not None) == stable


@pytest.mark.parametrize(
    ("stamp", "proves"),
    [
        (5_000_000_000 % 2**32, True),
        (6_000_000_000 % 2**32, False),
        (6_000_000_001 % 2**32, False),
        # The worker lags behind: altered after both.
        (7_000_000_100 % 2**32, False),
        # It can't be from a future as far as that: it is from before the counter turned.
        (7_400_000_000 % 2**32, True),
        (0, False),
    ],
)
def test_transaction_numbers_turn(stamp: int, proves: bool) -> None:
    column = msgspec.structs.replace(NAME, stamp=stamp)
    found = link(
        last=event(300, transaction_id=6_000_000_000), now=event(400, transaction_id=7_000_000_000)
    )
    # The key's column is an old one.
    old = msgspec.structs.replace(ID, stamp=5_000_000_000 % 2**32)
    assert (judge(found, versions=version(columns=(old, column))) is not None) == proves


def test_columns_under_rules() -> None:
    same = link(now=event(400, rules=7), last=event(300, rules=7))
    for rules, proves in (
        (Rules(hash=("app.t.name",)), True),
        (Rules(mask=("app.t.name",)), True),
        (Rules(ignore=("app.t.name",)), False),
        (Rules(ignore=("*.other",)), True),
    ):
        assert (judge(same, rules={None: NO_RULES, 7: rules}) is not None) == proves, rules


def test_keys_under_rules() -> None:
    """A key that was stored otherwise at some time is followed under the same rules only."""
    rules = {None: NO_RULES, 7: Rules(hash=("app.t.id",)), 8: NO_RULES}
    assert judge(link("living"), rules=rules) is not None
    assert judge(link("never"), rules=rules) is None
    assert judge(link("living", now=event(400, rules=7)), rules=rules) is None
    both = link("living", now=event(400, rules=7), last=event(300, rules=7))
    assert judge(both, rules=rules) is not None
    assert judge(link("living", now=event(400, rules=8)), rules={None: NO_RULES, 8: NO_RULES})


def test_a_row_before_a_truncate_is_gone_and_all_after_it_are_known() -> None:
    emptied = {RELATION: [(EPOCH, 350, 2)]}
    unknown = {RELATION: [Stretch(EPOCH, 50, 10_000, None)]}
    assert judge(link("living"), emptied=emptied) is None
    for problem in ("differs", "dead"):
        found = judge(link(problem), emptied=emptied, stretches=unknown)
        assert found is not None
        assert (found.problem, found.from_position) == ("never", 350)
    assert judge(link("never"), stretches=unknown) is None
    assert judge(link("never"), stretches=unknown, emptied=emptied) is not None


def test_a_row_that_never_was_needs_a_state_that_is_known() -> None:
    for state, proves in ((None, False), (399, True), (400, False), (500, False)):
        stretches = {RELATION: [Stretch(EPOCH, 50, 10_000, state)]}
        assert (judge(link("never"), stretches=stretches) is not None) == proves
    assert judge(link("never"), gaps=[KnownGap(EPOCH, RELATION, 55, 58)]) is None
    for column, proves in (("id", False), ("name", True)):
        gap = KnownGap(EPOCH, RELATION, 55, 58, frozenset([column]))
        assert (judge(link("never"), gaps=[gap]) is not None) == proves, column


def test_what_an_earlier_interval_left_says_nothing_of_this_one() -> None:
    stretches = {RELATION: [Stretch(EPOCH, 50, 320, 60), Stretch(EPOCH, 350, 10_000, 360)]}
    found = judge(link(), stretches=stretches)
    # But this one knows all rows.
    assert found is not None
    assert (found.problem, found.from_position) == ("never", 350)


def test_a_key_is_certain_from_where_the_catalog_was_read() -> None:
    for problem in ("differs", "living", "dead"):
        for read, proves in ((300, True), (301, False)):
            versions = version(read_position=read)
            assert (judge(link(problem), versions=versions) is not None) == proves
            # An earlier version with the same key makes it certain from there on.
            both = {RELATION: [VERSION, msgspec.structs.replace(LATER, read_position=read)]}
            assert judge(link(problem), versions=both) is not None
    assert judge(link("never"), versions=version(read_position=400)) is not None
    assert judge(link("never"), versions=version(read_position=401)) is None


def test_recorded_rewrites_and_gaps_of_columns() -> None:
    assert judge(link(), rewritten={RELATION: [(EPOCH, 350, 0)]}) is None
    gap = KnownGap(EPOCH, RELATION, 350, 351, frozenset(["name"]))
    assert judge(link(), gaps=[gap]) is None
    # Rows are still followed.
    assert judge(link("dead"), rewritten={RELATION: [(EPOCH, 350, 0)]}, gaps=[gap]) is not None


def test_tables_say_why_they_are_not_checked() -> None:
    def unchecked(**changed: Any) -> str | None:
        return Judge(msgspec.structs.replace(KNOWN, **changed)).unchecked(RELATION)

    assert unchecked() is None
    assert "covered" in (unchecked(stretches={}) or "")
    assert "no changes" in (unchecked(versions={}) or "")
    assert "no key" in (unchecked(versions=version(primary_key=())) or "")
    assert "index" in (unchecked(versions=version(replica_identity="i")) or "")
    assert "altered" in (unchecked(versions=version(inferred=True)) or "")
