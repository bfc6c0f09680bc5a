"""The context of a script: which one, where, and run by whom."""

import os
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from bemi.context.current import context


def command_context(
    job: str | None = None, /, **more: Any
) -> AbstractContextManager[dict[str, Any]]:
    """`bemi.context` for a script or a scheduled job: `job`, by default the script's name, `host`
    and `user`, the machine's and its user's names.

        with bemi.command_context():
            ...
    """
    import socket  # not for who only imports bemi

    values = {"job": job or _script(), "host": socket.gethostname(), "user": _user()}
    return context({**values, **more})


def _script() -> str:
    path = Path(sys.argv[0] if sys.argv else "")
    # `python -m package` runs its __main__.
    return path.parent.name if path.name == "__main__.py" else path.stem or "python"


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no such user, as in some containers
        return f"uid {os.getuid()}"
