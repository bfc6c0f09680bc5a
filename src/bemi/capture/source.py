"""The replication connection: frames in, feedback out, in its own rhythm.

psycopg has no replication API; this loop stands on libpq's COPY functions, as
https://www.postgresql.org/docs/current/libpq-copy.html describes them.
"""

import re
import select
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec
import psycopg
from psycopg import pq, sql

from bemi.capture.encodings import Encoding, encoding_of
from bemi.capture.protocol import Frame, postgres_time, read_frame, write_status
from bemi.connections import connect, explain, explained, first_line, make_lasting
from bemi.errors import PassingError, SetupError, SlotBusyError
from bemi.lsn import Lsn

_STATUS_INTERVAL: Final = 5.0
"""Seconds between status updates, fewer where wal_sender_timeout is under 20 s: the server
asks for one after half of it, and cuts off after the whole."""

_SILENCE: Final = 60.0
"""Seconds of listening without a byte after which the server is gone; after half of them it is
asked for a reply."""

STREAM_SETTINGS: Final = {
    "datestyle": "ISO, MDY",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "3",
    "xmloption": "content",
    "lc_monetary": "C",
    # A regclass and its kin are written with their schema, but for what is PostgreSQL's own.
    "search_path": "pg_catalog",
}
"""The session settings that shape values in the stream; a role's own would change it."""


# The server's words are in its language, but its names for things are not.
_UNSENDABLE: Final = re.compile(r'"pgoutput".*?([0-9A-F]{1,8}/[0-9A-F]{1,8})\s*$', re.MULTILINE)


class Identity(msgspec.Struct, frozen=True):
    """Where the log that is read comes from: IDENTIFY_SYSTEM and the database's OID."""

    system_identifier: str
    timeline: int
    flushed: Lsn
    database: str
    database_oid: int


class Source:
    """A replication connection to one database. Not for use by several threads."""

    def __init__(self, url: str, *, now: Callable[[], float] = time.time) -> None:
        """Raises `PassingError` or `SetupError` when there is no such connection to be had."""
        options = " ".join(
            f"-c {name}={value.replace(' ', chr(92) + ' ')}"
            for name, value in STREAM_SETTINGS.items()
        )
        self._now = now
        self._conn = connect(
            url,
            what="source",
            replication=True,
            # A WARNING may say that changes were left out: see `_notice`.
            options=options + " -c client_min_messages=warning",
            client_encoding="UTF8",
        )
        with explained("source"):
            make_lasting(self._conn)
        self._conn.add_notice_handler(self._notice)
        self._left_out: str | None = None
        self._pgconn = self._conn.pgconn
        self._acknowledged = Lsn(0)
        self._status_at = time.monotonic()
        self._status_interval = _STATUS_INTERVAL
        self._silent_since: float | None = None
        self._encoding = encoding_of("UTF8")

    def close(self) -> None:
        self._conn.close()

    def identify(self) -> Identity:
        with explained("source"):
            row = self._conn.execute("IDENTIFY_SYSTEM").fetchone()
            assert row is not None
            database = self._conn.execute(
                "select oid::bigint from pg_database where datname = current_database()"
            ).fetchone()
            assert database is not None
        return Identity(row[0], int(row[1]), Lsn.parse(row[2]), row[3], database[0])

    def check_settings(self) -> Encoding:
        """Read back what was asked for; the encoding that the stream will come in.

        Raises `SetupError` when a setting did not take: values would come in another form,
        and for an encoding that can't be read.
        """
        with explained("source"):
            for name, wanted in STREAM_SETTINGS.items():
                found = self._show(name)
                if found.replace(" ", "") != wanted.replace(" ", ""):
                    raise SetupError(
                        f"the replication connection's {name} is {found!r}, not {wanted!r}",
                        fix="connect without a pooler that strips startup options",
                    )
            self._encoding = encoding_of(self._show("server_encoding"))
        return self._encoding

    @property
    def encoding(self) -> Encoding:
        """What `check_settings` found."""
        return self._encoding

    def _show(self, name: str) -> str:
        row = self._conn.execute(sql.SQL("show {}").format(sql.Identifier(name))).fetchone()
        assert row is not None
        return str(row[0])

    def start(self, slot: str, publication: str) -> None:
        """Begin streaming from where the slot stands. The slot is this connection's alone.

        Raises `SlotBusyError` while another process holds the slot.
        """
        # The publication's name goes into a literal that pgoutput splits as identifiers.
        names = '"' + publication.replace('"', '""') + '"'
        command = sql.SQL(
            "START_REPLICATION SLOT {} LOGICAL 0/0 "
            "(proto_version '1', publication_names {}, messages 'true')"
        ).format(sql.Identifier(slot), sql.Literal(names))
        statement = command.as_string(self._conn).encode(self._encoding.text)
        with explained("source"):
            row = self._conn.execute(
                "select setting::int from pg_settings where name = 'wal_sender_timeout'"
            ).fetchone()
            self._conn.execute(
                sql.SQL("set client_encoding to {}").format(sql.Literal(self._encoding.client))
            )
        if row is not None and row[0] > 0:
            self._status_interval = min(_STATUS_INTERVAL, row[0] / 4000)  # it is in milliseconds
        result = self._pgconn.exec_(statement)
        if result.status != pq.ExecStatus.COPY_BOTH:
            error = _error(result)
            if error.sqlstate == "55006":
                raise SlotBusyError(f"the replication slot is busy: {first_line(error)}")
            raise explain(error, "source")
        self._pgconn.nonblocking = 1

    @property
    def socket(self) -> int:
        """Readable when the server has sent something."""
        return self._pgconn.socket

    def receive(self) -> Frame | None:
        """The next frame, or `None` when none has arrived; never waits.

        Raises `PassingError` when the connection ended.
        """
        size, data = self._pgconn.get_copy_data(1)
        if size == 0:
            try:
                self._pgconn.consume_input()
            except psycopg.OperationalError as error:
                raise explain(error, "source") from error
            size, data = self._pgconn.get_copy_data(1)
        if self._left_out is not None:
            raise _unpublished(self._left_out)
        if size == 0:
            self._silent_since = self._silent_since or time.monotonic()
            return None
        if size < 0:
            raise self._ended()
        self._silent_since = None
        return read_frame(data)

    def wait(self, seconds: float, *, also: int) -> None:
        """Wait until the server sends, `also` (a file descriptor) is readable, or time is up."""
        select.select([self.socket, also], [], [], seconds)

    def acknowledge(self, flushed: Lsn, *, urgent: bool = False) -> None:
        """Tell the server that everything before `flushed` is durable in the destination.

        Sent when there is news, when `urgent` (the server asked), and every few seconds all
        the same. Guarantees that `flushed` never goes back; the caller guarantees that it
        never runs ahead of the destination's checkpoint.
        """
        elapsed = time.monotonic() - self._status_at
        if flushed <= self._acknowledged and not urgent and elapsed < self._status_interval:
            return
        # Only what `receive` found: while the destination is slow nobody listens.
        silence = time.monotonic() - self._silent_since if self._silent_since else 0.0
        if silence > _SILENCE:
            raise PassingError(f"the source has been silent for {silence:.0f} s")
        self._acknowledged = max(self._acknowledged, flushed)
        status = write_status(
            self._acknowledged,
            postgres_time(self._now()),
            reply_requested=silence > _SILENCE / 2,
        )
        try:
            self._pgconn.put_copy_data(status)
            # Unsent bytes go with the next flush: a status update is a few bytes, and the
            # next one says all that this one said.
            self._pgconn.flush()
        except psycopg.OperationalError as error:
            raise explain(error, "source") from error
        self._status_at = time.monotonic()

    def _notice(self, notice: psycopg.errors.Diagnostic) -> None:
        """From PostgreSQL 18 on, changes of a publication that was not there then are skipped.

        The server only warns ("skipped loading publication"), once, before what comes next.
        """
        if notice.severity_nonlocalized == "WARNING" and notice.sqlstate == "55000":
            self._left_out = notice.message_primary or ""

    def _ended(self) -> Exception:
        result = self._pgconn.get_result()
        if result is None or result.status != pq.ExecStatus.FATAL_ERROR:
            return PassingError("the source ended the replication stream")
        error = _error(result)
        if error.sqlstate == "42704":  # before 18, that is an error
            return _unpublished(first_line(error))
        at = _UNSENDABLE.search(error.diag.context or "")
        found = explain(error, "source")
        if at is None or isinstance(found, PassingError):
            return found
        return SetupError(
            f"the source can't send what it logged at {at[1]}: {first_line(error)}",
            fix="such a row, over 1 GB as text, can only be left behind: `bemi recover"
            " --new-slot` records what lies between as a gap, and finds out what it came to",
        )


def _unpublished(words: str) -> SetupError:
    return SetupError(
        f"changes can't be read any more, since their publication was dropped: {words}",
        fix="`bemi recover --new-slot` makes the slot anew, and finds out what changed meanwhile",
    )


def _error(result: Any) -> psycopg.Error:
    return psycopg.errors.error_from_result(result, encoding="utf-8")
