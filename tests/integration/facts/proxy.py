"""A TCP proxy on loopback whose connections can fall silent, as in a network that half opens.

It stands in for a peer that is gone without a word: nothing is forwarded any more and nothing is
closed. (Its own kernel still confirms what is sent to it, which a network that is gone does not.)
"""

import contextlib
import selectors
import socket
import threading
from types import TracebackType
from typing import Self

from psycopg.conninfo import conninfo_to_dict, make_conninfo


class Proxy:
    """Forwards to the server of `url`; `url` of the proxy leads through it."""

    def __init__(self, url: str) -> None:
        given = conninfo_to_dict(url)
        self._to = (str(given["host"]), int(given["port"] or 5432))
        self._listener = socket.create_server(("127.0.0.1", 0))
        host, port = self._listener.getsockname()
        self.url = make_conninfo(**{**given, "host": host, "port": port})
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._peers: dict[socket.socket, socket.socket] = {}
        self._silent: list[socket.socket] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join(10)
        for each in (*self._peers, *self._silent, self._listener):
            each.close()
        self._selector.close()

    def silence(self) -> None:
        """What is connected now hears nothing any more; new connections are forwarded."""
        with self._lock:
            for each in self._peers:
                self._selector.unregister(each)
            self._silent += self._peers
            self._peers.clear()

    def _run(self) -> None:
        while not self._stop.is_set():
            ready = self._selector.select(0.05)
            with self._lock:
                for key, _ in ready:
                    if key.fileobj is self._listener:
                        self._accept()
                    elif isinstance(key.fileobj, socket.socket) and key.fileobj in self._peers:
                        self._forward(key.fileobj)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection(self._to)
        self._peers |= {client: server, server: client}
        for each in (client, server):
            self._selector.register(each, selectors.EVENT_READ)

    def _forward(self, end: socket.socket) -> None:
        peer = self._peers[end]
        with contextlib.suppress(OSError):
            data = end.recv(65536)
            if data:
                peer.sendall(data)
                return
        for each in (end, peer):
            self._selector.unregister(each)
            del self._peers[each]
            each.close()
