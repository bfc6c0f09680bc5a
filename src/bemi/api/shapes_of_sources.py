"""How the answers about sources themselves look, for the OpenAPI document; see `shapes`."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from bemi.api.shapes import Change
from bemi.observed import Fate, Level


class NotTracked(BaseModel):
    table: str
    reason: str
    fix: str | None


class Live(BaseModel):
    slot_active: bool = Field(description="Whether a worker is connected.")
    wal_status: Literal["reserved", "extended", "unreserved", "lost"] | None
    retained_bytes: int | None = Field(description="WAL that the source keeps for the slot.")
    safe_wal_size: int | None = Field(
        description="Bytes that may still be written before the slot is lost; null: no limit."
    )
    wal_rate: float | None = Field(description="Bytes a second, measured where there is a limit.")
    seconds_to_full: float | None
    behind_bytes: int | None
    tracked: int
    untracked: list[NotTracked]
    failing: list[NotTracked]
    uncovered: list[str]


class Reason(BaseModel):
    reason: str
    fix: str | None


class LiveSource(BaseModel):
    source: str
    asked_at: datetime | None
    live: Live | None = Field(description="Null where it could not be asked: see `problem`.")
    findings: list[str] = Field(description="What needs somebody, with the command that goes on.")
    estimates: dict[str, int] = Field(
        description="About how many rows a table has, by its OID, of those whose baseline runs."
    )
    problem: Reason | None


class Lives(BaseModel):
    sources: list[LiveSource]


class Price(BaseModel):
    """What both replica identities of a table cost a day."""

    table: str
    identity: Literal["default", "full"]
    changes_a_day: float
    row_bytes: float | None
    full_wal_bytes_a_day: float | None
    default_lookups_a_day: float
    default_lookup_seconds_a_day: float | None


class Finding(BaseModel):
    check: str
    level: Level
    message: str
    fix: str | None
    figures: list[Price]


class Offered(BaseModel):
    schema_: str = Field(alias="schema")
    name: str
    root: str | None = Field(description="The table above a partition.")
    identity: str
    tracked: bool
    wanted: bool
    reason: str | None = Field(description="Why it can't be tracked as it is.")
    fix: str | None
    never_full: str | None
    rows: int | None = Field(description="About, as PostgreSQL's statistics have it.")
    bytes: int | None


class Checked(BaseModel):
    place: str
    findings: list[Finding]
    tables: list[Offered] = Field(description="None where the source could not be reached.")
    problem: Reason | None = Field(description="Why the tables are not known.")


class Effect(BaseModel):
    fate: Fate = Field(
        description="`otherwise`: some values are stored otherwise; `silent`: it alters ignored and"
        " excluded columns only; `skipped`: a rule of `skip` leaves it out."
    )
    change: Change
    stored: Change | None = Field(description="As it would be stored; null where it would not.")


class Tried(BaseModel):
    changes: list[Effect]
    unmatched: list[str] = Field(description="Rules that match nothing, each in a sentence.")
