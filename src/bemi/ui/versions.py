"""The versions of a record, as steps of a slider through time: each is a moment to look at."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

import msgspec

from bemi.api.principals import Principal
from bemi.api.routes.changes import page
from bemi.api.serving import Serving
from bemi.store.filters import Filters
from bemi.store.reader import StoredChange
from bemi.ui.telling import tell
from bemi.ui.values import cut

_STEPS: Final = 50
"""On each side of the moment."""
_CHARACTERS: Final = 120


class Step(msgspec.Struct, frozen=True):
    """The record behind all that was done to it at one time."""

    when: datetime
    text: str


class Slider(msgspec.Struct, frozen=True):
    """Steps, the oldest first, and which of them is looked at: None is now, -1 before the first."""

    steps: list[Step]
    at: int | None

    @property
    def index(self) -> int:
        """Of its options: the last is now, and there is one more before the first step if need
        be."""
        if self.at is None:
            return len(self.steps)
        return max(self.at, 0)

    @property
    def last(self) -> int:
        return len(self.steps) + (self.at == -1)

    @property
    def earlier(self) -> datetime | None:
        """The moment one step back."""
        at = len(self.steps) - 1 if self.at is None else self.at
        return self.steps[at - 1].when if at > 0 else None

    @property
    def later(self) -> datetime | None:
        """One step on; None also where that is now."""
        if self.at is None or self.at + 1 >= len(self.steps):
            return None
        return self.steps[self.at + 1].when


def slider(
    serving: Serving, who: Principal, record: Filters, moment: datetime | None
) -> Slider | None:
    """Around a moment, or up to now; `record` has no page and no times. None where there is
    nothing to slide between."""
    asked = replace(record, limit=_STEPS, behind=None)
    before = page(serving, who, replace(asked, until=moment))["changes"]
    found = before[::-1]
    if moment is not None:
        since = moment + timedelta(microseconds=1)
        found += page(serving, who, replace(asked, since=since, oldest_first=True))["changes"]
    steps = _steps(found)
    if len(steps) + (moment is not None) < 2:
        return None
    at = None if moment is None else sum(each.when <= moment for each in steps) - 1
    return Slider(steps, at)


def _steps(changes: list[StoredChange]) -> list[Step]:
    steps: dict[datetime, list[StoredChange]] = {}
    for each in changes:
        steps.setdefault(each.committed_at, []).append(each)
    return [Step(when, _said(of)) for when, of in steps.items()]


def _said(changes: list[StoredChange]) -> str:
    said = "".join(bit.text for bit in tell(changes[-1]).sentence)
    more = f", and {len(changes) - 1} more" if len(changes) > 1 else ""
    return cut(said, _CHARACTERS) + more
