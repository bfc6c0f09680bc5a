"""Reads the steps of rows, and follows them through keys and partitions."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, LiteralString, Protocol, TypeVar
from uuid import UUID

from psycopg import sql

from bemi.history.families import Family, Relation, key_of
from bemi.history.lives import Key, Lost, Place, Step, Value
from bemi.history.texts import left_out, names

_BATCH: Final = 5000
_UNPLACED: Final = "before_unknown"

_Each = TypeVar("_Each")

COLUMNS: Final[LiteralString] = """
r.relation::bigint, r.epoch, r.commit_position, r.ordinal, r.operation, r.primary_key,
    r.previous_key, r.id, r.flags, coalesce(r.before, r.changed)::text, r.after::text,
    r.before is null, (
        select array(select jsonb_array_elements_text(case
            when jsonb_typeof(c.context #> '{{revert,changes}}') = 'array'
            then c.context #> '{{revert,changes}}' else '[]' end))
        from {contexts} c
        where c.id = r.context_id and c.context ->> 'job' = 'bemi revert' and c.context ? 'revert')
"""

_OF_KEYS: Final[LiteralString] = """
select {columns} from unnest(%(keys)s::text[], %(epochs)s::int[], %(positions)s::bigint[])
    w (key, epoch, position)
join {changes} r on r."table" = any(%(names)s) and r.{key} = w.key
    and r.relation = any(%(relations)s)
    and (r.epoch > w.epoch or r.epoch = w.epoch and r.commit_position >= w.position)
"""

_NEIGHBOURS: Final[LiteralString] = """
select {columns} from unnest(%(epochs)s::int[], %(positions)s::bigint[], %(ordinals)s::int[])
    w (epoch, position, ordinal)
join {changes} r on r.commit_position = w.position and r.epoch = w.epoch
    and r.ordinal = w.ordinal and r.relation = any(%(relations)s)
"""


class Asked(Protocol):
    """The history, and what is asked of it."""

    def statement(self, query: LiteralString, **more: sql.Composable) -> sql.Composed: ...

    def ask(self, query: sql.Composed, given: Mapping[str, object]) -> list[tuple[Any, ...]]: ...

    def note(self, text: str) -> None: ...

    def is_chosen(self, place: Place) -> bool: ...

    def before(
        self, family: Family, relation: Relation, place: Place, key: str
    ) -> dict[str, Value]:
        """A row as it was before the transaction of `place`, where that can be told."""


class Found:
    """The steps of one family, as they are found."""

    def __init__(self, asked: Asked, family: Family) -> None:
        self._asked = asked
        self._family = family
        self._steps: dict[Place, Step] = {}
        self._seen: list[Step] = []
        self._starts: dict[str, tuple[int, int]] = {}

    def follow(self, starts: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
        """Take what happened to these keys; the keys that this leads to."""
        self._starts |= starts
        led: dict[str, tuple[int, int]] = {}
        for keys in _batches([*starts.items()]):
            given = {
                "keys": [key for key, _ in keys],
                "epochs": [epoch for _, (epoch, _) in keys],
                "positions": [int(position) for _, (_, position) in keys],
                "names": self._family.names,
                "relations": [*self._family.relations],
            }
            taken = []
            for column in ("primary_key", "previous_key"):
                query = self._asked.statement(_OF_KEYS, key=sql.Identifier(column))
                taken += self.take(self._asked.ask(query, given))
            if self._family.partitioned:
                taken += self._neighbours([place for _, _, place in taken])
            for key, previous, place in taken:
                for each in (key, previous):
                    if each is not None and place[:2] < self._starts.get(each, _LATER):
                        led[each] = min(led.get(each, _LATER), place[:2])
        return led

    def _neighbours(self, places: Sequence[Place]) -> list[tuple[str | None, str | None, Place]]:
        """The other half of moves between partitions."""
        wanted = set()
        for place in places:
            step = self._steps[place]
            if step.operation in ("CREATE", "DELETE"):
                at = place[2] + (1 if step.operation == "DELETE" else -1)
                if step.operation == "DELETE" or step.moved:
                    wanted.add((*place[:2], at))
        found: list[tuple[str | None, str | None, Place]] = []
        for some in _batches(sorted(wanted - self._steps.keys())):
            rows = self._asked.ask(
                self._asked.statement(_NEIGHBOURS),
                {
                    "epochs": [place[0] for place in some],
                    "positions": [int(place[1]) for place in some],
                    "ordinals": [place[2] for place in some],
                    "relations": [*self._family.relations],
                },
            )
            found += self.take(
                row for row in rows if row[4] == "DELETE" or "moved" in (row[8] or ())
            )
        return found

    def take(self, rows: Iterable[tuple[Any, ...]]) -> list[tuple[str | None, str | None, Place]]:
        """Their keys' texts, and places."""
        found = []
        for row in rows:
            place = (row[1], row[2], row[3])
            found.append((row[5], row[6], place))
            if place not in self._steps:
                self._steps[place] = self._step(row)
        return found

    def remember(self, steps: Iterable[Step]) -> None:
        self._seen += steps

    def in_order(self) -> list[Step]:
        return sorted([*self._seen, *self._steps.values()], key=lambda step: step.place)

    def _step(self, row: tuple[Any, ...]) -> Step:
        (
            oid,
            epoch,
            commit,
            ordinal,
            operation,
            key,
            previous,
            id,
            flags,
            was,
            now,
            lean,
            undoes,
        ) = row
        restores = undoes is not None
        relation, family = self._family.relations[oid], self._family
        place = (epoch, commit, ordinal)
        flags = flags or ()
        chosen = self._asked.is_chosen(place)
        before: dict[str, Value] = {}
        after: dict[str, Value] = {}
        if was is not None:
            before = relation.values(epoch, place[1:], was, flags, whole=operation == "DELETE")
        if now is not None:
            after = relation.values(epoch, place[1:], now, flags, whole=operation != "UPDATE")
        whole = _UNPLACED not in flags
        if chosen and not whole and key is not None:
            earlier = self._asked.before(family, relation, place, previous or key)
            if earlier:
                before, whole = {**earlier, **before}, True
        its_key: Key = ()
        its_previous: Key | None = None
        if operation == "DELETE":
            its_key = key_of(family.key, before, key)
        elif operation != "TRUNCATE":
            its_key = key_of(family.key, after, key)
            if operation == "UPDATE":
                if not family.keyed:
                    its_previous = key_of(family.key, {**after, **before}, None)
                elif previous is not None:
                    its_previous = key_of(family.key, before, previous)
                if its_previous == its_key:
                    its_previous = None
        unseen: frozenset[str] = frozenset()
        if operation == "UPDATE" and not chosen and not restores:
            unseen = frozenset(_unseen(before, after))
        if operation == "UPDATE" and was is not None and lean and whole:
            # Of a row's old values the store keeps those of the columns that changed.
            after = {
                name: value
                for name, value in (after | lacking(flags)).items()
                if name in before or name in unseen
            }
        else:
            missing = lacking(flags)
            after |= missing if operation in ("CREATE", "SNAPSHOT", "UPDATE") else {}
            if operation == "DELETE":
                before |= missing
            before |= left_out(flags, _UNPLACED)
        if chosen and operation == "UPDATE" and was is not None:
            for name in sorted(relation.dropped(epoch, place[1:], names(was)) if lean else ()):
                self._asked.note(f"{family.name}: the column {name} was dropped since: it stays so")
        return Step(
            id,
            place,
            oid,
            operation,
            chosen,
            its_key,
            its_previous,
            before,
            after,
            whole,
            "moved" in flags,
            restores,
            frozenset(_ids(undoes or ())),
            unseen,
        )


_LATER: Final = (1 << 31, 1 << 63)


def _unseen(before: Mapping[str, Value], after: Mapping[str, Value]) -> Iterator[str]:
    """The columns of which an update's images would be the same, whatever it set them to."""
    for name, value in after.items():
        if isinstance(value, Lost) and not value.tells and before.get(name, value) == value:
            yield name


def _ids(texts: Iterable[str]) -> Iterator[UUID]:
    """Those that are: anybody may have written a context."""
    for text in texts:
        with suppress(ValueError):
            yield UUID(text)


def lacking(flags: Iterable[str]) -> dict[str, Value]:
    return left_out([*flags], "too_large")


def _batches(items: Sequence[_Each]) -> Iterator[Sequence[_Each]]:
    for at in range(0, len(items), _BATCH):
        yield items[at : at + _BATCH]
