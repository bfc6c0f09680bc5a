"""An application that shows its customers their history: an embed, and tokens for it."""

import json
import time
from typing import Any, Final

import httpx
from joserfc import jws
from joserfc.jwk import ECKey

import bemi
from tests.support.web import API, Web

ORIGIN: Final = "https://shop.example"

TODO: Final[dict[str, Any]] = {
    "name": "the shop's",
    "tables": [{"table": "public.todo", "columns": ["task", "done"], "tenant": None}],
    "origins": [ORIGIN],
}


class Embedding:
    """`bound`: what the embed may show at most; `said`: what tokens say unless told otherwise."""

    def __init__(self, web: Web, bound: dict[str, Any] | None = None, /, **said: Any) -> None:
        self.web = web
        self.bound = bound or TODO
        self.said = said
        answer = web.as_admin.post(f"{API}/embeds", json=self.bound)
        assert answer.status_code == 201, answer.text
        self.key: dict[str, str] = answer.json()["private_key"]
        self.id: int = answer.json()["embed"]["id"]
        self.kid: str = answer.json()["embed"]["kid"]

    def token(self, **said: Any) -> str:
        return bemi.embed_token(self.key, audience=self.web.base, **{**self.said, **said})

    def client(self, token: str | None = None, **headers: str) -> httpx.Client:
        return self.web.client(self.token() if token is None else token, **headers)

    def ask(self, token: str | None = None, /, **query: Any) -> httpx.Response:
        given = {"Authorization": f"Bearer {self.token() if token is None else token}"}
        return self.web.nobody.get(f"{API}/embed/changes", params=query, headers=given)

    def signed(self, claims: dict[str, Any] | bytes, key: Any = None, /, **header: Any) -> str:
        """Whatever somebody signs, with what they put into the header."""
        made = {"alg": "ES256", "kid": self.kid, "typ": "bemi-embed+jwt", **header}
        text = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
        signer = ECKey.import_key({**self.key}) if key is None else key
        return jws.serialize_compact(made, text, signer, algorithms=[made["alg"]])

    def claims(self, **said: Any) -> dict[str, Any]:
        """As its own tokens have them."""
        now = int(time.time())
        return {"aud": self.web.base, "iat": now, "exp": now + 60, **said}
