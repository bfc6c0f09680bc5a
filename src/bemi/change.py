"""What flows between the capture stages after the stitcher: changes, and what they refer to.

A row's values stay PostgreSQL's own text as bytes, in column order, until the encoder
turns them into JSON: `None` is NULL, `UNCHANGED` is a TOAST value that was not sent.
"""

import enum
from typing import Final, Literal, TypeAlias

import msgspec

from bemi.lsn import Lsn


class Unchanged(enum.Enum):
    """The third state of a value, beside present and NULL: it exists, but was not sent."""

    UNCHANGED = "unchanged"


UNCHANGED: Final = Unchanged.UNCHANGED

Value: TypeAlias = bytes | Literal[Unchanged.UNCHANGED] | None
Row: TypeAlias = tuple[Value, ...]


class Operation(enum.Enum):
    """What was done to the row; the value is how the store keeps it. SNAPSHOT: it was there."""

    CREATE = b"CREATE"
    UPDATE = b"UPDATE"
    DELETE = b"DELETE"
    TRUNCATE = b"TRUNCATE"
    SNAPSHOT = b"SNAPSHOT"


class Column(msgspec.Struct, frozen=True):
    """A column as the stream describes it. `type_oid` is the base type's for a domain.

    `number` (attnum) and `type`, as `format_type` spells it, are the catalog's: 0 and empty
    where it no longer knows the column by that name. `stamp` changes with the catalog's row of
    the column; `filled`: older rows have a value in it that no change told. `parts`: of an enum
    or a composite type, also within others, what its text is made of, by OID: digests of labels,
    numbers of attributes. `modifier` is the type's, as in numeric(12,2); -1 is none.
    """

    name: str
    type_oid: int
    in_identity: bool = False
    number: int = 0
    type: str = ""
    stamp: int = 0
    filled: bool = False
    generated: str = ""
    """`s` for a stored generated column, which follows from the others."""
    parts: dict[str, str] = {}
    modifier: int = -1


class Table(msgspec.Struct, frozen=True, eq=False):
    """A table as it was when its rows were written.

    `oid` is that of the table that holds the row; `schema` and `name` are those of the
    partitioned table above it, when there is one. `key` holds the positions of the primary
    key's columns, in the key's order; empty without a key. `array_elements` maps the type of
    each array column to its element's type. Compared by identity: one `Table` per version.
    `inferred` says that the catalog no longer knew the table as it was. `identity` is the
    replica identity: d(efault), n(othing), f(ull) or i(ndex); `partition` the name of the
    table itself, `schema.name`, where `name` is that of the one above it. `filenode` changes
    when the table is rewritten; `membership` is its row in pg_publication_rel; at
    `read_position` of the source's log all that the catalog tells was so, or not yet otherwise.
    Before `placed_since` it may have been below another table, or below none. `told`: an event
    trigger said so, at the very place. `attributes`: how many columns the catalog had numbered when
    it was read, those that were dropped too.
    """

    oid: int
    schema: str
    name: str
    columns: tuple[Column, ...]
    key: tuple[int, ...] = ()
    array_elements: dict[int, int] = {}
    inferred: bool = False
    identity: str = "f"
    partition: str | None = None
    filenode: int = 0
    membership: int = 0
    read_position: int = 0
    placed_since: int = 0
    told: bool = False
    attributes: int = 0


class Transaction(msgspec.Struct, frozen=True, eq=False):
    """A committed transaction of the source. Times are microseconds since 2000-01-01 UTC."""

    commit_lsn: Lsn
    committed_at: int
    queued_at: int
    transaction_id: int


class Change(msgspec.Struct, frozen=True, eq=False):
    """One row created, updated or deleted, or one table truncated.

    `lsn` is that of the row's WAL record, which rows of one COPY share; `index` tells them
    apart. `ordinal` counts the transaction's changes from 1. `before_known` is false when
    `before` holds the identity's columns only (the others are `UNCHANGED`) or nothing.
    `stretch` is the part of the transaction that has one context.
    """

    transaction: Transaction
    table: Table
    operation: Operation
    lsn: int
    index: int
    ordinal: int
    stretch: int
    before: Row | None = None
    after: Row | None = None
    before_known: bool = True
    flags: tuple[str, ...] = ()


class Stretch(msgspec.Struct, frozen=True, eq=False):
    """The context of a stretch of a transaction: the changes that carry its number.

    `context` is a JSON object in UTF-8 that jsonb accepts. `dropped` says why the
    application's context could not be read, and `raw` keeps its bytes.
    """

    transaction: Transaction
    number: int
    context: bytes
    dropped: str | None = None
    raw: bytes | None = None


class Committed(msgspec.Struct, frozen=True, eq=False):
    """The end of a transaction. `end_lsn` is what may be acknowledged once it is durable.

    `changes` is how many changes it held; `marked` asks for a checkpoint without delay.
    """

    transaction: Transaction
    end_lsn: Lsn
    changes: int
    marked: bool = False


class Version(msgspec.Struct, frozen=True, eq=False):
    """The table as it is from change `ordinal` of the transaction on; it may be as before."""

    transaction: Transaction
    table: Table
    ordinal: int


class Skipped(msgspec.Struct, frozen=True, eq=False):
    """A change that the rules left out, though it altered rows."""

    transaction: Transaction
    table: Table


class Ddl(msgspec.Struct, frozen=True, eq=False):
    """A statement that changed the schema, as the source's event triggers told it.

    `detail` is a JSON object in UTF-8 that jsonb accepts. `ordinal` is that of the transaction's
    last change before it. `tables` are those with rows that it was about, as it left them; of a
    partitioned table, `parted`, its schema and name, all of its partitions. `dropped` is the OID
    of a table that is gone.
    """

    transaction: Transaction
    lsn: int
    stretch: int
    ordinal: int
    tag: str
    object_type: str | None
    identity: str | None
    relation: int | None
    statement: str | None
    detail: bytes
    tables: tuple[Table, ...] = ()
    parted: tuple[str, str] | None = None
    dropped: int | None = None


Event: TypeAlias = Change | Stretch | Committed | Version | Skipped | Ddl
