"""What applications may show their customers: those that hold, one more, and the end of one."""

from datetime import datetime
from typing import Annotated, NamedTuple

import msgspec
from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from bemi.api.access import Admin, record
from bemi.api.principals import Principal
from bemi.api.problems import answer
from bemi.api.routes import embeds as of_api
from bemi.api.serving import Served, Serving
from bemi.errors import UnknownStateError, UsageError
from bemi.store import accesses, embeds, reader
from bemi.store.embeds import Embed
from bemi.ui import links
from bemi.ui.settings import bounds
from bemi.ui.settings.forms import Field, Number, checked
from bemi.ui.settings.menu import Asking, settings_page
from bemi.ui.settings.people import MOST

router = APIRouter()


class Listed(msgspec.Struct, frozen=True):
    """`seen_at`: when it was last shown; `log`: the address of what was."""

    given: Embed
    tables: list[str]
    seen_at: datetime | None
    log: str


class Typed(NamedTuple):
    """The form, as it was filled in."""

    name: str = ""
    source: str = ""
    tables: str = ""
    tenant_context: str = ""
    context: str = ""
    origins: str = ""
    public_key: str = ""


@router.get("/settings/embeds")
def list_embeds(
    request: Request, who: Admin, serving: Served, _asked: Annotated[Asking, Query()]
) -> Response:
    return _show(request, who, serving, Typed(), None)


@router.post("/settings/embeds")
def new_embed(
    request: Request,
    who: Admin,
    serving: Served,
    name: Field = "",
    source: Field = "",
    tables: Field = "",
    tenant_context: Field = "",
    context: Field = "",
    origins: Field = "",
    public_key: Field = "",
) -> Response:
    """For an application. The answer has the key that signs its tokens, this once."""
    typed = Typed(
        name.strip(), source, tables, tenant_context.strip(), context, origins, public_key
    )
    # Whoever pastes a private key there does not want it in the log.
    record(request, who, typed._replace(public_key="…" if public_key else "")._asdict())
    try:
        new = checked(
            of_api.NewEmbed,
            name=typed.name,
            source=source or None,
            tables=bounds.read(tables),
            tenant_context=typed.tenant_context or None,
            context=bounds.listed(context),
            origins=bounds.listed(origins),
            public_key=public_key.strip() or None,
        )
        embed, private = of_api.made(serving, who, new)
    except UsageError as error:
        return _show(request, who, serving, typed, error)
    if private is None:
        return RedirectResponse("/settings/embeds", 303)
    return settings_page(
        request,
        "settings_secret.html",
        who,
        under="/settings/embeds",
        title=f"The key of {embed.name}",
        secret=msgspec.json.encode(private).decode(),
        kind="key",
        back="/settings/embeds",
        back_to="All embeds",
    )


@router.post("/settings/embeds/revoke")
def revoke_embed(request: Request, who: Admin, serving: Served, id: Number) -> Response:
    """No token for it holds from now on."""
    record(request, who, {"id": id})
    with serving.archive.connected() as conn:
        if not embeds.revoke_embed(conn, serving.archive.schema, id):
            raise UnknownStateError(f"there is no embed {id}")
    return RedirectResponse("/settings/embeds", 303)


def _show(
    request: Request, who: Principal, serving: Serving, typed: Typed, problem: UsageError | None
) -> Response:
    schema = serving.archive.schema
    with serving.archive.connected() as conn:
        found = embeds.embeds(conn, schema)
        last = accesses.last(conn, schema)
        sources = reader.sources(conn, schema)
    listed = [
        Listed(
            each,
            bounds.words(each.tables),
            last.get(f"embed {each.id}"),
            links.url("/settings/accesses", {"by": f"embed {each.id}"}),
        )
        for each in reversed(found)
    ]
    holding = [each for each in listed if each.given.revoked_at is None]
    ended = [each for each in listed if each.given.revoked_at is not None]
    return settings_page(
        request,
        "settings_embeds.html",
        who,
        200 if problem is None else answer(problem).status_code,
        under="/settings/embeds",
        holding=holding[:MOST],
        ended=ended[:MOST],
        more=max(0, len(holding) - MOST) + max(0, len(ended) - MOST),
        typed=typed,
        sources=sources,
        problem=problem,
        example=bounds.EXAMPLE,
        json="/api/v1/embeds",
    )
