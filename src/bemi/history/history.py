"""`bemi.History`: the questions that people ask of a history, in Python.

with bemi.History(url) as history:
    for change in history.changes(table="todo", since="2h", context={"user_id": 42}):
        print(change.operation, change.diff())
"""

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self, TypedDict, Unpack
from uuid import UUID

import msgspec
import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from bemi import times
from bemi.connections import connect, explained
from bemi.context import wire
from bemi.errors import SetupError, UnknownStateError, UsageError
from bemi.history import moments
from bemi.history.blame import Blame, blame
from bemi.history.change import Change, Row
from bemi.history.state import state
from bemi.integrations.reading import key_text, stored_key
from bemi.lsn import Lsn
from bemi.store import reader
from bemi.store.filters import Filters, Place

_OPERATIONS: Final = ("CREATE", "UPDATE", "DELETE", "TRUNCATE", "SNAPSHOT")


class Filtering(TypedDict, total=False):
    """The filters, all of which must be true of a change.

    `table`: `schema.table`, or a table in the schema `public`. `key`: the primary key's value, for
    a composite one a tuple; a text is taken as it stands. `operation`: one or several of create,
    update, delete, truncate, snapshot. `since`, `until`: when it was committed, both bounds
    included, as a datetime that is aware or a text such as `2h` or `yesterday 09:00`.
    `transaction`: its number on the source. `from_position`, `to_position`: LSNs of commits.
    `context`, `before`, `after`: members and columns with their values, compared as text; a dotted
    name reaches into a context. `trace`: a `trace_id` or `request_id` of the context. `changed`: a
    column that an update changed. `source`: its name. `id`: of one change. `oldest_first`: the
    other order. `behind`: a change's `cursor`. `limit`: at most so many.
    """

    table: str | None
    key: object
    operation: str | Iterable[str] | None
    since: datetime | str | None
    until: datetime | str | None
    transaction: int | None
    from_position: int | str | None
    to_position: int | str | None
    context: Mapping[str, object] | None
    trace: str | None
    before: Mapping[str, object] | None
    after: Mapping[str, object] | None
    changed: str | None
    source: str | None
    id: UUID | str | None
    oldest_first: bool
    behind: str | None
    limit: int | None


class History:
    """The history in a destination. Opens a connection when it is first asked.

    `url`: of the destination, for a role that may read it (`bemi init --reader ROLE`). `schema`:
    where the history is in it.

    All methods raise `BemiError`: `PassingError` where the destination can't be reached,
    `SetupError` where it has no history or the role may not read it, `UsageError` for values that
    mean nothing.
    """

    def __init__(self, url: str, *, schema: str = "bemi") -> None:
        self._url = url
        self._schema = schema
        self._idle: list[psycopg.Connection[Any]] = []
        self._busy: set[psycopg.Connection[Any]] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends its connections, and with them what is still being read; the next question opens
        another one."""
        for conn in (*self._idle, *self._busy):
            conn.close()
        self._idle.clear()
        self._busy.clear()

    def changes(self, **filters: Unpack[Filtering]) -> Iterator[Change]:
        """The changes that the filters let through, the newest first, read as they are taken.

        As of one moment, and in constant memory however many they are.
        """
        return self._changes(compiled(**filters))

    def _changes(self, filters: Filters) -> Iterator[Change]:
        with (
            self._connected() as conn,
            closing(reader.changes(conn, self._schema, filters)) as rows,
        ):
            for row in rows:
                yield Change.of(row)

    def change(self, id: UUID | str, /) -> Change:
        """The one that has this id. Raises `UnknownStateError` where there is none."""
        for change in self.changes(id=id, limit=1):
            return change
        raise UnknownStateError(f"there is no change {id} in the history")

    def row(self, table: str, key: object, /, **filters: Unpack[Filtering]) -> Iterator[Change]:
        """All changes of the rows that had this key, one after the other, the newest first.

        A change of the key belongs to the history of both keys.
        """
        asked: Filtering = {**filters, "table": table, "key": key}
        return self.changes(**asked)

    def blame(self, table: str, key: object, *, source: str | None = None) -> list[Blame]:
        """Which change gave each column of a row the value that it has, also under other keys.

        Of a row that was deleted, as it last was. Raises `UnknownStateError` where the history has
        no change of such a row.
        """
        text = key_of(key)
        if source is None:
            source = self._only_source(table, text)
        found = blame(self._life(table, text, source))
        if not found:
            raise UnknownStateError(
                f"the history has no change of {table} {text}",
                fix="`bemi status --coverage` lists the tables; a composite key is a tuple",
            )
        return found

    def at(
        self,
        when: datetime | str | UUID,
        table: str,
        key: object = None,
        /,
        *,
        source: str | None = None,
    ) -> Iterator[Row]:
        """The rows of a table as they were, or the one with this key, read as they are taken.

        `when`: a time, an LSN such as `0/1A2B3C4D`, or a change's id: after all transactions that
        were committed by then, so that none is split. A column that was renamed since has the name
        that it had. Raises `UnknownStateError` where the history can't tell: before its
        baseline, in a gap, or beyond what is captured.
        """
        name = table if "." in table else f"public.{table}"
        text = None if key is None else key_of(key)
        return self._at(_when(when), name, text, source)

    def _at(
        self, when: "datetime | Lsn | UUID", table: str, key: str | None, source: str | None
    ) -> Iterator[Row]:
        epoch: int | None = None
        if isinstance(when, UUID):
            change = self.change(when)
            source, epoch, when = change.source, change.epoch, Lsn(change.commit_position)
        with self._connected() as conn:
            source = source or self._source_of(conn, table)
            if isinstance(when, datetime):
                moment = moments.resolve(conn, self._schema, source, when)
                epoch, when = moment.epoch, moment.commit
            with closing(
                state(conn, self._schema, source, table, when, epoch=epoch, key=key)
            ) as rows:
                for row in rows:
                    yield Row.of(row)

    def _source_of(self, conn: psycopg.Connection[Any], table: str) -> str:
        """That which has such a table. Raises `UnknownStateError`, and `UsageError` for several."""
        query = sql.SQL(
            "select distinct source from {} where schema || '.' || \"table\" = %(table)s"
            " or partition = %(table)s order by source"
        ).format(sql.Identifier(self._schema, "coverage"))
        found = [row[0] for row in conn.execute(query, {"table": table})]
        if len(found) > 1:
            raise UsageError(
                f"{table} is in the history of several sources: {', '.join(found)}",
                fix="say which one is meant, by source",
            )
        if not found:
            raise UnknownStateError(
                f"{table} is not in the history",
                fix="`bemi status --coverage` lists the tables that are",
            )
        return str(found[0])

    def trace(self, id: str, /, **filters: Unpack[Filtering]) -> Iterator[Change]:
        """What one request or trace has done, over all sources, in the order of the commits.

        `id`: a `trace_id` or a `request_id` of the context.
        """
        asked: Filtering = {"oldest_first": True, **filters, "trace": id}
        return self.changes(**asked)

    def _only_source(self, table: str, key: str) -> str | None:
        """That which has such a row, where the history has several. Raises `UsageError` for more
        than one: rows of two databases are two rows."""
        with self._connected() as conn:
            known = reader.sources(conn, self._schema)
        if len(known) < 2:
            return None
        having = [
            name for name in known if [*self.changes(table=table, key=key, source=name, limit=1)]
        ]
        if len(having) > 1:
            raise UsageError(
                f"{table} {key} is in the history of several sources: {', '.join(having)}",
                fix="say which one is meant, by source",
            )
        return having[0] if having else None

    def _life(self, table: str, key: str, source: str | None) -> Iterator[Change]:
        """The changes of a row, the newest first, under each key that it had."""
        asked = Filters(table=table, key=key, source=source, by_log=True)
        begun = False
        while True:
            moved: Change | None = None
            for change in self._changes(asked):
                if change.previous_key == asked.key:
                    # It was moved away from this key: what is older is of another row, unless
                    # there is no row with this key any more.
                    if begun:
                        return
                    continue
                begun = True
                yield change
                if change.previous_key is not None:
                    moved = change
                    break
            if moved is None:
                return
            asked = dataclasses.replace(asked, key=moved.previous_key, behind=moved.place)

    @contextmanager
    def _connected(self) -> Iterator[psycopg.Connection[Any]]:
        """A connection of its own, since changes are read as they are taken, and in between
        something else may be asked."""
        with explained("destination"):
            conn = self._idle.pop() if self._idle else self._connect()
            self._busy.add(conn)
            try:
                yield conn
            finally:
                self._busy.discard(conn)
                if conn.info.transaction_status == TransactionStatus.IDLE:
                    self._idle.append(conn)
                else:
                    conn.close()

    def _connect(self) -> psycopg.Connection[Any]:
        conn = connect(self._url, what="destination", client_encoding="utf8")
        relation = sql.Identifier(self._schema, "changes").as_string(conn)
        if conn.execute("select to_regclass(%s)", [relation]).fetchone() == (None,):
            conn.close()
            raise SetupError(
                f"there is no history in the schema {self._schema} of the destination",
                fix="`bemi init` makes it; schema= names another one",
            )
        return conn


def compiled(**filters: Unpack[Filtering]) -> Filters:
    """What people write, as filters. Raises `UsageError`."""
    unknown = filters.keys() - Filtering.__annotations__.keys()
    if unknown:
        raise UsageError(
            f"there is no filter {min(unknown)}",
            fix=f"there are {', '.join(Filtering.__annotations__)}",
        )
    now = datetime.now(UTC)
    try:
        key, id_ = filters.get("key"), filters.get("id")
        behind = filters.get("behind")
        return Filters(
            table=filters.get("table"),
            key=None if key is None else key_of(key),
            operation=_operations(filters.get("operation")),
            since=_moment(filters.get("since"), now),
            until=_moment(filters.get("until"), now),
            transaction=filters.get("transaction"),
            context=_pairs(filters.get("context"), _member_text),
            trace=filters.get("trace"),
            before=_pairs(filters.get("before"), _column_text),
            after=_pairs(filters.get("after"), _column_text),
            changed=filters.get("changed"),
            from_position=_position(filters.get("from_position")),
            to_position=_position(filters.get("to_position")),
            source=filters.get("source"),
            id=UUID(id_) if isinstance(id_, str) else id_,
            oldest_first=filters.get("oldest_first", False),
            behind=None if behind is None else Place.parse(behind),
            limit=filters.get("limit"),
        )
    except ValueError as error:
        raise UsageError(str(error)) from error


def _when(given: datetime | str | UUID) -> "datetime | Lsn | UUID":
    """Raises `UsageError`."""
    if isinstance(given, UUID):
        return given
    try:
        if isinstance(given, str):
            for read in (UUID, Lsn.parse):
                with suppress(ValueError):
                    return read(given)
        moment = _moment(given, datetime.now(UTC))
    except ValueError as error:
        raise UsageError(str(error)) from error
    assert moment is not None
    return moment


def key_of(key: object) -> str:
    """A key's text, as the history has it. Raises `BemiError` for types that it does not know."""
    if isinstance(key, str):
        return key
    parts = key if isinstance(key, tuple | list) else (key,)
    return stored_key([key_text(part) for part in parts])


def _operations(given: str | Iterable[str] | None) -> tuple[str, ...]:
    names = (given,) if isinstance(given, str) else tuple(given or ())
    found = tuple(name.upper() for name in names)
    for name in found:
        if name not in _OPERATIONS:
            raise ValueError(f"there is no operation {name}; there are {', '.join(_OPERATIONS)}")
    return found


def _moment(given: datetime | str | None, now: datetime) -> datetime | None:
    if isinstance(given, str):
        return times.parse(given, now=now)
    if given is not None and given.tzinfo is None:
        raise ValueError(f"{given} has no time zone, and could be anywhere: give an aware datetime")
    return given


def _position(given: int | str | None) -> int | None:
    return int(Lsn.parse(given)) if isinstance(given, str) else given


def _pairs(
    given: Mapping[str, object] | None, text: Callable[[object], str]
) -> tuple[tuple[str, str], ...]:
    return tuple((name, text(value)) for name, value in (given or {}).items())


def _member_text(value: object) -> str:
    """A value of a context as text, turned into JSON as it was when it was sent."""
    encoded = wire.encode({"": value}, redact=False)
    sent = bytes(msgspec.json.decode(encoded, type=dict[str, msgspec.Raw])[""]).decode()
    return str(json.loads(sent)) if sent.startswith('"') else sent


def _column_text(value: object) -> str:
    """A value of a row as the history has it, but for texts, which stand bare."""
    return json.dumps(value) if isinstance(value, bool) or value is None else key_text(value)
