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
from collections.abc import Callable, Iterator
from typing import Any, Final

import psycopg
from psycopg import sql

from bemi.capture.catalog import Catalog
from bemi.capture.encodings import Encoding, encoding_of
from bemi.capture.layout import Layout, RawSession, lay_out, shape_of
from bemi.capture.look import AlteredError, Look, Moment, Tempo, shown
from bemi.capture.source import STREAM_SETTINGS
from bemi.capture.stitcher import BASELINE_PREFIX
from bemi.change import Table
from bemi.config import Settings
from bemi.connections import connect, explain, explained, make_lasting
from bemi.errors import PassingError, TableError
from bemi.lsn import Lsn

LOCK_TIMEOUT: Final = "500ms"
"""A lock that only ACCESS EXCLUSIVE is in the way of; others queue up behind our request."""

_RENAMES: Final = 3


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
        self._layouts: dict[int, Layout] = {}
        self._tempo = Tempo(clock)
        with contextlib.ExitStack() as stack:
            self._aside = stack.enter_context(
                connect(settings.source_url, what="source", client_encoding="UTF8")
            )
            self._conn = stack.enter_context(
                connect(settings.source_url, what="source", client_encoding="UTF8")
            )
            self._encoding = self._prepare()
            self._catalog = Catalog(self._aside, self._encoding, settings.publication)
            self._session = RawSession(self._conn.pgconn)
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
    def look(self, relation: int, *, at_once: bool = False) -> Iterator[Look]:
        """A look at one table, as long as the block lasts; `at_once`: one that may take long.

        Raises `AlteredError` when the table is not as `table` said.
        """
        name = ""
        try:
            layout, moment = self._open(relation, at_once)
            name = shown(layout.table)
            yield Look(self._session, layout, moment, self._tempo)
            self._session.run(b"commit")
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

    def _open(self, relation: int, at_once: bool) -> tuple[Layout, Moment]:
        """Begin: with the lock held, see that the table is what the layout says."""
        layout = self._layouts.get(relation) or self._lay_out(relation)
        for _ in range(_RENAMES):
            with contextlib.suppress(
                psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName
            ):
                self._begin(layout, at_once)
                snapshot, position, timeline, oid = self._session.row(
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
                    f"{shown(before.table)} was altered while its rows were read",
                    fix="run `bemi snapshot` again: its baseline begins anew",
                )
        raise PassingError("the table is being renamed again and again")

    def _begin(self, layout: Layout, at_once: bool) -> None:
        patience = 0 if at_once else self._tempo.patience
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
        self._session.run(b"; ".join(statements))

    def _end(self) -> None:
        with contextlib.suppress(psycopg.Error):
            self._session.end_transaction()

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

    def _lay_out(self, relation: int) -> Layout:
        table = self._catalog.table(relation)
        if table is None:
            raise TableError("the table was dropped")
        try:
            layout = lay_out(self._session, relation, table)
        except psycopg.Error as error:
            raise explain(error, "source") from error
        self._layouts[relation] = layout
        return layout

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


_SNAPSHOT: Final = b"""
select pg_current_snapshot()::text, pg_logical_emit_message(false, $1, '')::text,
    left(pg_walfile_name(pg_current_wal_insert_lsn()), 8), to_regclass($2)::oid::text
"""
