"""The command `bemi`: finds the command that is meant, and turns errors into exit codes.

0 done, 1 a finding or a failure, 2 wrong use, 130 after Ctrl-C, 143 after SIGTERM. With `--json` an
error is one JSON value on standard output too. Each command is a module that is loaded when it is
called, so that every start is quick.
"""

import errno
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Final, NoReturn

import cyclopts

import bemi
from bemi.errors import BemiError, UsageError

COMMANDS: Final = (
    "demo",
    "doctor",
    "init",
    "run",
    "snapshot",
    "status",
    "source",
    "changes",
    "show",
    "history",
    "blame",
    "trace",
    "stats",
    "tail",
    "at",
    "diff",
    "travel",
    "restore",
    "revert",
    "replay",
    "serve",
    "recover",
    "verify",
    "teardown",
)

_JSON: Final = "--json"
_UNWRITABLE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""What a full or broken disk says. Without a file's name it is of one that was open already, and
that is standard output: commands write no other."""

_HELP: Final = """\
Keeps the complete history of a PostgreSQL database: every committed row change, with who, where \
and why.

Begin with `bemi demo`, or set BEMI_SOURCE_URL and run `bemi doctor`, `bemi init`, `bemi run`.
"""

app = cyclopts.App(
    name="bemi",
    help=_HELP,
    help_format="markdown",
    version=bemi.__version__,
    # A flag is given or not; it has no opposite, and its default says nothing.
    default_parameter=cyclopts.Parameter(negative=(), show_default=False),
    help_on_error=False,
    exit_on_error=False,
    print_error=False,
    suppress_keyboard_interrupt=False,
    # A command's answer is its exit code.
    result_action="return_value",
)
for _order, _name in enumerate(COMMANDS):
    app.command(f"bemi.cli.{_name}:command", name=_name, sort_key=_order)
app.register_install_completion_command(
    help="Install completion for the shell that this runs in, or for --shell bash, zsh or fish."
)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command that `arguments` (or the process's) name, and ends the process."""
    signal.signal(signal.SIGTERM, _terminate)
    given = sys.argv[1:] if arguments is None else list(arguments)
    if not given or given[0] in app.help_flags:
        for name in COMMANDS:
            app[name]  # loads it: only then the list of commands can say what each does
    try:
        code = _call(given)
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:
        # Who read the output has seen enough.
        _give_up_output()
        sys.exit(0)
    except OSError as error:
        if error.errno not in _UNWRITABLE or error.filename is not None:
            raise
        _give_up_output()
        _complain(f"can't write the output: {error.strerror}", None, json=False)
        sys.exit(1)
    sys.exit(code)


def _call(given: Sequence[str]) -> int:
    """The command's exit code, its error told."""
    json = _JSON in given
    try:
        code = app(given)
    except cyclopts.UnusedCliTokensError as error:
        command = " ".join(error.command_chain or ())
        _complain(
            f"{' '.join(map(repr, error.unused_tokens or ()))} is not expected here"
            + ("" if command.startswith("source ") else ": all that commands take has a flag"),
            f"see `bemi {command} --help`",
            json=json,
        )
        return 2
    except cyclopts.CycloptsError as error:
        command = " ".join(error.command_chain or ())
        _complain(str(error), f"see `{f'bemi {command}'.strip()} --help`", json=json)
        return 2
    except BemiError as error:
        _complain(str(error), error.fix, json=json)
        return 2 if isinstance(error, UsageError) else 1
    return code if isinstance(code, int) else 0


def _complain(message: str, fix: str | None, *, json: bool) -> None:
    from bemi.cli.output import lines, print_json

    print(f"error: {lines(message)}", file=sys.stderr)
    if fix:
        print(f"fix: {lines(fix)}", file=sys.stderr)
    if json:
        print_json({"error": message, "fix": fix})


def _give_up_output() -> None:
    """Else Python would complain once more at its exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    """Leaves every `with` block in order: SIGTERM's default would not."""
    # A second one must not interrupt the tidying up of the first.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(128 + signal.SIGTERM)
