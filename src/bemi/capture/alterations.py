"""What makes older values of a table, or its keys, others than they were, without a change of it.

Rules that store its key otherwise from some place on; DDL that rewrites values; labels and
attributes of its types that are called otherwise. Each is recorded where it is seen.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import psycopg

from bemi.capture.catalog import Catalog
from bemi.capture.pg_catalog import parts_of
from bemi.capture.sight import Memory, Seen, encoding
from bemi.change import Table
from bemi.connections import explained
from bemi.lsn import Lsn
from bemi.store import coverage as intervals
from bemi.store import gaps, versions
from bemi.store.coverage import Looked, OpenInterval
from bemi.store.versions import StoredVersion, version_of

Connection = psycopg.Connection[Any]


def part_rules(
    destination: Connection,
    schema: str,
    source_id: int,
    epoch: int,
    going_on: Sequence[OpenInterval],
    memory: Memory,
) -> None:
    """End intervals where the rules began to store the keys of their rows otherwise.

    Nothing is missing, but a row is called by another key from there on. The interval goes on as
    the next one, whose state is not known.
    """
    rules = intervals.read_rules(destination, schema, source_id, epoch)
    if len(rules) <= max(memory.rules, 1):
        return
    memory.rules = len(rules)
    tables = versions.read(destination, schema, source_id)
    for interval in going_on:
        table = tables.get(interval.covered.relation)
        if not table:
            continue
        # What was in force when it began, or else the first that there was.
        before = [each for each in rules if each.position <= interval.from_position] or rules[:1]
        first = _key_as_stored(before[-1], table[-1])
        for version in rules:
            if (
                version.position > interval.from_position
                and _key_as_stored(version, table[-1]) != first
            ):
                intervals.begin_anew(
                    destination,
                    schema,
                    interval.interval_id,
                    at=version.position,
                    cause="key_changed",
                )
                break


def tell_respelled(
    source: Connection,
    destination: Connection,
    schema: str,
    source_id: int,
    publication: str,
    going_on: Sequence[OpenInterval],
    memory: Memory,
    *,
    since: Looked | None,
) -> None:
    """Tell of which columns older values are spelled otherwise since the last look.

    A label of an enum was renamed, or a composite type got other attributes: no row was written,
    and the stream says nothing of it. With such a key, rows are called otherwise from there on.
    """
    found = parts_of(source, [each.covered.relation for each in going_on])
    altered = [
        each
        for each in going_on
        if found.get(each.covered.relation) != memory.parts.get(each.covered.relation)
    ]
    catalog = Catalog(source, encoding(source), publication) if altered else None
    for interval in altered:
        assert catalog is not None
        relation = interval.covered.relation
        with explained("destination"):
            known = versions.read(destination, schema, source_id, relation).get(relation, [])
        table = catalog.table(relation)
        if table is None or not known or known[-1].place[0] != interval.epoch:
            continue  # what comes next is described anew
        version = version_of(table)
        if _parts(version) == _parts(known[-1]):
            continue
        looked = max(known[-1].read_position, 0 if since is None else int(since.position))
        # From the last look on, rows may have been called by either key.
        by_key = not {*version.primary_key}.isdisjoint(versions.rewritten(known[-1], version))
        place = (interval.epoch, looked if by_key else version.read_position, 0)
        version = msgspec.structs.replace(version, place=place)
        with explained("destination"), destination.transaction(), destination.cursor() as cursor:
            versions.insert(cursor, schema, source_id, version)
            gaps.record_rewrite(cursor, schema, source_id, known, version, since=looked)
    memory.parts = found


def _parts(version: StoredVersion) -> list[object]:
    return [(column.number, column.parts) for column in version.columns]


def _key_as_stored(version: intervals.RulesVersion, table: StoredVersion) -> object:
    """What the rules make of the columns of a table's key, or of all where it has none."""
    columns = [column.name for column in table.columns]
    key = [columns.index(name) for name in table.primary_key if name in columns]
    rules = version.rules.for_table(table.schema, table.table, columns)
    if (rules.exclude | rules.mask) & set(key):
        key = []
    key = key or list(range(len(columns)))
    return [rules.treatment(at) for at in key], version.digest if rules.hash & set(key) else ""


def rewritten_tables(
    source: Connection,
    publication: str,
    going_on: Sequence[OpenInterval],
    seen: Seen,
    filenodes: Mapping[int, int],
) -> list[tuple[OpenInterval, Table]]:
    """Tables that were rewritten since the last look, as the catalog has them now."""
    moved = [
        each
        for each in going_on
        if filenodes.get(each.covered.relation) != seen.tables[each.covered.relation].filenode
    ]
    if not moved:
        return []
    with explained("source"):
        catalog = Catalog(source, encoding(source), publication)
    return [
        (each, table)
        for each in moved
        if (table := catalog.table(each.covered.relation)) is not None
    ]


def remember_rewrite(
    destination: Connection, schema: str, source_id: int, epoch: int, position: Lsn, table: Table
) -> None:
    """Say which older values of a table may be others by now, though no change has come since.

    `position` is of the look before. Where its columns are others too, the stream tells it with
    the first change behind: only there it is known from where on they are.
    """
    known = versions.read(destination, schema, source_id, table.oid).get(table.oid, [])
    found = version_of(table)
    if not known or known[-1].place[0] != epoch or known[-1].filenode == found.filenode:
        return
    if msgspec.structs.replace(known[-1], filenode=found.filenode).alike(found):
        behind = max(int(position), known[-1].read_position, known[-1].place[1] + 1)
        place = (epoch, behind, 0)
        found = msgspec.structs.replace(found, place=place)
        with destination.cursor() as cursor:
            versions.insert(cursor, schema, source_id, found)
            gaps.record_rewrite(cursor, schema, source_id, known, found)
