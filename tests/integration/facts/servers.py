"""Servers that are crashed, copied, promoted and upgraded, as whole folders."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from bemi.embedded import Server
from tests.conftest import SETTINGS
from tests.support.waiting import until


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """One that the server's user can reach, which a test's own folder is not for root."""
    made = Path(tempfile.mkdtemp(prefix="bemi-facts-"))
    made.chmod(0o755)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextlib.contextmanager
def standby_of(primary: Server, bin: Path | None, **settings: str) -> Iterator[Server]:
    """A streaming standby of a running server, made with pg_basebackup."""
    with folder() as place:
        command = [str(primary.bin("pg_basebackup")), "-d", primary.url()]
        command += ["-D", str(place / "data"), "-X", "stream", "-c", "fast", "--no-sync"]
        subprocess.run(command, check=True)
        shutil.copy(primary.folder / "password", place / "password")
        (place / "data" / "standby.signal").touch()
        settings["primary_conninfo"] = make_conninfo(primary.url("postgres"))
        own(place, primary)
        with Server(data=place, settings={**SETTINGS, **settings}, bin=bin) as standby:
            yield standby


def own(place: Path, like: Server) -> None:
    """Give the folder to the user that runs the server."""
    owner = like.folder.stat()
    for path in (place, *place.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def copy_data(server: Server, to: Path) -> None:
    """A copy of a stopped server's data, with the owners of its files."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(server.data, to, symlinks=True)
    own(to, server)


def put_back(server: Server, copy: Path) -> None:
    """Replace a stopped server's data by a copy."""
    shutil.rmtree(server.data)
    shutil.copytree(copy, server.data, symlinks=True)
    own(server.data, server)


def run_as_server(server: Server, program: str, *arguments: object, **options: Any) -> None:
    """Run one of PostgreSQL's programs that refuse to be run by root."""
    owner = server.folder.stat()
    identity: dict[str, Any] = {}
    if os.geteuid() == 0:
        identity = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
    done = subprocess.run(
        [server._server_bin / program, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        **{"cwd": server.folder, **identity, **options},
    )
    assert done.returncode == 0, done.stdout + done.stderr


def crash(server: Server, while_down: Callable[[], None] = lambda: None) -> None:
    """Kill the process that writes the log: all sessions end, what it had not written is lost."""
    pid = process(server, "walwriter")
    with psycopg.connect(server.url(), autocommit=True) as witness:
        while_down()
        os.kill(pid, signal.SIGKILL)
        until(lambda: broken(witness), 60, "the server ends its sessions")


def process(server: Server, kind: str) -> int:
    """The PID of one of the server's own processes."""
    with psycopg.connect(server.url(), autocommit=True) as conn:
        row = conn.execute(
            "select pid from pg_stat_activity where backend_type = %s", [kind]
        ).fetchone()
    assert row is not None
    return int(row[0])


def broken(conn: psycopg.Connection[Any]) -> bool:
    try:
        conn.execute("select 1")
    except psycopg.OperationalError:
        return True
    return False


def accepting(server: Server) -> None:
    """Waits until it lets sessions in again."""

    def answers() -> bool:
        try:
            psycopg.connect(server.url()).close()
        except psycopg.OperationalError:
            return False
        return True

    until(answers, 60, "the server accepts connections")
