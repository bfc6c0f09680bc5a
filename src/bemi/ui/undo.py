"""The ways to undo something that a page shows: the plan of it, and the command. Pure."""

from typing import Final, NamedTuple

from bemi.api.principals import Principal
from bemi.api.serving import Serving
from bemi.ui import links
from bemi.ui.commands import revert

_ASK: Final = "An admin can give you that."


class Undo(NamedTuple):
    """`href`: of the plan; empty for who may not, or where it would be too long. `command`: empty
    where a terminal would not take it. `refused`: to who may not, why."""

    href: str
    command: str
    refused: str


def may_undo(serving: Serving, who: Principal) -> bool:
    """Whether a plan would be shown."""
    return bool(serving.write_urls) and who.scope is None and who.may("editor")


def refused(serving: Serving, who: Principal) -> str:
    """Why no plan would be shown, and what would change that; empty where one is."""
    if not who.may("editor"):
        return f"To undo changes here takes the role editor, and yours is {who.holder.role}. {_ASK}"
    if who.scope is not None:
        return f"To undo changes here, one sees the whole history, and you see a part. {_ASK}"
    if not serving.write_urls:
        return "This server knows no database to write to: it undoes nothing."
    return ""


def undo(serving: Serving, who: Principal, name: str, value: str, source: str | None) -> Undo:
    """Of all that one filter lets through, such as a `trace`."""
    href = ""
    if may_undo(serving, who) and len(value) <= links.LONGEST:
        href = links.url("/revert", {name: value, "source": source})
    flag = "change" if name == "id" else name
    return Undo(href, revert(f"--{flag}", value, source), refused(serving, who))
