"""What the rules ask of a library."""

import asyncio
import contextlib
import contextvars
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import bemi

Result = TypeVar("Result")


class Session(Protocol):
    """One connection. Statements have the placeholder `{}` for each parameter.

    Outside of autocommit a transaction begins with the first statement.
    """

    def run(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Its rows, where it has some."""

    def count(self, statement: str, parameters: Sequence[Any] = ()) -> int:
        """How many rows it wrote, as the library says."""

    def many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Several rows in one call."""

    def copy(self, table: str, rows: Sequence[Sequence[Any]]) -> None:
        """By COPY; only where the client says that it `copies`."""

    def commit(self) -> None: ...

    def rollback(self) -> None: ...

    def block(self) -> contextlib.AbstractContextManager[None]:
        """The library's own block of a transaction; inside of another one, a savepoint. It is
        rolled back by an exception."""


class Opens(Protocol):
    def __call__(
        self, url: str, *, autocommit: bool = False, **options: Any
    ) -> contextlib.AbstractContextManager[Session]: ...


class OpensPlain(Protocol):
    def __call__(
        self, url: str, *, autocommit: bool = False
    ) -> contextlib.AbstractContextManager[Session]: ...


@dataclass(frozen=True)
class Client:
    """`open` gives a session whose contexts are sent; `open_plain` one without Bemi."""

    name: str
    open: Opens
    open_plain: OpensPlain
    copies: bool = True
    pools: bool = False
    """Its sessions have `concurrent`: requests at once, over one pool."""
    open_unprepared: Opens | None = None
    """As `open`, without prepared statements of the protocol, which a pooler in transaction mode
    can't have; None where `open` has none."""
    values_in_text: bool = False
    """Its library writes values into statements: what `sql` records ends before the first one."""
    options: frozenset[str] = field(default=frozenset(("functions", "check_at_commit", "sql")))

    def __str__(self) -> str:
        return self.name


class Loop:
    """Runs the coroutines of an asynchronous library for the rules, which are synchronous."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()

    def __call__(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        return self._runner.run(coroutine, context=contextvars.copy_context())

    @contextlib.contextmanager
    def entered(self, block: contextlib.AbstractAsyncContextManager[object]) -> Iterator[None]:
        self(block.__aenter__())
        try:
            yield
        except BaseException as error:
            self(block.__aexit__(type(error), error, error.__traceback__))
            raise
        self(block.__aexit__(None, None, None))

    def close(self) -> None:
        self._runner.close()


class Task(Loop):
    """One whose coroutines are of one task: what the library keeps in context variables, as the
    open transaction, is there for the next one. The context is the caller's."""

    def __init__(self) -> None:
        super().__init__()
        self._variables = contextvars.copy_context()

    def __call__(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        self._variables.run(bemi.set_context, bemi.current_context())
        return self._runner.run(coroutine, context=self._variables)
