"""`bemi serve`: the history over HTTP, for programs and people."""

import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter, validators

from bemi.cli.options import Names, SourcesFlags, Text
from bemi.errors import ConfigError

if TYPE_CHECKING:
    from bemi.capture.connector import Connector
    from bemi.config import Settings


def command(
    *,
    host: str = "127.0.0.1",
    port: Annotated[int, Parameter(validator=validators.Number(gte=0, lte=65535))] = 8420,
    public_url: Text = None,
    trusted_proxy: Names = (),
    sign_in_link: bool = False,
    connect_any: bool = False,
    keep_accesses: Annotated[int, Parameter(validator=validators.Number(gte=30))] = 400,
    log_format: Literal["text", "json"] | None = None,
    connection: SourcesFlags = SourcesFlags(),  # noqa: B008 - frozen
) -> int:
    """Serve the history over HTTP until stopped: an API, and pages.

    The first start prints a one-time link that makes whoever follows it the owner, who lets others
    in. Everybody else needs a link or a token: nothing is told without, and everything that is
    asked is recorded. Where the settings have sources, editors may revert their changes.

        bemi serve --port 8420

    Parameters
    ----------
    host
        Address to listen on; any but this machine's own takes --public-url.
    port
        Port to listen on; 0 takes one that is free.
    public_url
        Under which browsers reach it, as in https://history.example; without it, the address it
        listens on.
    trusted_proxy
        Address of a proxy that says for whom it asks (X-Forwarded-For); repeatable.
    sign_in_link
        Print a one-time link to sign in as the owner.
    connect_any
        Let admins check databases whose address and password they type, beside those of the
        settings. This server then connects to whatever host they name.
    keep_accesses
        Days for which it is kept who has asked for what here; at least 30.
    log_format
        Lines of text or of JSON; without this, text on a terminal and JSON elsewhere.
    """
    from bemi import config
    from bemi.cli import logs, output

    server = served()
    where = connection.history()
    settings = _settings(connection)
    logs.start(log_format)
    for name in ("uvicorn.error", "psycopg.pool"):
        _lend_log(name)
    server.run(
        where.url,
        where.schema,
        host=host,
        port=port,
        public_url=public_url,
        trusted_proxies=trusted_proxy,
        write_urls={each.source: each.write_url for each in settings},
        connector=connector({each.source: each for each in settings}, takes_any=connect_any),
        sign_in_link=sign_in_link,
        keeps_accesses=timedelta(days=keep_accesses),
        oidc=config.load_oidc(path=connection.config),
        say=lambda line: print(output.printable(line), flush=True),
    )
    return 0


def served() -> ModuleType:
    """`bemi.server`, with what it takes. Raises `ConfigError`."""
    try:
        from bemi import server
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"serving the history needs {error.name}, which is not installed",
            fix="pip install 'bemi[server]'",
        ) from error
    return server


def connector(settings: "Mapping[str, Settings]", *, takes_any: bool = False) -> "Connector":
    """What the server looks at sources with."""
    from bemi.capture.connector import Connector

    return Connector(settings, takes_any=takes_any)


def _settings(connection: SourcesFlags) -> "Sequence[Settings]":
    """Of the sources; none where no source is set: who only reads needs none."""
    from bemi import config

    if not (config.is_set("source_url", path=connection.config) or connection.source_url):
        return ()
    return connection.several(())


def _lend_log(name: str) -> None:
    """What a library has to say goes where Bemi's log goes."""
    log = logging.getLogger(name)
    log.handlers[:] = logging.getLogger("bemi").handlers
    log.setLevel(logging.WARNING)
    log.propagate = False
