"""The whole capture path, top to bottom: source ▸ decoder ▸ sequencer ▸ stitcher ▸ filter ▸
masker ▸ completer, encoder ▸ sink.

One step takes one message of the replication stream as far as it goes. While the source has
nothing to send, or the sink is full, feedback to the source goes on.
"""

from collections.abc import Callable
from typing import Final

from bemi.capture.decoder import decode
from bemi.capture.filter import Filter
from bemi.capture.masker import Masker
from bemi.capture.messages import Message, Relation
from bemi.capture.protocol import XLogData
from bemi.capture.sequencer import Sequencer
from bemi.capture.sink import Sink
from bemi.capture.source import Source
from bemi.capture.stitcher import Stitcher

_WAIT: Final = 0.5
"""Seconds after which stopping and feedback are looked at, when nothing happens at all."""

_AT_ONCE: Final = 100
"""Frames after which they are looked at while the source sends: milliseconds, and a frame is worth
less than the look. And behind each that announces a table, of which the catalog is asked."""


class Pipeline:
    """Moves changes from one source to one sink until it is told to stop."""

    def __init__(
        self, source: Source, stitcher: Stitcher, kept: Filter, masker: Masker, sink: Sink
    ) -> None:
        self._source = source
        self._encoding = source.encoding.text
        self._sequencer = Sequencer()
        self._stitcher = stitcher
        self._filter = kept
        self._masker = masker
        self._sink = sink

    def run(self, stopped: Callable[[], bool]) -> None:
        """Until `stopped`, or an error of the source, the stream or the destination."""
        while not stopped():
            if self._sink.full():
                self._sink.wait(_WAIT)
            elif not self._read():
                self._sink.flush()
                self._source.wait(_WAIT, also=self._sink.wake)
            self._source.acknowledge(self._sink.acknowledgeable)

    def _read(self) -> bool:
        """Whether anything came."""
        for nth in range(_AT_ONCE):
            frame = self._source.receive()
            if isinstance(frame, XLogData):
                lsn, message = frame.lsn, decode(frame.payload, self._encoding)
                del frame  # a wide row is in memory often enough
                self._step(message, lsn)
                if isinstance(message, Relation):
                    break
            elif frame is None:
                return nth > 0
            else:
                self._sink.reached(frame.end, urgent=frame.reply_requested)
                if frame.reply_requested:
                    self._source.acknowledge(self._sink.acknowledgeable, urgent=True)
            if self._sink.full():
                break
        return True

    def _step(self, message: Message, lsn: int) -> None:
        for placed, at in self._sequencer.take(message, lsn):
            for event in self._stitcher.take(placed, at):
                kept = self._filter.take(event)
                if kept is not None:
                    self._sink.put(self._masker.take(kept))
