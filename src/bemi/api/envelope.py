"""What every request goes through, whatever it asks for: host and origin, headers, log.

Plain ASGI around the whole application, so that no answer is without it, an error's neither.
"""

import logging
import re
import secrets
import time
from collections.abc import Mapping
from typing import Any, Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bemi.api.access import LONGEST
from bemi.api.origins import is_foreign
from bemi.api.problems import problem
from bemi.api.serving import Serving

log = logging.getLogger("bemi.server")

PROBES: Final = ("/healthz", "/readyz")
"""Which load balancers ask by an address of their own."""

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " font-src 'self'; connect-src 'self'; manifest-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'"
)
EMBEDDED: Final = re.compile(r"/embed\.js|/embed/[^/]*|/api/v1/embed/changes")
"""What pages of other origins ask for. These routes take no cookie, and look at origins alone."""

HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not `no-referrer`: with that, forms are sent with the origin `null`, as those of others are.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=()",
    "Cache-Control": "no-store",
}


class Envelope:
    def __init__(self, app: ASGIApp, serving: Serving) -> None:
        self._app = app
        self._serving = serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        request_id = secrets.token_hex(8)
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope["headers"]
        }
        started = time.perf_counter()
        status = 0

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                answered = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    answered.setdefault(name, value)
                if answered["Content-Security-Policy"] != POLICY:
                    # It says which pages may frame it, of which the older header knows none.
                    del answered["X-Frame-Options"]
                abroad = scope.get("state", {}).get("answers_to")
                if abroad is not None:
                    answered["Access-Control-Allow-Origin"] = abroad
                    answered["Access-Control-Expose-Headers"] = "Retry-After"
                    answered.add_vary_header("Origin")
                if self._serving.is_secure:
                    answered.setdefault("Strict-Transport-Security", "max-age=31536000")
                answered["X-Request-Id"] = request_id
            await send(message)

        try:
            refusal = self._refusal(scope, headers)
            await (refusal or self._app)(scope, receive, sent)
        finally:
            self._tell(scope, request_id, status, time.perf_counter() - started)

    def _refusal(self, scope: Scope, headers: Mapping[str, str]) -> ASGIApp | None:
        if (
            scope["path"] not in PROBES
            and headers.get("host", "").lower() not in self._serving.hosts
        ):
            return problem(
                421,
                "host",
                "this server does not answer under that name",
                fix="give it to `bemi serve --public-url`",
            )
        if not EMBEDDED.fullmatch(scope["path"]) and is_foreign(
            scope["method"], headers, self._serving.origins
        ):
            return problem(403, "origin", "a page of another origin had this asked")
        if len(scope["raw_path"]) + len(scope["query_string"]) > LONGEST:
            return problem(
                414,
                "too-long",
                f"an address has {LONGEST:,} bytes at most, so that all of it can be recorded",
                fix="ask for less at once",
            )
        return None

    def _tell(self, scope: Scope, request_id: str, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        metrics = self._serving.metrics
        metrics.requests.labels(method, route, f"{status // 100}xx").inc()
        metrics.seconds.labels(route).observe(seconds)
        fields: dict[str, Any] = {
            "method": method,
            "route": route,
            "status": status,
            "milliseconds": round(1000 * seconds, 1),
            "request": request_id,
        }
        who = scope.get("state", {}).get("principal")
        if who is not None:
            fields["by"] = who.label
        log.info("answered", extra=fields)


_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
