"""Looking at a source before it is captured, or while it is: checks, and its tables."""

import json
from collections.abc import Generator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Request
from pydantic import AfterValidator, Field
from starlette.responses import Response

from bemi.api import previewing, shapes_of_sources
from bemi.api.access import Admin, record
from bemi.api.answers import json_of
from bemi.api.asking import Asked, Short
from bemi.api.connecting import Target, place_of, settings_of
from bemi.api.principals import Principal
from bemi.api.routing import PREFIX, told
from bemi.api.serving import Served, Serving
from bemi.config import Settings
from bemi.errors import BemiError
from bemi.observed import Finding, Offered
from bemi.store import sources as stored

router = APIRouter(prefix=PREFIX, tags=["sources"])

_LONGEST: Final = 20_000


@router.post("/sources/checks", **told(shapes_of_sources.Checked))
def check_source(request: Request, who: Admin, serving: Served, target: Target) -> Response:
    """What `bemi doctor` finds: whether source and history are as Bemi needs them, each finding
    with its fix; and the source's tables, with why one can't be tracked. Nothing is changed.

    Of a source of the server's settings by its name; by its address only where the server was
    started with `--connect-any`.
    """
    settings = chosen(request, who, serving, target)
    findings = [*checked(serving, who, settings)]
    tables, problem = offered(serving, settings, findings)
    shown = {
        "place": place_of(settings),
        "findings": findings,
        "tables": tables,
        "problem": None if problem is None else {"reason": str(problem), "fix": problem.fix},
    }
    return json_of(request, shown)


def _told(rules: dict[str, Any]) -> dict[str, Any]:
    """Raises ValueError for what no answer could repeat, or is not recorded whole."""
    if len(json.dumps(rules, ensure_ascii=False).encode()) > _LONGEST:
        raise ValueError(f"more than {_LONGEST:,} bytes")
    return rules


class Tried(Asked):
    """`rules` as the table `[rules]` of the file of settings has them."""

    source: Short | None = None
    table: Short | None = Field(None, description="Only changes of this table.")
    rules: Annotated[dict[str, Any], AfterValidator(_told)]


@router.post("/sources/rules", **told(shapes_of_sources.Tried))
def try_rules(request: Request, who: Admin, serving: Served, tried: Tried) -> Response:
    """What rules would have made of the last changes of the tables that they are about, 100 of at
    most 20 tables, and which of the rules match nothing. Nothing is stored. Digests are made with
    a key of the server's own."""
    record(request, who, tried.model_dump())
    found = previewing.preview(
        serving, who, previewing.rules_of(tried.rules), source=tried.source, table=tried.table
    )
    return json_of(request, {"changes": found.effects, "unmatched": found.unmatched})


def chosen(request: Request, who: Principal, serving: Serving, target: Target) -> Settings:
    """Recorded without its password. Raises `UsageError`."""
    archive = serving.archive
    settings = settings_of(target, serving.connector, url=archive.url, schema=archive.schema)
    record(request, who, target.told)
    return settings


def checked(serving: Serving, who: Principal, settings: Settings) -> Generator[Finding]:
    """As they are found. Raises `BusyError` before the first."""
    with serving.checks.held(who.label):
        yield from serving.connector.checks(settings)


def offered(
    serving: Serving, settings: Settings, findings: list[Finding]
) -> tuple[list[Offered], BemiError | None]:
    """The tables of a source that the checks have reached, or why they are not known."""
    if not any(each.check == "source" and each.level == "ok" for each in findings):
        return [], None
    try:
        with serving.archive.connected() as conn:
            known = stored.read(conn, serving.archive.schema, settings.source)
        tables = serving.connector.tables(settings, None if known is None else known.setup)
    except BemiError as error:
        return [], error
    return [*tables], None
