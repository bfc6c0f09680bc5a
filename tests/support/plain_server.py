"""Servers with settings that other tests could not live with, one or two to a test."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

from bemi.embedded import Server

MakeServer: TypeAlias = Callable[..., Server]
"""Starts one with settings as keyword arguments; wal_level is replica unless they say so."""


@contextlib.contextmanager
def plain_servers(bin: Path | None) -> Iterator[MakeServer]:
    with contextlib.ExitStack() as stack:

        def make(**settings: str) -> Server:
            defaults = {"wal_level": "replica", "fsync": "off"}
            return stack.enter_context(Server(settings=defaults | settings, bin=bin))

        yield make
