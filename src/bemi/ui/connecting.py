"""Connecting a source: the checks as they are made, its tables to choose from, and the lines and
commands that capture them. Nothing is changed from here, and nothing that was typed is kept."""

import glob
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Final

import msgspec
from fastapi import APIRouter, Form, Query, Request
from pydantic import Field, SecretStr
from starlette.responses import Response

from bemi.amounts import count
from bemi.api.access import Admin
from bemi.api.asking import Asked, Text
from bemi.api.connecting import Target, place_of
from bemi.api.problems import answer
from bemi.api.routes import connecting as of_api
from bemi.api.serving import Served
from bemi.errors import BemiError, UsageError
from bemi.observed import Finding, Level, Offered, price
from bemi.settings import slot_name
from bemi.ui import lines
from bemi.ui.rendering import page, streamed

router = APIRouter()

_TABLES: Final = 300
"""That are shown, and that an address takes; more are chosen by their schema."""
_FIGURES: Final = 5
_STATEMENTS: Final = ("alter", "create", "drop", "grant", "select")
"""What a fix begins with that is SQL and nothing else."""
_LEVELS: Final[tuple[Level, ...]] = ("ok", "warning", "failure", "not checked")


class Typed(Target):
    """As forms send it: what is not filled in is empty there."""

    source: Text | None = None
    password: SecretStr = Field(SecretStr(""), max_length=1000)
    moment: Text | None = None


class Chosen(Asked):
    """Which tables are to be captured, and how; and what the source is called, and where it is."""

    source: Text | None = None
    name: Text = Field("", max_length=200)
    host: Text = Field("", max_length=253)
    port: int = Field(5432, ge=1, le=65535)
    database: Text = Field("", max_length=63)
    user: Text = Field("", max_length=63)
    schema_: list[Text] = Field([], alias="schema", max_length=_TABLES)
    table: list[Text] = Field([], max_length=_TABLES)
    full: list[Text] = Field([], max_length=_TABLES)
    ddl: bool = False
    snapshot: bool = False
    moment: Text | None = None


class Part(msgspec.Struct, frozen=True):
    """A schema with its tables, of which `more` are not shown."""

    name: str
    tables: list[Offered]
    more: int


class Run:
    """Checks while a page is written: what was found so far, and what follows from it."""

    def __init__(self, findings: Iterator[Finding]) -> None:
        self._findings = findings
        self.found: list[Finding] = []

    def __iter__(self) -> Iterator[Finding]:
        for each in self._findings:
            self.found.append(each)
            yield each

    @property
    def failed(self) -> bool:
        return any(each.level == "failure" for each in self.found)

    @property
    def summary(self) -> str:
        counts = Counter(each.level for each in self.found)
        plural = ("warning", "failure")
        return ", ".join(
            count(counts[level], level) if level in plural else f"{counts[level]} {level}"
            for level in _LEVELS
            if counts[level]
        )


@router.get("/sources/connect")
def connect_page(
    request: Request,
    who: Admin,
    serving: Served,
    source: Annotated[Text | None, Query(max_length=1000)] = None,
    moment: Annotated[Text | None, Query()] = None,  # noqa: ARG001 - it stays picked
) -> Response:
    """Which source to look at."""
    return _form(request, who, serving, Typed.model_validate({"source": source}), None)


@router.post("/sources/connect")
def connect(
    request: Request, who: Admin, serving: Served, typed: Annotated[Typed, Form()]
) -> Response:
    """What the checks find, as they find it, and then the tables that there are."""
    try:
        settings = of_api.chosen(request, who, serving, typed)
    except UsageError as error:
        return _form(request, who, serving, typed, error)
    run = Run(of_api.checked(serving, who, settings))

    def offered() -> tuple[list[Part], BemiError | None]:
        tables, problem = of_api.offered(serving, settings, run.found)
        return [*_parts(tables)], problem

    return streamed(
        request,
        "checked.html",
        who,
        place=place_of(settings),
        name=settings.source,
        typed=typed,
        run=run,
        offered=offered,
        price=price,
        figures=_FIGURES,
        statements=_STATEMENTS,
    )


@router.get("/sources/plan")
def plan(
    request: Request, who: Admin, serving: Served, asked: Annotated[Chosen, Query()]
) -> Response:
    """What is to be written into the settings and run, for what was chosen. Nothing is asked of the
    source."""
    known = serving.connector.settings
    settings = known.get(asked.source or "")
    if asked.source is not None and settings is None:
        raise UsageError(f"this server has no source {asked.source} in its settings")
    name = asked.source or asked.name or asked.database or "shop"
    # Of several, each has a table of its own in the file, and is named in commands.
    others = [each for each in known if each != name]
    named = name if others else None
    address = None
    if settings is None:
        address = lines.address(asked.user, asked.host, asked.port, asked.database)
    return page(
        request,
        "connect_plan.html",
        who,
        name=name,
        is_known=settings is not None,
        others=others,
        file=lines.source(
            named,
            address,
            schemas=[glob.escape(each) for each in asked.schema_],
            tables=[glob.escape(each) for each in asked.table],
        ),
        doctor=lines.command("doctor", named),
        init=lines.command(
            "init",
            named,
            *(("--full", glob.escape(each)) for each in asked.full),
            *((("--ddl", None),) if asked.ddl else ()),
            *((("--snapshot", None),) if asked.snapshot else ()),
        ),
        slot=slot_name(asked.database or name) if settings is None else settings.slot,
        publication="bemi" if settings is None else settings.publication,
        asked=asked,
    )


def _form(
    request: Request, who: Admin, serving: Served, typed: Target, problem: BemiError | None
) -> Response:
    connector = serving.connector
    return page(
        request,
        "connect.html",
        who,
        200 if problem is None else answer(problem).status_code,
        names=[*connector.settings],
        takes_any=connector.takes_any,
        typed=typed,
        problem=problem,
        example=lines.source(None, lines.address("bemi", "db.example", 5432, "shop")),
        doctor=lines.command("doctor", None),
    )


def _parts(tables: Sequence[Offered]) -> Iterable[Part]:
    """With the first tables of each, as many as may be shown in all."""
    room = _TABLES
    for name in dict.fromkeys(each.schema for each in tables):
        found = [each for each in tables if each.schema == name]
        yield Part(name, found[:room], len(found) - len(found[:room]))
        room -= len(found[:room])
