"""How the answers look, for the OpenAPI document. The answers themselves are not made of these:
they are JSON already, with all digits of their numbers."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from bemi.store.people import Role
from bemi.store.trends import Every

Operation = Literal["CREATE", "UPDATE", "DELETE", "TRUNCATE", "SNAPSHOT"]


class Problem(BaseModel):
    """https://www.rfc-editor.org/rfc/rfc9457"""

    type: str
    title: str
    status: int
    detail: str = Field(description="What failed, and on what.")
    fix: str | None = Field(None, description="What to do.")


class Change(BaseModel):
    """A row of the relation `changes`. Numbers have all of their digits."""

    id: UUID
    database: str
    schema_: str = Field(alias="schema")
    table: str
    primary_key: str | None
    operation: Operation
    before: dict[str, Any]
    after: dict[str, Any]
    context: dict[str, Any]
    committed_at: datetime
    queued_at: datetime
    created_at: datetime
    transaction_id: int
    position: int
    commit_position: int
    ordinal: int
    epoch: int
    source: str
    previous_key: str | None
    flags: list[str] | None
    rules: int | None


class Changes(BaseModel):
    changes: list[Change]
    next: str | None = Field(description="Give it as `behind`; null where no more follow.")


class Transaction(BaseModel):
    """What one transaction did, in short: `changes` are its first, and `count` is how many of them
    were looked at; `more` says that it has others."""

    transaction_id: int
    source: str
    database: str
    committed_at: datetime
    commit_position: int
    count: int
    more: bool
    tables: dict[str, dict[str, int]] = Field(description="By table and operation, how many.")
    context: dict[str, Any] = Field(description="Of the first of them.")
    changes: list[Change]


class Transactions(BaseModel):
    transactions: list[Transaction]
    next: str | None


class Row(BaseModel):
    key: str | None
    values: dict[str, Any]
    flags: list[str]


class Record(BaseModel):
    row: Row | None = Field(description="Null where there was none then.")
    uncertain: str | None = Field(description="Why it is not surely known, with `allow_gaps`.")


class Side(BaseModel):
    """Without a side that is not there, or not known."""

    before: Any = None
    after: Any = None


class Difference(BaseModel):
    kind: Literal["added", "removed", "changed"]
    key: str | None
    previous_key: str | None
    count: int
    columns: dict[str, Side]
    unknown: list[str]


class BlamedChange(BaseModel):
    id: UUID
    operation: Operation
    committed_at: datetime
    transaction_id: int
    source: str
    context: dict[str, Any]


class Blame(BaseModel):
    column: str
    value: Any
    previous: Any
    exact: bool = Field(description="Whether it is known that this change set it.")
    change: BlamedChange


class BlameList(BaseModel):
    columns: list[Blame]


class Gap(BaseModel):
    from_position: str
    to_position: str
    cause: str
    detail: str
    detected_at: datetime
    accepted_at: datetime | None
    table: str | None
    columns: list[str] | None
    changes: int | None


class Source(BaseModel):
    source: str
    database: str
    slot: str
    publication: str
    epoch: int | None
    position: str | None
    committed_at: datetime | None
    updated_at: datetime | None
    age: float | None = Field(description="Seconds since the checkpoint was written.")
    dropped: int
    gaps: list[Gap]
    paused_at: datetime | None
    removed_at: datetime | None
    health: Literal["ok", "paused", "removed", "unfinished", "gap"]
    findings: list[str] = Field(description="What needs somebody, with the command that goes on.")


class Sources(BaseModel):
    sources: list[Source]


class Table(BaseModel):
    source: str
    table: str
    partition: str | None
    state: str = Field(description="Whether all of its rows are known, and if not, why.")
    complete_since: datetime | None
    missing: int = Field(description="Stretches in which changes are missing.")


class Tables(BaseModel):
    tables: list[Table]


class Coverage(BaseModel):
    coverage: list[dict[str, Any]]


class Count(BaseModel):
    start: datetime
    values: dict[str, str | int | None] = Field(description="By what they are counted by.")
    others: bool = Field(description="Of all values together that are not among the largest.")
    count: int


class Counts(BaseModel):
    every: Every | None = Field(description="Null where there are no changes.")
    by: list[str]
    counts: list[Count]


class Entry(BaseModel):
    table: str
    columns: list[str] | None = None


class Me(BaseModel):
    kind: Literal["person", "token"]
    name: str
    role: Role
    scopes: list[Entry] | None


class Person(BaseModel):
    id: int
    name: str
    email: str | None = Field(description="By which they come in from a provider.")
    role: Role
    scopes: list[Entry] | None
    created_at: datetime
    disabled_at: datetime | None


class People(BaseModel):
    people: list[Person]


class Invited(BaseModel):
    person: Person
    link: str = Field(description="Signs in once, within a day. It is not told again.")


class Token(BaseModel):
    id: int
    name: str
    role: Role
    scopes: list[Entry] | None
    person: int | None = Field(description="Number of who made it.")
    created_by: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


class Tokens(BaseModel):
    tokens: list[Token]


class IssuedToken(BaseModel):
    id: int
    token: str = Field(description="It is not told again.")


class EmbeddedTable(BaseModel):
    table: str
    columns: list[str]
    tenant: str | None
    label: str | None


class Embed(BaseModel):
    id: int
    kid: str = Field(description="Its name in the header of tokens, and in addresses.")
    name: str
    source: str
    tables: list[EmbeddedTable]
    tenant_context: str | None
    context: list[str]
    origins: list[str]
    public_key: dict[str, str]
    created_by: str
    created_at: datetime
    revoked_at: datetime | None


class Embeds(BaseModel):
    embeds: list[Embed]


class MadeEmbed(BaseModel):
    embed: Embed
    private_key: dict[str, str] | None = Field(
        description="What signs tokens, as a JSON Web Key, where none was given. It is not told"
        " again, and the server does not keep it."
    )


class EmbeddedValue(BaseModel):
    text: str | None = Field(description="Cut in the middle where it is long. Null: NULL.")
    note: str | None = Field(description="Why it is not the value itself, such as `masked`.")


class EmbeddedColumn(BaseModel):
    """A side that there is not, or that is not known, is missing."""

    name: str
    before: EmbeddedValue | None = None
    after: EmbeddedValue | None = None


class EmbeddedChange(BaseModel):
    """`added` and `removed`: a row that belonged to somebody else before, or does from then on."""

    at: datetime
    kind: Literal["created", "changed", "deleted", "added", "removed"]
    table: str
    label: str | None
    context: dict[str, str]
    columns: list[EmbeddedColumn]


class EmbeddedChanges(BaseModel):
    changes: list[EmbeddedChange]
    next: str | None
    language: str | None


class Access(BaseModel):
    id: int
    at: datetime
    actor: str
    kind: Literal["person", "token", "embed"]
    by: str | None = Field(description="Who it is, as `person 3`.")
    address: str
    action: str
    asked: dict[str, Any]
    allowed: bool


class Accesses(BaseModel):
    accesses: list[Access]
    next: int | None


class Export(BaseModel):
    """`rows` and `bytes`: written so far."""

    id: str
    format: Literal["ndjson", "csv"]
    asked_at: datetime
    state: Literal["waiting", "running", "done", "failed"]
    rows: int
    bytes: int
    error: str | None


class Exports(BaseModel):
    exports: list[Export]


class PlannedField(BaseModel):
    column: str
    present: str | None
    expected: str | None
    target: str | None
    mark: Literal["set", "done", "conflict"]
    between: UUID | None


class Conflict(BaseModel):
    table: str
    key: str | None
    kind: str
    message: str
    change: UUID | None


class PlannedRow(BaseModel):
    table: str
    key: str
    action: Literal["insert", "update", "delete"]
    done: bool
    fields: list[PlannedField]
    conflicts: list[Conflict]
    changes: list[UUID]


class Plan(BaseModel):
    plan: str = Field(description="What to apply: the plan that was seen, and no other.")
    source: str
    position: str
    changes: int
    filters: dict[str, Any]
    rows: list[PlannedRow]
    conflicts: list[Conflict]
    notes: list[str]
    sql: str


class Applied(BaseModel):
    applied: dict[str, Any]
    notes: list[str]
