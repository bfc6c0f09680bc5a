"""Renders the reference pages of commands and settings from what they are in the code.

`python -m tests.support.reference` writes the pages; a test sees to it that they are up to date.
"""

from dataclasses import MISSING, Field, fields
from inspect import cleandoc
from pathlib import Path
from typing import Any, Final

from cyclopts import Argument
from docstring_parser import parse

from bemi.cli.app import COMMANDS, app
from bemi.config import FILE, FILE_VARIABLE, Settings, variable

PAGES: Final = Path(__file__).parents[2] / "docs" / "reference"

_COMMANDS_INTRO: Final = """\
# Commands

<!-- Written by `python -m tests.support.reference` from the commands themselves. -->

`bemi COMMAND --help` says the same on the terminal; `bemi --version` prints the version, and \
`bemi --install-completion` makes the shell that it is run from complete commands and flags \
(`--shell zsh` names another one: bash, zsh or fish); it writes a file below your home and a line \
into the shell's startup file. `python -m bemi` is the same program.

Each command prints for people, and with `--json` one JSON value for programs. Nothing asks a \
question when standard input is not a terminal. Colours are used on a terminal only, and not with \
`NO_COLOR`.

| Exit code | Meaning |
|---|---|
| 0 | done |
| 1 | a finding or a failure; `error:` says what, `fix:` what to do |
| 2 | wrong use |
| 130, 143 | ended by Ctrl-C, by SIGTERM |

Where the settings come from is said in [settings](settings.md).
"""

_SETTINGS_INTRO: Final = f"""\
# Settings

<!-- Written by `python -m tests.support.reference` from the settings themselves. -->

A setting is read from a flag of the command, else from a variable of the environment, else from \
`{FILE}` in the working directory, or from the file that `{FILE_VARIABLE}` or `--config` \
names. One is enough to begin with: `{variable("source_url")}`.

Wrong settings end a command at its start, with a message that names the key and where it was \
read. Unknown keys in the file are refused, and so are variables that are a slip of the pen away \
from one of these. Passwords in connection strings are never shown in messages or logs.
"""

_EXAMPLE: Final = """\
## The file

The same names in lower case, without `BEMI_`:

```toml
destination_url = "postgresql://bemi@history.internal/history"
schema = "todo_history"
slot_wait = 30
new_tables = "warn"
tables = ["todo", "billing.*"]
```

Keep passwords out of it: PostgreSQL's library also reads `PGPASSWORD`, \
[`~/.pgpass`](https://www.postgresql.org/docs/current/libpq-pgpass.html) and services.
"""


def commands() -> str:
    return "\n".join([_COMMANDS_INTRO, *map(_command, COMMANDS)])


def settings() -> str:
    rows = (
        f"| `{variable(setting.name)}` | {_default(setting)} | {setting.metadata['doc']} |"
        for setting in fields(Settings)
    )
    table = ["| Variable | Default | Meaning |", "|---|---|---|", *rows]
    return "\n".join([_SETTINGS_INTRO, *table, "", _EXAMPLE])


def flags(name: str) -> list[Argument]:
    """The flags of a command, without the groups that only hold them together."""
    collected = app[name].assemble_argument_collection(parse_docstring=True)
    return [each for each in collected if each.names != ("*",)]


def _command(name: str) -> str:
    default = app[name].default_command
    assert default is not None
    written = parse(cleandoc(default.__doc__ or ""))
    parts = [f"## `bemi {name}`\n", f"{written.short_description}\n"]
    if written.long_description:
        parts.append(f"{_fenced(written.long_description)}\n")
    parts += ["| Flag | Meaning |", "|---|---|"]
    for flag in flags(name):
        text = " ".join((flag.parameter.help or "").split())
        if flag.parameter.show_default:
            text += f" Default: {flag.field_info.default}."
        parts.append(f"| `{_spelled(flag)}` | {text} |".replace("\\|", "|"))
    return "\n".join(parts) + "\n"


def _fenced(text: str) -> str:
    """Indented lines are a block of shell commands."""
    made: list[str] = []
    inside = False
    for line in text.splitlines():
        block = line.startswith("    ")
        if block != inside and (block or line):
            made += ["<!-- not run: an example of its form -->", "```sh"] if block else ["```"]
            inside = block
        made.append(line.removeprefix("    "))
    return "\n".join([*made, *(["```"] if inside else [])])


def _spelled(flag: Argument) -> str:
    name = flag.names[0]
    if flag.hint is bool:
        return name
    if choices := flag.get_choices():
        # A bar would end the cell of the table.
        return f"{name} {'/'.join(choices)}"
    return f"{name} {_VALUES.get(name) or _kind(str(flag.hint))}"


_VALUES: Final = {
    "--context": "KEY=VALUE",
    "--destination-url": "URL",
    "--reader": "ROLE",
    "--source-url": "URL",
}


def _kind(hint: str) -> str:
    kinds = {"datetime": "TIME", "Path": "FILE", "float": "SECONDS", "int": "NUMBER"}
    return next((kind for word, kind in kinds.items() if word in hint), "TEXT")


def _default(setting: "Field[Any]") -> str:
    if "default" in setting.metadata:
        return str(setting.metadata["default"])
    assert setting.default is not MISSING
    return (
        f"`{setting.default:g}`" if isinstance(setting.default, float) else f"`{setting.default}`"
    )


if __name__ == "__main__":
    (PAGES / "commands.md").write_text(commands(), encoding="utf-8")
    (PAGES / "settings.md").write_text(settings(), encoding="utf-8")
