"""Answers that are sent in pieces."""

from collections.abc import Generator

import anyio
import pytest
from starlette.types import Message

from bemi.api.answers import Streamed


def test_an_answer_that_nobody_takes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bemi.api.answers._TAKEN_WITHIN", 0.01)
    closed = []

    def pieces() -> Generator[bytes]:
        try:
            while True:
                yield b"piece"
        finally:
            closed.append(True)

    async def receive() -> Message:
        await anyio.sleep_forever()
        raise AssertionError

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            await anyio.sleep_forever()

    anyio.run(Streamed(pieces(), "text/plain"), {"type": "http"}, receive, send)
    assert closed == [True]
