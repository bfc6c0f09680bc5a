"""What the chain check found, kept as gaps until an operator accepts them."""

from collections.abc import Sequence
from typing import Any, Final

import psycopg
from psycopg import sql

from bemi.lsn import Lsn
from bemi.store.links import Finding

CAUSE: Final = "chain"


def place_of(finding: Finding) -> tuple[int, int | None, int, int]:
    """What makes two findings one gap: epoch, table, and between which positions."""
    return (finding.epoch, finding.relation, finding.from_position, finding.to_position)


def record(
    conn: psycopg.Connection[Any], schema: str, source_id: int, findings: Sequence[Finding]
) -> None:
    """Keep findings as gaps, each place once, however often it is found."""
    places: dict[tuple[int, int | None, int, int], list[Finding]] = {}
    for each in findings:
        if each.problem == "beyond":
            continue  # nothing is missing there
        places.setdefault(place_of(each), []).append(each)
    with conn.transaction(), conn.cursor() as cursor:
        cursor.executemany(
            sql.SQL(
                "insert into {} (source_id, epoch, relation, from_position, to_position, cause, "
                "detail) values (%s, %s, %s, %s, %s, %s, %s) on conflict do nothing"
            ).format(sql.Identifier(schema, "gaps")),
            [
                (source_id, epoch, relation, start, until, CAUSE, _detail(found))
                for (epoch, relation, start, until), found in places.items()
            ],
        )


def accepted(
    conn: psycopg.Connection[Any], schema: str, source_id: int
) -> set[tuple[int, int | None, int, int]]:
    """The places of findings that an operator has accepted."""
    return {
        (epoch, relation, start, until)
        for epoch, relation, start, until in conn.execute(
            sql.SQL(
                "select epoch, relation::bigint, from_position, to_position from {} "
                "where source_id = %s and cause = %s and accepted_at is not null"
            ).format(sql.Identifier(schema, "gaps")),
            [source_id, CAUSE],
        )
    }


def accept(conn: psycopg.Connection[Any], schema: str, source_id: int) -> int:
    """Mark all recorded findings of a source as accepted; how many were not."""
    return conn.execute(
        sql.SQL(
            "update {} set accepted_at = now() where source_id = %s and cause = %s "
            "and accepted_at is null"
        ).format(sql.Identifier(schema, "gaps")),
        [source_id, CAUSE],
    ).rowcount


def say(finding: Finding) -> str:
    """What a finding means, in words."""
    columns = f" ({', '.join(finding.columns)})" if finding.columns else ""
    return {
        "differs": "a row was changed from other values than the change before left" + columns,
        "living": "a row was created that was there",
        "dead": "a row was changed that was gone",
        "never": "a row was changed that never was",
        "hole": "a transaction has not all of its changes",
        "beyond": "changes lie behind the checkpoint, up to " + str(Lsn(finding.to_position)),
    }[finding.problem]


def _detail(findings: Sequence[Finding]) -> str:
    return "; ".join(sorted({say(each) for each in findings}))[:2000]
