"""The Activity: what happened, the newest first, by transaction and request."""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import msgspec
from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from bemi.amounts import count
from bemi.api import showing
from bemi.api.access import Viewer
from bemi.api.asking import Chosen, Listed, Text
from bemi.api.principals import Principal
from bemi.api.problems import answer
from bemi.api.routes.sources import needing
from bemi.api.serving import Served, Serving
from bemi.api.summaries import MOST, Summary, summaries
from bemi.errors import UsageError
from bemi.store.filters import Filters, Place
from bemi.ui import links, moment
from bemi.ui.actors import Actor
from bemi.ui.chips import ADDABLE, chips, chosen, hidden
from bemi.ui.empty import Empty, reason
from bemi.ui.histogram import Histogram, histogram
from bemi.ui.rendering import iso, page
from bemi.ui.telling import Bit, Sentence, Told, actor_bits, listed, name_of, tell
from bemi.ui.undo import may_undo

router = APIRouter()

_PAGE: Final = 25
_SHOWN: Final = 5
"""Changes of a transaction that the feed shows."""
_COLUMNS: Final = 8
_LATE: Final = timedelta(minutes=1)
_NAMED: Final = 3
"""Tables that a sentence about a transaction names."""
_VERBS: Final = {
    "CREATE": "created",
    "UPDATE": "changed",
    "DELETE": "deleted",
    "TRUNCATE": "emptied",
    "SNAPSHOT": "read, by a baseline,",
}


class Feed(Listed):
    limit: int = Field(_PAGE, ge=1, le=100)
    moment: Text | None = None
    chart: bool = False


class Block(msgspec.Struct, frozen=True):
    """A transaction: its first changes, and how many there are behind them."""

    href: str
    sentence: Sentence
    first: Told
    told: list[Told]
    rest: str


class Group(msgspec.Struct, frozen=True):
    """Transactions of one request that follow each other, or one that is of none."""

    actor: Actor
    blocks: list[Block]


@router.get("/")
def activity(
    request: Request, who: Viewer, serving: Served, asked: Annotated[Feed, Query()]
) -> Response:
    query = request.query_params.multi_items()
    found: list[Block] = []
    end: Place | None = None
    problem: UsageError | None = None
    empty: Empty | None = None
    more = False
    drawn: Histogram | None = Histogram()
    try:
        filters = moment.until(asked.filters(who, limit=None), moment.read(asked.moment))
        found, end, more = _read(serving, who, filters, asked.limit)
        if asked.chart:
            with serving.archive.connected() as conn:
                drawn = histogram(conn, serving.archive.schema, filters, query)
        if not found:
            narrowed = [getattr(asked, name) or None for name in (*Chosen.model_fields, "behind")]
            with serving.archive.connected() as conn:
                empty = reason(conn, serving.archive.schema, who, [*narrowed, asked.moment])
    except UsageError as error:
        problem = error  # beside the filters, of which one has to go
    first, following = links.pages("/", query, str(end) if more else None)
    turned = links.without(query, "behind", "oldest_first")
    if not asked.oldest_first:
        turned.append(("oldest_first", "true"))
    charted = links.without(query, "chart")
    if not asked.chart:
        charted.append(("chart", "true"))
    return page(
        request,
        "activity.html",
        who,
        200 if problem is None else answer(problem).status_code,
        groups=[*_groups(found)],
        chips=chips(query),
        addable=ADDABLE,
        hidden=hidden(query),
        problem=problem,
        empty=empty,
        oldest_first=asked.oldest_first,
        turned=links.url("/", turned),
        histogram=drawn,
        is_charted=asked.chart,
        charted=links.url("/", charted),
        first=first,
        following=following,
        json=links.url("/api/v1/transactions", links.without(query, "moment", "chart")),
        trends=links.url("/trends", chosen(query)),
        undo=_undo(serving, who, query) if found else "",
        gaps=needing(serving, who) if asked.behind is None else [],
        stream=_stream(query, found) if problem is None else "",
    )


def _undo(serving: Serving, who: Principal, query: list[tuple[str, str]]) -> str:
    """The plan that undoes all that the filters let through; none without filters."""
    filters = chosen(query)
    if not may_undo(serving, who) or not {name for name, _ in filters} - {"source"}:
        return ""
    return links.url("/revert", filters)


def _stream(query: list[tuple[str, str]], found: list[Block]) -> str:
    """Where a browser hears of changes behind those that the page shows; nowhere where no newer
    ones belong on it."""
    filters = links.without(query, "limit", "chart")
    if any(name not in Chosen.model_fields or name == "until" for name, _ in filters):
        return ""
    now = datetime.now(UTC)
    newest = found[0].first.change.committed_at if found else now
    # What was committed by then and is captured late is behind it, too.
    start = min(now, max(newest, now - _LATE))
    return links.url("/api/v1/stream", [*filters, ("start", iso(start))])


def _read(
    serving: Serving, who: Principal, filters: Filters, limit: int
) -> tuple[list[Block], Place | None, bool]:
    """A page of transactions, what it ends behind, and whether others follow."""
    found: list[Block] = []
    end: Place | None = None
    with (
        serving.archive.connected() as conn,
        closing(summaries(conn, serving.archive.schema, filters)) as each,
    ):
        for summary in each:
            if len(found) == limit:
                return found, end, True
            # What is not shown of it is not kept.
            found.append(_block(summary, who))
            end = summary.end
    return found, end, False


def _groups(blocks: Iterable[Block]) -> Iterator[Group]:
    def request(numbered: tuple[int, Block]) -> str | int:
        at, block = numbered
        return block.first.actor.trace or at

    for _, run in itertools.groupby(enumerate(blocks), request):
        several = [block for _, block in run]
        yield Group(several[0].first.actor, several)


def _block(summary: Summary, who: Principal) -> Block:
    changes = [showing.change(each, who) for each in summary.changes[:_SHOWN]]
    first = tell(changes[0], columns=_COLUMNS)
    href = links.transaction(first.change.transaction_id, first.change.source)
    number = len(summary.changes)
    if number == 1:
        return Block(href, first.sentence, first, [first], "")
    told = [tell(each, by=first.actor, columns=_COLUMNS) for each in changes]
    left = number - len(told)
    rest = "" if not left else f"{count(left, 'more change')}{', and others' * summary.more}"
    return Block(href, _in_short(summary, first), first, told, rest)


def _in_short(summary: Summary, first: Told) -> Sentence:
    """`user 42 created 2 rows of pair and changed 1 row of todo`."""
    found = Counter((each.operation, each.schema, each.table) for each in summary.changes)
    number = f"{'more than ' * summary.more}{min(len(summary.changes), MOST):,}"
    tables = len({(schema, table) for _, schema, table in found})
    if len(found) > _NAMED:
        said: tuple[Bit, ...] = (Bit("", f"made {number} changes to {count(tables, 'table')}"),)
    else:
        parts: list[Sentence] = []
        for (operation, schema, table), rows in found.items():
            name = Bit("row", name_of(schema, table))
            verb = _VERBS[operation]
            if operation == "TRUNCATE":
                parts.append((Bit("", f"{verb} "), name))
            else:
                many = f"{'more than ' * summary.more}{count(rows, 'row')}"
                parts.append((Bit("", f"{verb} {many} of "), name))
        said = tuple(listed(parts))
    return (*actor_bits(first.actor), *said)
