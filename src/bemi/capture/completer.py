"""Fills in what a table with less than REPLICA IDENTITY FULL does not log, from the history.

The old row of an UPDATE or DELETE, and TOAST values that were not sent, are what the last image
of the row says, while nothing can have outdated it unseen (see `bemi.store.images`): else they
stay unknown, and a flag says so. Works on a batch, whose earlier changes count.
"""

from collections.abc import Collection, Sequence
from typing import Any, Final, Literal, TypeAlias

import msgspec
import psycopg

from bemi.capture.before import completed
from bemi.capture.keys import key_as_stored
from bemi.capture.values import text_form, text_of_text_form
from bemi.change import UNCHANGED, Change, Operation, Row, Skipped, Table, Unchanged, Value
from bemi.rules import NO_RULES, Rules, TableRules
from bemi.store import images
from bemi.store import versions as stored_versions
from bemi.store.images import Image, Wanted
from bemi.store.versions import Place, StoredVersion, rewritten

_UTF8: Final = "utf-8"

_Source: TypeAlias = str | Literal[Unchanged.UNCHANGED] | None
_PlanKey: TypeAlias = tuple[int, int | None, int | None, frozenset[str]]


class Last(msgspec.Struct, frozen=True):
    """A row as a change of this batch left it, in the columns of `table`; None: it is deleted."""

    table: Table
    row: Row | None
    place: Place


class Completer:
    """For one epoch of one source.

    `versions` are the tables' versions so far, by relation, the oldest first; `rules_of` gives
    the rules of each version of them, of which `rules_id` is the present one; `encoding` is
    that of the stream's values.
    """

    def __init__(
        self,
        schema: str,
        source_id: int,
        epoch: int,
        *,
        versions: dict[int, list[StoredVersion]],
        rules_of: dict[int | None, Rules],
        rules_id: int | None,
        encoding: str = _UTF8,
    ) -> None:
        self._schema = schema
        self._source_id = source_id
        self._epoch = epoch
        self._versions = versions
        self._count = -1
        self._rules_of = rules_of
        self._rules = rules_of.get(rules_id, NO_RULES)
        self._encoding = encoding
        self._table_rules: dict[tuple[int | None, int], tuple[Table, TableRules]] = {}
        self._names: dict[int, tuple[str, ...]] = {}
        self._plans: dict[_PlanKey, tuple[Table, tuple[_Source, ...]]] = {}

    def needs(self, change: Change) -> bool:
        """Whether something is missing in the change that its row's last image may have."""
        return bool(change.table.key) and not change.before_known

    def follows(self, table: Table) -> bool:
        """Whether the images of this table are needed for changes that come later."""
        return bool(table.key) and table.identity != "f"

    def described(self, relation: int, versions: list[StoredVersion]) -> None:
        """A table has another version: all of them, in the order in which they were read."""
        self._versions[relation] = versions
        self._names.pop(relation, None)
        self._plans.clear()

    def complete(
        self, cursor: psycopg.Cursor[Any], events: Sequence[Change | Skipped]
    ) -> list[Change | None]:
        """The changes of a batch, in order, with what could be filled in.

        None stands for an UPDATE that changed ignored and excluded columns only, and for what was
        skipped. Reads in the cursor's transaction, which holds all that came before the batch.
        """
        keys = [None if isinstance(event, Skipped) else self._key_of(event) for event in events]
        wanted: dict[tuple[int, str], Wanted] = {}
        for event, key in zip(events, keys, strict=True):
            if key is not None and isinstance(event, Change) and self.needs(event):
                table = event.table
                names = self._names_of(table)
                wanted[table.oid, key] = Wanted(table.oid, table.membership, names, key)
        if wanted:
            self._learn(cursor)
        stored = images.trusted(
            cursor, self._schema, self._source_id, self._epoch, list(wanted.values())
        )
        seen: dict[tuple[int, str], Last] = {}
        changes: list[Change | None] = []
        for event, key in zip(events, keys, strict=True):
            table = event.table
            if isinstance(event, Skipped) or event.operation is Operation.TRUNCATE:
                # Of this table nothing is known any more, or there is nothing any more.
                seen = {at: last for at, last in seen.items() if at[0] != table.oid}
                stored = {at: image for at, image in stored.items() if at[0] != table.oid}
                changes.append(None if isinstance(event, Skipped) else event)
                continue
            done: Change | None = event
            if key is not None and self.needs(event):
                last = self._last(table, key, seen, stored)
                done = completed(event, last, self._rules_at(None, table, present=True))
            if key is not None:
                self._remember(event, done or event, key, seen)
            changes.append(done)
        return changes

    def _learn(self, cursor: psycopg.Cursor[Any]) -> None:
        """Versions that a look at the coverage, or a baseline, has stored meanwhile, count too."""
        count = stored_versions.count(cursor, self._schema, self._source_id)
        if count != self._count:
            self._count = count
            self._versions = stored_versions.read(cursor, self._schema, self._source_id)
            self._names.clear()
            self._plans.clear()

    def row_of(self, image: Image, table: Table) -> Row:
        """The values of a stored image, in the columns of `table`.

        UNCHANGED stands for what can't be told from it: what was not stored, was stored under
        other rules, or may have been rewritten since.
        """
        row = self._told_by(image, table)
        lacking = self._lacking(image, table)
        for earlier in image.earlier:
            if not lacking or earlier.after is None:
                break
            known = self._told_by(earlier, table)
            for at in lacking:
                row[at] = known[at]
            lacking &= self._lacking(earlier, table)
        return tuple(row)

    def _told_by(self, image: Image, table: Table) -> list[Value]:
        assert image.after is not None
        row: list[Value] = []
        for at, name in enumerate(self._plan(table, image)):
            if not isinstance(name, str):
                row.append(name)
                continue
            fragment = image.after.get(name)
            if fragment is None:
                row.append(UNCHANGED)
            else:
                row.append(self._value(bytes(fragment), name, image.flags, at, table))
        return row

    def _lacking(self, image: Image, table: Table) -> set[int]:
        """The columns whose value is what it was before."""
        return {
            at
            for at, name in enumerate(self._plan(table, image))
            if isinstance(name, str) and image.lacks(name)
        }

    def _plan(self, table: Table, image: Image) -> tuple[_Source, ...]:
        assert image.after is not None
        versions = self._versions.get(table.oid, [])
        known = _known_at(versions, image.place)
        names = frozenset(image.after)
        key = (table.oid, known, image.rules, names)
        found = self._plans.get(key)
        if found is None or found[0] is not table:
            sources = _sources(table, versions[known:], names) if known is not None else None
            old = self._rules_at(image.rules, table)
            now = self._rules_at(None, table, present=True)
            plan = tuple(
                UNCHANGED if old.treatment(at) != now.treatment(at) or at in now.silent else source
                for at, source in enumerate(sources or [UNCHANGED] * len(table.columns))
            )
            found = self._plans[key] = (table, plan)
        return found[1]

    def _value(
        self, fragment: bytes, name: str, flags: frozenset[str], at: int, table: Table
    ) -> Value:
        column = table.columns[at]
        if flags and f"undecodable:{name}" in flags:
            return UNCHANGED
        if flags and f"json_null:{name}" in flags and fragment == b"null":
            return b"null"
        if flags and f"text:{name}" in flags:
            text = text_of_text_form(fragment)
        else:
            text = text_form(fragment, column.type_oid, table.array_elements)
        if text is None or self._encoding == _UTF8:
            return text
        try:
            return text.decode().encode(self._encoding)
        except UnicodeEncodeError:
            return UNCHANGED

    def _last(
        self,
        table: Table,
        key: str,
        seen: dict[tuple[int, str], Last],
        stored: dict[tuple[int, str], Image],
    ) -> Row | None:
        last = seen.get((table.oid, key))
        image = stored.get((table.oid, key))
        row = None
        if last is not None:
            row = last.row if last.table is table else self._in_columns_of(table, last)
        elif image is not None and image.after is not None:
            row = self.row_of(image, table)
        # Where the key itself may have been rewritten since, it was the key of another row.
        return None if row is None or any(row[at] is UNCHANGED for at in table.key) else row

    def _in_columns_of(self, table: Table, last: Last) -> Row | None:
        """A row of this batch in the columns of a table that was described anew since."""
        if last.row is None:
            return None
        versions = self._versions.get(table.oid, [])
        known = _known_at(versions, last.place)
        if known is None:
            return None
        values = dict(zip((column.name for column in last.table.columns), last.row, strict=True))
        return tuple(
            values.get(source, UNCHANGED) if isinstance(source, str) else source
            for source in _sources(table, versions[known:], values.keys())
        )

    def _remember(
        self, change: Change, done: Change, key: str, seen: dict[tuple[int, str], Last]
    ) -> None:
        table, row = change.table, done.after
        place = (self._epoch, int(change.transaction.commit_lsn), change.ordinal)
        if change.before is not None or row is None:
            seen[table.oid, key] = Last(table, None, place)
        if row is None:
            return
        now = key if change.before is None else self._key(table, row)
        if now is None:
            return
        ignore = self._rules_at(None, table, present=True).ignore
        if ignore:
            row = tuple(UNCHANGED if at in ignore else value for at, value in enumerate(row))
        seen[table.oid, now] = Last(table, row, place)

    def _key_of(self, change: Change) -> str | None:
        """The key under which the row was last stored: the old one, where it was sent."""
        table = change.table
        if not table.key:
            return None
        key = None if change.before is None else self._key(table, change.before)
        if key is None and change.after is not None:
            key = self._key(table, change.after)
        return key

    def _key(self, table: Table, row: Row) -> str | None:
        return key_as_stored(table, row, self._encoding)

    def _names_of(self, table: Table) -> tuple[str, ...]:
        """All names under which the history may have the table's rows."""
        found = self._names.get(table.oid)
        if found is None or table.name not in found:
            names = {version.table for version in self._versions.get(table.oid, ())}
            found = self._names[table.oid] = tuple(names | {table.name})
        return found

    def _rules_at(self, rules_id: int | None, table: Table, *, present: bool = False) -> TableRules:
        which = -1 if present else rules_id
        known = self._table_rules.get((which, table.oid))
        if known is None or known[0] is not table:
            rules = self._rules if present else self._rules_of.get(rules_id, NO_RULES)
            names = [column.name for column in table.columns]
            known = (table, rules.for_table(table.schema, table.name, names, table.key))
            self._table_rules[which, table.oid] = known
        return known[1]


def _known_at(versions: Sequence[StoredVersion], place: Place) -> int | None:
    """The last version that had been read from the catalog by then, all in one epoch."""
    for at in range(len(versions) - 1, -1, -1):
        version = versions[at]
        if version.place[0] != place[0]:
            return None
        if version.read_position <= place[1]:
            return at
    return None


def _sources(
    table: Table, versions: Sequence[StoredVersion], names: Collection[str]
) -> list[_Source]:
    """Under which name an image has each column; None: as NULL, since the column is younger.

    `versions` begin with the last one that was read before the image, which may still be of the
    next one's shape. UNCHANGED where that can't be told, or the value may have been rewritten.
    """
    doubtful = {
        column.number
        for after in versions[1:]
        for name in rewritten(versions[0], after)
        for column in after.columns
        if column.name == name
    }
    first = {column.number: column.name for column in versions[0].columns}
    second = {column.number: column.name for column in versions[min(1, len(versions) - 1)].columns}
    found: list[_Source] = []
    for column in table.columns:
        number = column.number
        here = {first.get(number), second.get(number)} - {None}
        others = {
            name for by_number in (first, second) for at, name in by_number.items() if at != number
        }
        if not number or number in doubtful:
            found.append(UNCHANGED)
        elif number in first and len(here) == 1:
            found.append(first[number])
        else:
            present = [name for name in here if name in names and name not in others]
            if len(present) == 1:
                found.append(present[0])
            elif number not in first and 0 not in first and not here & {*names}:
                found.append(None)
            else:
                found.append(UNCHANGED)
    return found
