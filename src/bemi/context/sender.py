"""Decides when the context of a connection's transaction is to be sent, and knows what was.

One for each connection. It does no I/O: an integration asks `due` before each statement, sends
what it is told to, and says how things went. Sent once per transaction, before its first write;
again when the context has changed since, or was lost with a savepoint.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, LiteralString, TypedDict

from bemi.context import current, wire
from bemi.context.notice import warn_once
from bemi.context.statements import Statement, classify

_UNSURE: Final = ""
"""Stands for what was sent where that is not known: whatever is current has to be sent again."""

COMMIT: Final = classify("commit")
"""What a driver's own way of committing does, for `Sender.due`."""

CHECK: Final[LiteralString] = (
    "select pg_catalog.pg_is_in_recovery(), "
    "pg_catalog.has_function_privilege(p.found, 'execute'), "
    "p.found::text, pg_catalog.current_setting('wal_level') = 'logical' "
    "from (select coalesce(pg_catalog.to_regprocedure('pg_catalog.pg_logical_emit_message("
    "pg_catalog.bool, pg_catalog.text, pg_catalog.text, pg_catalog.bool)'), "
    "pg_catalog.to_regprocedure('pg_catalog.pg_logical_emit_message("
    "pg_catalog.bool, pg_catalog.text, pg_catalog.text)')) "
    "as found) p"
)
"""Asked once per connection: a statement that fails would end the application's transaction. So it
reads no table, which a role might not; the function has an argument more from 17 on."""


_SEND: Final = (
    "select pg_catalog.pg_logical_emit_message(true, '_bemi', cast({} as pg_catalog.text))"
)
# An answer that says whether anything was written costs a round trip of its own; this does not.
_SEND_IF_WRITTEN: Final = (
    "select case when pg_catalog.pg_current_xact_id_if_assigned() is not null "
    "then pg_catalog.pg_logical_emit_message(true, '_bemi', cast({} as pg_catalog.text)) end"
)


@dataclass(frozen=True, slots=True)
class Due:
    """A content to be sent before a statement, and the context that it is of.

    `wrap`: in a transaction around the two. `if_written`: only where the transaction has written
    something, which nobody saw.
    """

    content: str
    mapping: Mapping[str, Any]
    wrap: bool = False
    if_written: bool = False

    def statement(self, placeholder: str) -> str:
        """What sends it; the content is its one parameter, in the placeholder of the driver."""
        return (_SEND_IF_WRITTEN if self.if_written else _SEND).format(placeholder)


class Options(TypedDict, total=False):
    """How an integration sends contexts: what its `install` takes by name."""

    functions: Collection[str]
    """Names of functions whose calls count as writes: in a SELECT that can't be seen."""
    check_at_commit: bool
    """A transaction that seems to have read only is asked whether it wrote, when it is committed.
    By default it is not, since that is a round trip of most transactions."""
    sql: bool
    """Each statement that writes has its text in its changes' context, as `SQL`, never with its
    parameters. A message per statement then."""
    redact: bool
    """Members that look like secrets are sent as `***`. By default they are."""


class Sender:
    """What one connection has sent in its open transaction. Takes what `Options` has."""

    __slots__ = (
        "_check_at_commit", "_functions", "_mapping", "_redact", "_role_changed", "_savepoints",
        "_sent", "_sql", "allowed",
    )  # fmt: skip

    def __init__(
        self,
        *,
        functions: Collection[str] = (),
        check_at_commit: bool = False,
        sql: bool = False,
        redact: bool = True,
        **unknown: object,
    ) -> None:
        """Raises TypeError for an option that there is not, and for what names no functions."""
        if unknown:
            there = ", ".join(Options.__annotations__)
            raise TypeError(f"bemi has no option {min(unknown)}; there are {there}")
        self._check_at_commit = check_at_commit
        self._functions = frozenset(map(_name_of, _names(functions)))
        self._sql = sql
        self._redact = redact
        self._sent: str | None = None
        self._mapping: Mapping[str, Any] | None = None
        self._savepoints: list[tuple[str, str | None]] = []
        self._role_changed = False
        self.allowed: bool | None = None
        """Whether the role may send; None while that was not asked (see `CHECK`)."""

    def statement(self, text: str | bytes) -> Statement:
        return classify(text, self._functions)

    def due(
        self,
        statement: Statement,
        *,
        in_transaction: bool,
        autocommit: bool,
        text: str | bytes = "",
    ) -> Due | None:
        """What has to be sent before a statement, if anything.

        `in_transaction`: one is open; otherwise the statement begins one, unless `autocommit`.
        """
        if not in_transaction:
            self.ended()
        if self.allowed is False:
            return None
        if statement.controls and statement == COMMIT:
            return self._due_at_commit() if in_transaction else None
        if not statement.writes:
            return None
        wrap = autocommit and not in_transaction
        if wrap and not statement.wrappable:
            return None
        mapping = current.peek()
        if mapping is self._mapping and self._sent and not self._sql:
            return None
        if self._sent is None and not mapping and not self._sql:
            return None  # as it is without a message
        content = self._encode(mapping, text)
        if content == self._sent:
            self._mapping = mapping
            return None
        return Due(content, mapping, wrap=wrap)

    def _due_at_commit(self) -> Due | None:
        mapping = current.peek()
        if not self._check_at_commit or self._sent or not mapping:
            return None
        return Due(wire.encode(mapping, redact=self._redact), mapping, if_written=True)

    def _encode(self, mapping: Mapping[str, Any], text: str | bytes) -> str:
        if not self._sql:
            return wire.encode(mapping, redact=self._redact)
        if isinstance(text, bytes):
            text = text.decode("utf-8", "replace")
        return wire.encode({**mapping, "SQL": text}, redact=self._redact)

    def now(self) -> Due:
        """What `bemi.emit` sends: the present context, an empty one, too, so that another ends."""
        mapping = current.peek()
        return Due(wire.encode(mapping, redact=self._redact), mapping)

    def checked(self, answer: Sequence[Any] | None) -> bool:
        """Take the row that `CHECK` gave; whether to send. A standby is asked again later."""
        in_recovery, may_emit, function, is_logical = answer or (True, False, "", True)
        if in_recovery:
            warn_once("the server is a standby: it takes no writes, and so no contexts")
            return False
        self.allowed = bool(may_emit and is_logical)
        if not is_logical:
            warn_once(
                "the server's wal_level is not logical, so no change is captured, and no context"
                " is sent; fix: set wal_level = logical and restart the server"
            )
        elif not may_emit:
            warn_once(
                "the database role may not send contexts, so changes are captured without;"
                f" fix: grant execute on function {function} to the role"
            )
        return self.allowed

    def sent(self, due: Due) -> None:
        """It went into the open transaction, which a wrapped one has to itself."""
        if not due.wrap:
            self._sent, self._mapping = due.content, due.mapping

    def ran(self, statement: Statement) -> None:
        """A statement succeeded: follow what it did to the transaction, and to the role."""
        self._follow_role(statement)
        for control, name in statement.controls:
            if control in ("end", "rollback"):
                self.ended()
            elif control == "savepoint":
                self.set_savepoint(name)
            elif control == "release":
                self.released(name)
            elif control == "rollback to":
                self.rolled_back_to(name)
            # BEGIN in an open transaction changes nothing; else `due` knew that there was none.

    def failed(self, statement: Statement) -> None:
        """A statement, or what was sent before it, raised an error, on the server or before."""
        self._follow_role(statement)
        if any(control in ("end", "rollback") for control, _ in statement.controls):
            self.ended()
        elif self._sent is not None:
            self._sent, self._mapping = _UNSURE, None

    def ended(self) -> None:
        """The transaction was committed or rolled back, or there is none."""
        self._sent = self._mapping = None
        self._savepoints.clear()
        if self._role_changed:  # what was set for the transaction is as it was before
            self.allowed, self._role_changed = None, False

    def _follow_role(self, statement: Statement) -> None:
        if statement.roles:
            self.allowed, self._role_changed = None, True

    @property
    def depth(self) -> int:
        """How many savepoints are set."""
        return len(self._savepoints)

    def set_savepoint(self, name: str) -> None:
        self._savepoints.append((name, self._sent))

    def released(self, name: str) -> None:
        self._leave(name)

    def rolled_back_to(self, name: str) -> None:
        """What was sent since is lost. Of a savepoint that was not seen, that is not known."""
        self._mapping = None
        self._sent = self._leave(name)
        self._savepoints.append((name, self._sent))
        if self._role_changed:
            self.allowed = None

    def _leave(self, name: str) -> str | None:
        """Forget a savepoint and those behind it; what had been sent when it was set."""
        for at in range(len(self._savepoints) - 1, -1, -1):
            if self._savepoints[at][0] == name:
                sent = self._savepoints[at][1]
                del self._savepoints[at:]
                return sent
        return _UNSURE


def _names(functions: Collection[str]) -> Collection[str]:
    if isinstance(functions, str) or not all(isinstance(name, str) for name in functions):
        raise TypeError(f'functions= takes names, as in functions=["add_one"], not {functions!r}')
    return functions


def _name_of(function: str) -> str:
    name = function.lower().rpartition(".")[2].strip('"')
    if not name or set(name) & set("() "):
        raise TypeError(f"functions= takes names without parentheses, not {function!r}")
    return name
