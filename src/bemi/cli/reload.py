"""Notices that the file of settings has changed, and reads it again; a bad one changes nothing."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from bemi.config import Settings
from bemi.errors import ConfigError

log = logging.getLogger("bemi.settings")

Stamp: TypeAlias = tuple[int, int, int]


class SettingsWatch:
    """All settings, of which those in a file may change. What was given elsewhere stays."""

    def __init__(self, path: Path, read: Callable[[], Sequence[Settings]]) -> None:
        """`read` reads all settings, with the file at `path` where there is one."""
        self._path = path
        self._read = read
        # Before it is read: what changes after that is seen.
        self._taken = self._seen = self._stamp()
        self._had_file = self._taken is not None
        self.settings = read()

    def look(self, asked: bool) -> Sequence[Settings] | None:
        """The settings when they were read again, at once where that was asked for.

        Otherwise only when the file has changed, and then stayed as it is from one look to the
        next: a file that is just being written may lack what is to be masked. For the same
        reason a file that is gone changes nothing.
        """
        stamp = self._stamp()
        settled, self._seen = stamp == self._seen, stamp
        if not asked and (stamp == self._taken or not settled):
            return None
        self._taken = stamp
        if stamp is None and self._had_file:
            self._refuse(ConfigError(f"there is no file {self._path} any more"))
            return None
        self._had_file = stamp is not None
        try:
            self.settings = self._read()
        except ConfigError as error:
            self._refuse(error)
            return None
        log.info("settings read again", extra={"file": self._path})
        return self.settings

    def _stamp(self) -> Stamp | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _refuse(self, error: ConfigError) -> None:
        log.error("the old settings stay", extra={"reason": str(error), "fix": error.fix})
