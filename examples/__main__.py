"""Runs an example: its application, on a PostgreSQL of its own, and shows what was captured.

    python -m examples django

An example is a folder with an `app.py`, `app.mjs` or `app.rb` that finds its database in
DATABASE_URL: `app.py tables` makes its tables, `app.py` does what its users would. Nothing here
knows what libraries they show.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from bemi.embedded import Server

FOLDER = Path(__file__).parent
PACKAGES = FOLDER.parent / "packages"
APPS = {
    str(path.parent.relative_to(FOLDER)): path
    for pattern in ("*/app.py", "javascript/*/app.mjs", "ruby/*/app.rb")
    for path in sorted(FOLDER.glob(pattern))
}
NAMES = [*APPS]


def main(arguments: list[str] | None = None) -> int:
    """Exit code 1 when a step fails; it has said why."""
    parser = argparse.ArgumentParser(prog="python -m examples", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("name", choices=NAMES, help="which example to run")
    parser.add_argument("--json", action="store_true", help="print the changes as JSON only")
    chosen = parser.parse_args(arguments)
    app = APPS[chosen.name]
    bemi = [sys.executable, "-m", "bemi"]
    with Server() as server:
        url = server.create_database("shop")
        steps = [
            *_preparing(app),
            ("making its tables", [*_running(app), "tables"]),
            ("tracking the schema public", [*bemi, "init", "--schema", "public"]),
            (f"running {app.relative_to(FOLDER.parent)}", _running(app)),
            ("capturing what it did", [*bemi, "run", "--until-caught-up"]),
        ]
        for said, command in steps:
            print(said, file=sys.stderr, flush=True)
            done = _run(command, url, capture=True)
            if done.returncode:
                sys.stderr.write(done.stdout)
                return 1
        shown = ["--json"] if chosen.json else []
        return _run([*bemi, "changes", "--limit", "100", *shown], url).returncode


def _running(app: Path) -> list[str]:
    """With the client of this repository, not one that is installed."""
    if app.suffix == ".mjs":
        return ["node", "--import", str(FOLDER / "javascript" / "resolve.mjs"), str(app)]
    if app.suffix == ".rb":
        return ["ruby", str(app)]
    return [sys.executable, str(app)]


def _preparing(app: Path) -> list[tuple[str, list[str]]]:
    if app.suffix != ".mjs" or (PACKAGES / "js" / "dist").exists():
        return []
    npm = ["npm", "--prefix", str(PACKAGES / "js")]
    return [
        ("installing packages/js", [*npm, "ci", "--ignore-scripts"]),
        ("building packages/js", [*npm, "run", "build"]),
    ]


def _run(
    command: list[str], url: str, *, capture: bool = False
) -> subprocess.CompletedProcess[str]:
    """A program that knows this database and no other of ours."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("BEMI_")}
    addresses = {"DATABASE_URL": url, "BEMI_SOURCE_URL": url, "BEMI_CONFIG": os.devnull}
    ruby = {"RUBYLIB": str(PACKAGES / "ruby" / "lib")}  # for what a program of Ruby starts, too
    return subprocess.run(
        command,
        env={**others, **addresses, **ruby},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if capture else None,
        stderr=subprocess.STDOUT if capture else None,
        text=True,
        check=False,
    )


if __name__ == "__main__":
    sys.exit(main())
