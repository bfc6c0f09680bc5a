"""A server of the history, as a browser or a program meets it: real uvicorn on a real socket."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, Final

import httpx
import psycopg
import uvicorn
from fastapi import FastAPI
from limits import RateLimitItemPerSecond

from bemi import server
from bemi.api.archive import Archive
from bemi.api.envelope import Envelope
from bemi.api.limits import Limits
from bemi.api.oidc import Provider
from bemi.api.serving import Serving
from bemi.capture.connector import Connector
from bemi.config import OidcSettings, Settings
from bemi.store import people
from bemi.store.people import Role
from tests.support.waiting import until

UNLIMITED: Final = RateLimitItemPerSecond(10**6)
API: Final = "/api/v1"


def exact(text: str) -> Any:
    """JSON with all digits of its numbers."""
    return json.loads(text, parse_float=Decimal)


class Web:
    """One that runs. `as_…` are clients that may, `nobody` is one that may not."""

    def __init__(self, settings: Settings, serving: Serving, app: FastAPI) -> None:
        self.settings = settings
        self.serving = serving
        self.app = app
        self.base = serving.origin
        self._clients: list[httpx.Client] = []
        self.admin, self.admin_session = self.person(f"ada of {self.base}", "admin")
        self.as_admin = self.client(self.token("admin"))
        self.nobody = self.client()

    def conn(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.settings.destination_url, autocommit=True)

    def token(self, role: Role, scopes: list[Any] | None = None, name: str = "") -> str:
        with self.conn() as conn:
            _, secret = people.add_token(
                conn, "bemi", name or role, role, scopes, created_by="ada", lasts=None
            )
        return secret

    def person(self, name: str, role: Role, scopes: list[Any] | None = None) -> tuple[int, str]:
        """Its number, and the secret of a session."""
        with self.conn() as conn:
            person = people.add_person(conn, "bemi", name, role, scopes)
            link = people.link(conn, "bemi", person.id)
            signed_in = people.sign_in(conn, "bemi", link, "")
        assert signed_in is not None
        return person.id, signed_in[1]

    def client(self, token: str | None = None, **headers: str) -> httpx.Client:
        given = {} if token is None else {"Authorization": f"Bearer {token}"}
        made = httpx.Client(base_url=self.base, headers={**given, **headers}, timeout=30)
        self._clients.append(made)
        return made

    def browser(self, session: str, **headers: str) -> httpx.Client:
        """With a session's cookie, and what browsers say of requests of our own pages."""
        client = self.client(**{"Sec-Fetch-Site": "same-origin", **headers})
        client.cookies.set(self.serving.cookie, session, domain="127.0.0.1")
        return client

    def get(self, path: str, client: httpx.Client | None = None, **query: Any) -> Any:
        """The JSON of an answer."""
        answer = (client or self.as_admin).get(API + path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def close(self) -> None:
        for each in self._clients:
            each.close()


@contextmanager
def serve(
    settings: Settings,
    *,
    limits: Limits | None = None,
    write_urls: Mapping[str, str] | None = None,
    connector: Connector | None = None,
    oidc: OidcSettings | None = None,
) -> Iterator[Web]:
    listener = server.listen("127.0.0.1", 0)
    origins = server.origins_of("127.0.0.1", listener.getsockname()[1], None)
    with listener, Archive(settings.destination_url, settings.schema) as archive:
        serving = Serving(
            archive,
            origins,
            write_urls={settings.source: settings.write_url} if write_urls is None else write_urls,
            connector=connector or Connector({settings.source: settings}),
            limits=limits
            or Limits(
                asked=UNLIMITED,
                refused=UNLIMITED,
                signing=UNLIMITED,
                of_tenant=UNLIMITED,
                of_embed=UNLIMITED,
            ),
            provider=None if oidc is None else Provider(oidc, origins[0]),
        )
        app = server.build(serving)
        config = uvicorn.Config(
            Envelope(app, serving), log_config=None, access_log=False, timeout_graceful_shutdown=2
        )
        running = uvicorn.Server(config)
        thread = threading.Thread(target=running.run, args=[[listener]])
        thread.start()
        web: Web | None = None
        try:
            until(lambda: running.started, 20, "the server has started")
            web = Web(settings, serving, app)
            yield web
        finally:
            if web is not None:
                web.close()
            serving.streams.close()
            running.should_exit = True
            thread.join()
