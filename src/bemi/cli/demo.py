"""`bemi demo`: a PostgreSQL of its own, a small application, a worker, and what was captured."""

import contextlib
import itertools
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import bemi
from bemi.errors import BemiError, SetupError

if TYPE_CHECKING:
    import psycopg

    from bemi.config import Settings
    from bemi.embedded import Server

_DEADLINE: Final = 30.0
_PAUSE: Final = 0.05
_BETWEEN_REQUESTS: Final = 5.0
_TASKS: Final = ("Water the plants", "Call the bank", "Read the news", "Fix the bicycle")

_TABLES: Final = """
create table todo (
    id int generated always as identity primary key,
    task text not null,
    done boolean not null default false,
    due date
);
create table comment (
    id int generated always as identity primary key,
    todo_id int not null references todo on delete cascade,
    body text not null
);
"""


def command(*, keep: bool = False, serve: bool = False) -> int:
    """Show captured changes of a small application, on a PostgreSQL of its own.

    Starts a private PostgreSQL in a temporary folder, prepares it as `bemi init` does, runs the
    worker, lets an application write with its context, and prints what was captured. Then all of
    it is gone again.

    Parameters
    ----------
    keep
        Stay up afterwards, to play with, until Ctrl-C or SIGTERM.
    serve
        Show it in the browser, as `bemi serve` does, while the application goes on, until Ctrl-C.
        On a desktop its terminal opens the browser by itself.
    """
    # Loaded here: every other command does without them.
    from bemi.cli import output
    from bemi.config import Settings
    from bemi.connections import connect

    try:
        from bemi.embedded import Server
    except ImportError as error:  # pragma: no cover
        raise SetupError(
            "the demo needs an embedded PostgreSQL", fix="pip install 'bemi[demo]'"
        ) from error
    if serve:
        from bemi.cli.serve import served

        served()

    _say("starting a private PostgreSQL")
    with Server() as server:
        settings = Settings(source_url=server.create_database("todo"))
        with connect(settings.source_url, what="source", autocommit=False) as connection:
            _prepare(connection, settings)
            with _worker(settings.source_url) as worker:
                _say("an application writes, with the context of its requests")
                wanted = _application(connection)
                rows = _captured(settings, wanted, worker)
                _say(f"captured, from the write-ahead log: {output.count(len(rows), 'change')}\n")
                output.print_changes(rows, output.console())
                if serve:
                    _serve(settings, connection)
                elif keep:
                    connection.close()
                    _stay(server, settings, worker)
    _say("\nstopped, and nothing is left behind")
    if not serve:
        _say("in the browser: bemi demo --serve")
    return 0


def _prepare(connection: "psycopg.Connection[Any]", settings: "Settings") -> None:
    from bemi.capture import setup

    with connection.transaction():
        connection.execute(_TABLES)
    connection.commit()
    _say("preparing it, as `bemi init --full 'public.*'` does")
    setup.init(settings, full=["public.*"], report=lambda _: None)


def _application(connection: "psycopg.Connection[Any]") -> int:
    """What a web application does in its requests; returns how many changes that makes."""
    with (
        bemi.context(user_id=42, endpoint="/todos", method="POST", request_id="req-1"),
        connection.transaction(),
    ):
        bemi.emit(connection)
        connection.execute(
            "insert into todo (task, due) "
            "values ('Write the report', '2026-05-08'), ('Sleep', null)"
        )
    with (
        bemi.context(user_id=42, endpoint="/todos/1/comments", method="POST", request_id="req-2"),
        connection.transaction(),
    ):
        bemi.emit(connection)
        connection.execute("insert into comment (todo_id, body) values (1, 'In two pages?')")
    with (
        bemi.context(user_id=7, endpoint="/todos/1", method="PUT", request_id="req-3"),
        connection.transaction(),
    ):
        bemi.emit(connection)
        connection.execute("update todo set done = true, task = 'Write it up' where id = 1")
    with (
        bemi.context(user_id=42, endpoint="/todos/2", method="DELETE", request_id="req-4"),
        connection.transaction(),
    ):
        bemi.emit(connection)
        connection.execute("delete from todo where id = 2")
    with connection.transaction():
        # From psql, without any library.
        connection.execute(
            "select pg_logical_emit_message(true, '_bemi', '{\"job\": \"cleanup\"}')"
        )
        connection.execute("update todo set due = null where done")
    return 6


@contextlib.contextmanager
def _worker(url: str) -> Iterator["_Worker"]:
    """`bemi run` as a process of its own, which ends with the block, or with this process."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "bemi", "run", "--stop-with-stdin", "--log-format", "text"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            # In the environment, since all users see the arguments of a process.
            env=_environment(url),
            # A terminal's Ctrl-C is for this process, which ends the worker in order.
            start_new_session=True,
        )
        try:
            yield _Worker(process, log)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class _Worker:
    def __init__(self, process: "subprocess.Popen[bytes]", log: IO[bytes]) -> None:
        self._process = process
        self._log = log

    def check(self) -> None:
        """Raises BemiError, with the end of its log, when it has ended."""
        code = self._process.poll()
        if code is not None:
            raise BemiError(f"the worker has ended, with exit code {code}:\n{self.log()}")

    def log(self) -> str:
        self._log.seek(0)
        return "\n".join(self._log.read().decode(errors="replace").splitlines()[-20:])


def _environment(url: str) -> dict[str, str]:
    """Nobody's settings but ours: the demo touches no other database."""
    import os

    others = {name: value for name, value in os.environ.items() if not name.startswith("BEMI_")}
    return {**others, "BEMI_SOURCE_URL": url, "BEMI_CONFIG": os.devnull}


def _captured(settings: "Settings", wanted: int, worker: _Worker) -> list[Any]:
    """The changes, the oldest first, as soon as all of them are there."""
    from bemi.connections import connect
    from bemi.store import reader
    from bemi.store.filters import Filters

    deadline = time.monotonic() + _DEADLINE
    with connect(settings.destination_url, what="destination") as history:
        while True:
            rows = list(reader.changes(history, settings.schema, Filters()))
            if len(rows) >= wanted:
                return rows[::-1]
            worker.check()
            if time.monotonic() > deadline:
                raise BemiError(
                    f"only {len(rows)} of {wanted} changes were captured in {_DEADLINE:g} s;"
                    f" the worker says:\n{worker.log()}"
                )
            time.sleep(_PAUSE)


def _stay(server: "Server", settings: "Settings", worker: _Worker) -> None:
    """Waits for Ctrl-C or SIGTERM, which end the demo as it is meant to end."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: stop.set())
    psql = f"{server.bin('psql')} '{settings.source_url}'"
    program = _program()
    _say(
        "\n".join(
            (
                "",
                "everything stays up until Ctrl-C; in another window:",
                "",
                "  the application's tables, to write to, and the history, to query",
                f"    {psql}",
                f"    {psql} -c 'table {settings.schema}.changes'",
                "",
                "  Bemi's own commands",
                f"    export BEMI_SOURCE_URL={settings.source_url}",
                f"    {program} changes --since 5m",
                f"    {program} status",
                "",
            )
        )
    )
    while not stop.wait(0.5):
        worker.check()


def _serve(settings: "Settings", connection: "psycopg.Connection[Any]") -> None:
    """Serves the history until Ctrl-C or SIGTERM, while the application goes on."""
    from bemi.cli.serve import connector, served

    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        # The server ends of its own, and raises again what it got.
        signal.signal(number, lambda _number, _frame: stop.set())
    application = threading.Thread(target=_go_on, args=[connection, stop])
    application.start()
    _say("\nthe application goes on; look at it in the browser, until Ctrl-C\n")
    try:
        served().run(
            settings.destination_url,
            settings.schema,
            host="127.0.0.1",
            port=0,
            public_url=None,
            trusted_proxies=(),
            write_urls={settings.source: settings.write_url},
            connector=connector({settings.source: settings}),
            sign_in_link=False,
            say=_show,
        )
    finally:
        stop.set()
        application.join()


def _show(text: str) -> None:
    """With the browser, where there is one to be seen, for the link that leads in."""
    import os
    import re
    import webbrowser

    _say(text)
    link = re.search(r"https?://\S+\?link=\S+", text)
    screens = ("DISPLAY", "WAYLAND_DISPLAY")
    is_seen = sys.platform in ("darwin", "win32") or any(map(os.environ.get, screens))
    if link and is_seen and sys.stdout.isatty():
        webbrowser.open(link[0])


def _go_on(connection: "psycopg.Connection[Any]", stop: threading.Event) -> None:
    """A request every few seconds."""
    for number in itertools.count(5):
        if stop.wait(_BETWEEN_REQUESTS):
            return
        user, task = 1 + number % 3, _TASKS[number % len(_TASKS)]
        with (
            bemi.context(
                user_id=user, endpoint="/todos", method="POST", request_id=f"req-{number}"
            ),
            connection.transaction(),
        ):
            bemi.emit(connection)
            # But for the first ones: what somebody has just undone stays so.
            connection.execute("update todo set done = true where not done and id > 2")
            connection.execute("insert into todo (task) values (%s)", [task])


def _program() -> str:
    """What to type for `bemi` in another window, where no virtual environment may be active."""
    if Path(sys.argv[0]).name != "bemi":
        return f"{shlex.quote(sys.executable)} -m bemi"
    called = Path(sys.argv[0]).resolve()
    found = shutil.which("bemi")
    return "bemi" if found and Path(found).resolve() == called else shlex.quote(str(called))


def _say(text: str) -> None:
    print(text, flush=True)
