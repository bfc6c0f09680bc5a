"""The context of requests in applications of FastAPI, Starlette and Litestar, which write to
PostgreSQL through a pool of psycopg."""

import asyncio
import contextlib
import contextvars
from collections.abc import AsyncIterator, Callable
from typing import Any

import fastapi
import fastapi.responses
import httpx
import litestar
import litestar.background_tasks
import litestar.middleware
import litestar.response
import pytest
import starlette.applications
import starlette.authentication
import starlette.background
import starlette.middleware
import starlette.middleware.authentication
import starlette.middleware.base
import starlette.requests
import starlette.responses
import starlette.routing
import starlette.websockets
from litestar.params import FromPath
from psycopg_pool import AsyncConnectionPool, ConnectionPool

import bemi
from bemi.integrations.asgi import ContextMiddleware
from bemi.integrations.psycopg import AsyncConnection, Connection
from tests.support.attributions import attributions
from tests.support.wal import Log

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
INSERT = "insert into todo (task) values (%s)"


class Store:
    """What the endpoints write with: pools that requests share."""

    def __init__(self, url: str) -> None:
        self.pool = AsyncConnectionPool(
            url, connection_class=AsyncConnection, open=False, min_size=4, max_size=4, timeout=60
        )
        self.threads = ConnectionPool(
            url, connection_class=Connection, open=False, min_size=4, max_size=4, timeout=60
        )

    async def write(self, task: str) -> None:
        async with self.pool.connection() as conn:
            await conn.execute(INSERT, [task])

    def write_in_thread(self, task: str) -> None:
        with self.threads.connection() as conn:
            conn.execute(INSERT, [task])

    async def pieces(self, task: str) -> AsyncIterator[bytes]:
        for number in range(2):
            yield b"before"
            await self.write(f"{task}-{number}")


def with_fastapi(store: Store) -> Any:
    app = fastapi.FastAPI()
    router = fastapi.APIRouter(prefix="/api")

    @router.put("/todo/{task}")
    async def write(task: str) -> None:
        await store.write(task)

    @router.put("/thread/{task}")
    def write_in_thread(task: str) -> None:
        store.write_in_thread(task)

    @router.get("/stream/{task}")
    async def stream(task: str) -> fastapi.responses.StreamingResponse:
        return fastapi.responses.StreamingResponse(store.pieces(task))

    @router.put("/later/{task}")
    async def later(task: str, background: fastapi.BackgroundTasks) -> None:
        background.add_task(store.write, task)
        background.add_task(store.write_in_thread, task)

    @router.websocket("/socket/{task}")
    async def socket(websocket: fastapi.WebSocket, task: str) -> None:
        await websocket.accept()
        await store.write(await websocket.receive_text())
        await websocket.close()

    app.include_router(router)
    app.add_middleware(ContextMiddleware)
    return app


def with_starlette(store: Store) -> Any:
    async def write(request: starlette.requests.Request) -> starlette.responses.Response:
        await store.write(request.path_params["task"])
        return starlette.responses.Response()

    def write_in_thread(request: Any) -> starlette.responses.Response:
        store.write_in_thread(request.path_params["task"])
        return starlette.responses.Response()

    async def stream(request: Any) -> starlette.responses.Response:
        return starlette.responses.StreamingResponse(store.pieces(request.path_params["task"]))

    async def later(request: Any) -> starlette.responses.Response:
        tasks = starlette.background.BackgroundTasks()
        tasks.add_task(store.write, request.path_params["task"])
        tasks.add_task(store.write_in_thread, request.path_params["task"])
        return starlette.responses.Response(background=tasks)

    async def socket(websocket: starlette.websockets.WebSocket) -> None:
        await websocket.accept()
        await store.write(await websocket.receive_text())
        await websocket.close()

    routes = [
        starlette.routing.Route("/todo/{task}", write, methods=["PUT"]),
        starlette.routing.Route("/thread/{task}", write_in_thread, methods=["PUT"]),
        starlette.routing.Route("/stream/{task}", stream),
        starlette.routing.Route("/later/{task}", later, methods=["PUT"]),
        starlette.routing.WebSocketRoute("/socket/{task}", socket),
    ]
    return starlette.applications.Starlette(
        routes=[starlette.routing.Mount("/api", routes=routes)],
        middleware=[starlette.middleware.Middleware(ContextMiddleware)],
    )


def with_litestar(store: Store) -> Any:
    @litestar.put("/todo/{task:str}")
    async def write(task: FromPath[str]) -> None:
        await store.write(task)

    @litestar.put("/thread/{task:str}", sync_to_thread=True)
    def write_in_thread(task: FromPath[str]) -> None:
        store.write_in_thread(task)

    @litestar.get("/stream/{task:str}")
    async def stream(task: FromPath[str]) -> litestar.response.Stream:
        return litestar.response.Stream(store.pieces(task))

    @litestar.put("/later/{task:str}")
    async def later(task: FromPath[str]) -> litestar.Response[None]:
        tasks = [
            litestar.background_tasks.BackgroundTask(store.write, task),
            litestar.background_tasks.BackgroundTask(store.write_in_thread, task),
        ]
        return litestar.Response(None, background=litestar.background_tasks.BackgroundTasks(tasks))

    @litestar.websocket("/socket/{task:str}")
    async def socket(socket: litestar.WebSocket[Any, Any, Any], task: FromPath[str]) -> None:
        await socket.accept()
        await store.write(await socket.receive_text())
        await socket.close()

    api = litestar.Router("/api", route_handlers=[write, write_in_thread, stream, later, socket])
    return ContextMiddleware(litestar.Litestar([api], openapi_config=None))


FRAMEWORKS = pytest.mark.parametrize(
    ("framework", "parameter"),
    [(with_fastapi, "{task}"), (with_starlette, "{task}"), (with_litestar, "{task}")],
    ids=["fastapi", "starlette", "litestar"],
)


@contextlib.asynccontextmanager
async def client_of(
    url: str, make: Callable[[Store], Any]
) -> AsyncIterator[tuple[httpx.AsyncClient, Any]]:
    store = Store(url)
    async with store.pool:
        with store.threads:
            app = make(store)
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                yield client, app


@FRAMEWORKS
def test_what_a_request_has(framework: Any, parameter: str, log: Log) -> None:
    """Endpoints run in the loop and in threads; both are given the context."""

    async def ask() -> None:
        async with client_of(log.url, framework) as (client, _):
            headers = {
                "X-Request-ID": "req-10'\"",
                "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01",
                "bemi-context": '{"user_id": "eve", "trace_id": "eve", "request_id": "eve"}',
            }
            for kind in ("todo", "thread"):
                answer = await client.put(f"/api/{kind}/a", headers=headers)
                assert answer.is_success, answer.text

    asyncio.run(ask())
    common = {"method": "PUT", "request_id": "req-10", "trace_id": TRACE}
    assert attributions(log) == [
        ({**common, "endpoint": f"/api/todo/{parameter}"}, "a"),
        ({**common, "endpoint": f"/api/thread/{parameter}"}, "a"),
    ]


@FRAMEWORKS
def test_a_request_without_headers_is_given_an_id(framework: Any, parameter: str, log: Log) -> None:
    async def ask() -> None:
        async with client_of(log.url, framework) as (client, _):
            for task in ("a", "b"):
                await client.put(f"/api/todo/{task}")

    asyncio.run(ask())
    (first, _), (second, _) = attributions(log)
    assert set(first) == {"endpoint", "method", "request_id"}
    assert first["request_id"] != second["request_id"]
    assert bemi.current_context() == {}


@FRAMEWORKS
def test_streams_and_background_tasks_keep_the_context(
    framework: Any, parameter: str, log: Log
) -> None:
    async def ask() -> None:
        async with client_of(log.url, framework) as (client, _):
            await client.get("/api/stream/s", headers={"X-Request-ID": "one"})
            await client.put("/api/later/l", headers={"X-Request-ID": "two"})

    asyncio.run(ask())
    seen = [(each["request_id"], each["endpoint"], task) for each, task in attributions(log)]
    assert seen == [
        ("one", f"/api/stream/{parameter}", "s-0"),
        ("one", f"/api/stream/{parameter}", "s-1"),
        ("two", f"/api/later/{parameter}", "l"),
        ("two", f"/api/later/{parameter}", "l"),
    ]


@FRAMEWORKS
def test_a_websocket(framework: Any, parameter: str, log: Log) -> None:
    async def ask() -> list[Any]:
        async with client_of(log.url, framework) as (_, app):
            incoming = [
                {"type": "websocket.connect"},
                {"type": "websocket.receive", "text": "said"},
                {"type": "websocket.disconnect", "code": 1000},
            ]
            sent: list[Any] = []

            async def receive() -> Any:
                return incoming.pop(0)

            async def send(message: Any) -> None:
                sent.append(message)

            scope = {
                "type": "websocket",
                "asgi": {"version": "3.0"},
                "path": "/api/socket/a",
                "raw_path": b"/api/socket/a",
                "root_path": "",
                "query_string": b"",
                "headers": [(b"x-request-id", b"req-11"), (b"host", b"test")],
                "subprotocols": [],
                "scheme": "ws",
                "client": ("127.0.0.1", 1),
                "server": ("127.0.0.1", 80),
            }
            await app(scope, receive, send)
            return sent

    assert asyncio.run(ask())[0]["type"] == "websocket.accept"
    context = {"endpoint": f"/api/socket/{parameter}", "request_id": "req-11"}
    assert attributions(log) == [(context, "said")]


@FRAMEWORKS
def test_concurrent_requests_never_mix(framework: Any, parameter: str, log: Log) -> None:
    """1,000 writes over eight connections, in the loop and in threads: 0 wrong attributions."""

    async def ask() -> None:
        async with client_of(log.url, framework) as (client, _):

            async def one(number: int) -> None:
                kind = ("todo", "thread")[number % 2]
                name = f"r{number}"
                answer = await client.put(f"/api/{kind}/{name}", headers={"X-Request-ID": name})
                assert answer.is_success

            await asyncio.gather(*(one(number) for number in range(1000)))

    asyncio.run(ask())
    seen = attributions(log)
    assert len(seen) == 1000
    assert [(each, task) for each, task in seen if each.get("request_id") != task] == []


class _Backend(starlette.authentication.AuthenticationBackend):
    async def authenticate(self, conn: Any) -> Any:
        name = conn.headers.get("authorization")
        if name is None:
            return None
        return starlette.authentication.AuthCredentials(), starlette.authentication.SimpleUser(name)


def test_the_user_is_whom_the_application_has_found_out(log: Log) -> None:
    """It is known behind the middleware only; nobody has no user_id."""

    def make(store: Store) -> Any:
        app = with_starlette(store)
        return ContextMiddleware(
            starlette.middleware.authentication.AuthenticationMiddleware(app, _Backend())
        )

    async def ask() -> None:
        async with client_of(log.url, make) as (client, _):
            await client.put("/api/todo/a", headers={"Authorization": "ann"})
            await client.put("/api/thread/b")

    asyncio.run(ask())
    assert [(each.get("user_id"), task) for each, task in attributions(log)] == [
        ("ann", "a"),
        (None, "b"),
    ]


def test_the_user_of_litestar(log: Log) -> None:
    class Login(litestar.middleware.AbstractAuthenticationMiddleware):
        async def authenticate_request(self, connection: Any) -> Any:
            return litestar.middleware.AuthenticationResult(user={"id": 42}, auth="a token")

    def make(store: Store) -> Any:
        @litestar.put("/{task:str}", middleware=[Login])
        async def write(task: FromPath[str]) -> None:
            await store.write(task)

        return ContextMiddleware(litestar.Litestar([write], openapi_config=None))

    async def ask() -> None:
        async with client_of(log.url, make) as (client, _):
            await client.put("/a")

    asyncio.run(ask())
    ((context, _),) = attributions(log)
    assert context["user_id"] == 42


def test_a_middleware_that_runs_the_application_in_a_task_of_its_own(log: Log) -> None:
    """As those of Starlette that are made of a function do."""

    async def pass_on(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    def make(store: Store) -> Any:
        inner = starlette.middleware.base.BaseHTTPMiddleware(with_starlette(store), pass_on)
        return ContextMiddleware(inner)

    async def ask() -> None:
        async with client_of(log.url, make) as (client, _):
            await client.put("/api/later/a", headers={"X-Request-ID": "one"})

    asyncio.run(ask())
    assert [(each["request_id"], task) for each, task in attributions(log)] == [("one", "a")] * 2


def test_one_function_customises(log: Log) -> None:
    def context(scope: Any) -> dict[str, Any]:
        return {"tenant": scope["headers"][0][1].decode(), "endpoint": lambda: scope["route"].path}

    def make(store: Store) -> Any:
        return ContextMiddleware(with_starlette(store), context)

    async def ask() -> None:
        async with client_of(log.url, make) as (client, _):
            await client.put("/api/todo/a")

    asyncio.run(ask())
    ((seen, _),) = attributions(log)
    assert seen["tenant"] == "test"
    assert seen["endpoint"] == "/api/todo/{task}", "the inner middleware's, which is laid over"


def test_a_function_that_fails_is_told_of_and_the_request_goes_on(log: Log) -> None:
    def context(scope: Any) -> dict[str, Any]:
        raise KeyError("tenant")

    def make(store: Store) -> Any:
        return ContextMiddleware(litestar_only(store), context)

    def litestar_only(store: Store) -> Any:
        @litestar.put("/{task:str}")
        async def write(task: FromPath[str]) -> None:
            await store.write(task)

        return litestar.Litestar([write], openapi_config=None)

    async def ask() -> None:
        async with client_of(log.url, make) as (client, _):
            with pytest.warns(RuntimeWarning, match="context= failed"):
                answer = await client.put("/a")
            assert answer.is_success

    asyncio.run(ask())
    ((seen, _),) = attributions(log)
    assert seen["endpoint"] == "/{task}"


def test_a_route_that_nobody_tells_of_is_its_path() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(bemi.current_context())

    async def nothing(*_: Any) -> Any:
        raise AssertionError("nobody asks")

    scope = {"type": "http", "method": "GET", "path": "/a b", "headers": []}
    asyncio.run(ContextMiddleware(app)(scope, nothing, nothing))
    assert seen[0]["endpoint"]() == "/a b"
    assert seen[0]["user_id"]() is None


def test_from_one_service_to_another(log: Log) -> None:
    """The first passes on what is current; the second takes over what it was told to trust."""
    second: list[httpx.AsyncClient] = []

    def make_second(store: Store) -> Any:
        return ContextMiddleware(
            with_starlette_alone(store), trust=("request_id", "trace_id", "user_id")
        )

    def with_starlette_alone(store: Store) -> Any:
        async def write(request: Any) -> starlette.responses.Response:
            await store.write("second")
            return starlette.responses.Response()

        return starlette.applications.Starlette(
            routes=[starlette.routing.Route("/second", write, methods=["POST"])]
        )

    def make_first(store: Store) -> Any:
        async def write(request: Any) -> starlette.responses.Response:
            bemi.merge_context(user_id=42, secret_plan="none of the other's business")
            await store.write("first")
            request = second[0].post("/second", headers=bemi.outgoing_headers())
            # Nothing but the headers goes along, as to another process.
            answer = await asyncio.create_task(request, context=contextvars.Context())
            assert answer.is_success
            return starlette.responses.Response()

        return ContextMiddleware(
            starlette.applications.Starlette(
                routes=[starlette.routing.Route("/first/{id}", write, methods=["PUT"])]
            )
        )

    async def ask() -> None:
        async with (
            client_of(log.url, make_first) as (first, _),
            client_of(log.url, make_second) as (client, _),
        ):
            second.append(client)
            headers = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
            assert (await first.put("/first/1", headers=headers)).is_success

    asyncio.run(ask())
    seen = {task: context for context, task in attributions(log)}
    assert seen["second"] == {
        "user_id": 42,
        "request_id": seen["first"]["request_id"],
        "trace_id": TRACE,
        "endpoint": "/second",
        "method": "POST",
    }
