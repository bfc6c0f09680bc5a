"""What a transaction left in the write-ahead log, seen by a plugin that is not ours."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import sql

from tests.support import databases

TODO = "create table todo (id serial primary key, task text, n int)"


class Log:
    """The contexts and writes of a database, in order, by transaction. One slot a database."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.conn = psycopg.connect(url, autocommit=True)
        self.conn.execute(TODO)
        self._slot = f"seen_{self.conn.info.dbname}"
        self.conn.execute(
            "select pg_create_logical_replication_slot(%s, 'test_decoding')", [self._slot]
        )

    def seen(self) -> list[list[Any]]:
        """Since the last call, each transaction: contexts as objects, writes by their names."""
        # With empty ones: when they are skipped, a message comes before its BEGIN until 14.
        rows = self.conn.execute(
            "select data from pg_logical_slot_get_changes(%s, null, null, 'include-xids', '0')",
            [self._slot],
        ).fetchall()
        found: list[list[Any]] = []
        for (data,) in rows:
            if data.startswith("BEGIN"):
                found.append([])
            elif data.startswith("message: transactional: 1 prefix: _bemi,"):
                found[-1].append(json.loads(data.partition("content:")[2]))
            elif data.startswith("table"):
                found[-1].append(data.split(": ")[1].lower())
        return [each for each in found if each]

    def attributed(self) -> list[tuple[Any, str]]:
        """Since the last call: each row that was inserted into todo, as the context that it has and
        its task."""
        rows = self.conn.execute(
            "select data from pg_logical_slot_get_changes(%s, null, null, 'include-xids', '0')",
            [self._slot],
        ).fetchall()
        found: list[tuple[Any, str]] = []
        context: Any = None
        for (data,) in rows:
            if data.startswith("BEGIN"):
                context = None
            elif data.startswith("message: transactional: 1 prefix: _bemi,"):
                context = json.loads(data.partition("content:")[2])
            elif data.startswith("table public.todo: INSERT"):
                found.append((context, data.partition("task[text]:'")[2].partition("'")[0]))
        return found

    def tasks(self) -> list[str]:
        rows = self.conn.execute("select task from todo order by id").fetchall()
        return [row[0] for row in rows]

    @contextlib.contextmanager
    def not_allowed(self) -> Iterator[str]:
        """The address for a role that may write, and not send."""
        self._all_may_send("revoke", "from")
        self.conn.execute("grant all on all tables in schema public to public")
        self.conn.execute("grant all on all sequences in schema public to public")
        role = f"plain_{self.conn.info.dbname}"
        self.conn.execute(f"create role {role} login password 'plain'".encode())
        try:
            yield self.url.replace(f"postgres:{self.conn.info.password}", f"{role}:plain")
        finally:
            with contextlib.suppress(Exception):
                self.conn.execute(f"drop owned by {role}".encode())
            self.conn.execute(f"drop role {role}".encode())
            self._all_may_send("grant", "to")

    def _all_may_send(self, does: str, to: str) -> None:
        self.conn.execute(
            f"do $$ begin execute '{does} execute on function ' || "
            "(select oid::regprocedure from pg_proc where proname = 'pg_logical_emit_message' "
            f"and proargtypes[2] = 'text'::regtype) || ' {to} public'; end $$".encode()
        )

    def clear(self) -> None:
        """As the database was before, whoever has left a connection or a transaction open."""
        self.conn.execute(
            "select pg_terminate_backend(pid, 10000) from pg_stat_activity "
            "where datname = current_database() and pid <> pg_backend_pid() "
            "and backend_type = 'client backend'"
        )
        databases.drop_slots(self.conn, self.conn.info.dbname)
        for kind, names in (
            ("publication", "select pubname from pg_publication"),
            ("event trigger", "select evtname from pg_event_trigger"),
            ("schema", "select nspname from pg_namespace where nspname !~ '^(pg_|information_)'"),
        ):
            for (name,) in self.conn.execute(names.encode()).fetchall():
                drop = sql.SQL("drop {} {} cascade").format(sql.SQL(kind), sql.Identifier(name))
                self.conn.execute(drop)
        self.conn.execute("create schema public")
        self.conn.execute("grant usage on schema public to public")

    def close(self) -> None:
        self.conn.close()
