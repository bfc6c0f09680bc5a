"""The npm package of packages/js, installed and built once for whatever runs on this machine."""

import contextlib
import fcntl
import functools
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.support import programs
from tests.support.parts import missing, require

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "packages" / "js"
CACHE = ROOT / ".cache"

run = functools.partial(programs.run, cwd=PACKAGE)

OLDEST = 20
"""The oldest node that the package is for, as its `engines` say."""


def node() -> str:
    """Its path. Skips the test where there is none that is new enough."""
    path = require("node")
    if _version(path) < OLDEST:
        missing(f"node {OLDEST} or newer")
    return path


@functools.cache
def _version(path: str) -> int:
    return int(run([path, "-p", "process.versions.node"]).partition(".")[0])


@functools.cache
def built() -> Path:
    """packages/js, with its node_modules as the lock has them, and dist as its sources have it.

    Skips the test where there is no node or npm. Processes that run tests side by side wait for
    the one that builds.
    """
    node()
    with locked("javascript"):
        install(PACKAGE)
        settings = [*PACKAGE.glob("*.json"), *PACKAGE.glob("*.mjs")]
        sources = [*PACKAGE.glob("src/**/*"), *settings]
        _once(PACKAGE / "dist" / ".bemi", sources, npm_command("run", "build"), PACKAGE)
    return PACKAGE


def install(folder: Path) -> None:
    """Its node_modules become what its lock says."""
    stamp = folder / "node_modules" / ".bemi"
    _once(stamp, [folder / "package-lock.json"], npm_command("ci"), folder)


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """One process at a time."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@functools.cache
def generated() -> Path:
    """packages/js, with the client of Prisma in its node_modules that its schema describes."""
    package = built()
    with locked("javascript"):
        _generate(package, package / "conformance" / "prisma" / "schema.prisma")
    return package


@functools.cache
def generated_by_prisma_6() -> Path:
    """A folder that has Prisma 6 in its node_modules, and its client of the same schema."""
    package = built()
    folder = package / "conformance" / "prisma6"
    schema = folder / "schema.prisma"  # in node_modules it would want an engine
    with locked("javascript"):
        install(folder)
        text = (package / "conformance" / "prisma" / "schema.prisma").read_text()
        text = text.replace("../../node_modules/", "./node_modules/")
        text = text.replace('"prisma-client-js"', '"prisma-client-js"\n  engineType = "client"')
        text = text.replace('"postgresql"', '"postgresql"\n  url = "postgresql://unused"')
        schema.write_text(text)
        _generate(folder, schema)
    return folder


def _generate(folder: Path, schema: Path) -> None:
    prisma = [node(), "node_modules/prisma/build/index.js", "generate", f"--schema={schema}"]
    # The program that it would download is for migrations only.
    nothing = f"PRISMA_SCHEMA_ENGINE_BINARY={require('true')}"
    quiet = ("CHECKPOINT_DISABLE=1", "PRISMA_HIDE_UPDATE_MESSAGE=1")
    stamp = folder / "node_modules" / ".bemi-prisma" / ".bemi"
    made_of = [schema, folder / "package-lock.json"]
    _once(stamp, made_of, ["env", nothing, *quiet, *prisma, "--no-hints"], folder)


def npm_command(*arguments: str) -> list[str]:
    """npm, with its cache in this folder, and without what packages would run on installation."""
    quiet = ("--no-audit", "--no-fund", "--no-update-notifier", "--ignore-scripts")
    return [require("npm"), "--cache", str(CACHE / "npm"), *quiet, *arguments]


def _once(stamp: Path, made_of: Iterable[Path], command: list[str], cwd: Path) -> None:
    """Runs a command unless the stamp says that it has been, with the same files."""
    digest = hashlib.sha256()
    for path in sorted(path for path in made_of if path.is_file()):
        digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes() + b"\0")
    if stamp.exists() and stamp.read_text() == digest.hexdigest():
        return
    run(command, cwd=cwd)
    stamp.write_text(digest.hexdigest())


if __name__ == "__main__":
    # Ahead of the tests, the first of which would have to wait for it.
    built()
