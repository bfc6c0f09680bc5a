"""What goes into headers between services and into jobs, and what is taken out of them."""

import json
import re
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import opentelemetry.sdk.trace
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bemi
from bemi.context import tracing, wire
from bemi.integrations import asgi, wsgi
from bemi.integrations.request import TRUSTED, Trust, key_of, values_of

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.fixture(autouse=True)
def no_context() -> Iterator[None]:
    bemi.clear_context()
    yield
    bemi.clear_context()


def test_nothing_goes_out_where_there_is_nothing_to_say() -> None:
    assert bemi.outgoing_headers() == {}
    assert tracing.job_headers() == {}


def test_what_goes_out() -> None:
    """A function is called once, for whoever wants its value; secrets stay."""
    asked = []

    def user() -> int:
        asked.append(1)
        return 42

    bemi.set_context(
        request_id="req-1",
        trace_id=tracing.read_traceparent(PARENT),
        user_id=user,
        password="p",
    )
    headers = bemi.outgoing_headers()
    assert headers["X-Request-ID"] == "req-1"
    assert headers["traceparent"] == PARENT
    assert json.loads(headers["bemi-context"]) == {
        "request_id": "req-1",
        "trace_id": TRACE,
        "user_id": 42,
        "password": "***",
        "_bemi": {"redacted": ["password"]},
    }
    assert json.loads(wire.encode(bemi.current_context()))["user_id"] == 42
    assert asked == [1]
    assert "bemi-context" not in bemi.outgoing_headers(context=False)


def test_a_trace_that_is_known_by_its_id_only() -> None:
    bemi.set_context(trace_id=TRACE)
    header = bemi.outgoing_headers()["traceparent"]
    assert re.fullmatch(f"00-{TRACE}-[0-9a-f]{{16}}-00", header)
    bemi.set_context(trace_id="of another kind")
    assert "traceparent" not in bemi.outgoing_headers()


def test_the_current_span_of_open_telemetry() -> None:
    tracer = opentelemetry.sdk.trace.TracerProvider().get_tracer("test")
    bemi.set_context(trace_id=tracing.open_telemetry)
    with tracer.start_as_current_span("one") as span:
        known = span.get_span_context()
        header = bemi.outgoing_headers()["traceparent"]
        assert header == f"00-{known.trace_id:032x}-{known.span_id:016x}-01"
        assert json.loads(wire.encode(bemi.current_context())) == {
            "trace_id": f"{known.trace_id:032x}"
        }
    assert tracing.open_telemetry() is None


def test_values_that_fail_are_no_headers() -> None:
    def fails() -> str:
        raise ZeroDivisionError

    bemi.set_context(request_id=fails, trace_id=fails)
    headers = bemi.outgoing_headers()
    assert set(headers) == {"bemi-context"}
    assert json.loads(headers["bemi-context"])["_bemi"]["replaced"] == ["request_id", "trace_id"]


@given(
    st.dictionaries(
        st.text(),
        st.text(max_size=300) | st.binary() | st.lists(st.text(), max_size=30),
        max_size=60,
    ),
    st.sampled_from([1000, 4 << 10, 64 << 10]),
)
def test_any_context_fits_into_a_header(context: dict[str, Any], limit: int) -> None:
    """Also when it is to be cut to little, and all of it is to be told of."""
    content = wire.encode({**context, "many": [b""] * 300, "long": "y" * 100_000}, limit=limit)
    assert len(content) <= limit
    assert content.isascii()
    assert re.search(r"[\r\n\0]", content) is None
    assert set(json.loads(content)["_bemi"]) >= {"truncated"}


def test_what_is_small_stays_whole_in_a_small_header() -> None:
    content = wire.encode({"user_id": 7, "long": "y" * 100_000}, limit=1000)
    seen = json.loads(content)
    assert seen["user_id"] == 7
    assert len(seen["long"]) > 400
    assert seen["_bemi"] == {"truncated": ["long"]}


def begun(
    headers: dict[str, str],
    *,
    trust: Trust = TRUSTED,
    user: object = None,
    method: str | None = "PUT",
) -> dict[str, Any]:
    """The context of a request with these headers, as it is sent."""
    values = values_of(
        headers.get,
        trust=trust,
        endpoint=lambda: "/own",
        method=method,
        user=lambda: key_of(user),
        customised=None,
    )
    with bemi.context(values):
        return dict(json.loads(wire.encode(bemi.current_context())))


CALLER = {
    "X-Request-ID": "req-1",
    "traceparent": PARENT,
    "bemi-context": json.dumps(
        {"user_id": 42, "request_id": "no", "endpoint": "/caller", "method": "GET", "plan": "free"}
    ),
}
OWN = {"endpoint": "/own", "method": "PUT"}


@pytest.mark.parametrize(
    ("trust", "taken"),
    [
        (TRUSTED, {"request_id": "req-1", "trace_id": TRACE}),
        (("trace_id",), {"trace_id": TRACE}),
        (("plan",), {"plan": "free"}),
        (("user_id", "request_id"), {"user_id": 42, "request_id": "req-1"}),
        (("endpoint", "method"), {}),
        (True, {"request_id": "req-1", "trace_id": TRACE, "user_id": 42, "plan": "free"}),
        ((), {}),
        (False, {}),
    ],
)
def test_what_is_taken_from_a_caller(trust: Trust, taken: dict[str, Any]) -> None:
    seen = begun(CALLER, trust=trust)
    made = {} if "request_id" in taken else {"request_id": seen.get("request_id")}
    assert seen == {**OWN, **taken, **made}
    if made:
        uuid.UUID(made["request_id"])


def test_a_websocket_has_no_method_and_not_its_callers() -> None:
    assert "method" not in begun(CALLER, trust=True, method=None)


@pytest.mark.parametrize("middleware", [asgi.ContextMiddleware, wsgi.ContextMiddleware])
def test_one_text_is_no_list_of_names(middleware: Any) -> None:
    with pytest.raises(TypeError, match="trust="):
        middleware(None, trust="user_id")


def test_the_user_that_the_service_itself_knows_wins() -> None:
    assert begun(CALLER, trust=True, user="ann")["user_id"] == "ann"


@pytest.mark.parametrize("header", ["", "no", "[1]", "null", "[" * 100_000, '{"a": 1'])
def test_a_context_that_can_not_be_read_is_as_good_as_absent(header: str) -> None:
    assert set(begun({"bemi-context": header}, trust=True)) == {*OWN, "request_id"}


class _User:
    def __init__(self, **members: object) -> None:
        self.__dict__.update(members)


class _Failing:
    @property
    def id(self) -> int:
        raise RuntimeError("no session")

    @property
    def identity(self) -> str:
        raise NotImplementedError


def _identified(key: str) -> _User:
    get_id: Callable[[], str] = lambda: key  # noqa: E731
    return _User(is_authenticated=True, get_id=get_id)


@pytest.mark.parametrize(
    ("user", "key"),
    [
        (None, None),
        ("ann", "ann"),
        (42, 42),
        (True, None),
        ({"sub": "ann"}, "ann"),
        ({"id": None, "username": "ann"}, "ann"),
        ({"password": "p"}, None),
        (_User(id=42, username="ann"), 42),
        (_User(pk=42, is_authenticated=False), None),
        (_identified("ann"), "ann"),
        (_Failing(), None),
        (object(), None),
    ],
)
def test_what_identifies_a_user(user: object, key: object) -> None:
    assert key_of(user) == key


async def _asynchronous(scope: object) -> dict[str, object]:
    return {}


@pytest.mark.parametrize("middleware", [asgi.ContextMiddleware, wsgi.ContextMiddleware])
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"context": {"tenant": 7}}, "context= takes a function, not"),
        ({"context": _asynchronous}, "that is not async"),
        ({"trust": "tenant"}, "trust= takes names"),
    ],
)
def test_wrong_options_of_a_middleware_are_told_at_once(
    middleware: Any, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(TypeError, match=told):
        middleware(None, **options)
