"""The messages of pgoutput, protocol version 1, as frozen values.

Field names follow PostgreSQL's documentation; times are microseconds since 2000-01-01 UTC.
https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
"""

from typing import Literal, TypeAlias

import msgspec

from bemi.change import Column, Row
from bemi.lsn import Lsn


class Begin(msgspec.Struct, frozen=True):
    final_lsn: Lsn
    committed_at: int
    xid: int


class Commit(msgspec.Struct, frozen=True):
    commit_lsn: Lsn
    end_lsn: Lsn
    committed_at: int


class Origin(msgspec.Struct, frozen=True):
    lsn: Lsn
    name: str


class Relation(msgspec.Struct, frozen=True):
    """`identity` is the replica identity: d(efault), n(othing), f(ull) or i(ndex)."""

    oid: int
    schema: str
    name: str
    identity: str
    columns: tuple[Column, ...]


class Type(msgspec.Struct, frozen=True):
    oid: int
    schema: str
    name: str


class Insert(msgspec.Struct, frozen=True):
    relation: int
    new: Row


class Update(msgspec.Struct, frozen=True):
    """`old_kind` is K (the identity's columns), O (the whole old row) or None (not sent)."""

    relation: int
    old_kind: Literal["K", "O"] | None
    old: Row | None
    new: Row


class Delete(msgspec.Struct, frozen=True):
    relation: int
    old_kind: Literal["K", "O"]
    old: Row


class Truncate(msgspec.Struct, frozen=True):
    relations: tuple[int, ...]
    cascade: bool
    restart_identity: bool


class LogicalMessage(msgspec.Struct, frozen=True):
    """What `pg_logical_emit_message` wrote; `content` is in the server's encoding."""

    transactional: bool
    lsn: Lsn
    prefix: str
    content: bytes


Message: TypeAlias = (
    Begin | Commit | Origin | Relation | Type | Insert | Update | Delete | Truncate | LogicalMessage
)
