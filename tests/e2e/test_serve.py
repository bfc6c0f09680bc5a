"""`bemi serve` as people start it: the link of the first start, the log, the signals."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from typing import Any, Final

import httpx
import psycopg
import pytest

from bemi.config import Settings
from bemi.store.grants import grant
from tests.support.documents import blocks
from tests.support.provider import CLIENT, SECRET, lying
from tests.support.tracked import Tracked
from tests.support.tracking import environment, track

OWN_PAGE: Final = {"Sec-Fetch-Site": "same-origin"}
PRIVILEGES: Final = Path(__file__).parents[2] / "docs/how-to/privileges.md"


class Serve:
    """The command, with what it prints, line by line, and clients of it."""

    def __init__(self, settings: Settings, *flags: str, **environ: str) -> None:
        self.clients: list[httpx.Client] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bemi", "serve", "--port", "0", "--log-format", "json", *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(settings) | environ,
        )
        self.log: list[dict[str, Any]] = []
        self._printed: Queue[str] = Queue()
        self._threads = [threading.Thread(target=self._read), threading.Thread(target=self._listen)]
        for each in self._threads:
            each.start()
        self.base = self.line().removeprefix("listening on ")

    def line(self) -> str:
        return self._printed.get(timeout=30)

    def client(self, **given: Any) -> httpx.Client:
        made = httpx.Client(base_url=self.base, **given)
        self.clients.append(made)
        return made

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._printed.put(line.rstrip("\n"))

    def _listen(self) -> None:
        assert self.process.stderr is not None
        self.log += [json.loads(line) for line in self.process.stderr]

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        code = self.process.wait(timeout=30)
        for each in self._threads:
            each.join()
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.process.stdout.close()
        self.process.stderr.close()
        return code


@contextmanager
def serving(settings: Settings, *flags: str, **environ: str) -> Iterator[Serve]:
    made = Serve(settings, *flags, **environ)
    try:
        yield made
    finally:
        for each in made.clients:
            each.close()
        if made.process.poll() is None:
            made.end()


@pytest.fixture
def least(settings: Settings) -> Iterator[Settings]:
    """With the role of the page."""
    grants = next(
        block.text
        for block in blocks(PRIVILEGES.read_text(encoding="utf-8"))
        if "create role bemi_web" in block.text
    )
    role = f"web_of_{os.getpid()}"
    with psycopg.connect(settings.destination_url, autocommit=True) as conn:
        conn.execute(grants.replace("bemi_web", role).encode())
        grant(conn, "bemi", role)
        url = re.sub(r"//[^@/]*@", f"//{role}:change-me@", settings.destination_url)
        try:
            yield dataclasses.replace(settings, destination_url=url)
        finally:
            conn.execute(f"drop owned by {role}; drop role {role}".encode())


@pytest.fixture
def settings(source_url: str, destination_url: str) -> Settings:
    with psycopg.connect(source_url, autocommit=True) as conn:
        conn.execute("create table todo (id int primary key, task text)")
    found = track(source_url, destination_url, tables=["todo"], full=["todo"])
    tracked = Tracked(found)
    tracked.source.execute("insert into todo values (1, 'a secret value')")
    tracked.catch_up()
    tracked.close()
    return found


def test_people_sign_in_at_the_provider_that_is_set(least: Settings) -> None:
    """Also as a role that has what the page on privileges says, and no more."""
    with lying() as provider:
        environ = {
            "BEMI_OIDC_ISSUER": provider.issuer,
            "BEMI_OIDC_CLIENT_ID": CLIENT,
            "BEMI_OIDC_CLIENT_SECRET": SECRET,
            "BEMI_OIDC_DOMAINS": "there.example,here.example",
        }
        provider.claims = {"email": "ada@here.example", "email_verified": True}
        with serving(least, **environ) as served:
            browser = served.client()
            assert "Sign in with 127.0.0.1" in browser.get("/sign-in").text.replace("<bdi>", "")
            address = browser.get("/sign-in/oidc").headers["location"]
            back = browser.get("/sign-in/oidc/callback", params=provider.authorize(address))
            assert (back.status_code, back.headers["location"]) == (303, "/")
            assert browser.get("/api/v1/me").json()["name"] == "ada@here.example"


def test_the_first_start_makes_an_owner_and_a_restart_goes_on(least: Settings) -> None:
    """As a role that has what the page on privileges says, and no more."""
    with serving(least, "--connect-any") as served:
        assert served.line() == "become the owner, once:"
        link = served.line().strip()
        assert link.startswith(f"{served.base}/sign-in?link=")
        browser = served.client(headers=OWN_PAGE)
        page = browser.get(link).text
        secret = re.search(r'name="link" value="([^"]+)"', page)
        assert secret is not None
        answer = browser.post("/sign-in", data={"link": secret[1], "name": "ada"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        cookie = browser.cookies["bemi_session"]
        assert browser.get("/api/v1/me").json()["role"] == "admin"
        for path in ("sources", "tables", "coverage", "accesses", "stats"):
            assert browser.get(f"/api/v1/{path}").status_code == 200
        (change,) = browser.get("/api/v1/changes").json()["changes"]
        assert change["after"]["task"] == "a secret value"
        at = {"table": "todo", "when": change["id"]}
        assert browser.get("/api/v1/table/at", params=at).status_code == 200
        made = browser.post("/api/v1/people", json={"name": "grace", "role": "viewer"})
        path = f"/api/v1/people/{made.json()['person']['id']}"
        assert browser.patch(path, json={"disabled": True}).is_success
        assert browser.post("/api/v1/tokens", json={"name": "t", "role": "viewer"}).is_success
        assert 'name="password"' in browser.get("/sources/connect").text
        checked = browser.post("/api/v1/sources/checks", json={"source": least.source}).json()
        assert checked["findings"][0]["level"] == "ok"
        tried = browser.post("/api/v1/sources/rules", json={"rules": {"mask": ["task"]}}).json()
        assert tried["changes"][0]["stored"]["after"]["task"] == "***"
        # Somebody listens: that holds up no end.
        with browser.stream("GET", "/api/v1/stream") as stream:
            assert stream.status_code == 200
            assert served.end() == 143
    assert {line["message"] for line in served.log} == {"answered"}
    for hidden in ("secret value", secret[1], "change-me"):
        assert hidden not in json.dumps(served.log)
    with serving(least, "--sign-in-link") as again:
        # The session goes on.
        other = again.client(cookies={"bemi_session": cookie})
        assert other.get("/api/v1/me").json()["name"] == "ada"
        assert again.line().startswith("sign in as the owner")
        link = again.line().strip()
        browser = again.client(headers=OWN_PAGE)
        assert browser.post("/sign-in", data={"link": link.partition("=")[2]}).status_code == 303
        assert browser.get("/api/v1/me").json()["name"] == "ada"
        assert again.end(signal.SIGINT) == 130
    with psycopg.connect(least.destination_url, autocommit=True) as conn:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("delete from bemi.accesses")
