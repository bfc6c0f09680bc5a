"""A private PostgreSQL for the demo, for tests and for anyone who asks.

    with Server() as server:
        connect(server.url("postgres"))

`server` supervises it, `binaries` finds the programs, `guard` sees to it that nothing outlives the
process that asked for it.
"""

from bemi.embedded.server import Server

__all__ = ["Server"]
