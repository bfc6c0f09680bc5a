"""Renders the reference pages of commands and settings from what they are in the code.

`python -m tests.support.reference` writes the pages; a test sees to it that they are up to date.
"""

import functools
import inspect
from dataclasses import MISSING, Field, fields
from inspect import cleandoc
from pathlib import Path
from typing import Any, Final

from cyclopts import App, Argument
from docstring_parser import parse, parse_from_object
from msgspec import Struct

from bemi.cli.app import COMMANDS, app
from bemi.config import OidcSettings, Settings, variable, variables
from bemi.rules import Rules, Skip
from bemi.settings_file import FILE, FILE_VARIABLE

PAGES: Final = Path(__file__).parents[2] / "docs" / "reference"

_COMMANDS_INTRO: Final = """\
# Commands

<!-- Written by `python -m tests.support.reference` from the commands themselves. -->

`bemi COMMAND --help` says the same on the terminal; `bemi --version` prints the version, and \
`bemi --install-completion` makes the shell that it is run from complete commands and flags \
(`--shell zsh` names another one: bash, zsh or fish); it writes a file below your home and a line \
into the shell's startup file. `python -m bemi` is the same program.

Each command prints for people, and with `--json` one JSON value for programs: when it fails, an \
object with `error` and `fix` (or null), beside the text on standard error. Nothing asks a \
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
exclude_tables = ["billing.scratch_*"]
```

Keep passwords out of it: PostgreSQL's library also reads `PGPASSWORD`, \
[`~/.pgpass`](https://www.postgresql.org/docs/current/libpq-pgpass.html) and services. `hash_key` \
is a secret too: rather set `BEMI_HASH_KEY`.
"""

_RULES: Final = """\
## Rules

The table `[rules]` of the file says what of the tracked tables is not stored as it is: see \
[choose what is stored](../how-to/tracking-rules.md). Columns are named by globs of one to \
three parts: `email` (in any table), `users.email` (in any schema), `public.users.email`; `*` \
stands for anything, and a part with dots in it is written in `"…"`.
"""

_SKIP: Final = """\
Each table `[[rules.skip]]` says of which changes nothing is stored; all that is given in it must \
be true of them:
"""

_RULES_EXAMPLE: Final = """\
```toml
[rules]
ignore = ["*.updated_at"]
mask = ["public.users.email"]

[[rules.skip]]
tables = ["jobs"]
operations = ["update"]
```
"""

_SOURCES: Final = """\
## Several sources

Each table `[sources.NAME]` is a source: it holds the settings of this one, with its rules in \
`[sources.NAME.rules]`. What stands before these tables holds for all sources that do not set it \
themselves; of the rules, each key by itself. `source` and `slot` are each source's own. See \
[watch several sources](../how-to/several-sources.md).

```toml
destination_url = "postgresql://bemi@history.internal/history"

[rules]
mask = ["*.password"]

[sources.shop]
source_url = "postgresql://bemi@shop.internal/shop"

[sources.crm]
source_url = "postgresql://bemi@crm.internal/crm"
exclude_tables = ["crm_import.*"]
rules.ignore = ["*.last_seen_at"]
```

Commands that work with one source take `--source NAME`, or `BEMI_SOURCE`.
"""


_OIDC: Final = """\
## Signing in

Where people [sign in at an OpenID provider](../how-to/sign-in-with-oidc.md) to `bemi serve`. It \
is one for all sources; keep the secret out of the file.
"""


def commands() -> str:
    return "\n".join([_COMMANDS_INTRO, *map(_command, COMMANDS)])


def settings() -> str:
    rules = [_RULES, *_table_of(Rules, but="skip"), "", _SKIP, *_table_of(Skip), "", _RULES_EXAMPLE]
    parts = [_SETTINGS_INTRO, *_variables(Settings), "", _EXAMPLE, *rules, _SOURCES]
    return "\n".join([*parts, _OIDC, *_variables(OidcSettings), ""])


def _variables(kind: type[Settings | OidcSettings]) -> list[str]:
    names = {key: variable for variable, key in variables().items()}
    rows = (
        f"| `{names.get(setting.name, setting.name)}` | {_default(setting)} |"
        f" {setting.metadata['doc']} |"
        for setting in fields(kind)
    )
    return ["| Variable | Default | Meaning |", "|---|---|---|", *rows]


def _table_of(kind: type[Struct], *, but: str = "") -> list[str]:
    """The keys of a table in the file, with the texts that stand below them in the code."""
    written = _texts_of(kind)
    rows = [f"| `{key}` | {written[key]} |" for key in kind.__struct_fields__ if key != but]
    return ["| Key | Meaning |", "|---|---|", *rows]


def _texts_of(kind: type[Struct]) -> dict[str, str]:
    parsed = parse_from_object(kind)
    return {each.arg_name: " ".join((each.description or "").split()) for each in parsed.params}


def flags(name: str) -> list[Argument]:
    """The flags of a command and of those below it, without the groups that hold them together."""
    return [flag for path in _paths(name) for flag in _own_flags(path)]


def _paths(name: str) -> list[list[str]]:
    """The command's own path, or those of the commands below it."""
    below = app[name]
    if below.default_command is not None:
        return [[name]]
    return [[name, each] for each in below if not each.startswith("-")]


def _at(path: list[str]) -> App:
    return functools.reduce(App.__getitem__, path, app)


def _own_flags(path: list[str]) -> list[Argument]:
    collected = _at(path).assemble_argument_collection(parse_docstring=True)
    return [each for each in collected if each.names and each.names != ("*",)]


def _command(name: str) -> str:
    paths = _paths(name)
    if paths == [[name]]:
        return _section([name], "##")
    heading = f"## `bemi {name}`\n\n{app[name].help}\n"
    return "\n".join([heading, *(_section(path, "###") for path in paths)])


def _section(path: list[str], level: str) -> str:
    default = _at(path).default_command
    assert default is not None
    written = parse(cleandoc(default.__doc__ or ""))
    arguments = [
        each.name.upper() if each.default is each.empty else f"[{each.name.upper()}]"
        for each in inspect.signature(default).parameters.values()
        if each.kind is each.POSITIONAL_ONLY
    ]
    parts = [f"{level} `bemi {' '.join([*path, *arguments])}`\n", f"{written.short_description}\n"]
    if written.long_description:
        parts.append(f"{_fenced(written.long_description)}\n")
    parts += ["| Flag | Meaning |", "|---|---|"]
    for flag in _own_flags(path):
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
    if flag.hint is bool or not name.startswith("-"):
        return name
    if choices := flag.get_choices():
        # A bar would end the cell of the table.
        return f"{name} {'/'.join(choices)}"
    return f"{name} {_VALUES.get(name) or _kind(str(flag.hint))}"


_VALUES: Final = {
    "--after": "COLUMN=VALUE",
    "--before": "COLUMN=VALUE",
    "--behind": "CURSOR",
    "--by": "NAME",
    "--context": "KEY=VALUE",
    "--destination-url": "URL",
    "--from-position": "LSN",
    "--group-by": "NAME",
    "--reader": "ROLE",
    "--source-url": "URL",
    "--to-position": "LSN",
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
