"""Sends the current context through psycopg2: before the first write of each transaction, by
itself (`Connection`, `install`), or when it is told to (`emit`).

psycopg2 has no pipelines and binds nothing: it quotes values itself. To put the context into the
text of the application's statement would save a round trip and alter that statement, with the
positions in its errors; so the message is a statement of its own, before it.
"""

import contextlib
import functools
import re
import threading
import warnings
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, Final, Unpack

from psycopg2 import extensions
from psycopg2.sql import Composable, Composed, Literal, Placeholder

from bemi.context.notice import warn_once
from bemi.context.sender import CHECK, COMMIT, Due, Options, Sender
from bemi.context.statements import Statement

# Where values begin in a text that psycopg2 has put them into: a literal, a number, a word.
_VALUE: Final = re.compile(
    rb"""'|"(?:[^"]|"")*"|\$|\b(?:true|false|null)\b|(?<!\w)\d""", re.IGNORECASE
)


def emit(connection: extensions.connection) -> None:
    """Sends what is current, `{}` too, so that an earlier context of the transaction ends.

    Sends nothing into a transaction that has failed, and warns where there is none that it could
    belong to: in autocommit mode outside of a block.
    """
    status = connection.get_transaction_status()
    if status == extensions.TRANSACTION_STATUS_IDLE and connection.autocommit:
        warnings.warn(
            "bemi.emit was called in autocommit mode outside of a transaction, where no write can"
            " follow in the same one; call it in a transaction",
            RuntimeWarning,
            stacklevel=3,
        )
    elif status != extensions.TRANSACTION_STATUS_INERROR:
        sender = sender_of(connection)
        if _may_send(connection, sender):
            due = sender.now()
            _send(connection, due)
            sender.sent(due)


def install(
    connection: extensions.connection,
    **options: Unpack[Options],
) -> None:
    """Makes the cursors of an open connection send the context of its transactions.

    Those that it has made before go on without. `options`: see `bemi.context.sender.Options`;
    `check_at_commit` sees the method `commit()` of a `Connection` only. Raises TypeError for an
    asynchronous connection.
    """
    if not isinstance(connection, extensions.connection):
        raise TypeError(f"{type(connection).__qualname__} is no connection of psycopg2")
    _refuse_asynchronous(connection)
    state = _State(Sender(**options))
    if isinstance(connection, Connection):
        connection.bemi_state = state
        return
    # A connection that is no class of Python's takes no attribute but this one.
    base = _tracking(connection.cursor_factory or extensions.cursor)
    connection.cursor_factory = type(base.__name__, (base,), {"bemi_state": state})


def committing(connection: Any) -> contextlib.AbstractContextManager[None]:
    """Goes around `commit()` of a connection that `install` was given, whose method nobody sees."""
    if isinstance(connection, Connection):
        return contextlib.nullcontext()
    return _sent(connection, _state_of(connection), COMMIT)


def sender_of(connection: extensions.connection) -> Sender:
    """What knows whether a connection may send; of one that was not installed, no more."""
    return _state_of(connection).sender


class _State:
    """What belongs to one connection, which several threads may share: between a message and its
    statement none may come in."""

    __slots__ = ("lock", "sender")

    def __init__(self, sender: Sender) -> None:
        self.sender = sender
        self.lock = threading.RLock()


_others: Final[weakref.WeakKeyDictionary[Any, _State]] = weakref.WeakKeyDictionary()
"""Of connections that only `emit` has been called with."""


class Connection(extensions.connection):  # type: ignore[misc]
    """A connection that sends contexts: `psycopg2.connect(…, connection_factory=Connection)`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _refuse_asynchronous(self)
        self.bemi_state = _State(Sender())

    def cursor(
        self,
        name: str | None = None,
        cursor_factory: Callable[..., Any] | None = None,
        scrollable: bool | None = None,
        withhold: bool = False,
    ) -> Any:
        factory = cursor_factory or self.cursor_factory or extensions.cursor
        if isinstance(factory, type) and issubclass(factory, extensions.cursor):
            factory = _tracking(factory)
        else:
            warn_once(f"{factory!r} is no class of cursors: what they run is without a context")
        return super().cursor(name, factory, scrollable=scrollable, withhold=withhold)

    def commit(self) -> None:
        if self.autocommit:  # it does nothing then
            super().commit()
            return
        with _sent(self, self.bemi_state, COMMIT):
            super().commit()

    def rollback(self) -> None:
        super().rollback()
        if not self.autocommit:
            self.bemi_state.sender.ended()

    def tpc_begin(self, xid: Any) -> None:
        super().tpc_begin(xid)
        self.bemi_state.sender.ended()

    def tpc_prepare(self) -> None:
        with _sent(self, self.bemi_state, COMMIT):
            super().tpc_prepare()

    def tpc_commit(self, *xid: Any) -> None:
        # Without having been prepared, it is a COMMIT in one phase.
        with _sent(self, self.bemi_state, COMMIT):
            super().tpc_commit(*xid)


def _nothing(*_: object) -> None:
    """Nothing to be checked."""


class _Tracking:
    """What a class of cursors gets in front of its own methods."""

    bemi_state: _State

    def execute(self, query: Any, vars: Any = None) -> Any:
        with self._bemi_sent(query, vars, self.mogrify):  # type: ignore[attr-defined]
            return super().execute(query, vars)  # type: ignore[misc]

    def executemany(self, query: Any, vars_list: Iterable[Any]) -> Any:
        with contextlib.closing(self._bemi_each(query, vars_list)) as each:
            return super().executemany(query, each)  # type: ignore[misc]

    def _bemi_each(self, query: Any, vars_list: Iterable[Any]) -> Generator[Any]:
        """The parameters, one by one, with the work that is around each execution: in autocommit
        mode each is a transaction."""
        for parameters in vars_list:
            with self._bemi_sent(query, parameters, self.mogrify):  # type: ignore[attr-defined]
                yield parameters

    def callproc(self, procname: str, parameters: Any = None) -> Any:
        with self._bemi_sent(f"select * from {procname}()"):  # noqa: S608 - to be looked at
            return super().callproc(procname, parameters)  # type: ignore[misc]

    def copy_expert(self, sql: Any, file: Any, *args: Any, **kwargs: Any) -> Any:
        with self._bemi_sent(sql):
            return super().copy_expert(sql, file, *args, **kwargs)  # type: ignore[misc]

    def copy_from(self, file: Any, table: str, *args: Any, **kwargs: Any) -> Any:
        with self._bemi_sent(f"copy {extensions.quote_ident(table, self._bemi)} from stdin"):
            return super().copy_from(file, table, *args, **kwargs)  # type: ignore[misc]

    def copy_to(self, file: Any, table: str, *args: Any, **kwargs: Any) -> Any:
        # It may begin a transaction.
        with self._bemi_sent(f"copy {extensions.quote_ident(table, self._bemi)} to stdout"):
            return super().copy_to(file, table, *args, **kwargs)  # type: ignore[misc]

    @property
    def _bemi(self) -> extensions.connection:
        connection: extensions.connection = self.connection  # type: ignore[attr-defined]
        return connection

    def _bemi_sent(
        self, query: Any, parameters: Any = None, check: Callable[..., object] = _nothing
    ) -> contextlib.AbstractContextManager[None]:
        connection: Any = self._bemi
        # A class made by `install` has it; else the connection.
        state: _State = getattr(self, "bemi_state", None) or connection.bemi_state
        text = query
        if isinstance(query, Composable):
            text = _values_as_parameters(query).as_string(connection)
        return _sent(
            connection, state, text, parameters, functools.partial(check, query, parameters)
        )


@functools.cache
def _tracking(base: Any) -> Any:
    """A class of cursors that send contexts, made of one that does not."""
    if not (isinstance(base, type) and issubclass(base, extensions.cursor)):
        raise TypeError(f"{base!r} is no class of psycopg2's cursors, so bemi can't extend it")
    if issubclass(base, _Tracking):
        return base
    return type(base.__name__, (_Tracking, base), {"__module__": base.__module__})


@contextlib.contextmanager
def _sent(
    connection: extensions.connection,
    state: _State,
    query: str | bytes | Statement,
    parameters: Any = None,
    check: Callable[[], object] = _nothing,
) -> Iterator[None]:
    """Around a statement, so that the context is in its transaction.

    `check` raises what would keep the statement from being sent: no transaction is to begin then.
    """
    sender = state.sender
    statement = query if isinstance(query, Statement) else sender.statement(query)
    with contextlib.ExitStack() as stack:
        stack.enter_context(state.lock)
        status = connection.get_transaction_status()
        try:
            due = None
            if status != extensions.TRANSACTION_STATUS_INERROR:
                due = sender.due(
                    statement,
                    in_transaction=status != extensions.TRANSACTION_STATUS_IDLE,
                    autocommit=connection.autocommit,
                    text="" if isinstance(query, Statement) else _without_values(query, parameters),
                )
            if due is not None and not due.wrap and status == extensions.TRANSACTION_STATUS_IDLE:
                check()
            if due is not None and _may_send(connection, sender):
                if due.wrap:
                    stack.enter_context(_wrapped(connection, due))
                else:
                    _send(connection, due)
                sender.sent(due)
            yield
        except BaseException:
            sender.failed(statement)
            raise
        sender.ran(statement)


@contextlib.contextmanager
def _wrapped(connection: extensions.connection, due: Due) -> Iterator[None]:
    """A transaction in autocommit mode; that it begins costs no round trip of its own.

    COMMIT comes after a failure, too: what has failed on the server is rolled back by it, and what
    only failed here, in a class of cursors, stands as it does in autocommit mode.
    """
    _execute(connection, "begin; " + due.statement("%s"), (due.content,))
    try:
        yield
    except BaseException:
        if connection.get_transaction_status() in (
            extensions.TRANSACTION_STATUS_INTRANS,
            extensions.TRANSACTION_STATUS_INERROR,
        ):
            _execute(connection, "commit")
        raise
    _execute(connection, "commit")


def _values_as_parameters(part: Composable) -> Composable:
    """A statement that was put together, as if its values were parameters."""
    if isinstance(part, Literal):
        return Placeholder()
    if isinstance(part, Composed):
        return Composed([_values_as_parameters(each) for each in part.seq])
    return part


def _without_values(query: str | bytes, parameters: Any) -> str | bytes:
    """The statement; up to its first value, where psycopg2 may have put values into its text, as
    `mogrify` does, and `execute_values` and `execute_batch` with it: they give bytes."""
    if parameters or not isinstance(query, bytes):
        return query
    at = 0
    while (found := _VALUE.search(query, at)) is not None:
        if not found[0].startswith(b'"'):
            return query[: found.start()] + "…".encode()
        at = found.end()
    return query


def _state_of(connection: Any) -> _State:
    holder = connection if isinstance(connection, Connection) else connection.cursor_factory
    state: _State | None = getattr(holder, "bemi_state", None)
    return _others.setdefault(connection, _State(Sender())) if state is None else state


def _may_send(connection: extensions.connection, sender: Sender) -> bool:
    """Whether the role may; asked once for each connection."""
    if sender.allowed is not None:
        return sender.allowed
    return sender.checked(_execute(connection, CHECK))


def _send(connection: extensions.connection, due: Due) -> None:
    _execute(connection, due.statement("%s"), (due.content,))


def _execute(
    connection: extensions.connection, statement: str, parameters: Sequence[str] | None = None
) -> tuple[Any, ...] | None:
    """Our own, with a cursor of psycopg2's own kind; the last row of what it returned, if any."""
    with extensions.cursor(connection) as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchone() if cursor.description else None


def _refuse_asynchronous(connection: extensions.connection) -> None:
    if connection.async_:
        raise TypeError("bemi.integrations.psycopg2 has no asynchronous connections")
