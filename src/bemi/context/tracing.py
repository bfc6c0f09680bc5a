"""The context on its way between services and into jobs: what goes into headers and comes out.

The names and forms are those of `spec/context.md`. What comes in with a request is somebody's
input: nothing here trusts it, it is parsed strictly or not at all.
"""

import json
import os
import re
import sys
import uuid
from typing import Any, Final

from bemi.context import current, wire
from bemi.context.lazy import Lazy

REQUEST_ID: Final = "X-Request-ID"
TRACEPARENT: Final = "traceparent"
CONTEXT: Final = "bemi-context"

# Servers take 8 kB for all headers of a request, or for each.
_REQUEST_LIMIT: Final = 4 << 10
# A frame of AMQP, which has to hold all headers of a message, has 128 kB.
_JOB_LIMIT: Final = 64 << 10

_MAX_REQUEST_ID: Final = 128
_NOT_IN_REQUEST_IDS: Final = re.compile(r"[^A-Za-z0-9._~:/+=@-]+")
_TRACEPARENT: Final = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<parent>[0-9a-f]{16})-[0-9a-f]{2}"
    r"(?P<more>-[!-~]*)?"
)


class TraceId(str):
    """A trace's id that knows the `traceparent` it came with, to be passed on as it is."""

    __slots__ = ("traceparent",)

    traceparent: str


def outgoing_headers(*, context: bool = True) -> dict[str, str]:
    """Headers for a request to another service of yours, so that one request is seen across them.

        httpx.post(url, headers=bemi.outgoing_headers())

    `X-Request-ID`, `traceparent` and `bemi-context`, each where there is something to say.
    `context=False` leaves out the last one: for services that are not yours.
    """
    headers: dict[str, str] = {}
    now = current.peek()
    request_id = read_request_id(_known(now.get("request_id")))
    if request_id is not None:
        headers[REQUEST_ID] = request_id
    traceparent = _traceparent(_known(now.get("trace_id")))
    if traceparent is not None:
        headers[TRACEPARENT] = traceparent
    if context and now:
        headers[CONTEXT] = wire.encode(now, limit=_REQUEST_LIMIT)
    return headers


def job_headers() -> dict[str, str]:
    """The same for a job; empty where there is no context."""
    now = current.peek()
    if not now:
        return {}
    headers = {CONTEXT: wire.encode(now, limit=_JOB_LIMIT)}
    traceparent = _traceparent(_known(now.get("trace_id")))
    if traceparent is not None:
        headers[TRACEPARENT] = traceparent
    return headers


def job_context(context: object, traceparent: object, **more: object) -> dict[str, Any]:
    """The context of a job that came with these headers, if any; `more` is laid over it."""
    values = read_context(context)
    trace = read_traceparent(traceparent)
    if trace is not None and values.get("trace_id") == trace:
        values["trace_id"] = trace
    return {**values, **{name: value for name, value in more.items() if value is not None}}


def read_context(header: object) -> dict[str, Any]:
    """What a `bemi-context` says; empty when it can't be read."""
    if not isinstance(header, str):
        return {}
    try:
        values = json.loads(header)
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def read_traceparent(header: object) -> TraceId | None:
    """The trace of a `traceparent`; None when it is not exactly of its form."""
    found = _TRACEPARENT.fullmatch(header) if isinstance(header, str) else None
    if found is None or found["version"] == "ff" or (found["version"] == "00" and found["more"]):
        return None
    if not found["trace"].strip("0") or not found["parent"].strip("0"):
        return None
    trace = TraceId(found["trace"])
    trace.traceparent = found[0]
    return trace


def read_request_id(header: object) -> str | None:
    """A request's id, bounded, and of signs that harm nobody; None when nothing of it is left."""
    text = str(header) if isinstance(header, str | int | uuid.UUID) else ""
    return _NOT_IN_REQUEST_IDS.sub("", text)[:_MAX_REQUEST_ID] or None


def new_request_id() -> str:
    return str(uuid.uuid4())


def open_telemetry() -> TraceId | None:
    """The trace of the current span of OpenTelemetry, where the application uses that."""
    api: Any = sys.modules.get("opentelemetry.trace")
    if api is None:
        return None
    span = api.get_current_span().get_span_context()
    return read_traceparent(
        f"00-{span.trace_id:032x}-{span.span_id:016x}-{int(span.trace_flags) & 1:02x}"
    )


def _traceparent(trace_id: object) -> str | None:
    span = open_telemetry()
    if span is not None:
        return span.traceparent
    if isinstance(trace_id, TraceId):
        return trace_id.traceparent
    # A trace that is known by its id only: who calls is given a name, and recorded nothing.
    made = read_traceparent(f"00-{trace_id}-{os.urandom(8).hex()}-00")
    return made and made.traceparent


def _known(value: object) -> object:
    """The value of a member; None for one that fails, which `wire` tells of."""
    if not isinstance(value, Lazy):
        return value
    try:
        return value()
    except Exception:  # noqa: BLE001 - the application's own functions may raise anything
        return None
