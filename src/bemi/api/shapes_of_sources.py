"""How the answers about sources themselves look, for the OpenAPI document; see `shapes`."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field


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
