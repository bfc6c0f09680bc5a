"""What applications may show their customers, and by whose signature. For admins."""

import re
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Path, Request
from pydantic import Field
from starlette.responses import Response

from bemi.api import shapes, signing_keys
from bemi.api.access import ADMIN, Admin, record
from bemi.api.answers import json_of
from bemi.api.asking import Asked, Text
from bemi.api.origins import origin_of
from bemi.api.principals import Principal
from bemi.api.routing import PREFIX, told
from bemi.api.serving import Served, Serving
from bemi.errors import UnknownStateError, UsageError
from bemi.store import embeds
from bemi.store.embeds import Embed, Shown

router = APIRouter(prefix=PREFIX, tags=["embeds"])

_ORIGIN: Final = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:\d+)?")

Number = Annotated[int, Path(ge=1, lt=1 << 31)]
Name = Annotated[Text, Field(min_length=1, max_length=200)]


class NewTable(Asked):
    table: Name = Field(examples=["public.orders"])
    columns: list[Name] = Field(
        max_length=1000, description="Those that may be told: no others, the key neither."
    )
    tenant: Name | None = Field(
        description="The column that says whose a row is, which need not be told. Null, which has"
        " to be said: each of its rows is for every tenant.",
        examples=["customer_id"],
    )
    label: Name | None = Field(
        None, description="One of the columns, whose value names a row in sentences."
    )


class NewEmbed(Asked):
    """The most that its tokens can let somebody see."""

    name: Name
    source: Text | None = Field(None, description="Whose tables; by default the only one's.")
    tables: list[NewTable] = Field(min_length=1, max_length=100)
    tenant_context: Name | None = Field(
        None, description="A member of the context that has to be the tenant, too."
    )
    context: list[Name] = Field(
        [],
        max_length=50,
        description="Members of the context that may be told; the first that has a value is who.",
    )
    origins: list[Text] = Field(
        max_length=20, description="Of the pages that show it.", examples=[["https://shop.example"]]
    )
    public_key: Text | None = Field(
        None,
        max_length=2000,
        description="PEM of the application's own, on the curve P-256. Null: a pair is made, whose"
        " private key is told this once.",
    )


@router.get("/embeds", dependencies=[ADMIN], **told(shapes.Embeds))
def list_embeds(request: Request, serving: Served) -> Response:
    """What applications may show, those that are revoked too."""
    with serving.archive.connected() as conn:
        found = embeds.embeds(conn, serving.archive.schema)
    return json_of(request, {"embeds": [*map(_shown, found)]})


@router.post("/embeds", **told(shapes.MadeEmbed, 201))
def new_embed(request: Request, who: Admin, serving: Served, new: NewEmbed) -> Response:
    """For an application, which signs tokens for it."""
    record(request, who, new.model_dump(exclude={"public_key"}))
    embed, private = made(serving, who, new)
    return json_of(request, {"embed": _shown(embed), "private_key": private}, 201)


def made(serving: Serving, who: Principal, new: NewEmbed) -> tuple[Embed, dict[str, str] | None]:
    """And the private key, where the application has none of its own. Raises `UsageError`."""
    private: dict[str, str] | None = None
    if new.public_key is None:
        public, private = signing_keys.new_pair()
    else:
        public = signing_keys.read_public(new.public_key)
    with serving.archive.connected() as conn:
        embed = embeds.add_embed(
            conn,
            serving.archive.schema,
            new.name,
            source=new.source,
            tables=[
                Shown(each.table, tuple(each.columns), each.tenant, each.label)
                for each in new.tables
            ],
            tenant_context=new.tenant_context,
            context=new.context,
            origins=[*map(_origin, new.origins)],
            public_key=public,
            created_by=who.name,
        )
    if private is not None:
        private |= {"alg": signing_keys.ALGORITHM, "kid": embed.kid}
    return embed, private


@router.delete("/embeds/{id}", dependencies=[ADMIN], **told(shapes.Embeds))
def revoke_embed(request: Request, id: Number, serving: Served) -> Response:
    """No token for it holds from now on."""
    with serving.archive.connected() as conn:
        if not embeds.revoke_embed(conn, serving.archive.schema, id):
            raise UnknownStateError(f"there is no embed {id}")
        found = embeds.embeds(conn, serving.archive.schema)
    return json_of(request, {"embeds": [*map(_shown, found)]})


def _shown(embed: Embed) -> dict[str, Any]:
    found = msgspec.structs.asdict(embed)
    del found["seal"]
    return found


def _origin(text: str) -> str:
    """As browsers send it, and as it can stand in a header. Raises `UsageError`."""
    try:
        found = origin_of(text)
        if not _ORIGIN.fullmatch(found):
            raise ValueError(f"{text!r} is no origin; names in other letters are xn--…")
    except ValueError as error:
        raise UsageError(f"origins: {error}", fix="give each as https://shop.example") from error
    return found
