"""Commands that pages show, to be copied into a shell: what stands in them is quoted. Pure."""

import re
import shlex
from typing import Final

_PLAIN: Final = re.compile(r"[ -~]*")


def is_plain(text: str) -> bool:
    """Whether a terminal takes it as it is written."""
    return _PLAIN.fullmatch(text) is not None


def revert(flag: str, value: str, source: str | None) -> str:
    """Empty where a terminal would not take it as it is written."""
    if not is_plain(value) or (source is not None and not is_plain(source)):
        return ""
    words = ["bemi", "revert", *_flag(flag, value)]
    if source is not None:
        words += _flag("--source", source)
    return shlex.join(words)


def _flag(name: str, value: str) -> list[str]:
    return [f"{name}={value}"] if value.startswith("-") or not value else [name, value]
