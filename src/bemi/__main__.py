"""The command `bemi`, also as `python -m bemi`. An application's `bemi`, without extras, has
no commands: then it says how to get them.
"""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Runs the command that the process's arguments name, and ends the process."""
    try:
        from bemi.cli.app import main as run
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "bemi":
            raise
        sys.exit(
            f"error: the commands of bemi need {error.name}, which is not installed here\n"
            "fix: pip install 'bemi[worker]'"
        )
    run()


if __name__ == "__main__":
    main()
