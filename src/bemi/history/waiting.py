"""Asks again when more is captured, where what is asked for is not captured yet."""

import time
from collections.abc import Callable
from contextlib import closing
from typing import Any, TypeVar

import psycopg

from bemi.errors import NotYetError
from bemi.store.notices import LONGEST_WAIT, Listener

Answer = TypeVar("Answer")


def once_captured(
    conn: psycopg.Connection[Any],
    schema: str,
    ask: Callable[[], Answer],
    *,
    patience: float,
) -> Answer:
    """What `ask` answers once it does not raise `NotYetError`, which it does after `patience`."""
    deadline = time.monotonic() + patience
    with closing(Listener(conn, schema)) as listener:
        while True:
            try:
                return ask()
            except NotYetError:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise
            if not listener.started:
                listener.start()
            else:
                listener.wait(min(left, LONGEST_WAIT))
