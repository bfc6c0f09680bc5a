"""A tracked source whose transactions say who they are, asked by Python and by commands."""

import json
from typing import Any

import pytest

import bemi
from bemi.cli import app
from tests.support.tracked import Tracked

EMIT = "select pg_logical_emit_message(true, '_bemi', %s)"


class Asked:
    """`bemi(…)` calls a command in this process, and gives its exit code and what it printed."""

    def __init__(
        self,
        at: Tracked,
        output: pytest.CaptureFixture[bytes],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        self.at = at
        self.history = bemi.History(at.settings.destination_url)
        self._output = output
        monkeypatch.delenv("BEMI_SOURCE_URL", raising=False)
        monkeypatch.setenv("BEMI_DESTINATION_URL", at.settings.destination_url)
        monkeypatch.setenv("COLUMNS", "120")
        monkeypatch.setenv("NO_COLOR", "1")

    def write(self, *statements: str, **context: object) -> None:
        """One transaction."""
        with self.at.source.transaction():
            if context:
                self.at.source.execute(EMIT, [json.dumps(context)])
            for statement in statements:
                self.at.source.execute(statement.encode())

    def ready(self) -> bemi.History:
        self.at.catch_up()
        return self.history

    def bemi(self, *arguments: str) -> tuple[int, str, str]:
        self._output.readouterr()
        with pytest.raises(SystemExit) as caught:
            app.main(arguments)
        out, err = (text.decode() for text in self._output.readouterr())
        assert isinstance(caught.value.code, int)
        return caught.value.code, out, err

    def json(self, *arguments: str) -> Any:
        code, out, _ = self.bemi(*arguments, "--json")
        assert code == 0, out
        return json.loads(out, parse_float=str)

    def close(self) -> None:
        self.history.close()
