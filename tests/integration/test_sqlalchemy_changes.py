"""The mapped `Change` over a history that was captured."""

import datetime as dt
import enum
import uuid
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import DateTime, Numeric, create_engine, event, func, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import bemi
from bemi.integrations.sqlalchemy import Change, changes_of, install
from tests.integration.conftest import Track
from tests.support.tracked import Tracked

USER = uuid.UUID("8d1f2f50-0000-4000-8000-000000000007")


class Base(DeclarativeBase):
    pass


class Todo(Base):
    __tablename__ = "todo"

    id: Mapped[int] = mapped_column(primary_key=True)
    task: Mapped[str | None]
    done: Mapped[bool] = mapped_column(default=False)


class Price(Base):
    __tablename__ = "price"

    label: Mapped[str] = mapped_column(primary_key=True)
    day: Mapped[dt.date] = mapped_column(primary_key=True)
    amount: Mapped[Decimal] = mapped_column(Numeric(10, 2), primary_key=True)
    since: Mapped[dt.datetime] = mapped_column(primary_key=True)


class Mood(enum.Enum):
    WELL = 1
    ILL = 2


class Odd(Base):
    """A key of every type whose text is known."""

    __tablename__ = "odd"

    flag: Mapped[bool] = mapped_column(primary_key=True)
    mood: Mapped[Mood] = mapped_column(primary_key=True)
    raw: Mapped[bytes] = mapped_column(primary_key=True)
    at: Mapped[dt.datetime] = mapped_column(DateTime(timezone=True), primary_key=True)
    uid: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    n: Mapped[Decimal] = mapped_column(Numeric, primary_key=True)


def engine(url: str) -> Any:
    return create_engine(f"postgresql+psycopg://{url.partition('://')[2]}")


@pytest.fixture
def history(track_todos: Tracked) -> Iterator[Session]:
    made = engine(track_todos.settings.destination_url)
    with Session(made) as session:
        yield session
    made.dispose()


@pytest.fixture
def track_todos(tracked: Track) -> Tracked:
    """Three rows of todo, made by ann; one altered by a user, one deleted by nobody."""
    found = tracked(
        "create table todo (id serial primary key, task text, done bool)",
        "create table price (label text, day date, amount numeric(10, 2), since timestamp, "
        "primary key (label, day, amount, since))",
        "create type mood as enum ('WELL', 'ILL')",
        "create table odd (flag bool, mood mood, raw bytea, at timestamptz, uid uuid, n numeric, "
        "primary key (flag, mood, raw, at, uid, n))",
        full=["*"],
    )
    source = engine(found.settings.source_url)
    install(source)
    with Session(source, expire_on_commit=False) as session:
        with bemi.context(user_id="ann", tags=["a", "b"]):
            todos = [Todo(task=task) for task in ("a", "b", "c")]
            session.add_all([*todos, price(), *odd()])
            session.commit()
        with bemi.context(user_id=USER):
            todos[0].done = True
            session.commit()
        session.delete(todos[1])
        session.commit()
        with bemi.context(user_id="ann"):
            todos[2].id = 30
            session.commit()
    source.dispose()
    found.catch_up()
    return found


def price() -> Price:
    return Price(
        label='é"',
        day=dt.date(2026, 5, 3),
        amount=Decimal("1.5"),
        since=dt.datetime(2026, 1, 2, 3, 4, 5, 600_000),  # noqa: DTZ001 - the column has no zone
    )


def odd() -> list[Odd]:
    east = dt.timezone(dt.timedelta(hours=5, minutes=30))
    return [
        Odd(
            flag=flag,
            mood=Mood.ILL,
            raw=b"\0\xff",
            at=at,
            uid=USER,
            n=Decimal("1.50"),
        )
        for flag, at in (
            (True, dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=east)),
            (False, dt.datetime(2026, 1, 2, 3, 4, 5, 120, tzinfo=dt.UTC)),
        )
    ]


def keys(session: Session, *conditions: Any) -> list[str | None]:
    found = select(Change).where(Change.table == "todo", *conditions).order_by(*Change.asc())
    return [change.primary_key for change in session.scalars(found)]


def test_operations(history: Session) -> None:
    assert keys(history, Change.created()) == ["1", "2", "3"]
    assert keys(history, Change.updated()) == ["1", "30"]
    assert keys(history, Change.deleted()) == ["2"]


def test_images(history: Session) -> None:
    assert keys(history, Change.before(done=False), Change.after(done=True)) == ["1"]
    assert keys(history, Change.after({"task": "c"})) == ["3", "30"]
    assert keys(history, Change.created(), Change.after_not(task="a")) == ["2", "3"]
    assert keys(history, Change.before_not(done=False)) == ["1", "2", "3"]


def test_contexts(history: Session) -> None:
    assert keys(history, Change.context(user_id="ann")) == ["1", "2", "3", "30"]
    assert keys(history, Change.context(tags=["b"])) == ["1", "2", "3"]
    assert keys(history, Change.context(user_id=USER)) == ["1"]
    assert keys(history, Change.context_not(user_id="ann")) == ["1", "2"]
    assert keys(history, Change.context["user_id"].astext == "ann", Change.updated()) == ["30"]


def test_hostile_values_are_parameters(history: Session) -> None:
    for value in ("'", '"', "\\", "*/", "%s", ":x", "$1", "?"):
        assert keys(history, Change.context({value: value})) == []
        assert keys(history, Change.field_changed(value)) == []


def test_fields(history: Session) -> None:
    assert keys(history, Change.field_changed("done")) == ["1"]
    assert keys(history, Change.field_changed("id")) == ["30"]
    assert keys(history, Change.field_changed("task")) == []


def test_order(history: Session) -> None:
    feed = select(Change.ordinal, Change.operation).where(Change.table == "todo")
    ascending = history.execute(feed.order_by(*Change.asc())).all()
    assert history.execute(feed.order_by(*Change.desc())).all() == ascending[::-1]
    assert [operation for _, operation in ascending] == [
        *["CREATE"] * 3,
        "UPDATE",
        "DELETE",
        "UPDATE",
    ]


def test_diffs(history: Session) -> None:
    def one(*conditions: Any) -> Change:
        return history.scalars(select(Change).where(Change.table == "todo", *conditions)).one()

    change = one(Change.field_changed("done"))
    assert change.diff() == {"done": (False, True)}
    assert (change.before["task"], change.context) == ("a", {"user_id": str(USER)})
    assert one(Change.deleted()).diff() == {
        "id": (2, None),
        "task": ("b", None),
        "done": (False, None),
    }
    assert one(Change.created(), Change.after(id=1)).diff()["task"] == (None, "a")


def test_the_history_of_an_instance(history: Session, track_todos: Tracked) -> None:
    source = engine(track_todos.settings.source_url)
    with Session(source) as session:
        first, third = session.get_one(Todo, 1), session.get_one(Todo, 30)
        priced = session.scalars(select(Price)).one()
        operations = [change.operation for change in history.scalars(changes_of(first))]
        assert operations == ["CREATE", "UPDATE"]
        assert [each.diff()["id"] for each in history.scalars(changes_of(third))] == [(3, 30)]
        assert len(history.scalars(changes_of(priced)).all()) == 1
        for each in session.scalars(select(Odd)):
            assert len(history.scalars(changes_of(each)).all()) == 1
        only = changes_of(first).where(Change.updated())
        assert len(history.scalars(only).all()) == 1
    source.dispose()
    with pytest.raises(bemi.BemiError, match="never stored"):
        changes_of(Todo(task="new"))


def test_a_context_has_an_index(history: Session) -> None:
    conn = history.connection()
    conn.execute(text("set local enable_seqscan = off"))

    @event.listens_for(conn, "before_cursor_execute", retval=True)
    def explain(_c: Any, _cursor: Any, query: str, parameters: Any, *_: Any) -> tuple[str, Any]:
        return f"explain {query}", parameters

    query = select(Change.operation).where(Change.context(user_id="ann"))
    plan = "\n".join(history.scalars(query))
    assert "Bitmap Index Scan on contexts_" in plan


def test_another_schema(history: Session) -> None:
    """By SQLAlchemy's own means."""
    history.execute(text("create schema audit"))
    history.execute(text("create view audit.changes as select * from bemi.changes limit 1"))
    query = select(func.count()).select_from(Change)
    translated = {"schema_translate_map": {"bemi": "audit"}}
    assert history.scalar(query, execution_options=translated) == 1
    assert history.scalar(query) == 9


def test_it_is_read_only(history: Session) -> None:
    change = history.scalars(select(Change).limit(1)).one()
    history.delete(change)
    with pytest.raises(bemi.BemiError, match="read only"):
        history.flush()
    history.rollback()
    change.operation = "DELETE"
    with pytest.raises(bemi.BemiError, match="read only"):
        history.flush()
