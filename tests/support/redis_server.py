"""A Redis of one's own, for the queues: on a free port, in a folder that goes with it."""

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.support.parts import require
from tests.support.waiting import until


@contextlib.contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """Its address. Skips the test where there is no redis-server."""
    program = require("redis-server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)),
        *("--save", "", "--appendonly", "no"),
    ]
    with (folder / "redis.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        until(lambda: _answers(port), 20, "redis-server answers")
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait(20)


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as client:
        client.sendall(b"PING\r\n")
        return client.recv(7) == b"+PONG\r\n"
    return False
