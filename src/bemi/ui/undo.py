"""The ways to undo something that a page shows: the plan of it, and the command. Pure."""

from typing import NamedTuple

from bemi.api.principals import Principal
from bemi.api.serving import Serving
from bemi.ui import links
from bemi.ui.commands import revert


class Undo(NamedTuple):
    """`href`: of the plan; empty for who may not, or where it would be too long. `command`: empty
    where a terminal would not take it."""

    href: str
    command: str


def may_undo(serving: Serving, who: Principal) -> bool:
    """Whether a plan would be shown."""
    return bool(serving.write_urls) and who.scope is None and who.may("editor")


def undo(serving: Serving, who: Principal, name: str, value: str, source: str | None) -> Undo:
    """Of all that one filter lets through, such as a `trace`."""
    href = ""
    if may_undo(serving, who) and len(value) <= links.LONGEST:
        href = links.url("/revert", {name: value, "source": source})
    flag = "change" if name == "id" else name
    return Undo(href, revert(f"--{flag}", value, source))
