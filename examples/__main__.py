"""Runs an example: its application, on a PostgreSQL of its own, and shows what was captured.

    python -m examples django

An example is a folder with an `app.py` that finds its database in DATABASE_URL: `app.py tables`
makes its tables, `app.py` does what its users would. Nothing here knows what libraries they show.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from bemi.embedded import Server

FOLDER = Path(__file__).parent
NAMES = sorted(path.parent.name for path in FOLDER.glob("*/app.py"))


def main(arguments: list[str] | None = None) -> int:
    """Exit code 1 when a step fails; it has said why."""
    parser = argparse.ArgumentParser(prog="python -m examples", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("name", choices=NAMES, help="which example to run")
    parser.add_argument("--json", action="store_true", help="print the changes as JSON only")
    chosen = parser.parse_args(arguments)
    with Server() as server:
        url = server.create_database("shop")
        app = str(FOLDER / chosen.name / "app.py")
        steps = [
            ("making its tables", [app, "tables"]),
            ("tracking the schema public", ["-m", "bemi", "init", "--schema", "public"]),
            (f"running examples/{chosen.name}/app.py", [app]),
            ("capturing what it did", ["-m", "bemi", "run", "--until-caught-up"]),
        ]
        for said, command in steps:
            print(said, file=sys.stderr, flush=True)
            done = _python(command, url, capture=True)
            if done.returncode:
                sys.stderr.write(done.stdout)
                return 1
        shown = ["--json"] if chosen.json else []
        return _python(["-m", "bemi", "changes", "--limit", "100", *shown], url).returncode


def _python(
    arguments: list[str], url: str, *, capture: bool = False
) -> subprocess.CompletedProcess[str]:
    """Another Python, which knows this database and no other of ours."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("BEMI_")}
    addresses = {"DATABASE_URL": url, "BEMI_SOURCE_URL": url, "BEMI_CONFIG": os.devnull}
    return subprocess.run(
        [sys.executable, *arguments],
        env={**others, **addresses},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if capture else None,
        stderr=subprocess.STDOUT if capture else None,
        text=True,
        check=False,
    )


if __name__ == "__main__":
    sys.exit(main())
