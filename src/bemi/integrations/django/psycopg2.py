"""Sends the current context through Django's connections of psycopg2.

It has no pipelines: the message is a round trip of its own, and in autocommit mode there is
one more, for the COMMIT of the transaction around the two.
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

from psycopg2 import extensions, sql

from bemi.context.sender import CHECK, COMMIT, Sender
from bemi.context.statements import Statement

_IDLE = extensions.TRANSACTION_STATUS_IDLE
_INERROR = extensions.TRANSACTION_STATUS_INERROR


def install(connection: Any, **options: Any) -> None:
    """`connection`: Django's, which has just been opened."""
    driver = connection.connection
    sender = Sender(**options)
    driver.cursor_factory = functools.partial(_Cursor, sender)

    def commit() -> None:
        # Django commits by the connection's own method, where no cursor is.
        if connection.connection is driver:
            with connection.wrap_database_errors, _sent(driver, sender, COMMIT):
                pass
        type(connection)._commit(connection)  # noqa: SLF001 - the method that this one stands for

    connection._commit = commit  # noqa: SLF001


class _Cursor(extensions.cursor):
    """Sends what is due before each statement."""

    def __init__(self, sender: Sender, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._bemi_sender = sender

    def _bemi_sent(self, query: Any) -> contextlib.AbstractContextManager[None]:
        if isinstance(query, sql.Composable):
            query = query.as_string(self)
        return _sent(self.connection, self._bemi_sender, query)

    def execute(self, query: Any, vars: Any = None) -> None:
        with self._bemi_sent(query):
            super().execute(query, vars)

    def executemany(self, query: Any, vars_list: Any) -> None:
        with self._bemi_sent(query):
            super().executemany(query, vars_list)

    def callproc(self, procname: Any, parameters: Any = ()) -> Any:
        with self._bemi_sent("select " + procname + "()"):
            return super().callproc(procname, parameters)

    def copy_expert(self, sql: Any, file: Any, size: int = 8192) -> None:
        with self._bemi_sent(sql):
            super().copy_expert(sql, file, size)

    def copy_from(self, *arguments: Any, **named: Any) -> None:
        with self._bemi_sent("copy it from stdin"):
            super().copy_from(*arguments, **named)


@contextlib.contextmanager
def _sent(conn: Any, sender: Sender, query: str | bytes | Statement) -> Iterator[None]:
    """Around a statement, so that the context is in its transaction."""
    statement = query if isinstance(query, Statement) else sender.statement(query)
    text = "" if isinstance(query, Statement) else query
    status = conn.info.transaction_status
    due = None
    if status != _INERROR:
        due = sender.due(
            statement, in_transaction=status != _IDLE, autocommit=conn.autocommit, text=text
        )
    if due is not None and not sender.allowed:
        with _plain(conn) as cursor:
            cursor.execute(CHECK)
            due = due if sender.checked(cursor.fetchone()) else None
    if due is None:
        yield
    else:
        with _plain(conn) as cursor:
            begin = "begin; " if due.wrap else ""
            cursor.execute(begin + due.statement("%s"), (due.content,))
            try:
                yield
            except BaseException:
                if due.wrap and not conn.closed:
                    cursor.execute("rollback")
                raise
            if due.wrap:
                cursor.execute("commit")
        sender.sent(due)
    sender.ran(statement)


def _plain(conn: Any) -> contextlib.AbstractContextManager[Any]:
    return contextlib.closing(extensions.cursor(conn))
