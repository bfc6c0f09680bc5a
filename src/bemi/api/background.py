"""Exports that take longer than somebody wants to wait: written into files, one after the other.

They are this process's own: a server that ends takes them along.
"""

import logging
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

import psycopg

from bemi.api.problems import BusyError
from bemi.errors import UnknownStateError

log = logging.getLogger("bemi.server")

AT_ONCE: Final = 2
MOST_OF_ONE: Final = 5
"""That one person or program may have."""
LARGEST: Final = 2 << 30
"""Bytes of a file; and of all files together:"""
ROOM: Final = 8 << 30
LASTS: Final = 3600.0
"""Seconds for which a file is kept."""
LOOKS: Final = 60.0
"""Seconds after which it is looked whether one has been."""

State = Literal["waiting", "running", "done", "failed"]


@dataclass(slots=True)
class Export:
    """`rows` and `bytes`: written so far."""

    id: str
    owner: str
    format: str
    path: Path
    asked_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    state: State = "waiting"
    rows: int = 0
    bytes: int = 0
    error: str | None = None
    ended: float = float("inf")
    given_up: bool = False
    stop: Callable[[], None] | None = None
    """Ends what it waits for, while it waits."""

    def give_up(self) -> None:
        self.given_up = True
        stop = self.stop
        if stop is not None:
            with suppress(psycopg.Error):  # then it ends when it has waited
                stop()


class _TooLargeError(Exception):
    pass


class Background:
    def __init__(self) -> None:
        self._exports: dict[str, Export] = {}
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(AT_ONCE, "bemi-export")
        self._folder: Path | None = None

    def start(self, owner: str, format: str, made: Callable[[Export], Generator[bytes]]) -> Export:
        """`made`: its bytes, and counts its rows. Raises `BusyError`."""
        with self._lock:
            self._forget()
            if sum(each.owner == owner for each in self._exports.values()) >= MOST_OF_ONE:
                raise BusyError(
                    f"there are {MOST_OF_ONE} exports already", fix="delete one that is done"
                )
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="bemi-exports-"))
            id = secrets.token_hex(16)
            export = Export(id, owner, format, self._folder / id)
            self._exports[id] = export
            self._threads.submit(self._run, export, made)
        return export

    def of(self, owner: str) -> list[Export]:
        with self._lock:
            self._forget()
            return [each for each in self._exports.values() if each.owner == owner]

    def one(self, owner: str, id: str) -> Export:
        """Raises `UnknownStateError`, for those of others too."""
        found = next((each for each in self.of(owner) if each.id == id), None)
        if found is None:
            raise UnknownStateError(
                "there is no such export, or not any more", fix="ask for it again"
            )
        return found

    def delete(self, owner: str, id: str) -> None:
        export = self.one(owner, id)
        with self._lock:
            self._drop(export)
        export.give_up()

    def forget(self) -> None:
        """Deletes what is kept for long enough; to be called now and then."""
        with self._lock:
            self._forget()

    def close(self) -> None:
        with self._lock:
            left = [*self._exports.values()]
        for each in left:
            each.give_up()
        self._threads.shutdown(cancel_futures=True)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, export: Export, made: Callable[[Export], Generator[bytes]]) -> None:
        export.state = "running"
        try:
            with closing(made(export)) as pieces, export.path.open("wb") as file:
                for piece in pieces:
                    if export.given_up:
                        return
                    self._require_room(export, len(piece))
                    file.write(piece)
                    export.bytes += len(piece)
            export.state = "done"
        except Exception as error:  # noqa: BLE001 - nobody else would hear of it
            if not export.given_up:
                log.error("export failed", extra={"reason": str(error)})
            if isinstance(error, _TooLargeError):
                export.error = str(error)
            elif isinstance(error, OSError):
                export.error = "the server could not write it down"
            else:
                export.error = "the history could not be read to the end"
        finally:
            export.ended = time.monotonic()
            if export.state != "done" or export.given_up:
                export.path.unlink(missing_ok=True)
                export.bytes = 0
            # Once nothing is left of it, so that who sees it finds it so.
            if export.state != "done":
                export.error = export.error or "it was given up"
                export.state = "failed"

    def _require_room(self, export: Export, more: int) -> None:
        """Raises `_TooLargeError`."""
        if export.bytes + more > LARGEST:
            raise _TooLargeError(
                f"it is larger than {LARGEST >> 20:,} MB: ask for less, or take it at once, as"
                " GET /export sends it"
            )
        with self._lock:
            written = sum(each.bytes for each in self._exports.values())
        if written + more > ROOM:
            raise _TooLargeError("the server keeps no more: ask again when others were deleted")

    def _forget(self) -> None:
        for each in list(self._exports.values()):
            if time.monotonic() - each.ended > LASTS:
                self._drop(each)

    def _drop(self, export: Export) -> None:
        self._exports.pop(export.id, None)
        if export.state == "done":
            export.path.unlink(missing_ok=True)
