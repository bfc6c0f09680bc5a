"""Supervises one private PostgreSQL: on 127.0.0.1, with a random password, gone when it should be.

As root it runs as the user `nobody`, since PostgreSQL refuses to run as root. Its data lies in a
temporary folder that is removed afterwards, or in a given one that is kept. It ends with the `with`
block, and with this process in any case (`guard`), SIGKILL included. SIGTERM's default ends Python
without leaving `with` blocks, so a program turns it into SystemExit where it wants to see the
orderly end; Ctrl-C does so by itself. Linux and macOS.
"""

import contextlib
import json
import os
import pwd
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal, Self
from urllib.parse import quote

from bemi.embedded import binaries, guard, ports
from bemi.embedded.binaries import Account
from bemi.errors import SetupError

StopMode = Literal["fast", "immediate", "kill"]

START_DEADLINE = 60.0
DEFAULTS = {
    "wal_level": "logical",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "password_encryption": "scram-sha-256",
    "log_timezone": "UTC",
    "timezone": "UTC",
}


class Server:
    """A private PostgreSQL; start it with `with`, or with `start` and `close`.

    `data` is a folder to keep (made when missing; the same password and databases are there the
    next time); None is a temporary one. `settings` are lines of postgresql.conf. `bin` is a folder
    with other PostgreSQL programs than the ones that `binaries.find` finds.

    Raises SetupError, with the last lines of the server's log where it has some.
    """

    def __init__(
        self,
        data: Path | None = None,
        settings: Mapping[str, str] | None = None,
        bin: Path | None = None,
    ) -> None:
        self.settings = {**DEFAULTS, **(settings or {})}
        self.port = int(self.settings.pop("port", "0"))
        self.pid = 0
        self._given = data
        self._bin = binaries.find(bin)
        self._server_bin = self._bin
        self._account = _account()
        self._folder: Path | None = None
        self._programs: Path | None = None
        self._password = ""
        self._guard: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def running(self) -> bool:
        return self._guard is not None and self._guard.poll() is None

    @property
    def folder(self) -> Path:
        """Holds the data, the log and the password."""
        if self._folder is None:
            raise SetupError("this PostgreSQL has not been started", fix="call start() first")
        return self._folder

    @property
    def data(self) -> Path:
        """PostgreSQL's own data folder (PGDATA)."""
        return self.folder / "data"

    @property
    def log_path(self) -> Path:
        return self.folder / "server.log"

    def log(self, lines: int | None = None) -> str:
        """The server's log, or its last lines."""
        try:
            text = self.log_path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""
        return text if lines is None else "\n".join(text.splitlines()[-lines:])

    def bin(self, name: str) -> Path:
        """The path of one of its programs, such as psql or pg_dump."""
        return self._bin / name

    def url(self, database: str = "postgres") -> str:
        """For the superuser `postgres`; the password is in it."""
        server = f"postgres:{self._password}@127.0.0.1:{self.port}"
        return f"postgresql://{server}/{quote(database, safe='')}"

    def start(self) -> None:
        """Starts it and waits until it accepts connections. It may have been stopped before."""
        if self.running:
            return
        self._end_guard()  # of a server that ended by itself
        try:
            self._prepare()
            self._launch()
        except BaseException:
            # Ctrl-C in the middle as well: nothing stays behind of what `with` has not entered.
            self.close()
            raise

    def stop(self, mode: StopMode = "fast") -> None:
        """Stops it and waits for its end; `start` goes on with the same port and data.

        `fast` is the orderly way, `immediate` leaves the next start to recover from the WAL, and
        `kill` is a SIGKILL. One that takes more than 10 seconds becomes the next harder one.
        """
        if self._guard is None:
            return
        harder: list[StopMode] = ["fast", "immediate", "kill"]
        for way in harder[harder.index(mode) :]:
            self._tell(way)
            try:
                self._guard.wait(guard.PATIENCE)
                break
            except subprocess.TimeoutExpired:
                continue
        self._end_guard()

    def restart(self, mode: StopMode = "fast") -> None:
        self.stop(mode)
        self.start()

    def close(self) -> None:
        """Stops it and removes every temporary folder."""
        self.stop("fast")
        for folder in self._temporary():
            shutil.rmtree(folder, ignore_errors=True)
        self._folder = self._programs = None
        self._server_bin = self._bin

    def create_database(
        self,
        name: str,
        *,
        encoding: str | None = None,
        locale: str | None = None,
        template: str | None = None,
    ) -> str:
        """Creates a database and returns its URL.

        Another encoding or locale than the cluster's is only possible from template0, which is
        therefore the template then.
        """
        import psycopg
        from psycopg import sql

        if template is None and (encoding is not None or locale is not None):
            template = "template0"
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        for keyword, value in (("ENCODING", encoding), ("LOCALE", locale)):
            if value is not None:
                statement += sql.SQL(" {} {}").format(sql.SQL(keyword), sql.Literal(value))
        if template is not None:
            statement += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(statement)
        return self.url(name)

    def _prepare(self) -> None:
        """Folder, programs and cluster; what is there already is left as it is."""
        if self._folder is None:
            self._folder = self._make_folder()
        account = self._account
        if account is not None and self._programs is None and not account.may_run(self._postgres):
            self._programs = self._make_temporary("bemi-programs-")
            self._server_bin = binaries.copy(self._bin, self._programs)
            if not account.may_run(self._postgres):
                raise SetupError(
                    f"the user {account.name}, who runs PostgreSQL for root, can't execute"
                    f" {self._bin / 'postgres'}, nor a copy of it in {self._programs}",
                    fix="run this as an ordinary user, or set TMPDIR to a folder that allows it",
                )
        password = self.folder / "password"
        if not (self.data / "PG_VERSION").exists():
            self._password = secrets.token_hex(16)
            password.touch(mode=0o600)
            password.write_text(self._password, encoding="ascii")
            self._own(password)
            self._initdb(password)
        elif not self._password:
            self._password = password.read_text(encoding="ascii")

    def _initdb(self, password: Path) -> None:
        # Under another name until it is whole: one that was interrupted is not taken for a cluster.
        unfinished = self.folder / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        program = str(self._server_bin / "initdb")
        ways = ["--username=postgres", f"--pwfile={password}", "--auth=scram-sha-256"]
        ways += ["--encoding=UTF8", "--no-locale", "--no-instructions"]
        ways += ["--no-sync"] if self._given is None else []
        process = self._spawn([program, *ways, "-D", str(unfinished)])
        code = process.wait()
        self._end_guard()
        if code != 0:
            raise SetupError(f"initdb failed (exit code {code}):\n{self.log(20)}")
        with (unfinished / "postgresql.conf").open("a", encoding="utf-8") as conf:
            conf.write("include 'bemi.conf'\n")
        unfinished.rename(self.data)

    def _launch(self) -> None:
        deadline = time.monotonic() + START_DEADLINE
        choose = self.port == 0
        tries = 2
        while True:
            if choose:
                self.port = ports.find()
            else:
                ports.wait_until_free(self.port, deadline)
            self._configure()
            self._spawn([str(self._postgres), "-D", str(self.data)])
            if self._becomes_ready(deadline):
                return
            self.stop("fast")
            # Somebody may have been quicker to take the port, and may even have returned it by now:
            # a second failure with the port free has another cause. (Asking the system is better
            # than reading the log, whose wording depends on version and language.)
            if ports.is_free(self.port):
                tries -= 1
            if tries == 0 or time.monotonic() > deadline:
                raise SetupError(f"PostgreSQL did not start on port {self.port}:\n{self.log(20)}")

    def _becomes_ready(self, deadline: float) -> bool:
        assert self._guard is not None
        while time.monotonic() < deadline:
            if self._status() == "ready":
                return True
            try:
                self._guard.wait(0.01)
            except subprocess.TimeoutExpired:
                continue
            return False
        return False

    def _status(self) -> str:
        """Line 8 of the server's own lock file; a file left over from an earlier run is ignored."""
        try:
            lines = (self.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return ""
        if len(lines) < 8 or lines[0] != str(self.pid):
            return ""
        return lines[7].strip()

    def _configure(self) -> None:
        """A file of its own, read before postgresql.auto.conf: ALTER SYSTEM works as usual."""
        settings = {**self.settings, "port": str(self.port)}
        lines = (
            "{} = '{}'\n".format(key, value.replace("'", "''")) for key, value in settings.items()
        )
        path = self.data / "bemi.conf"
        path.write_text("".join(lines), encoding="utf-8")
        self._own(path)

    def _spawn(self, command: list[str]) -> subprocess.Popen[str]:
        account = self._account
        order = {
            "command": command,
            "account": [account.uid, account.gid] if account else None,
            "log": str(self.log_path),
            "remove": [str(folder) for folder in self._temporary()],
        }
        with self.log_path.open("ab") as log:
            self._guard = process = subprocess.Popen(
                [sys.executable, "-I", "-S", guard.__file__, json.dumps(order)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd="/",
                env=_environment(),
                # Away from the terminal: its Ctrl-C is for this process, which stops the server.
                start_new_session=True,
            )
        assert process.stdout is not None
        line = process.stdout.readline()
        self.pid = int(line) if line else 0
        return process

    def _tell(self, way: StopMode) -> None:
        assert self._guard is not None
        assert self._guard.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended already
            self._guard.stdin.write(way + "\n")
            self._guard.stdin.flush()

    def _end_guard(self) -> None:
        process, self._guard, self.pid = self._guard, None, 0
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        process.wait()

    @property
    def _postgres(self) -> Path:
        return self._server_bin / "postgres"

    def _temporary(self) -> list[Path]:
        own = self._folder if self._given is None else None
        return [folder for folder in (own, self._programs) if folder is not None]

    def _make_folder(self) -> Path:
        if self._given is None:
            return self._make_temporary("bemi-postgres-")
        folder = self._given.absolute()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (folder / "data" / "PG_VERSION").exists() and any(folder.iterdir()):
            raise SetupError(
                f"{folder} is not empty and holds no PostgreSQL of ours",
                fix="name a new or an empty folder",
            )
        self._own(folder)
        if self._account is not None and not self._account.may_enter(folder):
            raise SetupError(
                f"the user {self._account.name}, who runs PostgreSQL for root, can't enter"
                f" {folder}",
                fix="name a folder that every user can reach, such as one below /srv or /tmp",
            )
        return folder

    def _make_temporary(self, prefix: str) -> Path:
        account = self._account
        # A root's own TMPDIR may be closed to others; the system's never is.
        places = dict.fromkeys((tempfile.gettempdir(), "/tmp", "/var/tmp"))
        for place in places if account else [None]:
            folder = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
            self._own(folder)
            if account is None or account.may_enter(folder):
                return folder
            folder.rmdir()
        raise SetupError(
            f"no temporary folder that a user other than root can enter ({', '.join(places)})",
            fix="set TMPDIR to one",
        )

    def _own(self, path: Path) -> None:
        if self._account is not None:
            os.chown(path, self._account.uid, self._account.gid)


def _account() -> Account | None:
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError as error:
        raise SetupError(
            "PostgreSQL does not run as root, and this machine has no user `nobody` to run it",
            fix="run this as an ordinary user",
        ) from error
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _environment() -> dict[str, str]:
    """Little: other processes of the server's user can read it, and PG* would steer it."""
    kept = ("PATH", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
    return {**{key: os.environ[key] for key in kept if key in os.environ}, "LC_ALL": "C"}
