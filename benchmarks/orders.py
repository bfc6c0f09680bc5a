"""The rows that are measured: orders of ten columns under REPLICA IDENTITY FULL, with contexts.

Transactions are made by the server itself, so that a workload takes seconds to write.
"""

from dataclasses import dataclass
from typing import Any, Final, LiteralString

import psycopg
from psycopg import sql

TABLE: Final[LiteralString] = """
create table orders (
    id bigint primary key, customer_id int not null, status text not null,
    total numeric(10, 2) not null, currency text not null, address text not null,
    items int not null, note text, created_at timestamptz not null, updated_at timestamptz
);
alter table orders replica identity full;
"""

_CONTEXT: Final[LiteralString] = """
perform pg_logical_emit_message(true, '_bemi', json_build_object(
    'user_id', i, 'endpoint', '/orders/' || i, 'method', 'PUT', 'request_id', gen_random_uuid()
)::text);
"""
_INSERT: Final[LiteralString] = """
insert into orders
select g, g % 9973, 'new', g % 10000 + 0.5, 'EUR', 'Street ' || g % 997 || ', 10115 Berlin',
    g % 9, 'leave at the door ' || md5(g::text), now(), null
from generate_series({first}, {last}) g;
"""
_UPDATE: Final[LiteralString] = """
update orders set status = 'paid', items = items + 1, updated_at = clock_timestamp()
where id between {first} and {last};
"""
_DELETE: Final[LiteralString] = "delete from orders where id between {first} and {last};"


@dataclass(frozen=True, slots=True)
class Workload:
    """`rows` changes in transactions of `size`; each transaction does `steps` in turn."""

    name: str
    rows: int
    size: int
    steps: tuple[LiteralString, ...]
    prepare: bool = False
    """Whether the rows must be there before: inserted, and not measured."""

    def write(self, conn: psycopg.Connection[Any]) -> None:
        """Commit the workload's transactions."""
        each = [_numbered(step, "i", self.size) for step in self.steps]
        transactions = sql.SQL(" ").join(
            sql.SQL("{} {} commit;").format(sql.SQL(_CONTEXT), step) for step in each
        )
        conn.execute(
            sql.SQL("do $$ begin for i in 1..{} loop {} end loop; end $$").format(
                sql.Literal(self.rows // self.size // len(self.steps)), transactions
            )
        )

    def make_ready(self, conn: psycopg.Connection[Any]) -> None:
        """An emptied table, with the rows that the workload needs."""
        conn.execute("truncate orders")
        if self.prepare:
            conn.execute(_numbered(_INSERT, "1", self.rows))
        conn.execute("vacuum (analyze) orders")


def _whole(rows: int, group: int) -> int:
    return rows - rows % group


def _numbered(step: LiteralString, number: LiteralString, size: int) -> sql.Composed:
    """The step on the `number`th range of `size` keys."""
    return sql.SQL(step).format(
        first=sql.SQL("(" + number + " - 1) * {} + 1").format(sql.Literal(size)),
        last=sql.SQL(number + " * {}").format(sql.Literal(size)),
    )


def inserts(rows: int) -> Workload:
    return Workload("inserts, 100 a transaction", rows, 100, (_INSERT,))


def updates(rows: int) -> Workload:
    return Workload("updates, 100 a transaction", rows, 100, (_UPDATE,), prepare=True)


def one_transaction(rows: int) -> Workload:
    return Workload(f"one transaction of {rows:,} inserts", rows, rows, (_INSERT,))


def single_rows(rows: int) -> Workload:
    return Workload("1-row transactions, mixed", _whole(rows, 3), 1, (_INSERT, _UPDATE, _DELETE))


def mixed(rows: int) -> Workload:
    return Workload("mixed, 100 a transaction", _whole(rows, 300), 100, (_INSERT, _UPDATE, _DELETE))
