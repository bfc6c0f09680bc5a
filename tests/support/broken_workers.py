"""Workers that each break one rule of exactly once, to see that the oracle notices.

Run as `python -m tests.support.broken_workers NAME [--until-caught-up] [--accept-gap]`, with the
settings in the environment. `none` breaks nothing.
"""

import json
import logging
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, Final

from msgspec.structs import replace

from bemi import config
from bemi.capture import worker
from bemi.capture.contexts import NO_CONTEXT
from bemi.capture.messages import LogicalMessage, Message, Update
from bemi.capture.sink import Sink
from bemi.capture.stitcher import Stitcher
from bemi.capture.writer import Writer
from bemi.change import UNCHANGED, Change, Event, Operation
from bemi.errors import BemiError
from bemi.lsn import Lsn
from bemi.store import checkpoint as checkpoints


def acknowledges_before_the_commit() -> None:
    """What was read counts as stored."""
    Sink.stored = property(lambda self: self._reached)  # type: ignore[method-assign,assignment]


def moves_the_checkpoint_before_the_rows() -> None:
    """Two transactions in the destination, the checkpoint's first."""
    store = Writer.store

    def apart(self: Writer, piece: Any) -> None:
        if piece.position is not None:
            with self._conn.cursor() as cursor:
                self._held = checkpoints.advance(
                    cursor,
                    self._schema,
                    self._held,
                    position=piece.position,
                    next_context=piece.next_context,
                    committed_at=piece.committed_at,
                )
            self._conn.commit()
        store(self, piece)

    Writer.store = apart  # type: ignore[method-assign]


def drops_rows_that_share_an_lsn() -> None:
    """The row's LSN is taken for its identity."""
    _filter(lambda event: [] if isinstance(event, Change) and event.index > 0 else [event])


def drops_the_last_row_of_a_piece() -> None:
    hand_over = Sink._hand_over

    def less(self: Sink, *, ends: bool = False) -> None:
        if len(self._piece.rows) > 1:
            self._piece.rows.pop()
        hand_over(self, ends=ends)

    Sink._hand_over = less  # type: ignore[method-assign]


def drops_truncates() -> None:
    _filter(
        lambda event: (
            [] if isinstance(event, Change) and event.operation is Operation.TRUNCATE else [event]
        )
    )


def stores_rows_twice() -> None:
    def twice(event: Event) -> list[Event]:
        if not isinstance(event, Change):
            return [event]
        return [
            replace(event, ordinal=2 * event.ordinal - 1),
            replace(event, ordinal=2 * event.ordinal),
        ]

    _filter(twice)


def swaps_neighbours() -> None:
    """Rows arrive, but not in the order in which they were made."""

    def swapped(event: Event) -> list[Event]:
        if not isinstance(event, Change):
            return [event]
        return [replace(event, ordinal=(event.ordinal - 1 ^ 1) + 1)]

    _filter(swapped)


def takes_unchanged_for_null() -> None:
    """A TOAST value that was not sent is stored as NULL."""
    take = Stitcher.take

    def nulled(self: Stitcher, message: Message, lsn: int) -> tuple[Event, ...]:
        if isinstance(message, Update):
            new = tuple(None if value is UNCHANGED else value for value in message.new)
            message = replace(message, new=new)
        return take(self, message, lsn)

    Stitcher.take = nulled  # type: ignore[method-assign]


def keeps_the_first_context() -> None:
    _filter_messages(lambda stitcher: stitcher._context is None)


def forgets_rows_before_the_first_context() -> None:
    """They get none."""
    message_ = Stitcher._message

    def strict(self: Stitcher, message: LogicalMessage, lsn: int) -> tuple[Event, ...]:
        if self._context is None and message.prefix == "_bemi":
            self._context = NO_CONTEXT
        return message_(self, message, lsn)

    Stitcher._message = strict  # type: ignore[method-assign,assignment]


def keeps_the_context_of_the_transaction_before() -> None:
    begin = Stitcher._begin

    def leaking(self: Stitcher, message: Any, lsn: int) -> tuple[Event, ...]:
        kept = getattr(self, "_context", None)
        events = begin(self, message, lsn)
        self._context = kept
        return events

    Stitcher._begin = leaking  # type: ignore[method-assign,assignment]


def orders_by_time_received() -> None:
    """Transactions are ordered by something that is not their place in the log."""
    begin = Stitcher._begin

    def backwards(self: Stitcher, message: Any, lsn: int) -> tuple[Event, ...]:
        return begin(self, replace(message, final_lsn=Lsn(2**40 - message.final_lsn)), lsn)

    Stitcher._begin = backwards  # type: ignore[method-assign,assignment]


def _filter(change: Callable[[Event], list[Event]]) -> None:
    put = Sink.put

    def filtered(self: Sink, event: Event) -> None:
        for kept in change(event):
            put(self, kept)

    Sink.put = filtered  # type: ignore[method-assign]


def _filter_messages(heard: Callable[[Stitcher], bool]) -> None:
    message_ = Stitcher._message

    def deaf(self: Stitcher, message: LogicalMessage, lsn: int) -> tuple[Event, ...]:
        if message.prefix == "_bemi" and not heard(self):
            return ()
        return message_(self, message, lsn)

    Stitcher._message = deaf  # type: ignore[method-assign,assignment]


BREAK: Final[dict[str, Callable[[], None]]] = {
    function.__name__: function
    for function in (
        acknowledges_before_the_commit,
        moves_the_checkpoint_before_the_rows,
        drops_rows_that_share_an_lsn,
        drops_the_last_row_of_a_piece,
        drops_truncates,
        stores_rows_twice,
        swaps_neighbours,
        takes_unchanged_for_null,
        keeps_the_first_context,
        forgets_rows_before_the_first_context,
        keeps_the_context_of_the_transaction_before,
        orders_by_time_received,
    )
}


class _Fields(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        known = logging.makeLogRecord({}).__dict__
        fields = {key: str(value) for key, value in record.__dict__.items() if key not in known}
        return f"{record.name}: {record.getMessage()} {json.dumps(fields)}"


def main() -> int:
    name, *flags = sys.argv[1:]
    handler = logging.StreamHandler()
    handler.setFormatter(_Fields())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    if name != "none":
        BREAK[name]()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        worker.run(
            config.load(),
            stop=stop,
            until_caught_up="--until-caught-up" in flags,
            accept_gap="--accept-gap" in flags,
        )
    except BemiError as error:
        print(f"error: {error}\nfix: {error.fix}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
