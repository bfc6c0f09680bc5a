"""Plans: the net effect of undoing changes, or of doing them again, held against a database.

with bemi.History(url) as history:
    plan = history.plan_revert(source_url, transaction=4711)
    if not plan.conflicts:
        plan.apply(by="ada")
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

import msgspec
import psycopg
from psycopg import IsolationLevel, sql

from bemi.connections import connect, describe, explained
from bemi.errors import UsageError
from bemi.history import applying, script
from bemi.history.effect import Effect, redone, undone
from bemi.history.families import Family
from bemi.history.gathering import gather
from bemi.history.looking import Looking
from bemi.history.op import Need, Op
from bemi.history.order import CircleError, Write, rounds
from bemi.history.plan import About, Applied, Conflict, Look, PlannedRow
from bemi.history.preparing import Prepared, names_by_name, names_by_number
from bemi.history.relating import Relating, settle
from bemi.history.target import Table, Target, as_stored
from bemi.lsn import Lsn
from bemi.store.filters import Filters
from bemi.store.query import stored_keys

Origin: TypeAlias = tuple[str | None, int]
"""A database, wherever its files are: the system's identifier, if it may be known, and the
database's OID."""

_UNSURE: Final = (
    "whether this is the source can't be told: the role may not call pg_control_system()"
)


class Work(msgspec.Struct, frozen=True):
    """The effects on the rows of one table, by what the history calls things. `elsewhere`: of when
    the source was another database."""

    family: Family
    effects: list[Effect]
    elsewhere: bool


class Looked(msgspec.Struct, frozen=True):
    """What was found, and what there is to write, round by round."""

    look: Look
    ops: list[Op]
    writes: list[list[Write]]


class Plan:
    """What a revert or a replay would do, as the database is when that is asked first.

    `rows`: each with its fields and its conflicts. `notes`: what else is worth knowing before.
    """

    def __init__(
        self,
        onto: str,
        about: About,
        work: Sequence[Work],
        refused: Sequence[Conflict],
        notes: Sequence[str],
        origin: Origin,
    ) -> None:
        self._onto = onto
        self._about = about
        self._work = work
        self._refused = refused
        self._notes = [*notes]
        self._origin = origin
        with explained("target"), connect(onto, what="target") as conn:
            self._require_right(conn)

    @functools.cached_property
    def _looked(self) -> Looked:
        """When it is asked for: who applies the plan unseen has no use for it."""
        with explained("target"), connect(self._onto, what="target", autocommit=False) as conn:
            conn.isolation_level = IsolationLevel.REPEATABLE_READ
            conn.read_only = True
            return self.look(conn, lock=False)

    @property
    def rows(self) -> tuple[PlannedRow, ...]:
        return self._looked.look.rows

    @property
    def conflicts(self) -> tuple[Conflict, ...]:
        return self._looked.look.conflicts

    @property
    def notes(self) -> tuple[str, ...]:
        return self._looked.look.notes

    @property
    def about(self) -> About:
        return self._about

    @property
    def changes(self) -> int:
        """How many were chosen."""
        return self._about.changes

    @property
    def source(self) -> str:
        return self._about.source

    @property
    def position(self) -> Lsn:
        """Until where the history was read; changes from behind that look like conflicts."""
        return self._about.position

    def sql(self, *, by: str | None = None) -> str:
        """A script that does what the plan says, for review: it writes what `apply` does, with
        the same guards, and stops where one fails. `by` as in `apply`."""
        return script.script(self._about, self._looked.writes, by)

    def apply(
        self,
        *,
        by: str | None = None,
        skip_conflicts: bool = False,
        context: Mapping[str, Any] | None = None,
        patience: float = applying.PATIENCE,
    ) -> Applied:
        """Write it, in one transaction, after looking at everything again under locks.

        `by`: who does it, for the history; by default the operating system's user. `context`:
        more of it. `patience`: seconds to wait, in all, for locks that others hold. Raises
        `ConflictError`, and nothing is written, where there are conflicts, but with
        `skip_conflicts`: then their rows are left alone, and rows that need these. Raises
        `PassingError` where locks can't be had in time.
        """
        sent = applying.context_of(self._about, by, context or {})
        return applying.apply(
            self._onto, self.look, sent, skip_conflicts=skip_conflicts, patience=patience
        )

    def look(self, conn: psycopg.Connection[Any], *, lock: bool) -> Looked:
        """Hold the effects against the database, within the connection's transaction."""
        target = Target(conn)
        tables = self._tables(target)
        if lock:
            target.hold(table for work in self._work if (table := tables(work.family)[0]))
            target = Target(conn)
            tables = self._tables(target)
        prepared = Prepared(here=self._about.what == "revert")
        for work in self._work:
            table, detached = tables(work.family)
            if work.elsewhere and table is not None and table.label != work.family.name:
                table = None  # another one that has its number by chance
            names: Mapping[str, str] = {}
            if table is not None:
                names = (
                    names_by_number(work.family, target, table)
                    if self._about.what == "revert"
                    else names_by_name(work.family, table)
                )
            prepared.take(work.family, table, names, work.effects, detached)
        ops = prepared.ops
        with as_stored(conn):
            Looking(conn, lock=lock).look(ops, target.foreign_keys)
            needs = Relating(conn, target, ops).relate()
        writes = _ordered(ops, needs)
        conflicts = [*self._refused, *prepared.conflicts]
        conflicts += (conflict for op in ops for conflict in op.conflicts)
        look = Look(
            tuple(op.planned() for op in ops),
            tuple(conflicts),
            (*self._notes, *prepared.notes),
        )
        return Looked(look, ops, writes)

    def _tables(self, target: Target) -> Callable[[Family], tuple[Table | None, dict[int, Table]]]:
        """For each family its table, and by their numbers those that were partitions of it."""
        if self._about.what == "replay":
            named = target.by_name(
                [(work.family.main.schema, work.family.main.table) for work in self._work]
            )
            return lambda family: (named.get((family.main.schema, family.main.table)), {})
        found = target.by_oid([oid for work in self._work for oid in work.family.relations])

        def of(family: Family) -> tuple[Table | None, dict[int, Table]]:
            relations = [family.main.oid, *family.relations]
            tables = [found[oid] for oid in relations if oid in found]
            # A partition that was detached since is a table by itself, or another one's.
            above = [table for table in tables if table.oid not in family.relations]
            named = [table for table in above if table.label == family.name]
            table = next(iter(named or above or tables), None)
            return table, {
                oid: at for oid in relations if (at := found.get(oid)) not in (None, table)
            }

        return of

    def _require_right(self, conn: psycopg.Connection[Any]) -> None:
        """Raises `UsageError` for a revert elsewhere, and for a replay onto the source."""
        system, number = _origin(conn)
        same = number == self._origin[1] and system in (None, self._origin[0])
        if same and system is None:
            if self._about.what == "replay":
                raise UsageError(
                    f"{describe(self._onto)} may be the source itself: its role may not call"
                    " pg_control_system(), which tells one server from another",
                    fix="grant execute on function pg_control_system() to the role",
                )
            self._notes.append(_UNSURE)
        if self._about.what == "revert" and not same:
            raise UsageError(
                f"{describe(self._onto)} is not the database that {self.source} is the history of",
                fix="revert there, or use `bemi replay` for another one",
            )
        if self._about.what == "replay" and same:
            raise UsageError(
                f"{describe(self._onto)} is the source itself, which has these changes already",
                fix="name another database",
            )


def plan_of(
    conn: psycopg.Connection[Any],
    schema: str,
    what: Literal["revert", "replay"],
    onto: str,
    wanted: Sequence[Filters],
    narrowed: "Narrowing",
) -> Plan:
    """`conn`: to the history, in `schema`; `onto`: the URL of what the plan is for; `wanted`: what
    any of these lets through is chosen. Raises `UsageError` where they let through everything."""
    filters = _told(wanted)
    if not filters.keys() - {"source", "oldest_first", "by_log", "limit"}:
        raise UsageError(
            "which changes are meant is not said",
            fix="give a filter, such as a transaction, a change's id, or a table and a time",
        )
    gathered = gather(conn, schema, wanted)
    about = About(what, gathered.source, gathered.position, gathered.changes, gathered.ids, filters)
    effects = undone if what == "revert" else redone
    work = []
    met: set[str] = set()
    for rows in gathered.rows:
        every = effects(rows.lives, rows.family.key)
        met |= narrowed.met(rows.family.name, every)
        found = narrowed.rows(rows.family, every)
        if found:
            work.append(Work(rows.family, found, rows.elsewhere))
    for name in (*narrowed.only, *narrowed.without):
        if name not in met:
            raise UsageError(
                f"{name} is no table and no row that the plan is of",
                fix="the plan shows how its rows are called, as in todo:1",
            )
    refused = [
        Conflict(each.table, None, "lost", each.message, each.change)
        for each in gathered.refused
        if narrowed.table(each.table)
    ]
    origin = _origin_of(conn, schema, gathered.epoch)
    return Plan(onto, about, work, refused, gathered.notes, origin)


def _told(wanted: Sequence[Filters]) -> dict[str, Any]:
    """The filters in words, for whoever reads later what was chosen."""
    told: dict[str, Any] = {}
    for each in wanted:
        for field in dataclasses.fields(each):
            value = getattr(each, field.name)
            if value == field.default:
                continue
            if field.name == "id":
                told.setdefault("id", []).append(str(value))
            elif field.name in ("from_position", "to_position"):
                told[field.name] = str(Lsn(value))
            elif field.name in ("context", "before", "after"):
                told[field.name] = dict(value)
            else:
                told[field.name] = str(value) if field.name == "behind" else value
    return told


class Narrowing(msgspec.Struct, frozen=True):
    """Which rows a plan is of: all, or only or all but some. `TABLE` or `TABLE:KEY`."""

    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    def rows(self, family: Family, effects: Iterable[Effect]) -> list[Effect]:
        return [effect for effect in effects if self._wanted(family.name, _label(effect))]

    def table(self, name: str) -> bool:
        return self._wanted(name, None)

    def met(self, table: str, effects: Sequence[Effect]) -> set[str]:
        """Which of the names are names of this table, or of its rows."""
        names = {*self.only, *self.without}
        found = {name for name in names if _names(name, table, None)}
        if names - found:
            labels = [_label(effect) for effect in effects]
            found |= {
                name for name in names - found if any(_names(name, table, key) for key in labels)
            }
        return found

    def _wanted(self, table: str, key: str | None) -> bool:
        if self.only and not any(_names(each, table, key) for each in self.only):
            return False
        return not any(_names(each, table, key) for each in self.without)


def _names(wanted: str, table: str, key: str | None) -> bool:
    for name in (table, table.removeprefix("public.")):
        if wanted == name:
            return True
        of_row = key is not None and wanted.startswith(f"{name}:")
        if of_row and key in stored_keys(wanted.removeprefix(f"{name}:")):
            return True
    return False


def _label(effect: Effect) -> str:
    if len(effect.key) == 1:
        return str(effect.key[0])
    return msgspec.json.encode(effect.key).decode()


def _ordered(ops: Sequence[Op], needs: Sequence[Need]) -> list[list[Write]]:
    """What is to be written, without what can't be."""
    while True:
        settle(ops, needs)
        try:
            return rounds([op for op in ops if op.active], needs)
        except CircleError as error:
            for op in error.ops:
                if op.active:
                    op.conflict(
                        "cycle",
                        "rows refer to each other in a circle that can't be opened"
                        f" ({error.constraint})",
                    )


def _origin(conn: psycopg.Connection[Any]) -> Origin:
    row = conn.execute(
        "select oid::bigint, pg_catalog.has_function_privilege('pg_catalog.pg_control_system()',"
        " 'execute') from pg_catalog.pg_database where datname = current_database()"
    ).fetchone()
    assert row is not None
    number, may = row
    if may:
        row = conn.execute(
            "select system_identifier::text from pg_catalog.pg_control_system()"
        ).fetchone()
    return (row[0] if may and row else None), number


def _origin_of(conn: psycopg.Connection[Any], schema: str, epoch: int) -> Origin:
    row = conn.execute(
        sql.SQL("select system_identifier, database_oid from {} where epoch = %s").format(
            sql.Identifier(schema, "epochs")
        ),
        [epoch],
    ).fetchone()
    assert row is not None
    return row[0], row[1]
