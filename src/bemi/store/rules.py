"""The versions of a source's rules; all are kept, so that each change knows its own."""

import hashlib
import hmac
import json
from typing import Any

import msgspec
import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from bemi.lsn import Lsn
from bemi.rules import NO_RULES, Rules


def declare(
    conn: psycopg.Connection[Any],
    schema: str,
    source_id: int,
    rules: Rules,
    hash_key: str,
    *,
    epoch: int,
    position: Lsn,
) -> int:
    """The version of these rules; a new one from `position` on when they are not the last's.

    The caller holds the source's checkpoint at `position`, so that no change comes between.
    """
    digest = _digest(rules, hash_key)
    table = sql.Identifier(schema, "rules")
    row = conn.execute(
        sql.SQL(
            "select rules_id, digest from {} where source_id = %s order by rules_id desc limit 1"
        ).format(table),
        [source_id],
    ).fetchone()
    if row is not None and row[1] == digest:
        return int(row[0])
    row = conn.execute(
        sql.SQL(
            "insert into {} (source_id, epoch, from_position, digest, rules) "
            "values (%s, %s, %s, %s, %s) returning rules_id"
        ).format(table),
        [source_id, epoch, int(position), digest, Jsonb(msgspec.to_builtins(rules))],
    ).fetchone()
    assert row is not None
    return int(row[0])


def agreed(
    conn: psycopg.Connection[Any], schema: str, source_id: int, rules: Rules, hash_key: str
) -> int | None:
    """The version in force, if it is of these rules."""
    row = conn.execute(
        sql.SQL(
            "select rules_id, digest from {} where source_id = %s order by rules_id desc limit 1"
        ).format(sql.Identifier(schema, "rules")),
        [source_id],
    ).fetchone()
    return int(row[0]) if row is not None and row[1] == _digest(rules, hash_key) else None


def read(conn: psycopg.Connection[Any], schema: str, source_id: int) -> dict[int | None, Rules]:
    """All versions by their numbers; changes from before there were rules have None."""
    rows = conn.execute(
        sql.SQL("select rules_id, rules from {} where source_id = %s").format(
            sql.Identifier(schema, "rules")
        ),
        [source_id],
    )
    return {None: NO_RULES} | {number: msgspec.convert(rules, Rules) for number, rules in rows}


def _digest(rules: Rules, hash_key: str) -> str:
    """Of the rules and the key, since another key makes other digests of the same values."""
    text = json.dumps(msgspec.to_builtins(rules), sort_keys=True)
    if rules.hash:
        text += hmac.digest(hash_key.encode(), b"bemi.rules", "sha256").hex()
    return hashlib.sha256(text.encode()).hexdigest()
