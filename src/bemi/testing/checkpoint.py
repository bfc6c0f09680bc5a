"""Takes back what was committed since a place in the log, whoever committed it, and jumps to
earlier states: as fast as what changed, however large the database is.

It is a revert of everything since, so what it writes is checked against what is there, all or
nothing. Where the role may, neither triggers nor foreign keys fire meanwhile: the rows that
they wrote are in the log, too.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Final, Unpack
from uuid import UUID

import msgspec

from bemi.connections import explained
from bemi.errors import BemiError, PassingError, UnknownStateError
from bemi.history import moments
from bemi.history.asking import Filtering, filters_of, moment_of
from bemi.history.plan import Applied
from bemi.history.preparing import MAY_COME_TWICE
from bemi.lsn import Lsn
from bemi.store import reader
from bemi.testing import sequences, telling
from bemi.testing.session import Session, Stretch

_MOST_PASSES: Final = 3
_LOCK_PATIENCE: Final = 5.0
"""Seconds in which a transaction that the test has left open may still end."""

_IN_THE_WAY: Final = """
select format('PID %s (%s): %s', pid, coalesce(nullif(application_name, ''), usename),
    coalesce(nullif(left(regexp_replace(query, '[[:space:]]+', ' ', 'g'), 60), ''), 'no query'))
from pg_stat_activity
where datname = current_database() and backend_xid is not null and pid <> pg_backend_pid()
order by pid
"""


class RolledBack(msgspec.Struct, frozen=True):
    """What a rollback did. `rows`: how many were put back; `sequences`: those that had moved on,
    by name; `reset`: whether they were set back; `notes`: what else is not as it was."""

    rows: int
    sequences: tuple[str, ...]
    reset: bool
    notes: tuple[str, ...]
    seconds: float

    def told(self) -> str:
        lines = [f"rolled back: {self.rows} rows, in {self.seconds * 1000:.0f} ms"]
        if self.sequences:
            done = "set back" if self.reset else "not set back (reset_sequences=True does it)"
            lines.append(f"sequences that had moved on, {done}: {telling.names(self.sequences)}")
        return "\n".join([*lines, *map(telling.name, self.notes)])


class Checkpoint:
    """A state of the database to come back to. `rolled_back`: what coming back did, afterwards."""

    def __init__(self, session: Session, *, reset_sequences: bool = False) -> None:
        self._session = session
        self._reset = reset_sequences
        session.take_up_tables()
        self._sequences = sequences.positions(session)
        self._since = session.now()
        self.rolled_back: RolledBack | None = None

    def roll_back(self) -> RolledBack:
        """Bring the database back to it, now. May be done again, after further changes."""
        began = time.monotonic()
        undone = undo(self._session, self._since)
        moved = sequences.moved(self._sequences, sequences.positions(self._session))
        if self._reset:
            sequences.reset(self._session, moved, self._sequences)
        self.rolled_back = RolledBack(
            undone.rows, tuple(moved), self._reset, undone.notes, time.monotonic() - began
        )
        return self.rolled_back


class Checkpoints:
    """`with bemi_checkpoint():`, after which the database is as it was before; also where the
    block, or the test, ends with an error. They may lie within each other."""

    def __init__(self, session: Session, tell: Callable[[str], None]) -> None:
        self._session = session
        self._tell = tell

    @contextmanager
    def __call__(self, *, reset_sequences: bool = False) -> Iterator[Checkpoint]:
        """`reset_sequences`: put sequences back, too, which otherwise go on."""
        made = Checkpoint(self._session, reset_sequences=reset_sequences)
        try:
            yield made
        finally:
            self._tell(made.roll_back().told())


class States:
    """Earlier states of the test database, since the first test of the session began: there and
    back again, as `with bemi_state.before(request="r-1"):`."""

    def __init__(self, session: Session, tell: Callable[[str], None]) -> None:
        self._session = session
        self._tell = tell

    @contextmanager
    def before(
        self, request: str | None = None, **filters: Unpack[Filtering]
    ) -> Iterator[Checkpoint]:
        """As before the first change of this request or trace, or before the first that the
        filters let through, which are those of `bemi.History`."""
        asked = filters_of(**filters, **({} if request is None else {"trace": request}))
        session = self._session
        until = session.caught_up()
        first = next(session.changes(session.within(asked, Lsn(0), until)), None)
        if first is None:
            what = "the filters" if request is None else f"the request {telling.name(request)}"
            raise UnknownStateError(f"no change since the tests began is of {what}")
        with self._since(Lsn(first.commit_position)) as made:
            yield made

    @contextmanager
    def at(self, when: datetime | str | UUID) -> Iterator[Checkpoint]:
        """As at a time, at a position in the log, or after a change: after all transactions that
        were committed by then."""
        with self._since(Lsn(self._position(moment_of(when)) + 1)) as made:
            yield made

    def _position(self, when: datetime | Lsn | UUID) -> Lsn:
        session = self._session
        if isinstance(when, Lsn):
            return when
        with explained("source"):
            row = session.source.execute("select clock_timestamp()").fetchone()
        assert row is not None
        session.caught_up()
        with explained("destination"):
            if isinstance(when, UUID):
                source = session.kept.source
                found = reader.change(session.history, session.schema, when, source)
                return Lsn(found.commit_position)
            return moments.resolve(
                session.history, session.schema, session.kept.source, when, captured=row[0]
            ).commit

    @contextmanager
    def _since(self, position: Lsn) -> Iterator[Checkpoint]:
        session = self._session
        made = Checkpoint(session)
        gone: Undone | None = None
        try:
            gone = undo(session, position)
            yield made
        finally:
            self._tell(made.roll_back().told())
            if gone is not None and gone.stretch is not None:
                session.undone.remove(gone.stretch)  # it is back


class Undone(msgspec.Struct, frozen=True):
    """`stretch`: of the log, which for the tests has not happened; None where nothing was there."""

    rows: int = 0
    notes: tuple[str, ...] = ()
    stretch: Stretch | None = None


def undo(session: Session, since: Lsn) -> Undone:
    """Take back what was committed from `since` on.

    Raises `BemiError`, and nothing is undone, where something stands in the way.
    """
    until = session.caught_up()
    made = [f"{name} was made meanwhile, and stays as it is" for name in session.made_since()]
    if not session.has_changes(since, until):
        return Undone(notes=tuple(made))
    onto, quiet = session.quietly
    applied = _revert(session, onto, since, until)
    again = applied
    for _ in range(0 if quiet else _MOST_PASSES):
        # Triggers fired, and what they wrote is undone as well.
        again = _revert(session, onto, since, session.caught_up())
        if not again.rows:
            break
    if again.rows and not quiet:
        raise BemiError(
            f"the database can't be rolled back: triggers alter {again.rows} rows each time that"
            f" they are put back: {telling.names(again.altered or again.notes)}",
            fix="let triggers rest: run the tests as a superuser, or from PostgreSQL 15 on: grant"
            f' set on parameter session_replication_role to "{session.source.info.user}";',
        )
    gone = Stretch(since, Lsn(session.now() - 1))
    session.undone.append(gone)
    # The history is caught up.
    notes = [each for each in applied.notes if not each.endswith(MAY_COME_TWICE)]
    return Undone(applied.rows, (*made, *notes), gone)


def _revert(session: Session, onto: str, since: Lsn, until: Lsn) -> Applied:
    try:
        plan = session.asked.plan_revert(
            onto, source=session.kept.source, from_position=since, to_position=until
        )
        return plan.apply(
            by="pytest", context={"job": "bemi test rollback"}, patience=_LOCK_PATIENCE
        )
    except PassingError as error:
        raise _blocked(session, error) from error
    except BemiError as error:
        raise BemiError(f"the database can't be rolled back: {error}", fix=error.fix) from error


def _blocked(session: Session, error: PassingError) -> BemiError:
    with explained("source"):
        held = [row[0] for row in session.source.execute(_IN_THE_WAY)]
    return BemiError(
        f"the database can't be rolled back: {error}"
        + (f"; transactions that are open: {telling.names(held)}" if held else ""),
        fix="commit or roll back what the test has opened before the checkpoint ends",
    )
