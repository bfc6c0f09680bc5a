"""How `bemi run` writes its log: lines for people on a terminal, JSON lines for programs.

Passwords of connection strings are struck out here, whoever logged them.
"""

import json
import logging
import re
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final, Literal

from bemi.cli.output import printable

Format = Literal["text", "json"]

_OWN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_PASSWORDS: Final = re.compile(
    r"""(?P<url>://[^\s:/@]*:)[^\s@]+(?=@) | (?P<pair>password\s*=\s*)('(\\.|[^'\\])*'|\S+)""",
    re.VERBOSE | re.IGNORECASE,
)


def start(form: Format | None, *, source: ContextVar[str] | None = None) -> None:
    """Sends the log to standard error; without a form, as text on a terminal, else as JSON.

    `source` has the name of the source that a line is about, where the line does not say it.
    """
    if form is None:
        form = "text" if sys.stderr.isatty() else "json"
    handler = logging.StreamHandler(sys.stderr)
    if source is not None:
        handler.addFilter(_Named(source))
    handler.setFormatter(_Json() if form == "json" else _Text())
    root = logging.getLogger("bemi")
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    root.propagate = False


def redacted(text: str) -> str:
    return _PASSWORDS.sub(lambda match: f"{match['url'] or match['pair']}***", text)


class _Named(logging.Filter):
    """Lets every record through, and names its source."""

    def __init__(self, source: ContextVar[str]) -> None:
        super().__init__()
        self._source = source

    def filter(self, record: logging.LogRecord) -> bool:
        name = self._source.get("")
        if name and not hasattr(record, "source"):
            record.source = name
        return True


class _Json(logging.Formatter):
    """One object: time, level, message, then the fields of the record."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": _time(record).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps({name: _plain(value) for name, value in fields.items()})


class _Text(logging.Formatter):
    """`14:02:07 waiting: reason`, and the other fields as name=value."""

    def format(self, record: logging.LogRecord) -> str:
        fields = _fields(record)
        reason = fields.pop("reason", None)
        line = f"{_time(record):%H:%M:%S} "
        if record.levelno > logging.INFO:
            line += f"{record.levelname.lower()}: "
        line += record.getMessage()
        if reason is not None:
            line += f": {reason}"
        line += "".join(f" {name}={value}" for name, value in fields.items() if value is not None)
        line = printable(redacted(line))
        if record.exc_info:
            line += "\n" + redacted(self.formatException(record.exc_info))
        return line


def _time(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _OWN}


def _plain(value: object) -> object:
    if value is None or isinstance(value, bool | float):
        return value
    if type(value) is int:
        return value
    # An LSN, a name, a path: what it is called.
    return redacted(str(value))
