"""Libraries of other languages: a program beside this one does with them what the rules ask.

One JSON object a line each way. A program is used again by later sessions, and has one session at
a time, as Django's has.
"""

import atexit
import contextlib
import functools
import json
import math
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

from psycopg import conninfo

import bemi
from bemi.context import notice
from tests.conformance.clients.client import Client, Session

ROOT = Path(__file__).parents[3]


class Program:
    """Does what it is told in the context that is current here, knowing what was warned of."""

    def __init__(self, command: Sequence[str]) -> None:
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said
        )
        atexit.register(self._process.communicate)  # its input ends, and so does it

    def __call__(self, do: str, *arguments: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = {
            "do": do,
            "arguments": _tagged(arguments),
            "context": _tagged(bemi.current_context()),
            "told": sorted(notice._told),
        }
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(asked).encode() + b"\n")
            self._process.stdin.flush()
        told = json.loads(self._process.stdout.readline() or self._ended())
        notice._told.update(told["told"])
        for message in told["warned"]:
            warnings.warn(message, RuntimeWarning, stacklevel=2)
        if told["error"] is not None:
            raise _error_class(told["error"]["type"])(told["error"]["message"])
        return told["value"]

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def _ended(self) -> NoReturn:
        with self._said as said:
            said.seek(0)
            raise RuntimeError(f"the program has ended: {said.read().decode()}")


def _tagged(value: object) -> object:
    """With what JSON has not in objects of one member named `$`."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else {"$": "float", "text": str(value)}
        case bytes():
            return {"$": "bytes", "hex": value.hex()}
        case dict():
            return {name: _tagged(each) for name, each in value.items()}
        case list() | tuple():
            return [_tagged(each) for each in value]
    return {"$": "object"}


@functools.cache
def _error_class(name: str) -> type[Exception]:
    """One for each kind of error of the other language, as rules compare them."""
    return type(name, (Exception,), {})


class _Session:
    def __init__(self, program: Program) -> None:
        self._program = program

    def run(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self._program("run", statement, parameters)]

    def count(self, statement: str, parameters: Sequence[Any] = ()) -> int:
        count: int = self._program("count", statement, parameters)
        return count

    def many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        self._program("many", statement, rows)

    def copy(self, table: str, rows: Sequence[Sequence[Any]]) -> None:
        self._program("copy", table, rows)

    def commit(self) -> None:
        self._program("commit")

    def rollback(self) -> None:
        self._program("rollback")

    @contextlib.contextmanager
    def block(self) -> Iterator[None]:
        self._program("enter")
        try:
            yield
        except BaseException:
            self._program("leave", True)
            raise
        self._program("leave", False)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """What only programs can do: `models`, `concurrent`."""
        return functools.partial(self._program, name)


def client(name: str, command: Callable[[], Sequence[str]], **about: Any) -> Client:
    """`command`: asked when the first session is opened; skips where its language is missing."""
    free: list[Program] = []

    @contextlib.contextmanager
    def opened(
        url: str, autocommit: bool, plain: bool, options: Mapping[str, Any]
    ) -> Iterator[Session]:
        program = free.pop() if free else Program(command())
        try:
            program("open", conninfo.conninfo_to_dict(url), autocommit, plain, options)
            try:
                yield _Session(program)
            finally:
                program("close")
        finally:
            if program.runs:
                free.append(program)

    def open_(
        url: str, *, autocommit: bool = False, **options: Any
    ) -> contextlib.AbstractContextManager[Session]:
        return opened(url, autocommit, False, options)

    def open_plain(
        url: str, *, autocommit: bool = False
    ) -> contextlib.AbstractContextManager[Session]:
        return opened(url, autocommit, True, {})

    return Client(name, open_, open_plain, **about)
