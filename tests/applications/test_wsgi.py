"""The context of requests in applications of Flask, and in those of no framework at all."""

import wsgiref.util
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import flask
import flask_login
import pytest
from psycopg_pool import ConnectionPool

import bemi
from bemi.integrations.psycopg import Connection
from bemi.integrations.wsgi import ContextMiddleware
from tests.support.attributions import attributions
from tests.support.wal import Log

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
INSERT = "insert into todo (task) values (%s)"


@pytest.fixture
def pool(log: Log) -> Iterator[ConnectionPool]:
    with ConnectionPool(log.url, connection_class=Connection, min_size=4, max_size=4) as made:
        yield made


@pytest.fixture
def app(pool: ConnectionPool) -> flask.Flask:
    app = flask.Flask("shop")
    api = flask.Blueprint("api", "api", url_prefix="/api")

    def write(task: str) -> None:
        with pool.connection() as conn:
            conn.execute(INSERT, [task])

    @api.put("/todo/<task>")
    def put(task: str) -> str:
        write(task)
        return ""

    @api.get("/stream/<task>")
    def stream(task: str) -> flask.Response:
        def pieces() -> Iterator[str]:
            for number in range(2):
                yield "before"
                write(f"{task}-{number}")

        body = pieces()
        if flask.request.args:
            body = flask.stream_with_context(body)
        response = flask.Response(body)
        response.call_on_close(lambda: write("closed"))
        return response

    app.register_blueprint(api)
    app.wsgi_app = ContextMiddleware(app.wsgi_app)  # type: ignore[method-assign]
    return app


def test_what_a_request_has(app: flask.Flask, log: Log) -> None:
    headers = {
        "X-Request-ID": "req-10'\"",
        "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01",
        "bemi-context": '{"user_id": "eve", "trace_id": "eve", "request_id": "eve"}',
    }
    client = app.test_client()
    assert client.put("/api/todo/a", headers=headers).status_code == 200
    client.put("/api/todo/b", environ_base={"REMOTE_USER": "ann"})
    (first, _), (second, _) = attributions(log)
    assert first == {
        "endpoint": "/api/todo/<task>",
        "method": "PUT",
        "request_id": "req-10",
        "trace_id": TRACE,
    }
    assert second.pop("request_id") not in (None, "req-10")
    assert second == {"endpoint": "/api/todo/<task>", "method": "PUT", "user_id": "ann"}
    assert bemi.current_context() == {}


def test_the_user_of_flask_login(app: flask.Flask, log: Log) -> None:
    """Loaded by the view or not; whoever has not signed in is nobody."""
    asked: list[str] = []

    class User(flask_login.UserMixin):  # type: ignore[misc]  # a library without types
        def __init__(self, key: str) -> None:
            self.id = key

    def load(key: str) -> User:
        asked.append(key)
        return User(key)

    app.secret_key = "of a test"
    login = flask_login.LoginManager(app)
    login.user_loader(load)

    @app.post("/login")
    def sign_in() -> str:
        flask_login.login_user(User("ann"))
        return ""

    @app.get("/nothing")
    def nothing() -> str:
        return ""

    signed_in, nobody = app.test_client(), app.test_client()
    signed_in.post("/login")
    signed_in.get("/nothing")
    assert asked == [], "nothing was written"
    signed_in.put("/api/todo/a")
    nobody.put("/api/todo/b")
    assert [(each.get("user_id"), task) for each, task in attributions(log)] == [
        ("ann", "a"),
        (None, "b"),
    ]
    assert asked == ["ann"]


@pytest.mark.parametrize("query", ["", "?with=context"])
def test_a_streamed_response_keeps_the_context_until_it_is_closed(
    app: flask.Flask, log: Log, query: str
) -> None:
    """What the server does between its pieces is not in the context."""
    response = app.test_client().get(
        f"/api/stream/s{query}", headers={"X-Request-ID": "one"}, buffered=False
    )
    assert bemi.current_context() == {}
    for _ in response.response:
        assert bemi.current_context() == {}
    response.close()
    assert bemi.current_context() == {}
    seen = attributions(log)
    assert [task for _, task in seen] == ["s-0", "s-1", "closed"]
    for context, _ in seen:
        assert context == {
            "request_id": "one",
            "endpoint": "/api/stream/<task>",
            "method": "GET",
        }


def test_concurrent_requests_never_mix(app: flask.Flask, log: Log) -> None:
    """1,000 writes in eight threads over four connections: 0 wrong attributions."""

    def one(number: int) -> int:
        name = f"r{number}"
        answer = app.test_client().put(f"/api/todo/{name}", headers={"X-Request-ID": name})
        return answer.status_code

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(one, range(1000))) == {200}
    seen = attributions(log)
    assert len(seen) == 1000
    assert [(each, task) for each, task in seen if each.get("request_id") != task] == []


def run(app: Callable[..., Iterable[bytes]], **environ: Any) -> Iterable[bytes]:
    wsgiref.util.setup_testing_defaults(environ)
    return app(environ, lambda *_: lambda _data: None)


def test_an_application_of_no_framework() -> None:
    seen: list[dict[str, Any]] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        seen.append(bemi.current_context())
        return [b"whole"]

    body = run(
        ContextMiddleware(app, lambda environ: {"tenant": environ["HTTP_HOST"]}),
        SCRIPT_NAME="/mount",
        PATH_INFO="/caf\xc3\xa9",
        REQUEST_METHOD="PUT",
    )
    assert body == [b"whole"], "the server may ask for its length"
    assert seen[0]["endpoint"]() == "/mount/café"
    assert seen[0]["tenant"] == "127.0.0.1"
    assert seen[0]["method"] == "PUT"


def test_what_a_response_sets_is_there_for_its_next_piece() -> None:
    seen: list[Any] = []

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        bemi.merge_context(user_id=7)
        yield b"one"
        seen.append(bemi.current_context()["user_id"])
        yield b"two"

    for _ in run(ContextMiddleware(app)):
        assert bemi.current_context() == {}
    assert seen == [7]


def test_a_file_is_sent_by_the_server_in_its_own_way() -> None:
    class Wrapper:
        def __iter__(self) -> Iterator[bytes]:
            return iter([b""])

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        made: Iterable[bytes] = environ["wsgi.file_wrapper"]()
        return made

    body = run(ContextMiddleware(app), **{"wsgi.file_wrapper": Wrapper})
    assert isinstance(body, Wrapper)


def test_an_error_ends_the_context() -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        yield b"one"
        raise ZeroDivisionError

    pieces = iter(run(ContextMiddleware(app)))
    assert next(pieces) == b"one"
    with pytest.raises(ZeroDivisionError):
        next(pieces)
    assert bemi.current_context() == {}
