"""`bemi serve`'s server: the API and the pages on one socket, until it is told to stop."""

import socket
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from importlib import resources
from pathlib import Path
from types import FrameType
from typing import Final
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI
from starlette.staticfiles import StaticFiles

from bemi.api.app import application
from bemi.api.archive import Archive
from bemi.api.connecting import Connector
from bemi.api.envelope import Envelope
from bemi.api.oidc import Provider
from bemi.api.origins import origin_of
from bemi.api.routing import STATIC, require_guards
from bemi.api.serving import KEEPS_ACCESSES, Serving
from bemi.config import OidcSettings
from bemi.embed import frame
from bemi.embed import routes as embedded
from bemi.errors import ConfigError
from bemi.store import people
from bemi.ui import pages

LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
_PATIENCE: Final = 5
"""Seconds that answers which are being sent get, when the server ends."""


def build(serving: Serving) -> FastAPI:
    """The whole application, but for what is around it: see `Envelope`."""
    app = application(serving, pages.ROUTERS, pages.error)
    app.include_router(embedded.router)
    app.include_router(frame.router, include_in_schema=False)
    static = Path(str(resources.files("bemi.ui").joinpath("static")))
    app.mount(STATIC, StaticFiles(directory=static), name="static")
    require_guards(app)
    return app


def listen(host: str, port: int) -> socket.socket:
    """Raises `ConfigError` where that can't be."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends without delay only where it sees that this is TCP: else each answer takes 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()  # who comes before all is ready waits
    except (OSError, OverflowError) as error:
        listener.close()
        raise ConfigError(
            f"can't listen on {host}, port {port}: {getattr(error, 'strerror', None) or error}",
            fix="give another --host or --port, or stop what listens there",
        ) from error
    return listener


def origins_of(host: str, port: int, public_url: str | None) -> tuple[str, ...]:
    """Under which the server is reached. Raises `ConfigError`."""
    if public_url is not None:
        try:
            return (origin_of(public_url),)
        except ValueError as error:
            raise ConfigError(
                f"--public-url: {error}", fix="give it as https://history.example"
            ) from error
    if host not in LOOPBACK:
        raise ConfigError(
            f"on {host} others can reach this server, and it does not know under which name",
            fix="say it with --public-url, as in https://history.example",
        )
    names = dict.fromkeys([f"[{host}]" if ":" in host else host, "localhost", "127.0.0.1"])
    return tuple(origin_of(f"http://{name}:{port}") for name in names)


def is_in_the_clear(host: str, origins: Sequence[str]) -> bool:
    """Whether what is asked and answered may go over a network without TLS."""
    plain = [urlsplit(origin).hostname for origin in origins if origin.startswith("http:")]
    return bool(plain) and (host not in LOOPBACK or not {*plain} <= {*LOOPBACK})


def run(
    url: str,
    schema: str,
    *,
    host: str,
    port: int,
    public_url: str | None,
    trusted_proxies: Sequence[str],
    write_urls: Mapping[str, str],
    connector: Connector,
    sign_in_link: bool,
    say: Callable[[str], None],
    keeps_accesses: timedelta = KEEPS_ACCESSES,
    oidc: OidcSettings | None = None,
) -> None:
    """Serves until a signal ends it. `say` gets what whoever started it has to know.

    Raises `BemiError` where it can't begin.
    """
    origins_of(host, port, public_url)  # before anything is begun; which port it is comes later
    listener = listen(host, port)
    with listener, Archive(url, schema) as archive:
        origins = origins_of(host, listener.getsockname()[1], public_url)
        serving = Serving(
            archive,
            origins,
            write_urls=write_urls,
            connector=connector,
            keeps_accesses=keeps_accesses,
            provider=None if oidc is None else Provider(oidc, origins[0]),
        )
        link = _link(serving, wanted=sign_in_link)
        say(f"listening on {serving.origin}")
        if is_in_the_clear(host, origins):
            say(
                "note: http:// sends the history and whoever is signed in over the network in the"
                " clear; put a proxy with TLS before it, and give its https:// name as --public-url"
            )
        for line in link:
            say(line)
        config = uvicorn.Config(
            Envelope(build(serving), serving),
            log_config=None,
            access_log=False,
            server_header=False,
            # Who asks is the peer, unless a proxy that is known says otherwise.
            proxy_headers=bool(trusted_proxies),
            forwarded_allow_ips=list(trusted_proxies),
            timeout_graceful_shutdown=_PATIENCE,
        )
        _Server(config, serving).run([listener])


class _Server(uvicorn.Server):
    """Whose live streams end when it is to end: else it would wait for them."""

    def __init__(self, config: uvicorn.Config, serving: Serving) -> None:
        super().__init__(config)
        self._serving = serving

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._serving.streams.close()
        super().handle_exit(sig, frame)


def _link(serving: Serving, *, wanted: bool) -> list[str]:
    """Lines with one for the owner, where there is no owner yet, or it is `wanted`."""
    archive = serving.archive
    with archive.connected() as conn:
        owner = people.first_admin(conn, archive.schema)
        if owner is None:
            secret = people.owner_link(conn, archive.schema)
            return ["become the owner, once:", f"  {serving.link(secret)}"]
        if wanted:
            secret = people.link(conn, archive.schema, owner)
            return ["sign in as the owner, once, within a day:", f"  {serving.link(secret)}"]
    return []
