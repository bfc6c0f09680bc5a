"""What happened to each row: its changes, followed through keys and partitions.

A row is followed from change to change by its key: of a table without a key by all of its values,
where rows that are equal can't be told apart and needn't be. Pure.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias
from uuid import UUID

import msgspec


class Lost(msgspec.Struct, frozen=True):
    """A value that the history does not have: why, and what it has in its place. `tells`: that is
    the same for the same value only."""

    why: str
    instead: str | None = None
    tells: bool = False


Value: TypeAlias = str | Lost | None
"""PostgreSQL's text of a value; None is NULL."""

Key: TypeAlias = tuple[Value, ...]
"""The values of the columns by which a row is known."""

Place: TypeAlias = tuple[int, int, int]
"""Epoch, commit position and ordinal: the order in which a source's states follow each other."""

BORN: Final = ("CREATE", "SNAPSHOT")
_MOST_COMPARED: Final = 100
"""Of rows that are equal, so that many thousands do not take for ever."""


class Step(msgspec.Struct, frozen=True):
    """A change of one row. An update's images may be of the columns only that it changed.

    `key`: of the row afterwards, or of the one that went; `previous`: before, where it was another.
    `whole`: all is known of what was there before. `moved`: it came from another partition.
    `restores`: it is of a revert, of the changes `undoes`, where it names them. `unseen`: columns
    that it may have set, which nobody can tell, since they are masked. A TRUNCATE is a step of all
    rows of its relation.
    """

    id: UUID
    place: Place
    relation: int
    operation: str
    chosen: bool
    key: Key
    previous: Key | None
    before: Mapping[str, Value]
    after: Mapping[str, Value]
    whole: bool = True
    moved: bool = False
    restores: bool = False
    undoes: frozenset[UUID] = frozenset()
    unseen: frozenset[str] = frozenset()


class Life(msgspec.Struct, eq=False):
    """The steps of one row, from where it is known on; `key` is the last one that it had."""

    key: Key
    steps: list[Step]

    @property
    def born(self) -> Step | None:
        return self.steps[0] if self.steps[0].operation == "CREATE" else None

    @property
    def died(self) -> Step | None:
        return self.steps[-1] if self.steps[-1].operation == "DELETE" else None

    @property
    def chosen(self) -> bool:
        return any(step.chosen for step in self.steps)


def lives(steps: Iterable[Step], *, keyed: bool = True) -> list[Life]:
    """Of the rows of one table; the steps are in the order of the log."""
    return _Lives(keyed=keyed).of(steps)


class _Lives:
    def __init__(self, *, keyed: bool) -> None:
        self._keyed = keyed
        self._found: list[Life] = []
        self._alive: dict[Key, list[Life]] = {}
        self._ended: dict[Key, list[Life]] = {}
        """By what is not chosen."""
        self._gone: set[int] = set()
        """The ids of those that ended by what is chosen, of a table without a key."""
        self._gone_by: dict[Key | UUID, list[Life]] = {}
        """These, and some that are there again, by all keys that they had, and their changes."""
        self._revived: dict[int, tuple[Step, Step]] = {}
        """Of lives, by their ids, how they went on, and how they had ended."""
        self._seen: Counter[tuple[tuple[int, int], Key]] = Counter()

    def of(self, steps: Iterable[Step]) -> list[Life]:
        for step in _joined(steps):
            if step.operation == "TRUNCATE":
                self._empty(step)
            elif step.operation == "SNAPSHOT" and not self._keyed:
                self._see(step)
            elif step.operation == "CREATE":
                self._create(step)
            elif step.operation == "SNAPSHOT" and step.key not in self._alive:
                self._begin(step)
            else:
                self._go_on(step)
        return self._found

    def _begin(self, step: Step) -> None:
        life = Life(step.key, [step])
        self._found.append(life)
        self._alive.setdefault(step.key, []).append(life)

    def _see(self, step: Step) -> None:
        """Of rows that are equal, each that is seen at once is another one."""
        self._seen[step.place[:2], step.key] += 1
        number, among = self._seen[step.place[:2], step.key], self._alive.setdefault(step.key, [])
        if number > len(among):
            self._found.append(Life(step.key, []))
            among.append(self._found[-1])
        among[number - 1].steps.append(step)

    def _create(self, step: Step) -> None:
        if self._keyed:
            self._alive.pop(step.key, None)
        undoes = step.restores and not step.chosen
        if undoes and (life := self._restored(step)) is not None:
            life.steps.pop()
        elif undoes and (life := self._brought_back(step)) is not None:
            ended = life.steps.pop()
            life.steps.append(msgspec.structs.replace(_update(ended, step), chosen=False))
            self._revived[id(life)] = (life.steps[-1], ended)
            life.key = step.key
        else:
            self._begin(step)
            return
        self._alive.setdefault(step.key, []).append(life)

    def _restored(self, step: Step) -> Life | None:
        """The life that goes on, since a revert brought back the whole row that something
        deleted."""
        among = [
            life
            for life in self._ended.get(step.key, ())
            if life.died is not None and life.died.whole and life.died.before == step.after
        ]
        life = _best(among, step)
        if life is not None:
            self._ended[step.key].remove(life)
        return life

    def _brought_back(self, step: Step) -> Life | None:
        """The life that goes on, since a revert brought back the row that what is chosen had
        deleted: with all values that it had at one time, or with a mixture of them."""
        names: list[Key | UUID] = [step.key, *step.undoes]
        for name in names:
            among = self._gone_by.get(name, [])
            for at in range(len(among) - 1, max(len(among) - 1 - _MOST_COMPARED, -1), -1):
                life = among[at]
                if id(life) not in self._gone:
                    del among[at]
                elif not step.undoes or _named(life, step):
                    del among[at]
                    self._gone.remove(id(life))
                    return life
        return None

    def _go_on(self, step: Step) -> None:
        life = self._taken(step.key if step.previous is None else step.previous, step)
        if not life.steps:
            self._found.append(life)
        if step.operation == "DELETE" and self._goes_again(life, step):
            return
        life.steps.append(step)
        life.key = step.key
        if step.operation != "DELETE":
            self._alive.setdefault(step.key, []).append(life)
        else:
            self._end(life)

    def _goes_again(self, life: Life, step: Step) -> bool:
        """Whether this reverts the revert that brought the row back."""
        if not step.restores or step.chosen or id(life) not in self._revived:
            return False
        on, ended = self._revived[id(life)]
        if life.steps[-1] is not on:
            return False
        life.steps[-1] = ended
        life.key = ended.key
        self._end(life)
        return True

    def _end(self, life: Life) -> None:
        if not life.steps[-1].chosen:
            self._ended.setdefault(life.key, []).append(life)
        elif not self._keyed:
            self._gone.add(id(life))
            names: dict[Key | UUID, None] = {}
            for step in life.steps:
                names |= {step.id: None, step.key: None, step.previous or step.key: None}
            for name in names:
                self._gone_by.setdefault(name, []).append(life)

    def _empty(self, step: Step) -> None:
        for key, among in [*self._alive.items()]:
            for life in among:
                if life.steps[-1].relation == step.relation:
                    gone = msgspec.structs.replace(step, operation="DELETE", key=key)
                    life.steps.append(gone)
                    if step.chosen:
                        self._end(life)
            self._alive[key] = [life for life in among if life.died is None]
            if not self._alive[key]:
                del self._alive[key]

    def _taken(self, key: Key, step: Step) -> Life:
        """The life that a step goes on with, or a new one of a row that was there before."""
        among = self._alive.get(key, [])
        life = _best(among, step)
        if life is None:
            return Life(key, [])
        among.remove(life)
        if not among:
            del self._alive[key]
        return life


def _best(among: Sequence[Life], step: Step) -> Life | None:
    """Of rows that are equal, the one that a step goes on with.

    A revert says what it undid, if that is not too much, and a row was before what it made of it.
    Else one of which the same may be said: it is as true as any other choice, and makes the fewest
    conflicts.
    """
    if not step.restores or step.chosen:
        return next((each for each in among if each.chosen == step.chosen), next(iter(among), None))
    best, fits = None, -1
    for life in among[:_MOST_COMPARED]:
        was = step.operation == "DELETE" or any(
            step.key in (each.key, each.previous) for each in life.steps
        )
        fit = 4 * _named(life, step) + 2 * was + life.chosen
        if fit > fits:
            best, fits = life, fit
        if fit >= (6 if step.undoes else 3):
            break
    return best


def _named(life: Life, step: Step) -> bool:
    """Whether a revert says that it undid something of a life."""
    return any(each.id in step.undoes for each in life.steps)


def _joined(steps: Iterable[Step]) -> Iterator[Step]:
    """A row that moves to another partition is deleted and created: here, it is updated."""
    held: Step | None = None
    for step in steps:
        if held is not None:
            epoch, commit, ordinal = held.place
            if step.moved and step.place == (epoch, commit, ordinal + 1):
                step = _update(held, step)
            else:
                yield held
            held = None
        if step.operation == "DELETE":
            held = step
        else:
            yield step
    if held is not None:
        yield held


def _update(went: Step, came: Step) -> Step:
    return msgspec.structs.replace(
        came,
        operation="UPDATE",
        chosen=went.chosen or came.chosen,
        previous=None if went.key == came.key else went.key,
        before=went.before,
        whole=went.whole,
        moved=False,
    )
