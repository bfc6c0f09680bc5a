"""Django, with psycopg 3, with its server-side binding, and with psycopg2.

Django has one configuration, one driver and one connection of a name in a process, so each session
has a process, which is used again by later ones.
"""

import atexit
import contextlib
import pickle
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from psycopg import conninfo

import bemi
from bemi.context import notice
from tests.conformance.clients.client import Client, Session

_PROGRAM = Path(__file__).with_name("django5_process.py")


class _Process:
    """Does what it is told in the other process, with the context that is current here, and knowing
    what was warned of."""

    def __init__(self, driver: str) -> None:
        self._process = subprocess.Popen(
            # Not with its folder, where modules are called like the libraries.
            [sys.executable, "-P", str(_PROGRAM), driver],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        atexit.register(self._process.communicate)  # its input ends, and so does it

    def __call__(self, name: str, *arguments: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        told = notice._told
        pickle.dump((name, arguments, bemi.current_context(), told), self._process.stdin)
        self._process.stdin.flush()
        value, error, warned, now_told = pickle.load(self._process.stdout)
        told.update(now_told)
        for message in warned:
            warnings.warn(message, RuntimeWarning, stacklevel=2)
        if error is not None:
            raise error
        return value


class _Session:
    def __init__(self, process: _Process) -> None:
        self._process = process

    def run(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = self._process("run", statement, parameters)
        return rows

    def count(self, statement: str, parameters: Sequence[Any] = ()) -> int:
        count: int = self._process("count", statement, parameters)
        return count

    def many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        self._process("many", statement, rows)

    def copy(self, table: str, rows: Sequence[Sequence[Any]]) -> None:
        self._process("copy", table, rows)

    def commit(self) -> None:
        self._process("commit")

    def rollback(self) -> None:
        self._process("rollback")

    @contextlib.contextmanager
    def block(self) -> Iterator[None]:
        self._process("enter")
        try:
            yield
        except BaseException:
            self._process("leave", True)
            raise
        self._process("leave", False)


def _client(name: str, driver: str) -> Client:
    free: list[_Process] = []

    @contextlib.contextmanager
    def opened(
        url: str, autocommit: bool, plain: bool, options: dict[str, Any]
    ) -> Iterator[Session]:
        process = free.pop() if free else _Process(driver)
        try:
            process("open", conninfo.conninfo_to_dict(url), autocommit, plain, options)
            try:
                yield _Session(process)
            finally:
                process("close")
        finally:
            free.append(process)

    def open_(
        url: str, *, autocommit: bool = False, **options: Any
    ) -> contextlib.AbstractContextManager[Session]:
        return opened(url, autocommit, False, options)

    def open_plain(
        url: str, *, autocommit: bool = False
    ) -> contextlib.AbstractContextManager[Session]:
        return opened(url, autocommit, True, {})

    return Client(name, open_, open_plain)


PSYCOPG = _client("Django", "psycopg")
SERVER_BINDING = _client("Django, server-side binding", "server_side_binding")
PSYCOPG2 = _client("Django, psycopg2", "psycopg2")
