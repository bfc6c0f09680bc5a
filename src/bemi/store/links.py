"""Judges whether two successive changes of a row fit, so that none can be missing between them.

The chain: what a change says the row was is what the change before left behind. Whatever else
may have altered a stored value or a key's text (other rules, DDL, a form that jsonb forced, a
gap that is known) proves nothing, and is left out: a finding is a change that is missing, never
a guess. Pure; `bemi.store.chain` reads what is judged here.
"""

import bisect
from collections.abc import Iterable, Sequence, Set
from typing import Literal, NamedTuple, TypeAlias

import msgspec

from bemi.rules import NO_RULES, Rules
from bemi.store.stability import altered_before, same_form, stable
from bemi.store.versions import Place, StoredVersion

Problem: TypeAlias = Literal["differs", "living", "dead", "never"]
"""What is amiss: the row was another one than the change before left; it is created though it
was there; it is changed though it was gone; it is changed though it never was."""


class Event(msgspec.Struct, frozen=True):
    """A change as a link of its row's chain. `ambiguous`: others of its transaction had the key
    at the same time, as a deferred constraint allows."""

    id: str
    position: int
    ordinal: int
    transaction_id: int
    rules: int | None
    flags: frozenset[str]
    ambiguous: bool = False


class Link(msgspec.Struct, frozen=True):
    """A change that does not simply follow the one before it of the same key, if there is one.

    `columns` are those that differ, whatever the reason.
    """

    relation: int
    epoch: int
    problem: Problem
    now: Event
    last: Event | None
    columns: tuple[str, ...] = ()


class Stretch(msgspec.Struct, frozen=True):
    """An interval of a table's coverage; `until` is its end, or the checkpoint, exclusive."""

    epoch: int
    start: int
    until: int
    state: int | None


class KnownGap(msgspec.Struct, frozen=True):
    """What is known to be missing: of one table, or of all; `columns`: only of these."""

    epoch: int
    relation: int | None
    start: int
    until: int
    columns: frozenset[str] | None = None


class Finding(msgspec.Struct, frozen=True):
    """Something is missing between two places of the history.

    `change` is the id of the change that shows it, `last` of the one before; `columns` those
    whose values show it.
    """

    relation: int | None
    epoch: int
    problem: str
    from_position: int
    to_position: int
    columns: tuple[str, ...] = ()
    change: str | None = None
    last: str | None = None


class Known(msgspec.Struct, frozen=True):
    """What the destination knows of one source's tables, beside their changes."""

    versions: dict[int, list[StoredVersion]]
    rules: dict[int | None, Rules]
    stretches: dict[int, list[Stretch]]
    gaps: Sequence[KnownGap]
    emptied: dict[int, list[Place]]
    """Of each table where it was truncated, ascending."""
    rewritten: dict[int, list[Place]]
    """Of each table where recorded DDL rewrote its values, ascending."""


class _Keyed(NamedTuple):
    """A version, since when rows have had keys like its, and the epoch and position from which
    that is certain: the catalog was read there, and may have known another key before."""

    version: StoredVersion
    since: Place
    read: tuple[int, int]


class Judge:
    """For one source."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._segments = {
            relation: _segments(versions) for relation, versions in known.versions.items()
        }
        self._gaps: dict[int, list[KnownGap]] = {}

    def unchecked(self, relation: int) -> str | None:
        """Why nothing can be said of a table, or None."""
        if not self._known.stretches.get(relation):
            return "no part of it is covered"
        versions = self._known.versions.get(relation)
        if not versions:
            return "it has no changes yet"
        reasons = [_unusable(version) for version in versions]
        return None if None in reasons else reasons[-1]

    def judge(self, link: Link) -> Finding | None:
        """The missing change that a link shows, or None where it proves nothing."""
        now, last = link.now, link.last
        place = (link.epoch, now.position, now.ordinal)
        stretch = self._stretch(link.relation, link.epoch, now.position)
        found = self._segment(link.relation, place)
        if stretch is None or found is None or now.ambiguous:
            return None
        version, segment, read = found
        if any(f"undecodable:{name}" in now.flags for name in version.primary_key):
            return None
        emptied = self._emptied_before(link.relation, place)
        if last is not None and (
            last.position < stretch.start
            or (emptied is not None and (link.epoch, last.position, last.ordinal) < emptied)
        ):
            last = None
        if last is None:
            return self._never(link, stretch, emptied, found)
        if last.ambiguous or (link.epoch, last.position, last.ordinal) < segment:
            return None
        if (link.epoch, last.position) < read:
            return None
        if not self._same_keys(version, last, now):
            return None
        if self._gap_between(link.relation, link.epoch, last.position, now.position):
            return None
        columns: tuple[str, ...] = ()
        if link.problem == "differs":
            columns = tuple(self._telling(link, version, last))
            if not columns:
                return None
        elif link.problem == "never":
            return None
        return Finding(
            link.relation,
            link.epoch,
            link.problem,
            last.position,
            now.position,
            columns,
            now.id,
            last.id,
        )

    def _never(
        self,
        link: Link,
        stretch: Stretch,
        emptied: Place | None,
        keyed: _Keyed,
    ) -> Finding | None:
        """A change of a row that the history does not have, where it has all rows."""
        if link.problem == "living":
            return None
        if emptied is not None and emptied >= (stretch.epoch, stretch.start, 0):
            base, begins = emptied[1], emptied
        elif stretch.state is not None and stretch.state < link.now.position:
            base, begins = stretch.start, (stretch.epoch, stretch.start, 0)
        else:
            return None
        version, segment, read = keyed
        if segment > begins or read > (stretch.epoch, link.now.position):
            return None
        if not self._plain_keys(version):
            return None
        if self._gap_between(
            link.relation, link.epoch, base, link.now.position, columns={*version.primary_key}
        ):
            return None
        return Finding(link.relation, link.epoch, "never", base, link.now.position, (), link.now.id)

    def _telling(self, link: Link, version: StoredVersion, last: Event) -> Iterable[str]:
        """Of the columns that differ, those whose values can't differ for another reason."""
        now = link.now
        if now.rules != last.rules:
            return
        columns = {column.name: column for column in version.columns}
        names = list(columns)
        rules = self._known.rules.get(now.rules, NO_RULES).for_table(
            version.schema, version.table, names
        )
        rewritten = self._known.rewritten.get(link.relation, [])
        before = (link.epoch, last.position, last.ordinal)
        if bisect.bisect(rewritten, before) < bisect.bisect(
            rewritten, (link.epoch, now.position, now.ordinal)
        ):
            return
        doubtful = set().union(
            *(
                gap.columns
                for gap in self._of(link.relation)
                if gap.columns is not None and _overlaps(gap, link.epoch, last, now)
            )
        )
        for name in link.columns:
            column = columns.get(name)
            if (
                column is not None
                and name not in doubtful
                and names.index(name) not in rules.ignore
                and same_form(name, last.flags, now.flags)
                and stable(column, replaced=names.index(name) in rules.replaced)
                and altered_before(column, last.transaction_id, now.transaction_id)
            ):
                yield name

    def _stretch(self, relation: int, epoch: int, position: int) -> Stretch | None:
        for stretch in self._known.stretches.get(relation, ()):
            if stretch.epoch == epoch and stretch.start <= position < stretch.until:
                return stretch
        return None

    def _segment(self, relation: int, place: Place) -> _Keyed | None:
        segments = self._segments.get(relation)
        if not segments:
            return None
        places = [version.place for version, _ in segments]
        return segments[max(bisect.bisect(places, place) - 1, 0)][1]

    def _emptied_before(self, relation: int, place: Place) -> Place | None:
        places = self._known.emptied.get(relation, [])
        at = bisect.bisect_left(places, place)
        return places[at - 1] if at and places[at - 1][0] == place[0] else None

    def _same_keys(self, version: StoredVersion, last: Event, now: Event) -> bool:
        """Whether equal keys are the same row's in both changes, and others are another's."""
        if any(f"undecodable:{name}" in last.flags for name in version.primary_key):
            return False
        if not self._plain_keys(version) and last.rules != now.rules:
            return False
        columns = {column.name: column for column in version.columns}
        return all(
            altered_before(columns[name], last.transaction_id, now.transaction_id)
            for name in version.primary_key
        )

    def _plain_keys(self, version: StoredVersion) -> bool:
        """Whether keys were stored as they are under all rules that there were."""
        names = [column.name for column in version.columns]
        key = {names.index(name) for name in version.primary_key}
        return not any(
            rules.for_table(version.schema, version.table, names).replaced & key
            for rules in self._known.rules.values()
        )

    def _gap_between(
        self, relation: int, epoch: int, start: int, until: int, *, columns: Set[str] = frozenset()
    ) -> bool:
        """Whether changes are missing, or values of these columns may have been rewritten."""
        return any(
            (gap.columns is None or gap.columns & columns)
            and gap.epoch == epoch
            and gap.start <= until
            and gap.until >= start
            for gap in self._of(relation)
        )

    def _of(self, relation: int) -> list[KnownGap]:
        found = self._gaps.get(relation)
        if found is None:
            found = self._gaps[relation] = [
                gap for gap in self._known.gaps if gap.relation in (None, relation)
            ]
        return found


def _segments(
    versions: Sequence[StoredVersion],
) -> list[tuple[StoredVersion, _Keyed | None]]:
    """Each version, with how rows are followed by their keys in it; None: they can't be."""
    found: list[tuple[StoredVersion, _Keyed | None]] = []
    keyed: _Keyed | None = None
    last: object = None
    for version in versions:
        columns = {column.name: column for column in version.columns}
        key: object = None
        if _unusable(version) is None:
            key = [
                (columns[name].number, columns[name].type, columns[name].type_oid)
                for name in version.primary_key
            ]
        read = (version.place[0], version.read_position)
        if key is None:
            keyed = None
        elif key != last or keyed is None:
            # What comes before a table's first change is its baseline.
            keyed = _Keyed(version, version.place if found else (0, 0, 0), read)
        else:
            keyed = _Keyed(version, keyed.since, min(keyed.read, read))
        last = key
        found.append((version, keyed))
    return found


def _unusable(version: StoredVersion) -> str | None:
    """Why a table's rows can't be followed by their keys."""
    if version.inferred:
        return "it was altered before its changes were read: how its key was is not known"
    if not version.primary_key:
        return "it has no key"
    if version.replica_identity == "i":
        return "its replica identity is an index: changes of its key may not show"
    columns = {column.name: column for column in version.columns}
    for name in version.primary_key:
        if name not in columns or not columns[name].number:
            return "it was altered before its changes were read: how its key was is not known"
        if not stable(columns[name], replaced=False):
            return f"its key is of type {columns[name].type}, whose text may change by itself"
    return None


def _overlaps(gap: KnownGap, epoch: int, last: Event, now: Event) -> bool:
    return gap.epoch == epoch and gap.start <= now.position and gap.until >= last.position
