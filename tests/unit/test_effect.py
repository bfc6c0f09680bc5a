"""What undoing chosen changes comes to is what the others would have come to without them."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from bemi.history.effect import Effect, Field, redone, undone
from bemi.history.lives import Key, Lost, Step, lives

KEY = ("id",)


class Log:
    """A table with the key `id` that is written to, and its steps."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.steps: list[Step] = []

    def _step(self, operation: str, chosen: bool, key: str, **more: Any) -> UUID:
        number = len(self.steps) + 1
        step = Step(
            UUID(int=number),
            (1, number, 1),
            1,
            operation,
            chosen,
            (key,),
            more.pop("previous", None),
            more.pop("before", {}),
            more.pop("after", {}),
            **more,
        )
        self.steps.append(step)
        return step.id

    def create(self, key: str, *, chosen: bool = False, **values: Any) -> UUID:
        self.rows[key] = {"id": key, **values}
        return self._step("CREATE", chosen, key, after=dict(self.rows[key]))

    def update(self, key: str, *, chosen: bool = False, **values: Any) -> UUID:
        row = self.rows[key]
        changed = {name: value for name, value in values.items() if row[name] != value}
        before = {name: row[name] for name in changed}
        row.update(changed)
        previous = None
        if row["id"] != key:
            self.rows[row["id"]] = self.rows.pop(key)
            previous = (key,)
        return self._step(
            "UPDATE", chosen, row["id"], before=before, after=changed, previous=previous
        )

    def delete(self, key: str, *, chosen: bool = False) -> UUID:
        return self._step("DELETE", chosen, key, before=self.rows.pop(key))

    def undone(self) -> list[Effect]:
        return undone(lives(self.steps), KEY)


def fields(effect: Effect) -> dict[str, tuple[Any, Any]]:
    return {name: (field.expected, field.target) for name, field in effect.fields.items()}


def test_an_update_goes_back_to_what_was_there_before() -> None:
    log = Log()
    log.create("1", a="x", b="y")
    log.update("1", chosen=True, a="z", b="w")
    log.update("1", b="v")
    log.update("1", chosen=True, b="u")
    (effect,) = log.undone()
    assert (effect.action, effect.key) == ("update", ("1",))
    assert fields(effect) == {"a": ("z", "x"), "b": ("u", "v")}


def test_a_field_that_something_else_set_last_names_that() -> None:
    log = Log()
    log.create("1", a="x")
    log.update("1", chosen=True, a="y")
    other = log.update("1", a="z")
    (effect,) = log.undone()
    assert effect.fields == {"a": Field("y", "x", other)}


def test_what_was_created_goes_and_what_was_deleted_comes_back() -> None:
    log = Log()
    log.create("1", a="x")
    log.create("2", chosen=True, a="y")
    log.update("1", chosen=True, a="z")
    log.delete("1", chosen=True)
    log.create("3", chosen=True, a="q")
    log.delete("3", chosen=True)
    effects = {effect.action: effect for effect in log.undone()}
    assert effects.keys() == {"insert", "delete"}
    assert fields(effects["insert"]) == {"id": (None, "1"), "a": (None, "x")}
    assert fields(effects["delete"]) == {"id": ("2", None), "a": ("y", None)}


def test_a_row_in_the_place_of_another_is_updated() -> None:
    log = Log()
    log.create("1", a="x", b="y")
    log.delete("1", chosen=True)
    log.create("1", chosen=True, a="z", b="y")
    (effect,) = log.undone()
    assert (effect.action, fields(effect)) == ("update", {"a": ("z", "x")})


def test_a_key_that_another_row_has_by_now_is_another_life() -> None:
    log = Log()
    log.create("1", a="x")
    log.update("1", chosen=True, id="2")
    log.create("1", a="new")
    log.update("1", a="newer")
    (effect,) = log.undone()
    assert effect.key == ("2",)
    assert fields(effect) == {"id": ("2", "1")}


def test_a_row_that_something_else_deleted_names_that() -> None:
    log = Log()
    log.create("1", a="x")
    log.update("1", chosen=True, a="y")
    other = log.delete("1")
    (effect,) = log.undone()
    assert effect.over == other


def test_a_baseline_tells_of_a_column_that_was_added_and_sets_nothing() -> None:
    log = Log()
    log.create("1", chosen=True, a="x")
    log._step("SNAPSHOT", False, "1", after={"id": "1", "a": "x", "b": "7"})
    (effect,) = log.undone()
    assert effect.fields["b"] == Field("7", None)
    other = log._step("SNAPSHOT", False, "1", after={"id": "1", "a": "z", "b": "7"})
    (effect,) = log.undone()
    assert effect.fields["a"] == Field("z", None, other)


def test_an_update_of_what_nobody_may_see_has_set_it() -> None:
    log, masked = Log(), Lost("masked", "***")
    log.create("1", chosen=True, a="x", b=masked)
    assert log.undone()[0].fields["b"] == Field(masked, None)
    unseen = frozenset({"b"})
    other = log._step("UPDATE", False, "1", after={"b": masked}, unseen=unseen)
    assert log.undone()[0].fields["b"] == Field(masked, None, other)


def test_what_is_not_known_is_lost_and_never_made_up() -> None:
    log = Log()
    log.create("1", a="x")
    log.steps[0] = Step(
        UUID(int=9), (1, 1, 1), 1, "UPDATE", True, ("1",), None, {"id": "1"}, {"a": "y"}, False
    )
    (effect,) = log.undone()
    assert isinstance(effect.fields["a"].target, Lost)


def test_a_move_between_partitions_is_an_update() -> None:
    steps = [
        Step(UUID(int=1), (1, 5, 1), 7, "DELETE", True, ("1",), None, {"id": "1", "a": "x"}, {}),
        Step(
            UUID(int=2),
            (1, 5, 2),
            8,
            "CREATE",
            True,
            ("1",),
            None,
            {},
            {"id": "1", "a": "y"},
            moved=True,
        ),
    ]
    (effect,) = undone(lives(steps), KEY)
    assert (effect.action, fields(effect)) == ("update", {"a": ("y", "x")})


def test_a_truncate_takes_the_rows_of_its_relation() -> None:
    log = Log()
    log.create("1", a="x")
    log.steps.append(Step(UUID(int=5), (1, 9, 1), 1, "TRUNCATE", True, (), None, {}, {}))
    log.steps.append(Step(UUID(int=6), (1, 9, 2), 2, "TRUNCATE", True, (), None, {}, {}))
    (effect,) = log.undone()
    assert (effect.action, effect.key) == ("insert", ("1",))


def test_equal_rows_without_a_key_are_counted() -> None:
    row: Key = ("a",)
    steps = [
        Step(UUID(int=n), (1, n, 1), 1, operation, chosen, row, None, before, after)
        for n, (operation, chosen, before, after) in enumerate(
            [
                ("CREATE", True, {}, {"v": "a"}),
                ("CREATE", False, {}, {"v": "a"}),
                ("CREATE", True, {}, {"v": "a"}),
                ("DELETE", False, {"v": "a"}, {}),
            ]
        )
    ]
    effects = undone(lives(steps, keyed=False), ("v",))
    assert [effect.action for effect in effects] == ["delete", "delete"]


Act = tuple[str, int, int, str, bool]
ACTS = st.lists(
    st.tuples(
        st.sampled_from(["create", "update", "delete", "move"]),
        st.integers(0, 2),
        st.integers(0, 2),
        st.sampled_from("abc"),
        st.booleans(),
    ),
    max_size=16,
)


def run(acts: Sequence[Act], *, without: bool) -> tuple[Log, list[tuple[int, object]]]:
    """What comes of it, with or without the chosen acts; and which row each of the others met,
    by the act that made it. Updates set their field, and don't care what is there."""
    log = Log()
    rows: dict[str, int] = {}
    met: list[tuple[int, object]] = []
    for at, (verb, key, column, value, chosen) in enumerate(acts):
        if without and chosen:
            continue
        name, other = str(key), str(column)
        row = rows.get(name)
        if verb == "create" and row is None:
            log.create(name, chosen=chosen, f0="a", f1="a", f2="a")
            rows[name] = row = at
        elif verb == "update" and row is not None:
            if not chosen and not without and log.rows[name][f"f{column}"] == value:
                row = None  # nobody can see that it was set
            log.update(name, chosen=chosen, **{f"f{column}": value})
        elif verb == "delete" and row is not None:
            log.delete(name, chosen=chosen)
            del rows[name]
        elif verb == "move" and row is not None and other not in rows:
            log.update(name, chosen=chosen, id=other)
            rows[other] = rows.pop(name)
        else:
            row = None  # nothing happens
        if not chosen:
            met.append((at, row))
    return log, met


def _goes(effect: Effect) -> bool:
    return effect.action == "delete" or "id" in effect.fields


def has_conflicts(log: Log, effects: Sequence[Effect]) -> bool:
    going = {effect.key for effect in effects if effect.action != "insert" and _goes(effect)}
    for effect in effects:
        held = log.rows.get(str(effect.key[0]))
        if effect.action == "insert":
            if effect.key in going:
                continue
            if held is not None and any(held[n] != f.target for n, f in effect.fields.items()):
                return True
        elif held is None or effect.over is not None:
            if effect.action == "update":
                return True
        else:
            for name, field in effect.fields.items():
                done = effect.action == "update" and held[name] == field.target
                if not done and (field.between is not None or held[name] != field.expected):
                    return True
    return False


def applied(log: Log, effects: Sequence[Effect]) -> list[dict[str, Any]]:
    rows = {key: dict(row) for key, row in log.rows.items()}
    coming = []
    for effect in effects:
        key = str(effect.key[0])
        if effect.action == "insert":
            coming.append({name: field.target for name, field in effect.fields.items()})
            continue
        row = rows.pop(key, None)
        if effect.action == "update" and row is not None:
            coming.append(row | {name: field.target for name, field in effect.fields.items()})
    for row in coming:
        rows[str(row["id"])] = row
    return sorted(rows.values(), key=lambda row: str(row["id"]))


@given(ACTS)
def test_undone_is_what_a_run_without_the_chosen_acts_comes_to(acts: list[Act]) -> None:
    log, met = run(acts, without=False)
    others, met_by_others = run(acts, without=True)
    effects = log.undone()
    if met == met_by_others and not has_conflicts(log, effects):
        wanted = sorted(others.rows.values(), key=lambda row: str(row["id"]))
        assert applied(log, effects) == wanted


@given(ACTS, ACTS)
def test_what_came_last_is_undone_and_done_again_whatever_it_was(
    some: list[Act], more: list[Act]
) -> None:
    first = [(*act[:4], False) for act in some]
    before, _ = run(first, without=False)
    after, _ = run([*first, *((*act[:4], True) for act in more)], without=False)
    effects, again = after.undone(), redone(lives(after.steps), KEY)
    assert not has_conflicts(after, effects)
    assert applied(after, effects) == applied(before, [])
    assert not has_conflicts(before, again)
    assert applied(before, again) == applied(after, [])


def test_equal_rows_that_a_truncate_took_come_back_each() -> None:
    """Of a table without a key: also where one of them is of a change that is undone, too."""

    def step(place: int, operation: str, *, chosen: bool, **images: Any) -> Step:
        return Step(UUID(int=place), (1, place, 1), 1, operation, chosen, ("a",), None, **images)

    row = {"x": "a"}
    seen = step(2, "SNAPSHOT", chosen=False, before={}, after=row)
    steps = [
        step(1, "CREATE", chosen=True, before={}, after=row),
        *[msgspec.structs.replace(seen, place=(1, 2, 0))] * 3,
        step(2, "TRUNCATE", chosen=True, before={}, after={}),
    ]
    effects = undone(lives(steps, keyed=False), ("x",))
    assert [(each.action, each.fields) for each in effects] == [
        ("insert", {"x": Field(None, "a")})
    ] * 2
