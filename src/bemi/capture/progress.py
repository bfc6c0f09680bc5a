"""What a setup did so far: told as it happens, and again by the error that ends it half-way."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from bemi.errors import BemiError, SetupError

Report = Callable[[str], None]


@dataclass(slots=True)
class Progress:
    """What was done, told as it happens, so that a failure in the middle can say it too."""

    report: Report
    done: list[str] = field(default_factory=list)

    def add(self, what: str) -> None:
        self.done.append(what)
        self.report(what)

    @contextlib.contextmanager
    def completing(self, command: str) -> Iterator[None]:
        try:
            yield
        except BemiError as error:
            if not self.done:
                raise
            fix = f"{error.fix}; then run" if error.fix else "run"
            raise SetupError(
                f"{error} (done before that: {'; '.join(self.done)}; the rest is not done)",
                fix=f"{fix} `{command}` again: it goes on from there",
            ) from error
