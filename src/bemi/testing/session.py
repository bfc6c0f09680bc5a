"""A test database whose changes are kept for as long as the tests run.

Starts the process that keeps them (`keeper`) and ends it; knows where the log is, waits until the
history is there too, and reads it. Nothing is written to the source but marks in its log.
"""

import dataclasses
import functools
import json
import os
import re
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from types import TracebackType
from typing import IO, Any, Final, Self

import msgspec
import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from bemi.capture.stitcher import MARK_PREFIX
from bemi.connections import connect, explained
from bemi.errors import BemiError, SetupError
from bemi.history.change import Change
from bemi.history.history import History
from bemi.lsn import Lsn
from bemi.rules import Rules
from bemi.store import reader
from bemi.store.filters import Filters

_PATIENCE: Final = 60.0
"""Seconds without any progress after which the history is taken to be stuck."""
_FIRST_PAUSE: Final = 0.0005
_LONGEST_PAUSE: Final = 0.02
_END: Final = 60.0

_TABLES: Final = """
select c.oid::bigint, n.nspname || '.' || c.relname
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind = 'r' and c.relpersistence = 'p' and n.nspname !~ '^pg_'
    and n.nspname not in ('information_schema', %s)
order by 2
"""
_QUIET: Final = "-c session_replication_role=replica"
_DRIVER: Final = re.compile(r"^(postgres(?:ql)?)\+\w+(?=://)")


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be kept: of which database, where, and by which settings of the application."""

    url: str
    history_url: str = ""
    config: str = ""
    baseline: bool = True


class Kept(msgspec.Struct, frozen=True):
    """What the keeper says when it is ready."""

    source: str
    name: str
    untracked: list[tuple[str, str]]
    not_full: list[tuple[str, str]]
    unmatched: list[str]
    rules: Rules


class Stretch(msgspec.Struct, frozen=True):
    """Of the log: what commits at these positions or between them."""

    since: Lsn
    until: Lsn


def url_of(given: object) -> str:
    """A connection string from what libraries have for one: SQLAlchemy's URL, with its driver."""
    spelled = getattr(given, "render_as_string", None)
    text = spelled(hide_password=False) if spelled is not None else given
    if not isinstance(text, str) or not text:
        raise SetupError(
            f"bemi_url gives {type(given).__name__}, which is no connection string",
            fix="let it give a text such as postgresql://USER:PASSWORD@HOST/DATABASE",
        )
    return _DRIVER.sub(r"\1", text)


class Session:
    """From the start of the keeper to its end. Raises `BemiError` where there is no history to
    be had, with the keeper's reason."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.undone: list[Stretch] = []
        """What was rolled back: for the tests it never happened."""
        self.told = False
        """Whether the tests were told of tables that are out of reach."""
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._keeper = self._start()
        self._unread = b""
        try:
            self.kept = self._ready()
            self.source = connect(order.url, what="source")
            self.history_url = order.history_url or order.url
            self.history = connect(self.history_url, what="destination")
            self._tables: set[int] = set()
            self.asked = History(self.history_url, schema=self.schema)
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def schema(self) -> str:
        return self.kept.name

    def close(self) -> None:
        """Raises `BemiError` for what could not be taken away."""
        self.source.close()
        self.history.close()
        self.asked.close()
        said = self._end()
        if said is not None:
            raise BemiError(f"not all of Bemi is removed: {said[0]}", fix=said[1])

    @functools.cached_property
    def quietly(self) -> tuple[str, bool]:
        """The URL with triggers and foreign keys off, and whether the role may switch them off."""
        given: dict[str, Any] = conninfo_to_dict(self.order.url)
        options = f"{given.pop('options', None) or ''} {_QUIET}".strip()
        quiet = make_conninfo("", **given, options=options)
        try:
            psycopg.connect(quiet).close()
        except psycopg.OperationalError:
            return self.order.url, False
        return quiet, True

    def now(self) -> Lsn:
        """All that is committed lies before it, all that will be at it or behind it."""
        with explained("source"):
            row = self.source.execute("select pg_current_wal_insert_lsn()::text").fetchone()
        assert row is not None
        return Lsn.parse(row[0])

    def caught_up(self) -> Lsn:
        """Wait until all that is committed by now is in the history; the position behind it."""
        with explained("source"), self.source.transaction():
            # Flushed, so that it is sent, whatever the role or the server has set.
            self.source.execute("set local synchronous_commit to local")
            row = self.source.execute(
                "select pg_logical_emit_message(true, %s, '')::text", [MARK_PREFIX]
            ).fetchone()
        assert row is not None
        target = Lsn.parse(row[0])
        self._wait(target)
        return target

    def changes(self, filters: Filters) -> Iterator[Change]:
        """In the order of the log, without what was rolled back, baselines and what they tell."""
        with explained("destination"):
            for stored in reader.changes(self.history, self.schema, filters):
                position = Lsn(stored.commit_position)
                if stored.operation == "SNAPSHOT" or "inferred" in (stored.flags or ()):
                    continue
                if not any(each.since <= position <= each.until for each in self.undone):
                    yield Change.of(stored)

    def within(self, filters: Filters, since: Lsn, until: Lsn) -> Filters:
        """Of what commits at these positions or between them, in the order of the log."""
        return dataclasses.replace(
            filters,
            source=self.kept.source,
            from_position=max(int(since), filters.from_position or 0),
            to_position=min(int(until), filters.to_position or int(until)),
            by_log=True,
            oldest_first=True,
        )

    def has_changes(self, since: Lsn, until: Lsn) -> bool:
        """Whether anything was committed there, also what was rolled back since."""
        with explained("destination"):
            asked = dataclasses.replace(self.within(Filters(), since, until), limit=1)
            return any(True for _ in reader.changes(self.history, self.schema, asked))

    def tables(self) -> set[str]:
        """Those of which all changes are kept, as `schema.table`; partitions by both names."""
        query = sql.SQL(
            'select schema, "table", partition from {} where source = %s and open'
        ).format(sql.Identifier(self.schema, "coverage"))
        with explained("destination"):
            rows = self.history.execute(query, [self.kept.source]).fetchall()
        return {f"{schema}.{table}" for schema, table, _ in rows} | {
            partition for *_, partition in rows if partition is not None
        }

    def take_up_tables(self) -> None:
        """See that tables which were made since are captured, too. One query, where there are
        none."""
        with explained("source"):
            found = {oid for oid, _ in self._persistent()}
            if found <= self._tables:
                return
            unpublished = self.source.execute(
                "select exists (select from unnest(%s::oid[]) oid where oid not in"
                " (select prrelid from pg_publication_rel r join pg_publication p"
                " on p.oid = r.prpubid where p.pubname = %s))",
                [[*found - self._tables], self.kept.name],
            ).fetchone()
        if unpublished is not None and unpublished[0]:
            assert self._keeper.stdin is not None
            self._keeper.stdin.write(b"look\n")
            self.kept = self._ready()
        self._tables = found

    def made_since(self) -> list[str]:
        """Tables that were not there yet when `take_up_tables` was called last."""
        with explained("source"):
            return [name for oid, name in self._persistent() if oid not in self._tables]

    def _persistent(self) -> list[tuple[int, str]]:
        return self.source.execute(_TABLES, [self.schema]).fetchall()

    def _wait(self, target: Lsn) -> None:
        query = sql.SQL(
            "select k.position from {} k join {} s using (source_id) where s.name = %s"
        ).format(sql.Identifier(self.schema, "checkpoints"), sql.Identifier(self.schema, "sources"))
        pause, last, moved = _FIRST_PAUSE, -1, time.monotonic()
        while True:
            with explained("destination"):
                row = self.history.execute(query, [self.kept.source]).fetchone()
            position = -1 if row is None else int(row[0])
            if position >= target:
                return
            self._check()
            now = time.monotonic()
            if position > last:
                last, moved = position, now
            elif now - moved > _PATIENCE:
                raise BemiError(
                    f"the history stands still at {Lsn(max(position, 0))}, before {target}",
                    fix="is the server out of disk, or does a lock on the history keep it?",
                )
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE)

    # --- the keeper --------------------------------------------------------------------------

    def _start(self) -> "subprocess.Popen[bytes]":
        others = {name: value for name, value in os.environ.items() if not _ours(name)}
        process = subprocess.Popen(
            [sys.executable, "-m", "bemi.testing.keeper"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            bufsize=0,
            env=others,
            # A terminal's Ctrl-C is for the tests, which end the keeper in order.
            start_new_session=True,
        )
        assert process.stdin is not None
        # Not as an argument, which all users of the machine see: there is a password in it.
        process.stdin.write(msgspec.json.encode(self.order) + b"\n")
        return process

    def _ready(self) -> Kept:
        while True:
            said = self._said(wait=True)
            if "ready" in said:
                return msgspec.convert(said["ready"], Kept)
            if "error" in said:
                raise SetupError(said["error"], fix=said["fix"])

    def _said(self, *, wait: bool) -> dict[str, Any]:
        """The keeper's next line; without `wait`, an empty one where there is none."""
        assert self._keeper.stdout is not None
        descriptor = self._keeper.stdout.fileno()
        while b"\n" not in self._unread:
            if not wait and not select.select([descriptor], [], [], 0)[0]:
                return {}
            piece = os.read(descriptor, 65536)
            if not piece:
                self._keeper.wait(_END)
                raise BemiError(f"the process that keeps the history has ended:\n{self._logged()}")
            self._unread += piece
        line, _, self._unread = self._unread.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def _check(self) -> None:
        said = self._said(wait=False)
        if "error" in said:
            raise BemiError(f"the history does not go on: {said['error']}", fix=said["fix"])

    def _end(self) -> tuple[str, str | None] | None:
        """What could not be taken away, with the fix."""
        keeper, failed = self._keeper, None
        try:
            rest, _ = keeper.communicate(timeout=_END)  # which closes its standard input
        except subprocess.TimeoutExpired:
            keeper.kill()
            keeper.wait()
            failed = (f"its process did not end within {_END:g} s", None)
        else:
            for line in (self._unread + rest).splitlines():
                said = json.loads(line)
                if "error" in said:
                    failed = (said["error"], said["fix"])
            if failed is None and keeper.returncode != 0:
                failed = (self._logged(), None)
        self._log.close()
        return failed

    def _logged(self) -> str:
        self._log.seek(0)
        return "\n".join(self._log.read().decode(errors="replace").splitlines()[-20:])


def _ours(name: str) -> bool:
    """A developer's settings are for another database than the tests'."""
    return name.startswith("BEMI_") and name != "BEMI_HASH_KEY"
