"""A client of the live stream."""

import json
from collections.abc import Iterator
from typing import Any

import httpx

from tests.support.web import API


class Listener:
    """A client that listens, as an EventSource of a browser does."""

    def __init__(self, client: httpx.Client, last: str = "", **query: Any) -> None:
        headers = {"Last-Event-ID": last} if last else {}
        self._context = client.stream("GET", f"{API}/stream", params=query, headers=headers)
        self._answer = self._context.__enter__()
        assert self._answer.status_code == 200, self._answer.read()
        self._lines = self._answer.iter_lines()
        self.last = ""
        self.comments = 0

    def events(self) -> Iterator[tuple[str, Any]]:
        kind = data = ""
        for line in self._lines:
            name, _, value = line.partition(": ")
            if name == "event":
                kind = value
            elif name == "data":
                data = value
            elif name == "id":
                self.last = value
            elif name == "" and line:
                self.comments += 1
            elif not line:
                if data:
                    yield kind, json.loads(data)
                else:
                    yield "beat", None
                kind = data = ""

    def take(self, number: int) -> list[Any]:
        """So many changes."""
        found: list[Any] = []
        for kind, value in self.events():
            if kind == "change":
                found.append(value)
            if len(found) == number:
                break
        return found

    def close(self) -> None:
        self._context.__exit__(None, None, None)
