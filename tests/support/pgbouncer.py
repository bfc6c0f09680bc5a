"""A pgbouncer before a database, with one connection to the server that all clients share."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeAlias

import psycopg
from psycopg.conninfo import conninfo_to_dict

from tests.support.parts import missing
from tests.support.waiting import until

Mode: TypeAlias = Literal["transaction", "session"]

# With a user of its own for the server, whoever the client says it is: one pool, one connection.
_CONFIGURATION = """
[databases]
{dbname} = host={host} port={port} dbname={dbname} user={user} password={password}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen_port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = 1
max_client_conn = 100
ignore_startup_parameters = extra_float_digits
logfile = {folder}/log
"""


@contextlib.contextmanager
def pooled(url: str, mode: Mode) -> Iterator[str]:
    """The URL of the same database through pgbouncer. Skips the test where there is none.

    In transaction mode a client must not use prepared statements of the protocol.
    """
    program = shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if program is None:
        missing("pgbouncer")
    folder = Path(tempfile.mkdtemp(prefix="bemi-pgbouncer-"))
    server = conninfo_to_dict(url)
    port = _free_port()
    configuration = folder / "pgbouncer.ini"
    configuration.write_text(
        _CONFIGURATION.format_map({**server, "listen_port": port, "mode": mode, "folder": folder})
    )
    identity: dict[str, Any] = {}
    if os.geteuid() == 0:  # which it refuses to run as
        nobody = pwd.getpwnam("nobody")
        identity = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        for path in (folder, configuration):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
    process = subprocess.Popen(
        [program, "--quiet", str(configuration)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **identity,
    )
    through = f"postgresql://client@127.0.0.1:{port}/{server['dbname']}"
    try:
        until(lambda: _answers(through, process, folder), 20, "pgbouncer answers")
        yield through
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(folder)


def _answers(url: str, process: "subprocess.Popen[bytes]", folder: Path) -> bool:
    if process.poll() is not None:
        log = folder / "log"
        said = log.read_text() if log.exists() else "nothing"
        raise AssertionError(f"pgbouncer ended with {process.returncode}, and said: {said}")
    with contextlib.suppress(psycopg.OperationalError), psycopg.connect(url):
        return True
    return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
    return port
