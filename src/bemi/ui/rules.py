"""Rules as they are written, and what they would have made of the last changes, before they are in
any file."""

import itertools
from typing import Annotated, Final

import msgspec
from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from bemi.api import previewing
from bemi.api.access import Admin
from bemi.api.asking import Asked, Text
from bemi.api.previewing import Effect, Preview
from bemi.api.problems import answer
from bemi.api.serving import Served, Serving
from bemi.errors import UsageError
from bemi.observed import Fate
from bemi.rules import Rules
from bemi.store import reader
from bemi.ui import lines
from bemi.ui.rendering import page
from bemi.ui.telling import Told, tell

router = APIRouter()

_SHOWN: Final = 8
"""Changes of a kind that are told one by one."""
_WORDS: Final[dict[Fate, str]] = {
    "same": "as it is",
    "otherwise": "stored otherwise",
    "silent": "left out",
    "skipped": "left out",
}
_WHY: Final[dict[Fate, str]] = {
    "same": "",
    "otherwise": "",
    "silent": "nothing but ignored and excluded columns differs",
    "skipped": "a rule of skip names it",
}


class Asking(Asked):
    source: Text | None = Field(None, max_length=1000)
    table: Text = Field("", max_length=200)
    rules: Text | None = Field(None, max_length=8000)
    moment: Text | None = None


class Shown(msgspec.Struct, frozen=True):
    """A change as it is, and as it would be; None where it would not."""

    word: str
    why: str
    now: Told
    then: Told | None


@router.get("/sources/rules")
def rules_page(
    request: Request, who: Admin, serving: Served, asked: Annotated[Asking, Query()]
) -> Response:
    """What rules would have made of the last changes. Nothing is stored."""
    with serving.archive.connected() as conn:
        names = reader.sources(conn, serving.archive.schema)
    known = _known(serving, asked.source or (names[0] if len(names) == 1 else None))
    text = asked.rules
    if text is None:
        text = lines.rules(known) if known else ""
    rules, found, problem = None, None, None
    try:
        if asked.source is not None:
            previewing.source_of(names, asked.source)
        if asked.rules is not None:
            rules = previewing.read(asked.rules.replace("\r\n", "\n"))
            found = previewing.preview(serving, who, rules, source=asked.source, table=asked.table)
    except UsageError as error:
        problem = error
    several = len(serving.connector.settings) > 1
    return page(
        request,
        "rules.html",
        who,
        200 if problem is None else answer(problem).status_code,
        names=names,
        asked=asked,
        text=text,
        is_known=known is not None,
        problem=problem,
        found=found,
        counts={} if found is None else _counts(found),
        shown=[] if found is None else _shown(found),
        file="" if rules is None else lines.rules(rules, asked.source if several else None),
        hashes=rules is not None and bool(rules.hash),
        most=previewing.MOST,
    )


def _known(serving: Serving, source: str | None) -> Rules | None:
    """The present ones, where the server has the source in its settings."""
    settings = serving.connector.settings.get(source or "")
    return None if settings is None else settings.rules


def _counts(found: Preview) -> dict[str, int]:
    counts = found.counts
    return {
        "same": counts["same"],
        "otherwise": counts["otherwise"],
        "left_out": counts["silent"] + counts["skipped"],
    }


def _shown(found: Preview) -> list[Shown]:
    """Some of each kind: a rule that leaves much out hides no other."""
    return [
        _one(each)
        for fate in _WORDS
        if fate != "same"
        for each in itertools.islice((e for e in found.effects if e.fate == fate), _SHOWN)
    ]


def _one(effect: Effect) -> Shown:
    return Shown(
        word=_WORDS[effect.fate],
        why=_WHY[effect.fate],
        now=tell(effect.change),
        then=None if effect.stored is None else tell(effect.stored),
    )
