"""The view `bemi.changes` as a mapped class, with the questions that people ask it.

    select(Change).where(Change.updated(), Change.context(user_id=42)).order_by(*Change.desc())

It is read only, and refuses to know how changes came there. Another schema than `bemi` is a matter
of SQLAlchemy's `schema_translate_map={"bemi": "audit"}`.
"""

import datetime as dt
import decimal
import enum
import json
import uuid
from collections.abc import Mapping
from typing import Any, Final, TypeAlias, overload

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Integer,
    Numeric,
    Select,
    Text,
    Uuid,
    and_,
    event,
    inspect,
    not_,
    or_,
    select,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP
from sqlalchemy.orm import (
    DeclarativeBase,
    InstrumentedAttribute,
    Mapped,
    Mapper,
    mapped_column,
)
from sqlalchemy.sql.operators import ColumnOperators, OperatorType
from sqlalchemy.types import TypeEngine

from bemi.context import wire
from bemi.errors import BemiError
from bemi.integrations.reading import difference, key_text, stored_key

Image: TypeAlias = dict[str, Any]
Ordering: TypeAlias = tuple[ColumnElement[Any], ...]

_TIMESTAMP: Final = TIMESTAMP(timezone=True)
_DIALECT: Final = postgresql.dialect()  # type: ignore[no-untyped-call]  # it has no types


class _Base(DeclarativeBase):
    """Of its own: the application's `create_all` must not make a table of the view."""


class _Containing(ColumnOperators):
    """A column of JSON that, called with values, asks whether it contains them.

    Anything else can be done with it that a column can. `as_sent`: the values are turned into
    JSON as those of a context are when it is sent.
    """

    def __init__(self, column: InstrumentedAttribute[Image], *, as_sent: bool) -> None:
        self._column = column
        self._as_sent = as_sent

    def __call__(
        self, values: Mapping[str, Any] | None = None, /, **more: Any
    ) -> ColumnElement[bool]:
        wanted = {**(values or {}), **more}
        if self._as_sent:
            wanted = json.loads(wire.encode(wanted, redact=False))
        return self._column.contains(wanted)

    def __clause_element__(self) -> Any:
        return self._column

    def __getitem__(self, name: str) -> Any:
        return self._column[name]

    def operate(self, op: OperatorType, *other: Any, **kwargs: Any) -> Any:
        return op(self._column, *other, **kwargs)

    def reverse_operate(self, op: OperatorType, other: Any, **kwargs: Any) -> Any:
        return op(other, self._column, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._column, name)


class _Images:
    """An attribute that is a dictionary in a change, and a question in the class."""

    def __init__(self, attribute: str, *, as_sent: bool = False) -> None:
        self._attribute = attribute
        self._as_sent = as_sent

    @overload
    def __get__(self, instance: None, owner: type) -> _Containing: ...
    @overload
    def __get__(self, instance: object, owner: type) -> Image: ...
    def __get__(self, instance: object | None, owner: type) -> "Image | _Containing":
        if instance is None:
            return _Containing(getattr(owner, self._attribute), as_sent=self._as_sent)
        value: Image = getattr(instance, self._attribute)
        return value


class Change(_Base):
    """A change, with the columns of the view.

    `before`, `after` and `context` are dictionaries in a change; in the class they take values,
    by name or in a mapping, and ask whether these are contained: `Change.after(done=True)`.
    """

    __tablename__ = "changes"
    __table_args__ = ({"schema": "bemi"},)

    id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True)
    database: Mapped[str] = mapped_column(Text)
    schema: Mapped[str] = mapped_column(Text)
    table: Mapped[str] = mapped_column(Text)
    primary_key: Mapped[str | None] = mapped_column(Text)
    operation: Mapped[str] = mapped_column(Text)
    _before: Mapped[Image] = mapped_column("before", JSONB)
    _after: Mapped[Image] = mapped_column("after", JSONB)
    _context: Mapped[Image] = mapped_column("context", JSONB)
    committed_at: Mapped[dt.datetime] = mapped_column(_TIMESTAMP)
    queued_at: Mapped[dt.datetime] = mapped_column(_TIMESTAMP)
    created_at: Mapped[dt.datetime] = mapped_column(_TIMESTAMP)
    transaction_id: Mapped[int] = mapped_column(BigInteger)
    position: Mapped[int] = mapped_column(BigInteger)
    commit_position: Mapped[int] = mapped_column(BigInteger)
    ordinal: Mapped[int] = mapped_column(Integer)
    epoch: Mapped[int] = mapped_column(BigInteger)
    source: Mapped[str] = mapped_column(Text)
    previous_key: Mapped[str | None] = mapped_column(Text)
    flags: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    rules: Mapped[int | None] = mapped_column(Integer)

    before = _Images("_before")
    after = _Images("_after")
    context = _Images("_context", as_sent=True)

    @classmethod
    def created(cls) -> ColumnElement[bool]:
        return cls.operation == "CREATE"

    @classmethod
    def updated(cls) -> ColumnElement[bool]:
        return cls.operation == "UPDATE"

    @classmethod
    def deleted(cls) -> ColumnElement[bool]:
        return cls.operation == "DELETE"

    @classmethod
    def before_not(
        cls, values: Mapping[str, Any] | None = None, /, **more: Any
    ) -> ColumnElement[bool]:
        return not_(cls.before(values, **more))

    @classmethod
    def after_not(
        cls, values: Mapping[str, Any] | None = None, /, **more: Any
    ) -> ColumnElement[bool]:
        return not_(cls.after(values, **more))

    @classmethod
    def context_not(
        cls, values: Mapping[str, Any] | None = None, /, **more: Any
    ) -> ColumnElement[bool]:
        """Also where there is no context."""
        return not_(cls.context(values, **more))

    @classmethod
    def field_changed(cls, name: str) -> ColumnElement[bool]:
        """Updates that gave the column another value, or may have: the flag `before_unknown`
        says where that is not known."""
        return and_(cls.updated(), cls._before[name].is_distinct_from(cls._after[name]))

    @classmethod
    def asc(cls) -> Ordering:
        """Oldest first, by the time of their commits: for a feed, and for several sources."""
        return tuple(column.asc() for column in _by_time())

    @classmethod
    def desc(cls) -> Ordering:
        """Newest first."""
        return tuple(column.desc() for column in _by_time())

    def diff(self) -> dict[str, tuple[Any, Any]]:
        """The columns whose values differ, each with the value before and the one after."""
        return difference(self.before, self.after)

    def __repr__(self) -> str:
        return f"<Change {self.operation} {self.schema}.{self.table} {self.primary_key}>"


def _by_time() -> tuple[InstrumentedAttribute[Any], ...]:
    # As the index has them: the newest of millions are found at once.
    return Change.committed_at, Change.commit_position, Change.ordinal, Change.epoch


def changes_of(instance: object) -> Select[Change]:
    """The history of a mapped instance's row, in the order in which its states followed.

    To be run where the history is: `session.scalars(changes_of(todo))`. More conditions can be
    added with `where`. The change that gave the row another key is in the history of both. Raises
    BemiError for an instance that has no key yet, or one whose text is not known here, such as an
    interval's.
    """
    state: Any = inspect(instance)
    mapper: Mapper[Any] = state.mapper
    if state.identity is None:
        raise BemiError(
            f"this {mapper.class_.__qualname__} has no history, since it was never stored",
            fix="flush the session first",
        )
    table: Any = mapper.local_table
    key = stored_key(
        [
            _key_text(value, column.type)
            for column, value in zip(mapper.primary_key, state.identity, strict=True)
        ]
    )
    return (
        select(Change)
        .where(
            Change.schema == (table.schema or "public"),
            Change.table == table.name,
            or_(Change.primary_key == key, Change.previous_key == key),
        )
        .order_by(Change.epoch, Change.commit_position, Change.ordinal)
    )


def _key_text(value: Any, column_type: TypeEngine[Any]) -> str:
    """As PostgreSQL writes it, which is how the history has it."""
    process = column_type.dialect_impl(_DIALECT).bind_processor(_DIALECT)
    if process is not None:  # types of the application's own, and enums
        value = process(value)
    match value:
        case enum.Enum():
            return str(value.value)
        case decimal.Decimal() if isinstance(column_type, Numeric) and column_type.scale:
            return f"{value:.{column_type.scale}f}"
    return key_text(value)


@event.listens_for(Change, "before_insert")
@event.listens_for(Change, "before_update")
@event.listens_for(Change, "before_delete")
def _refuse(_mapper: object, _connection: object, change: Change) -> None:
    """A role that may write to the store must not do it by accident."""
    raise BemiError(f"the history is read only: {change!r}", fix="write to the changed table")
