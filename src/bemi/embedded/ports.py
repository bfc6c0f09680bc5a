"""Ports of 127.0.0.1 for servers of ours."""

import errno
import random
import socket
import time

from bemi.errors import SetupError

# Below the range that systems take the ports of outgoing connections from (Linux 32768, macOS
# 49152): otherwise a client that retries while the server is down can get the server's port, or
# even connect to itself.
PORTS = range(20000, 32000)


def find() -> int:
    for port in random.sample(PORTS, len(PORTS)):
        if is_free(port):
            return port
    raise SetupError(f"no free port on 127.0.0.1 between {PORTS.start} and {PORTS.stop - 1}")


def wait_until_free(port: int, deadline: float) -> None:
    while not is_free(port) and time.monotonic() < deadline:
        time.sleep(0.05)


def is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the server does: connections that have just been closed don't count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return False
    return True
