"""The whole capture path, top to bottom: source ▸ decoder ▸ stitcher ▸ filter ▸ masker ▸
completer, encoder ▸ sink.

One step takes one frame of the replication stream as far as it goes. While the source has
nothing to send, or the sink is full, feedback to the source goes on.
"""

from collections.abc import Callable
from typing import Final

from bemi.capture.decoder import decode
from bemi.capture.filter import Filter
from bemi.capture.masker import Masker
from bemi.capture.protocol import Keepalive, XLogData
from bemi.capture.sink import Sink
from bemi.capture.source import Source
from bemi.capture.stitcher import Stitcher

_WAIT: Final = 0.5
"""Seconds after which stopping and feedback are looked at, when nothing happens at all."""


class Pipeline:
    """Moves changes from one source to one sink until it is told to stop."""

    def __init__(
        self, source: Source, stitcher: Stitcher, kept: Filter, masker: Masker, sink: Sink
    ) -> None:
        self._source = source
        self._encoding = source.encoding.text
        self._stitcher = stitcher
        self._filter = kept
        self._masker = masker
        self._sink = sink

    def run(self, stopped: Callable[[], bool]) -> None:
        """Until `stopped`, or an error of the source, the stream or the destination."""
        while not stopped():
            if self._sink.full():
                self._sink.wait(_WAIT)
            else:
                self._step()
            self._source.acknowledge(self._sink.acknowledgeable)

    def _step(self) -> None:
        frame = self._source.receive()
        match frame:
            case XLogData():
                lsn, message = frame.lsn, decode(frame.payload, self._encoding)
                del frame  # a wide row is in memory often enough
                for event in self._stitcher.take(message, lsn):
                    kept = self._filter.take(event)
                    if kept is not None:
                        self._sink.put(self._masker.take(kept))
            case Keepalive():
                self._sink.reached(frame.end, urgent=frame.reply_requested)
                if frame.reply_requested:
                    self._source.acknowledge(self._sink.acknowledgeable, urgent=True)
            case None:
                self._sink.flush()
                self._source.wait(_WAIT, also=self._sink.wake)
