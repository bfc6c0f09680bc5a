"""A change, a transaction, and all that one request or trace has done, in order."""

from collections.abc import Sequence
from datetime import timedelta
from itertools import groupby
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from bemi.api import showing
from bemi.api.access import Viewer
from bemi.api.asking import OfSource, Text, narrowed
from bemi.api.principals import Principal
from bemi.api.routes.changes import one
from bemi.api.routes.changes import page as changes_page
from bemi.api.serving import Served, Serving
from bemi.errors import UnknownStateError
from bemi.lsn import Lsn
from bemi.store.reader import StoredChange
from bemi.ui import links
from bemi.ui.actors import Actor, members
from bemi.ui.rendering import page
from bemi.ui.telling import Told, tell
from bemi.ui.undo import undo
from bemi.ui.values import brief

router = APIRouter()

_INSTANT: Final = timedelta(microseconds=1)
_PAGE: Final = 50
_COLUMNS: Final = 20
_ALL_COLUMNS: Final = 2000
_MOST: Final = 4000
"""Characters of a value on the page of its change."""


class OfChange(OfSource):
    id: Text
    moment: Text | None = None


class OfTransaction(OfSource):
    number: int = Field(ge=0, lt=1 << 63)
    behind: Text | None = None
    moment: Text | None = None


class OfTrace(OfSource):
    id: Text
    behind: Text | None = None
    moment: Text | None = None


class Commit(msgspec.Struct, frozen=True):
    """A transaction, as far as it is on the page."""

    href: str
    first: StoredChange
    actor: Actor
    context: list[tuple[str, str]]
    told: list[Told]


class Listed(msgspec.Struct, frozen=True):
    """`first` and `following`: other pages of them."""

    commits: list[Commit]
    first: str
    following: str

    @property
    def is_whole(self) -> bool:
        return not self.first and not self.following


@router.get("/change")
def change(
    request: Request, who: Viewer, serving: Served, asked: Annotated[OfChange, Query()]
) -> Response:
    found = showing.change(one(serving, who, asked.id, asked.source), who)
    told = tell(found, columns=_ALL_COLUMNS, most=_MOST)
    table = f"{found.schema}.{found.table}"
    return page(
        request,
        "change.html",
        who,
        told=told,
        context=members(found.context, _MOST),
        position=str(Lsn(found.position)),
        transaction=links.transaction(found.transaction_id, found.source),
        record=links.record(table, found.primary_key, found.source),
        before=links.table(table, found.source, found.committed_at - _INSTANT),
        after=links.table(table, found.source, found.committed_at),
        undo=undo(serving, who, "id", str(found.id), found.source),
        json=links.url(f"/api/v1/changes/{found.id}", {"source": asked.source}),
    )


@router.get("/transaction")
def transaction(
    request: Request, who: Viewer, serving: Served, asked: Annotated[OfTransaction, Query()]
) -> Response:
    listed = _listed(request, who, serving, asked, transaction=asked.number)
    if not listed.commits and asked.behind is None:
        raise UnknownStateError(f"the history has nothing of a transaction {asked.number}")
    return page(
        request,
        "transaction.html",
        who,
        number=asked.number,
        listed=listed,
        undo=undo(serving, who, "transaction", str(asked.number), asked.source),
        json=links.url(
            f"/api/v1/transactions/{asked.number}",
            {"source": asked.source, "behind": asked.behind},
        ),
    )


@router.get("/trace")
def trace(
    request: Request, who: Viewer, serving: Served, asked: Annotated[OfTrace, Query()]
) -> Response:
    listed = _listed(request, who, serving, asked, trace=asked.id)
    if not listed.commits and asked.behind is None:
        raise UnknownStateError(
            f"the history has no change with the request_id or trace_id {asked.id}",
            fix="applications send it in the context; the Activity has what there is",
        )
    return page(
        request,
        "trace.html",
        who,
        id=brief(asked.id, 80),
        listed=listed,
        sources=sorted({each.first.source for each in listed.commits}),
        undo=undo(serving, who, "trace", asked.id, asked.source),
        json=links.url(
            "/api/v1/changes",
            {"trace": asked.id, "source": asked.source, "oldest_first": "true"},
        ),
    )


def _listed(
    request: Request,
    who: Principal,
    serving: Serving,
    asked: OfTransaction | OfTrace,
    **which: Any,
) -> Listed:
    """A page of the changes that are `which`, the oldest first."""
    given = {"source": asked.source, "behind": asked.behind, "oldest_first": True, "limit": _PAGE}
    found = changes_page(serving, who, narrowed({**which, **given}, who))
    query = request.query_params.multi_items()
    first, following = links.pages(request.url.path, query, found["next"])
    return Listed(_commits(found["changes"]), first, following)


def _commits(changes: Sequence[StoredChange]) -> list[Commit]:
    found = []
    for _, run in groupby(
        changes, lambda each: (each.source, each.epoch, each.commit_position, each.transaction_id)
    ):
        several = [*run]
        first = tell(several[0], columns=_COLUMNS)
        told = [tell(each, by=first.actor, columns=_COLUMNS) for each in several]
        found.append(
            Commit(
                links.transaction(several[0].transaction_id, several[0].source),
                several[0],
                first.actor,
                members(several[0].context, _MOST),
                told if len(told) > 1 else [first],
            )
        )
    return found
