"""Reads what a table holds now, with the place in the stream at which it is so.

A look at a table is one short transaction: its lock, a snapshot, and in the very statement that
takes the snapshot a message into the log. What the snapshot sees was committed before the
message was written, so the message's place stands for "then", but for the transactions that
were just committing: their commits may lie before the message and be invisible all the same.
Which those are, the snapshot tells by their ids. The lock is older than the snapshot and held
until the rows are read, so that no TRUNCATE and no rewrite, which snapshots can't protect from,
comes between. Rows come as the stream would send them: PostgreSQL's text, under its settings.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeAlias

import msgspec
import psycopg
from psycopg import pq, sql

from bemi.capture.catalog import Catalog
from bemi.capture.encodings import Encoding, encoding_of
from bemi.capture.source import STREAM_SETTINGS
from bemi.capture.stitcher import BASELINE_PREFIX
from bemi.change import Table
from bemi.config import Settings
from bemi.connections import connect, explain, explained, make_lasting
from bemi.errors import PassingError, TableError
from bemi.lsn import Lsn

LOCK_TIMEOUT: Final = "500ms"
"""A lock that only ACCESS EXCLUSIVE is in the way of; others queue up behind our request."""

_PATIENCE: Final = 2500
"""Milliseconds for one statement that reads rows; with the lock and a second of reading before
it, no look takes 5 s."""

_MOST_PATIENCE: Final = 600_000
"""Where a statement was given up, the next try gets twice its time, up to this: behind a million
dead rows even one row takes long."""

ReadRow: TypeAlias = tuple[bytes | None, ...]

_FIRST_STEP: Final = 8
_LARGEST_STEP: Final = 2000
_STEP_BYTES: Final = 1 << 20
"""Rows of one statement: as many as fit, going by the rows before them."""


_RENAMES: Final = 3


class AlteredError(TableError):
    """The table has other columns, types or another key than when its rows were begun with."""


class Limits(msgspec.Struct, frozen=True):
    """How much one look reads at most; what is reached first ends it."""

    rows: int = 10_000
    bytes: int = 8 << 20
    seconds: float = 1.0


class Moment(msgspec.Struct, frozen=True):
    """What a look saw, and its place: `position` lies inside of the message's own record.

    So no commit begins there, and it can't be taken for a transaction's. A transaction that
    the look does not see has an id in `in_progress` or from `xmax` on; one that committed
    before `position` has an id below `next_xid`. `committed_at`: microseconds since 2000-01-01.
    """

    position: Lsn
    xmax: int
    in_progress: tuple[int, ...]
    next_xid: int
    committed_at: int


class Page(msgspec.Struct, frozen=True):
    """Rows in the order of their key; `exhausted`: there were none behind them."""

    rows: list[ReadRow]
    last_key: tuple[bytes, ...] | None
    exhausted: bool


class _Layout(msgspec.Struct, frozen=True):
    """How to ask for a table's rows; names as SQL, in the source's encoding."""

    table: Table
    name: bytes
    columns: bytes
    paging: tuple[int, ...]
    """Columns of an index by whose order rows can be paged; empty where there is none."""
    paging_names: tuple[bytes, ...]
    paging_types: tuple[bytes, ...]
    search_path: bytes | None
    """Another than the session's, where that does not lead to the index's own operators."""


class TableReader:
    """Looks at the tables of one source. Not for use by several threads.

    Raises `PassingError` for what passes, `SetupError` for what concerns all tables, and
    `TableError` for what concerns one.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        timeline: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`timeline` is the epoch's: a look at a server on another one is refused."""
        self._timeline = timeline
        self._clock = clock
        self._layouts: dict[int, _Layout] = {}
        self._patience = _PATIENCE
        self._step: dict[int, int] = {}
        with contextlib.ExitStack() as stack:
            self._aside = stack.enter_context(
                connect(settings.source_url, what="source", client_encoding="UTF8")
            )
            self._conn = stack.enter_context(
                connect(settings.source_url, what="source", client_encoding="UTF8")
            )
            self._encoding = self._prepare()
            self._catalog = Catalog(self._aside, self._encoding, settings.publication)
            self._pgconn = self._conn.pgconn
            stack.pop_all()

    def close(self) -> None:
        self._conn.close()
        self._aside.close()

    def __enter__(self) -> "TableReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def encoding(self) -> Encoding:
        return self._encoding

    @property
    def connection(self) -> psycopg.Connection[Any]:
        """For questions beside the looks; in autocommit."""
        return self._aside

    def estimate(self, relation: int) -> int:
        """Rows that the table may have, going by its statistics."""
        with explained("source"):
            row = self._aside.execute(
                "select greatest(reltuples, 0)::bigint from pg_class where oid = %s", [relation]
            ).fetchone()
        return 0 if row is None else int(row[0])

    def mark(self) -> Moment:
        """A place in the stream, without a look: all that is visible now committed before it."""
        with explained("source"):
            row = self._aside.execute(
                "select pg_current_snapshot()::text, pg_logical_emit_message(false, %s, '')::text",
                [BASELINE_PREFIX],
            ).fetchone()
        assert row is not None
        return self._moment(row[0], row[1])

    @contextlib.contextmanager
    def look(self, relation: int, *, at_once: bool = False) -> Iterator["Look"]:
        """A look at one table, as long as the block lasts; `at_once`: one that may take long.

        Raises `AlteredError` when the table is not as `table` said.
        """
        name = ""
        try:
            layout, moment = self._open(relation, at_once)
            name = _shown(layout.table)
            yield Look(self, layout, moment)
            self._run(b"commit")
        except psycopg.errors.QueryCanceled as error:
            raise PassingError(f"{name} was not read in time: it gets more") from error
        except psycopg.errors.LockNotAvailable as error:
            raise PassingError("another session keeps the table locked") from error
        except psycopg.errors.InsufficientPrivilege as error:
            raise self._unreadable(relation) from error
        except psycopg.Error as error:
            raise explain(error, "source") from error
        finally:
            self._end()

    def table(self, relation: int) -> Table:
        """The table as the stream describes it now. Raises `TableError` when it is gone."""
        return self._lay_out(relation).table

    def paging(self, relation: int) -> tuple[int, ...]:
        """The columns by which the table of the last `table` can be read in pieces."""
        return self._layouts[relation].paging

    def _prepare(self) -> Encoding:
        """Both sessions' settings; the encoding of the rows."""
        with explained("source"):
            for conn in (self._aside, self._conn):
                make_lasting(conn)
                # A mark that is not flushed here is not sent; what standbys have does not matter.
                conn.execute("set synchronous_commit to local")
                conn.execute("set default_transaction_read_only to off")
            row = self._aside.execute("show server_encoding").fetchone()
            assert row is not None
            found = row[0].decode() if isinstance(row[0], bytes) else str(row[0])
            encoding = encoding_of(found)
            for name, value in STREAM_SETTINGS.items():
                self._conn.execute("select set_config(%s, %s, false)", [name, value])
            self._conn.execute(
                sql.SQL("set client_encoding to {}").format(sql.Literal(encoding.client))
            )
        return encoding

    def _open(self, relation: int, at_once: bool) -> tuple[_Layout, Moment]:
        """Begin: with the lock held, see that the table is what the layout says."""
        layout = self._layouts.get(relation) or self._lay_out(relation)
        for _ in range(_RENAMES):
            with contextlib.suppress(
                psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName
            ):
                self._begin(layout, at_once)
                snapshot, position, timeline, oid = self._values(
                    _SNAPSHOT, BASELINE_PREFIX.encode(), layout.name
                )
                assert snapshot is not None
                assert position is not None
                if int(timeline or b"0", 16) != self._timeline:
                    raise PassingError("the source is on another timeline than the history")
                if oid is not None and int(oid) == relation:
                    table = self._catalog.table(relation)
                    if table is not None and shape_of(table) == shape_of(layout.table):
                        return layout, self._moment(snapshot.decode(), position.decode())
            self._end()
            before, layout = layout, self._lay_out(relation)
            if shape_of(before.table) != shape_of(layout.table):
                raise AlteredError(
                    f"{_shown(before.table)} was altered while its rows were read",
                    fix="run `bemi snapshot` again: its baseline begins anew",
                )
        raise PassingError("the table is being renamed again and again")

    def _begin(self, layout: _Layout, at_once: bool) -> None:
        patience = 0 if at_once else self._patience
        statements = [
            b"begin isolation level repeatable read read only",
            # Policies must make it fail, not leave rows out.
            b"set local row_security to off",
            b"set local lock_timeout to '%b'" % LOCK_TIMEOUT.encode(),
            b"set local statement_timeout to %d" % patience,
            b"set local jit to off",
            b"set local max_parallel_workers_per_gather to 0",
            b"lock table only %b in access share mode" % layout.name,
        ]
        if not at_once:
            statements[-1:-1] = [
                b"set local enable_seqscan to off",
                b"set local enable_bitmapscan to off",
                b"set local enable_sort to off",
            ]
        if layout.search_path is not None:
            statements.insert(1, b"set local search_path to " + layout.search_path)
        self._run(b"; ".join(statements))

    def _end(self) -> None:
        if self._pgconn.transaction_status not in (
            pq.TransactionStatus.IDLE,
            pq.TransactionStatus.UNKNOWN,
        ):
            with contextlib.suppress(psycopg.Error):
                self._run(b"rollback")

    def _moment(self, snapshot: str, position: str) -> Moment:
        """The second message, committed, is what the worker moves its checkpoint for at once."""
        with explained("source"):
            row = self._aside.execute(
                "select pg_logical_emit_message(true, %s, '{}'),"
                " pg_current_xact_id()::text::bigint,"
                " (extract(epoch from clock_timestamp()) * 1000000)::bigint - 946684800000000",
                [BASELINE_PREFIX],
            ).fetchone()
        assert row is not None
        _, xmax, in_progress = snapshot.split(":")
        return Moment(
            # The function gives the end of the record.
            position=Lsn(Lsn.parse(position) - 1),
            xmax=int(xmax),
            in_progress=tuple(int(each) for each in in_progress.split(",") if each),
            next_xid=row[1],
            committed_at=row[2],
        )

    def _lay_out(self, relation: int) -> _Layout:
        table = self._catalog.table(relation)
        if table is None:
            raise TableError("the table was dropped")
        try:
            layout = self._layout(relation, table)
        except psycopg.Error as error:
            raise explain(error, "source") from error
        self._layouts[relation] = layout
        return layout

    def _layout(self, relation: int, table: Table) -> _Layout:
        oid = str(relation).encode()
        (name,) = self._values(_NAME, oid)
        if name is None:
            raise TableError("the table was dropped")
        quoted = {row[0]: row[1] for row in self._rows(_COLUMNS, oid)}
        numbers = [str(column.number).encode() for column in table.columns]
        if not all(number in quoted for number in numbers):
            raise PassingError("a table was altered just now")
        columns = b", ".join(quoted[number] or b"" for number in numbers)
        paging: list[int] = []
        schemas: list[bytes] = []
        for number, usable, schema in self._rows(_PAGING, oid):
            if usable != b"t" or number not in numbers or schema is None:
                paging = []
                break
            paging.append(numbers.index(number))
            if schema not in schemas:
                schemas.append(schema)
        types = ",".join(str(table.columns[at].type_oid) for at in paging)
        spelled = [row[0] or b"" for row in self._rows(_TYPES, f"{{{types}}}".encode())]
        (path,) = self._values(_SEARCH_PATH, _text_array(schemas))
        return _Layout(
            table=table,
            name=name,
            columns=columns,
            paging=tuple(paging),
            paging_names=tuple(quoted[numbers[at]] or b"" for at in paging),
            paging_types=tuple(spelled),
            search_path=path,
        )

    def _unreadable(self, relation: int) -> TableError:
        with explained("source"):
            row = self._aside.execute(
                "select quote_ident(current_user), quote_ident(n.nspname),"
                " format('%%I.%%I', n.nspname, c.relname),"
                " has_schema_privilege(n.oid, 'usage'), has_table_privilege(c.oid, 'select'),"
                " c.relrowsecurity"
                " from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = %s",
                [relation],
            ).fetchone()
        if row is None:
            return TableError("the table was dropped")
        role, schema, name, may_use, may_read, secured = row
        if may_use and may_read and secured:
            return TableError(
                f"row-level security of {name} would hide rows from the role {role}",
                fix=f"alter role {role} bypassrls; as a superuser",
            )
        grants = [] if may_use else [f"grant usage on schema {schema} to {role};"]
        if not may_read:
            grants.append(f"grant select on {name} to {role};")
        return TableError(
            f"the role {role} may not read {name}",
            fix=" ".join(grants) or f"grant select on {name} to {role};",
        )

    # What follows speaks to libpq, whose values are the bytes that the server sent.

    def _run(self, statements: bytes) -> None:
        result = self._pgconn.exec_(statements)
        if result.status == pq.ExecStatus.FATAL_ERROR:
            raise psycopg.errors.error_from_result(result, encoding="utf-8")

    def _rows(self, statement: bytes, *values: bytes) -> list[ReadRow]:
        result = self._pgconn.exec_params(statement, values)
        if result.status != pq.ExecStatus.TUPLES_OK:
            raise psycopg.errors.error_from_result(result, encoding="utf-8")
        get, width = result.get_value, range(result.nfields)
        return [tuple([get(row, at) for at in width]) for row in range(result.ntuples)]

    def _values(self, statement: bytes, *values: bytes) -> tuple[bytes | None, ...]:
        rows = self._rows(statement, *values)
        return rows[0] if rows else (None,)

    def _page(self, layout: _Layout, after: tuple[bytes, ...] | None, limits: Limits) -> Page:
        found: list[ReadRow] = []
        size = 0
        step = self._step.get(layout.table.oid, _FIRST_STEP)
        ends_at = self._clock() + limits.seconds
        exhausted = False
        while len(found) < limits.rows and size < limits.bytes and self._clock() < ends_at:
            step = min(step, limits.rows - len(found))
            try:
                rows = self._rows(_page_query(layout, after is not None, step), *(after or ()))
            except psycopg.errors.QueryCanceled:
                self._step[layout.table.oid] = max(1, step // 16)
                if not found:
                    self._patience = min(2 * self._patience, _MOST_PATIENCE)
                    raise
                return Page(found, after, False)
            found += rows
            if len(rows) < step:
                exhausted = True
                break
            after = tuple([rows[-1][at] or b"" for at in layout.paging])
            came = sum(len(value) for row in rows for value in row if value is not None)
            size += came
            fitting = _STEP_BYTES * len(rows) // max(came, 1)
            step = max(1, min(2 * step, fitting, _LARGEST_STEP))
            self._step[layout.table.oid] = step
        self._patience = _PATIENCE
        if found:
            after = tuple([found[-1][at] or b"" for at in layout.paging])
        return Page(found, after, exhausted)

    def _everything(self, layout: _Layout) -> Iterator[list[ReadRow]]:
        self._run(
            b"declare bemi_rows no scroll cursor for select "
            + (layout.columns or b"null")
            + b" from only "
            + layout.name
        )
        step = 1
        while True:
            rows = self._rows(b"fetch " + str(step).encode() + b" from bemi_rows")
            if not layout.columns:
                rows = [()] * len(rows)
            if rows:
                yield rows
            if len(rows) < step:
                return
            came = sum(len(value) for row in rows for value in row if value is not None)
            fitting = _STEP_BYTES * len(rows) // max(came, 1)
            step = max(1, min(2 * step, fitting, _LARGEST_STEP))

    def _by_keys(self, layout: _Layout, keys: Sequence[tuple[bytes, ...]]) -> list[ReadRow]:
        types = layout.paging_types
        values: list[bytes] = []
        places = []
        for key in keys:
            casts = []
            for value, kind in zip(key, types, strict=True):
                values.append(value)
                casts.append(b"$%d::%b" % (len(values), kind))
            places.append(b"(" + b", ".join(casts) + b")")
        return list(
            self._rows(
                b"select %b from only %b where (%b) in (%b)"
                % (
                    layout.columns,
                    layout.name,
                    b", ".join(layout.paging_names),
                    b", ".join(places),
                ),
                *values,
            )
        )


class Look:
    """One look at a table. What it gives is as it was at `moment`."""

    def __init__(self, reader: TableReader, layout: _Layout, moment: Moment) -> None:
        self._reader = reader
        self._layout = layout
        self.moment = moment
        self.table = layout.table

    @property
    def paged(self) -> bool:
        """Whether there is an index by whose order rows can be read in pieces."""
        return bool(self._layout.paging)

    @property
    def paging(self) -> tuple[int, ...]:
        """The columns of that index."""
        return self._layout.paging

    def page(self, after: tuple[bytes, ...] | None, limits: Limits) -> Page:
        """The rows that come next in the order of the key."""
        return self._reader._page(self._layout, after, limits)  # noqa: SLF001 - one idea in two

    def everything(self) -> Iterator[list[ReadRow]]:
        """All rows, a few at a time."""
        return self._reader._everything(self._layout)  # noqa: SLF001

    def rows(self, keys: Sequence[tuple[bytes, ...]]) -> list[ReadRow]:
        """The rows with these values of the `paging` columns."""
        return self._reader._by_keys(self._layout, keys)  # noqa: SLF001


def shape_of(table: Table) -> str:
    """What must stay as it is while a table's rows are read in pieces."""
    columns = [f"{column.number} {column.type} {column.name}" for column in table.columns]
    key = [str(table.columns[at].number) for at in table.key]
    return "\n".join([*columns, ",".join(key)])


def _page_query(layout: _Layout, onward: bool, step: int) -> bytes:
    names = b", ".join(layout.paging_names)
    condition = b""
    if onward:
        values = b", ".join(
            b"$%d::%b" % (at, kind) for at, kind in enumerate(layout.paging_types, start=1)
        )
        condition = b" where (%b) > (%b)" % (names, values)
    return b"select %b from only %b%b order by %b limit %d" % (
        layout.columns,
        layout.name,
        condition,
        names,
        step,
    )


def _text_array(texts: Sequence[bytes]) -> bytes:
    quoted = (text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') for text in texts)
    return b"{" + b",".join(b'"' + text + b'"' for text in quoted) + b"}"


def _shown(table: Table) -> str:
    return table.partition or f"{table.schema}.{table.name}"


_SNAPSHOT: Final = b"""
select pg_current_snapshot()::text, pg_logical_emit_message(false, $1, '')::text,
    left(pg_walfile_name(pg_current_wal_insert_lsn()), 8), to_regclass($2)::oid::text
"""

_NAME: Final = b"""
select format('%I.%I', n.nspname, c.relname)
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.oid = $1::oid
"""

_COLUMNS: Final = b"""
select a.attnum::text, quote_ident(a.attname)
from pg_catalog.pg_attribute a
where a.attrelid = $1::oid and a.attnum > 0 and not a.attisdropped
"""

# The primary key's index, else the one of the replica identity: unique, without nulls. Usable
# is one that is in the order of the types' own operators, by which `order by` and `>` go; the
# schema is where those operators are.
_PAGING: Final = b"""
select a.attnum::text,
    am.amname = 'btree' and k.options = 0 and oc.opcdefault
        and k.collation = a.attcollation,
    (select n.nspname
     from pg_catalog.pg_amop o
     join pg_catalog.pg_operator p on p.oid = o.amopopr
     join pg_catalog.pg_namespace n on n.oid = p.oprnamespace
     where o.amopfamily = oc.opcfamily and o.amopstrategy = 5
         and o.amoplefttype = oc.opcintype and o.amoprighttype = oc.opcintype)
from (
    select * from pg_catalog.pg_index i
    where i.indrelid = $1::oid and i.indisvalid and i.indisunique
        and (i.indisprimary or i.indisreplident)
        and i.indpred is null and i.indexprs is null
    order by i.indisprimary desc limit 1
) i
join pg_catalog.pg_class ic on ic.oid = i.indexrelid
join pg_catalog.pg_am am on am.oid = ic.relam
cross join lateral (
    select key as attnum, i.indclass[n - 1] as class, i.indoption[n - 1] as options,
        i.indcollation[n - 1] as collation, n
    from unnest(i.indkey::int2[]) with ordinality each (key, n)
    where n <= i.indnkeyatts
) k
join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
join pg_catalog.pg_opclass oc on oc.oid = k.class
order by k.n
"""

# Appended only where need be, since names of objects are spelled by it, in the stream too.

_SEARCH_PATH: Final = b"""
select current_setting('search_path') || ', ' || string_agg(quote_ident(s), ', ')
from unnest($1::text[]) s
where s <> all (current_schemas(true))
"""

# With -1 for the modifier: `character` alone would be one character.
_TYPES: Final = b"""
select format_type(t, -1) from unnest($1::oid[]) with ordinality each (t, n) order by n
"""
