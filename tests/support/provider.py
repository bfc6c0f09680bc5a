"""OpenID providers: one that lies as it is told to, and another's, as it is."""

import base64
import functools
import hashlib
import json
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import httpx
from joserfc import jwt
from joserfc.jwk import KeySet, OctKey, RSAKey

from bemi.config import OidcSettings
from tests.support.waiting import until

CLIENT: Final = "bemi"
SECRET: Final = "s3cret of the client"


class LyingProvider:
    """What it says of whom is set before somebody signs in: `claims` beside, or instead of, those
    that it ought to have (None: without one), `alg` and `key` to sign with, and `answers` by path
    in the place of its own."""

    def __init__(self, issuer: str) -> None:
        self.issuer = issuer
        self.key = key_of("one")
        self.known = [self.key]
        self.alg = "RS256"
        self.signs: Any = None
        self.header: dict[str, Any] = {}
        self.claims: dict[str, Any] = {}
        self.told: dict[str, Any] = {}
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.metadata: dict[str, Any] = {}
        self.asked: list[str] = []
        self._codes: dict[str, dict[str, str]] = {}

    def reset(self) -> None:
        self.__init__(self.issuer)  # type: ignore[misc]

    def settings(self, **more: Any) -> OidcSettings:
        return OidcSettings(
            oidc_issuer=self.issuer,
            oidc_client_id=CLIENT,
            **{"oidc_client_secret": SECRET, "oidc_name": "Example & Sons", **more},
        )

    def authorize(self, address: str) -> dict[str, str]:
        """What the browser brings back from there, once somebody has signed in."""
        url = urlsplit(address)
        assert f"{url.scheme}://{url.netloc}" == self.issuer
        asked = {name: value for name, (value,) in parse_qs(url.query).items()}
        assert (asked["response_type"], asked["client_id"]) == ("code", CLIENT)
        assert {"openid", "email"} <= {*asked["scope"].split()}
        assert asked["code_challenge_method"] == "S256"
        code = secrets.token_urlsafe(16)
        self._codes[code] = asked
        return {"code": code, "state": asked["state"]}

    def answer(self, path: str, form: Mapping[str, str], authorization: str) -> tuple[int, bytes]:
        self.asked.append(path)
        if path in self.answers:
            return self.answers[path]
        found: object
        if path == "/.well-known/openid-configuration":
            found = {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/jwks",
                **self.metadata,
            }
        elif path == "/jwks":
            keys = [{**each} for each in KeySet([*self.known]).as_dict(private=False)["keys"]]
            found = {"keys": [{"kty": "new", "kid": "of a later time"}, *keys]}
        elif path == "/userinfo":
            found = self.told
        else:
            return self._token(form, authorization)
        return 200, json.dumps(found).encode()

    def _token(self, form: Mapping[str, str], authorization: str) -> tuple[int, bytes]:
        basic = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        is_posted = (form.get("client_id"), form.get("client_secret")) == (CLIENT, SECRET)
        if authorization != f"Basic {basic}" and not is_posted:
            return 401, b'{"error": "invalid_client"}'
        asked = self._codes.pop(form["code"], None)
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if (
            asked is None
            or challenge != asked["code_challenge"]
            or form["redirect_uri"] != asked["redirect_uri"]
        ):
            return 400, b'{"error": "invalid_grant", "error_description": "<script>"}'
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "sub": "subject-1",
            "aud": CLIENT,
            "iat": now,
            "exp": now + 60,
            "nonce": asked["nonce"],
            **self.claims,
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        token = {"access_token": "opaque", "token_type": "Bearer", "id_token": self._signed(claims)}
        return 200, json.dumps(token).encode()

    def _signed(self, claims: dict[str, Any]) -> str:
        header = {"alg": self.alg, "kid": self.key.kid, **self.header}
        if self.alg == "none":
            parts = [json.dumps(each).encode() for each in (header, claims)]
            return ".".join(
                [*(base64.urlsafe_b64encode(p).rstrip(b"=").decode() for p in parts), ""]
            )
        return jwt.encode(header, claims, self.signs or self.key, algorithms=[self.alg])


def _written(part: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


@functools.cache
def key_of(name: str) -> RSAKey:
    """Always the same one; to make one takes a while."""
    return RSAKey.generate_key(2048, {"kid": name})


def hmac_key(text: str | bytes) -> OctKey:
    return OctKey.import_key(text)


@contextmanager
def lying() -> Iterator[LyingProvider]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer({})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            self._answer({name: value for name, (value,) in parse_qs(body).items()})

        def _answer(self, form: Mapping[str, str]) -> None:
            status, body = provider.answer(self.path, form, self.headers.get("authorization", ""))
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        provider = LyingProvider(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=[0.05])
        thread.start()
        try:
            yield provider
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def mock(**claims: Any) -> Iterator[str]:
    """The issuer of oidc-provider-mock, which knows one person by these claims."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(sys.executable, "-W", "ignore", "-m", "oidc_provider_mock"),
        *("--port", str(port), "--require-nonce", "true", "--user-claims", json.dumps(claims)),
    ]
    issuer = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until(lambda: _answers(issuer), 20, "the provider answers")
        yield issuer
    finally:
        process.terminate()
        process.wait(20)


def _answers(issuer: str) -> bool:
    try:
        return httpx.get(f"{issuer}/.well-known/openid-configuration").is_success
    except httpx.TransportError:
        return False
