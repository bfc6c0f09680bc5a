"""Pages out of templates: everything that is written into them is text, and names that there are
not are errors."""

from collections.abc import Generator, Iterator
from datetime import UTC, datetime, timedelta
from importlib import resources
from typing import Any, Final

import jinja2
from fastapi import Request
from starlette.responses import HTMLResponse, Response

from bemi.amounts import count, size
from bemi.api.answers import Streamed
from bemi.api.principals import Principal
from bemi.times import spell
from bemi.ui import links
from bemi.ui.moment import moment_of
from bemi.ui.values import visible

THEME: Final = "bemi_theme"
THEMES: Final = ("light", "dark")

_SPANS: Final = (
    (timedelta(minutes=1), timedelta(seconds=1), "s"),
    (timedelta(hours=1), timedelta(minutes=1), "min"),
    (timedelta(days=2), timedelta(hours=1), "h"),
    (timedelta.max, timedelta(days=1), "days"),
)


def ago(moment: datetime, now: datetime) -> str:
    """`3 min ago`; clocks that differ are no reason to speak of what is to come."""
    passed = now - moment
    if passed < timedelta(seconds=1):
        return "just now"
    unit, name = next((unit, name) for below, unit, name in _SPANS if passed < below)
    return f"{passed // unit} {name} ago"


def exact(moment: datetime) -> str:
    return spell(moment)


def second(moment: datetime) -> str:
    return spell(moment.replace(microsecond=0))


def iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat()


def clock(moment: datetime) -> str:
    """As a field for dates and times has it."""
    return moment.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat()


_SHOWN: Final = ("</li>", 'class="findings"')
"""Ends of what is shown by itself: an element of a list, or all above it."""

_templates: Final = jinja2.Environment(
    loader=jinja2.FunctionLoader(
        lambda name: (
            resources.files("bemi.ui").joinpath("templates", name).read_text(encoding="utf-8")
        )
    ),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.globals.clear()
_templates.filters |= {
    "exact": exact,
    "second": second,
    "iso": iso,
    "clock": clock,
    "visible": visible,
}
_templates.globals |= {"count": count, "size": size}


def page(
    request: Request, template: str, who: Principal | None, status: int = 200, /, **values: Any
) -> Response:
    """`who` gets the navigation, in which a moment that was picked stays picked."""
    text = _templates.get_template(template).render(**values, **_around(request, who))
    return HTMLResponse(text, status)


def streamed(request: Request, template: str, who: Principal, /, **values: Any) -> Response:
    """The same where a value of it takes its time: each of a list is shown as soon as it is there,
    and whatever is above it before. A browser needs no script for that."""
    pieces = _templates.get_template(template).generate(**values, **_around(request, who))
    return Streamed(_shown(pieces), "text/html", X_Accel_Buffering="no")


def _shown(pieces: Iterator[str]) -> Generator[bytes]:
    """What can be shown is sent before the next piece is waited for."""
    waiting: list[str] = []
    for piece in pieces:
        waiting.append(piece)
        if any(end in piece for end in _SHOWN):
            # Joined: what templates have escaped would escape whatever it is added to.
            yield "".join(waiting).encode()
            waiting.clear()
    yield "".join(waiting).encode()


def _around(request: Request, who: Principal | None) -> dict[str, Any]:
    """What all pages know."""
    # Two slashes at its beginning would name another server.
    path = f"/{request.url.path.lstrip('/')}"
    query = request.query_params.multi_items()
    moment = moment_of(request.query_params.get("moment")) if who is not None else None
    now = datetime.now(UTC)

    def to(path: str, **given: Any) -> str:
        return links.url(path, {**given, "moment": None if moment is None else iso(moment)})

    def at(href: str) -> str:
        """An address that was made without the moment, with it."""
        if moment is None or not href:
            return href
        return f"{href}{'&' if '?' in href else '?'}{links.url('', {'moment': iso(moment)})[1:]}"

    theme = request.cookies.get(THEME)
    return {
        "who": who,
        "path": path,
        "moment": moment,
        "theme": theme if theme in THEMES else "",
        "here": links.url(path, query),
        "now_here": links.url(path, links.without(query, "moment", "behind")),
        "ago": lambda when: ago(when, now),
        "to": to,
        "at": at,
    }


def written(template: str, /, **values: Any) -> str:
    return _templates.get_template(template).render(**values)
