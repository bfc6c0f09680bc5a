"""What pages of the settings have in common: the menu beside them, each entry for who may."""

from typing import Any, Final, NamedTuple

from fastapi import Request
from starlette.responses import Response

from bemi.api.asking import Asked, Text
from bemi.api.principals import Principal
from bemi.store.people import Role
from bemi.ui.rendering import page


class Entry(NamedTuple):
    path: str
    word: str
    role: Role


ENTRIES: Final = (
    Entry("/settings", "You", "viewer"),
    Entry("/settings/people", "People", "admin"),
    Entry("/settings/tokens", "Tokens", "admin"),
    Entry("/settings/embeds", "Embeds", "admin"),
    Entry("/settings/accesses", "Accesses", "admin"),
)


class Asking(Asked):
    moment: Text | None = None


def settings_page(
    request: Request,
    template: str,
    who: Principal,
    status: int = 200,
    /,
    *,
    under: str,
    **values: Any,
) -> Response:
    """`under`: the path of the entry that it belongs to."""
    entries = [each for each in ENTRIES if who.may(each.role)]
    return page(request, template, who, status, entries=entries, under=under, **values)
