"""Puts the rows of a state into a table of another database, in constant memory.

They come as JSON, some thousands at a time into a temporary table, and become rows by PostgreSQL's
own input functions, or by `populate`, which knows the flags: the history's own, made anew here. A
value that the table's type refuses is left out and told, with how many there are.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec
import psycopg
from psycopg import sql

from bemi.history.rebuilding import Made
from bemi.history.state import StateRow

_ROWS: Final = 20_000
_BYTES: Final = 8 << 20
"""Of one piece; what comes first ends it."""

_SETTINGS: Final = {
    "search_path": "pg_catalog, pg_temp",
    "datestyle": "ISO, MDY",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "lc_monetary": "C",
    "xmloption": "content",
    "array_nulls": "on",
    "standard_conforming_strings": "on",
}
"""Under which values are read as they were written; see the store's `populate`."""

_WITHOUT_VALUE: Final = frozenset({"masked", "hashed", "undecodable", "unchanged", "too_large"})
_MISSING: Final = frozenset({"unchanged", "too_large"})
_UNSURE: Final = frozenset({"stale", "uncertain"})

_CAREFUL: Final = """
create function pg_temp.bemi_careful(
    base anyelement, image jsonb, flags text[], out made anyelement, out lost text[]
) language plpgsql as $$
declare
    name text;
begin
    begin
        made := pg_temp.populate(base, image, flags);
        return;
    exception when others then
    end;
    for name in select jsonb_object_keys(image) loop
        begin
            perform pg_temp.populate(base, jsonb_build_object(name, image -> name), flags);
        exception when others then
            lost := lost || name;
            image := image - name;
        end;
    end loop;
    made := pg_temp.populate(base, image, flags);
end
$$;
create temporary table bemi_staged (image jsonb, flags jsonb) on commit drop;
"""

_UNDEFINED: Final = "undefined"
"""Values of columns that the table, as it is defined, does not have."""

_encode: Final = msgspec.json.Encoder().encode


class Unknown(msgspec.Struct, frozen=True):
    """A column of which some rows have no value, or one that may be outdated (`stale`)."""

    table: str
    column: str
    why: str
    rows: int


class Filled(msgspec.Struct, frozen=True):
    rows: int
    unknown: tuple[Unknown, ...]

    @property
    def lacking(self) -> dict[str, int]:
        """How many values each column lacks."""
        found: Counter[str] = Counter()
        for each in self.unknown:
            if each.why not in _UNSURE:
                found[each.column] += each.rows
        return found


class Filling:
    """Into tables of the target, in the transaction that its caller has begun."""

    def __init__(
        self,
        history: psycopg.Connection[Any],
        schema: str,
        target: psycopg.Connection[Any],
    ) -> None:
        self._target = target
        row = history.execute(
            "select pg_get_functiondef(p.oid) from pg_proc p join pg_namespace n"
            " on n.oid = p.pronamespace where n.nspname = %s and p.proname = 'populate'",
            [schema],
        ).fetchone()
        assert row is not None
        _, _, rest = row[0].partition("(")
        target.execute(f"create function pg_temp.populate({rest}".encode())
        target.execute(_CAREFUL)

    def fill(self, made: Made, rows: Iterable[StateRow], report: Callable[[int], None]) -> Filled:
        """`report` is told how many rows came with each piece."""
        piece = _Piece()
        reasons: Counter[tuple[str, str]] = Counter()
        missing: Counter[str] = Counter()
        count = 0
        for row in rows:
            piece.add(row, reasons)
            if piece.rows >= _ROWS or piece.size >= _BYTES:
                count += self._store(made, piece, reasons, missing, report)
                piece = _Piece()
        if piece.rows:
            count += self._store(made, piece, reasons, missing, report)
        for column, lacking in missing.items():
            told = sum(
                n for (name, why), n in reasons.items() if name == column and why in _MISSING
            )
            if lacking > told:
                reasons[column, "missing"] = lacking - told
        own = {column.name for column in made.columns}
        unknown = [
            Unknown(made.table, column, why, n)
            for (column, why), n in sorted(reasons.items())
            if column in own or not column or why == _UNDEFINED
        ]
        return Filled(count, tuple(unknown))

    def _store(
        self,
        made: Made,
        piece: "_Piece",
        reasons: Counter[tuple[str, str]],
        missing: Counter[str],
        report: Callable[[int], None],
    ) -> int:
        target = self._target
        with target.cursor() as cursor:
            with cursor.copy("copy pg_temp.bemi_staged (image, flags) from stdin") as copy:
                copy.write(b"".join(piece.lines))
            own = [column.name for column in made.columns if not column.generated]
            names = [column.name for column in made.columns]
            *counts, surplus = cursor.execute(
                sql.SQL("select {} from pg_temp.bemi_staged").format(
                    sql.SQL(", ").join(
                        sql.SQL("count(*) filter (where {})").format(each)
                        for each in (
                            *(sql.SQL("not image ? {}").format(sql.Literal(name)) for name in own),
                            sql.SQL("image - {}::text[] <> '{{}}'").format(sql.Literal(names)),
                        )
                    )
                )
            ).fetchall()[0]
            missing.update({name: n for name, n in zip(own, counts, strict=True) if n})
            if surplus:
                for column, n in cursor.execute(
                    "select name, count(*) from pg_temp.bemi_staged, jsonb_object_keys(image) name"
                    " where name <> all(%s::text[]) group by name",
                    [names],
                ).fetchall():
                    reasons[column, _UNDEFINED] += n
            plainly = self._plainly(made, own)
            if piece.flagged or not plainly:
                for column, n in self._carefully(made, own, flagged_only=plainly):
                    reasons[column, "refused"] += n
            cursor.execute("truncate pg_temp.bemi_staged")
        report(piece.rows)
        return piece.rows

    def _plainly(self, made: Made, own: list[str]) -> bool:
        """Of the rows without flags, whether all values are taken as they are."""
        statement = sql.SQL(
            "insert into {table} ({columns}) overriding system value select {values}"
            " from pg_temp.bemi_staged s, jsonb_populate_record(null::{table}, s.image) r"
            " where s.flags is null"
        )
        try:
            with self._target.transaction():
                self._target.execute(_insertion(statement, made, own, "r"))
        except (psycopg.DataError, psycopg.IntegrityError, psycopg.ProgrammingError):
            return False
        return True

    def _carefully(
        self, made: Made, own: list[str], *, flagged_only: bool
    ) -> list[tuple[str, int]]:
        """By flags, and row by row; the columns of which values were refused."""
        statement = sql.SQL(
            "with done as materialized (select c.made, c.lost from pg_temp.bemi_staged s,"
            " pg_temp.bemi_careful(null::{table}, s.image,"
            " (select array_agg(f) from jsonb_array_elements_text(s.flags) f)) c"
            " where {every} or s.flags is not null),"
            " stored as (insert into {table} ({columns}) overriding system value"
            " select {values} from done)"
            " select name, count(*) from done, unnest(done.lost) name group by name"
        )
        return self._target.execute(
            _insertion(statement, made, own, "made", every=not flagged_only)
        ).fetchall()


class _Piece:
    """Lines of COPY's text format."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.rows = 0
        self.size = 0
        self.flagged = False

    def add(self, row: StateRow, reasons: Counter[tuple[str, str]]) -> None:
        flags = b"\\N"
        if row.flags:
            self.flagged = True
            flags = _encode(sorted(row.flags)).replace(b"\\", b"\\\\")
            for flag in row.flags:
                why, _, column = flag.partition(":")
                if why in _WITHOUT_VALUE or why in _UNSURE:
                    reasons[column, why] += 1
        line = bytes(row.image).replace(b"\\", b"\\\\") + b"\t" + flags + b"\n"
        self.lines.append(line)
        self.rows += 1
        self.size += len(line)


def prepare(target: psycopg.Connection[Any]) -> None:
    """Set the transaction up, in which rows are read as they were written."""
    for name, value in _SETTINGS.items():
        if value:
            target.execute(
                sql.SQL("set local {} to {}").format(sql.Identifier(name), sql.SQL(value))
                if name == "search_path"
                else sql.SQL("set local {} to {}").format(sql.Identifier(name), sql.Literal(value))
            )


def _insertion(
    statement: sql.SQL, made: Made, own: list[str], of: str, *, every: bool = False
) -> sql.Composed:
    # Of a table without columns of its own, the rows alone.
    values = [sql.SQL("({}).{}").format(sql.SQL(of), sql.Identifier(name)) for name in own]
    return statement.format(
        table=made.identifier,
        every=sql.Literal(every),
        columns=sql.SQL(", ").join(map(sql.Identifier, own)),
        values=sql.SQL(", ").join(values),
    )
