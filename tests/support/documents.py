"""Reads the fenced code blocks of a Markdown page and runs them, in order, as a reader would.

`python`, `sql`, `sh` and `console` blocks run; a `toml` block must be a valid bemi.toml; other
languages are for the eye. A block with `title="PATH"` is a file that the reader writes: it is
put there, in the folder where the commands run. A comment `<!-- not run: REASON -->` on the line
before leaves a block out. A `text` block right after one that ran is what it shows, and so is
what follows a command in a `console` block: compared by shape, since times, ids and positions
differ from run to run.
"""

import contextlib
import io
import os
import re
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import psycopg

from bemi import config
from bemi.capture import worker

RUNNABLE: Final = ("python", "sql", "sh", "console", "toml")
DEADLINE: Final = 60.0
"""Seconds for one command."""

_FENCE: Final = re.compile(r"(?P<indent> *)(?P<ticks>`{3,})(?P<info>[^`]*)")
_TITLE: Final = re.compile(r'\btitle="([^"]+)"')
_NOT_RUN: Final = re.compile(r"\s*<!-- not run: (?P<reason>.+?) -->\s*")


@dataclass(frozen=True, slots=True)
class Block:
    language: str
    text: str
    line: int
    """Of the block's first line of code, counted from 1."""
    not_run: str | None
    shows: str | None
    """What a `text` block that follows says that it shows."""
    file: str | None = None
    """What it is the content of, below the folder where the reader works."""

    @property
    def runs(self) -> bool:
        return self.language in RUNNABLE and self.not_run is None


def blocks(page: str) -> list[Block]:
    """The code blocks of a page. Raises ValueError for a fence that is not closed."""
    found: list[Block] = []
    lines = page.splitlines()
    reason: str | None = None
    shown_by: int | None = None  # the block that a `text` block would belong to
    at = 0
    while at < len(lines):
        line = lines[at]
        fence = _FENCE.fullmatch(line)
        if fence is None:
            comment = _NOT_RUN.fullmatch(line)
            if comment is not None:
                reason = comment["reason"]
            elif line.strip():
                reason = shown_by = None
            at += 1
            continue
        end = at + 1
        while end < len(lines) and lines[end].strip() != fence["ticks"]:
            end += 1
        if end == len(lines):
            raise ValueError(f"the code block in line {at + 1} is not closed")
        indent = len(fence["indent"])
        text = "".join(body[indent:] + "\n" for body in lines[at + 1 : end])
        language = (fence["info"].split() or [""])[0]
        if language == "text" and shown_by is not None:
            found[shown_by] = replace(found[shown_by], shows=text)
            shown_by = None
        else:
            title = _TITLE.search(fence["info"])
            found.append(Block(language, text, at + 2, reason, None, title and title[1]))
            shown_by = len(found) - 1
        reason = None
        at = end + 1
    return found


class Reader:
    """Runs one page's blocks against one database; `environ` has the address in BEMI_SOURCE_URL."""

    def __init__(self, page: Path, environ: dict[str, str], folder: Path) -> None:
        self._page = page
        self._environ = environ
        self._folder = folder
        self._names: dict[str, Any] = {"__name__": "__main__"}
        self._background: list[subprocess.Popen[bytes]] = []
        self._behind = False
        """Whether the history may lack something that was done."""

    def close(self) -> None:
        for value in self._names.values():
            if isinstance(value, psycopg.Connection):
                value.close()
        for process in self._background:
            process.terminate()
        for process in self._background:
            process.wait(DEADLINE)

    def run(self, block: Block) -> None:
        """Raises AssertionError for a command that fails or shows something else than it says."""
        if block.file is not None:
            path = self._folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
            return
        if self._behind:
            self._catch_up()
        self._behind = block.language != "toml"
        match block.language:
            case "python":
                self._expect(block.shows, self._python(block))
            case "sql":
                self._expect(block.shows, self._sql(block.text))
            case "sh":
                self._expect(block.shows, self._shell(block.text))
            case "console":
                for command, shows in _commands(block.text):
                    self._expect(shows, self._shell(command))
            case "toml":
                self._toml(block.text)

    def _catch_up(self) -> None:
        """Let the history hold all that the blocks before did, whether a worker runs or not."""
        settings = config.load(environ=self._environ)
        with psycopg.connect(settings.source_url, autocommit=True) as conn:
            ready = conn.execute(
                "select exists (select from pg_replication_slots where slot_name = %s)"
                " and to_regclass('bemi.checkpoints') is not null",
                [settings.slot],
            ).fetchone()
        if ready is not None and ready[0]:
            worker.run(settings, stop=threading.Event(), until_caught_up=True)

    def _python(self, block: Block) -> str:
        # Empty lines first, so that a traceback names the page's own line.
        code = compile("\n" * (block.line - 1) + block.text, str(self._page), "exec")
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(code, self._names)  # noqa: S102 - what the page tells its reader to run
        return output.getvalue()

    def _sql(self, text: str) -> str:
        # All in one session, as a reader would paste it; a line of its own each, as -c has not.
        return self._shell(
            'psql "$DATABASE_URL" --no-psqlrc --quiet --set ON_ERROR_STOP=1', stdin=text
        )

    def _shell(self, command: str, *, stdin: str = "") -> str:
        if command.strip() == "make demo":  # what that target runs; .venv is there already
            command = "bemi demo"
        if command.strip() == "bemi run":  # goes on until it is stopped: here, at the page's end
            log = (self._folder / "run.log").open("ab")
            with log:
                process = subprocess.Popen(
                    ["bemi", "run"], env=self._environ, cwd=self._folder, stdout=log, stderr=log
                )
            self._background.append(process)
            return ""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            env=self._environ,
            cwd=self._folder,
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=DEADLINE,
            check=False,
            text=True,
        )
        assert done.returncode == 0, (
            f"$ {command.strip()}\nexit code {done.returncode}\n{done.stdout}"
        )
        return done.stdout

    def _toml(self, text: str) -> None:
        path = self._folder / "documented.toml"
        path.write_text(text, encoding="utf-8")
        given = {"BEMI_HASH_KEY": "0123456789abcdef"}
        if "[sources." not in text:
            given["BEMI_SOURCE_URL"] = self._environ["BEMI_SOURCE_URL"]
        config.load_all(environ=given, path=path)
        path.unlink()

    def _expect(self, shows: str | None, output: str) -> None:
        if shows is not None:
            assert shape(output) == shape(shows), f"it shows:\n{output}"


def environment(url: str, programs: Path) -> dict[str, str]:
    """Variables for a page's commands: nothing of ours but the addresses, and the programs."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("BEMI_")}
    bemi = Path(sys.executable).parent
    path = os.pathsep.join((str(bemi), str(programs), own.get("PATH", "")))
    return {
        **own,
        "PATH": path,
        "DATABASE_URL": url,
        "BEMI_SOURCE_URL": url,
        "COLUMNS": "100",
        "NO_COLOR": "1",
        "TZ": "UTC",
        # Of pytest's plugins the one that is ours: those of this machine take their time.
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTEST_PLUGINS": "bemi.testing.plugin",
    }


def shape(text: str) -> str:
    """The text without what differs from run to run: numbers, ids, positions, widths."""
    text = re.sub(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "ID", text)
    text = re.sub(r"\b[0-9A-F]{1,8}/[0-9A-F]{1,8}\b", "LSN", text)
    text = re.sub(r"[0-9]+([.,][0-9]+)*", "0", text)
    text = re.sub(r"0 (B|[kKMGT]i?B|ms|s|min|h|days)\b", "0 UNIT", text)
    lines = (re.sub(r"\s+", " ", line).strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line and not re.fullmatch(r"[-+─━┄╌ ]+", line))


def _commands(text: str) -> list[tuple[str, str | None]]:
    """The commands of a `console` block, each with the output that is shown below it, if any."""
    found: list[tuple[str, str | None]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:] + "\n", None))
            continue
        assert found, "a console block begins with a command: `$ …`"
        command, shows = found[-1]
        if shows is None and command.endswith("\\\n"):
            found[-1] = (command + line + "\n", None)
        else:
            found[-1] = (command, (shows or "") + line + "\n")
    return found
