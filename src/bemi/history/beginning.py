"""Where a stream begins, from what people say: now, the beginning, a cursor, a time, a position, a
change."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias
from uuid import UUID

import psycopg

from bemi import times
from bemi.errors import NotYetError, UnknownStateError, UsageError
from bemi.history import moments
from bemi.history.asking import moment_of
from bemi.history.cursor import Cursor, LogPlace
from bemi.lsn import Lsn
from bemi.store import log, reader
from bemi.store.log import Head

NOW: Final = "now"
BEGINNING: Final = "beginning"

_ANEW: Final = "begin with `beginning` or `now`"

Beginning: TypeAlias = Cursor | datetime | Lsn | UUID | Literal["now", "beginning"]


def beginning_of(start: object) -> Beginning:
    """Raises `UsageError` for what means none of it."""
    if start is None or start == NOW:
        return "now"
    if start == BEGINNING:
        return "beginning"
    if isinstance(start, str) and "=" in start:
        try:
            return Cursor.parse(start)
        except ValueError as error:
            raise UsageError(str(error), fix="give what `stream.cursor` was") from error
    moment = moment_of(start)
    if isinstance(moment, datetime) and moment > datetime.now(UTC):
        raise UsageError(
            f"{times.spell(moment)} is yet to come", fix="begin with `now`, or an earlier time"
        )
    return moment


def places(
    conn: psycopg.Connection[Any], schema: str, heads: Sequence[Head], start: Beginning
) -> dict[str, LogPlace]:
    """The place in the log of each source; one that is missing is at its beginning.

    Raises `UsageError` for a cursor of another history, and for a position that may be of several
    sources; `UnknownStateError` for a change that there is not.
    """
    if isinstance(start, Cursor):
        _require_ours(conn, schema, heads, start)
        return {**start.places}
    found: dict[str, LogPlace] = {}
    if isinstance(start, Lsn | UUID):
        if len(heads) > 1:
            raise UsageError(
                "the history has several sources, and a position is of the log of one",
                fix=f"name one of them: {', '.join(head.source for head in heads)}",
            )
        for head in heads:
            found[head.source] = _behind(conn, schema, head, start)
    elif start != "beginning":
        for head in heads:
            if head.epoch is not None:
                place = _by_then(conn, schema, head, start)
                if place is not None:
                    found[head.source] = place
    return {
        head.source: _with_told(conn, schema, head, found[head.source])
        for head in heads
        if head.source in found
    }


def _require_ours(
    conn: psycopg.Connection[Any], schema: str, heads: Sequence[Head], cursor: Cursor
) -> None:
    """What a cursor of another history would leave out, or give again, nobody would notice."""
    if cursor.places and heads and cursor.places.keys().isdisjoint(reader.sources(conn, schema)):
        raise UsageError(
            "the cursor is of another history: it is of the sources"
            f" {', '.join(cursor.places)}, which this one does not have",
            fix=_ANEW,
        )
    for head in heads:
        place = cursor.places.get(head.source)
        if place is not None and place.epoch == head.epoch and place.commit > head.position:
            raise UsageError(
                f"the cursor is ahead of the history: {head.source} is captured until"
                f" {Lsn(head.position)}, and it stands at {Lsn(place.commit)}",
                fix=f"is it of another history? {_ANEW}",
            )


def _behind(conn: psycopg.Connection[Any], schema: str, head: Head, after: Lsn | UUID) -> LogPlace:
    if isinstance(after, UUID):
        change = reader.change(conn, schema, after, head.source)
        return LogPlace(change.epoch, change.commit_position, change.ordinal)
    if head.epoch is None or after >= head.position:
        raise NotYetError(
            f"{after} is not captured yet: the history of {head.source} ends at"
            f" {Lsn(head.position)}",
            fix="stream from now on, or from an earlier position",
        )
    return LogPlace(head.epoch, int(after) + 1)


def _by_then(
    conn: psycopg.Connection[Any], schema: str, head: Head, when: datetime | Literal["now"]
) -> LogPlace | None:
    """None: the beginning."""
    assert head.epoch is not None
    end = LogPlace(head.epoch, head.position)
    if when == "now":
        return end
    try:
        found = moments.resolve(conn, schema, head.source, when)
    except NotYetError:
        return end
    except UnknownStateError:  # what it has begins later
        return None
    return LogPlace(found.epoch, int(found.commit) + 1)


def _with_told(conn: psycopg.Connection[Any], schema: str, head: Head, place: LogPlace) -> LogPlace:
    """What is missing before it was not to be told."""
    before = [
        each for each in log.missing(conn, schema, head.source_id) if each.place < place.position
    ]
    return LogPlace(place.epoch, place.commit, place.ordinal, len(before))
