"""Orders of several customers, in one history: of customer 7 nothing is called foreign, and what
nobody is to be told is called hidden."""

import json
from typing import Any, Final

import psycopg

from bemi.config import Settings
from tests.support.attic import HOSTILE
from tests.support.embedding import ORIGIN
from tests.support.tracked import Tracked
from tests.support.tracking import track

BOUND: Final[dict[str, Any]] = {
    "name": "the shop's orders",
    "tables": [
        {
            "table": "public.orders",
            "columns": ["number", "status", "total", "note"],
            "tenant": "customer",
            "label": "number",
        },
        {"table": "ticket", "columns": ["state"], "tenant": "customer"},
        {"table": "public.offer", "columns": ["name"], "tenant": None, "label": "name"},
    ],
    "context": ["user_name", "user_id"],
    "origins": [ORIGIN],
}

_TABLES: Final = """
create table orders (id int primary key, customer text, number text, status text, total numeric,
    note jsonb, hidden_pin text);
create table ticket (id int primary key, customer int, state text, hidden_pin text);
create table offer (id int primary key, name text, hidden_cost int);
create table hidden (id int primary key, customer text, status text);
insert into ticket values (1, 7, 'old', 'hidden-1'), (2, 8, 'foreign-old', 'hidden-2'),
    (3, 8, 'foreign-old', 'hidden')
"""
_EMIT: Final = "select pg_logical_emit_message(true, '_bemi', %s)"
_ADA: Final = (
    '{"user_id": 1, "user_name": "Ada", "SQL": "hidden-sql", "who": "hidden-who", "shop": "7"}'
)
_EVE: Final = '{"user_id": 2, "user_name": "foreign-eve", "shop": "8"}'

_WORK: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    (
        _ADA,
        (
            """insert into orders values (1, '7', 'A-1', 'open', 12345678901234567890.10,
                '{"gift": true}', 'hidden-3')""",
            "insert into orders values (2, '8', 'foreign-1', 'foreign-open', 666, null, 'hidden')",
        ),
    ),
    (_ADA, ("update orders set status = 'paid' where id = 1",)),
    (_ADA, ("update orders set hidden_pin = 'hidden-4' where id = 1",)),
    # From one customer to another, and the other way round.
    (_EVE, ("update orders set customer = '7', number = 'A-2', status = 'sent' where id = 2",)),
    (
        _EVE,
        (
            """update orders set customer = '8', number = 'foreign-2', status = 'foreign-sent'
                where id = 1""",
        ),
    ),
    (
        "{}",
        (
            "insert into orders values (3, null, 'foreign-3', 'foreign-open', 1, null, 'hidden')",
            "insert into orders values (4, 'null', 'foreign-4', 'foreign', 1, null, 'hidden')",
            "insert into orders values (70, '70', 'foreign-5', 'foreign', 1, null, 'hidden')",
            "insert into orders values (8, '7.0', 'foreign-6', 'foreign', 1, null, 'hidden')",
        ),
    ),
    (_ADA, ("update orders set id = 20 where id = 2",)),
    (_ADA, ("update orders set id = 21, status = 'lost' where id = 20",)),
    # Not known from before: of whose customer it was then, nothing is.
    (_ADA, ("update ticket set state = 'new' where id = 1",)),
    (_EVE, ("update ticket set state = 'foreign-new' where id = 2",)),
    (_EVE, ("update ticket set customer = 7, state = 'taken' where id = 2",)),
    (_EVE, ("update ticket set customer = 7, state = 'came' where id = 3",)),
    (_ADA, ("insert into offer values (1, 'Tea', 999)", "insert into hidden values (1, '7', 'x')")),
    (_ADA, ("delete from orders where id = 21", "delete from ticket where id = 1")),
    ("{}", ("truncate orders", "insert into orders values (1, '9', 'x', 'y', 1, null, 'hidden')")),
)


def filled(source_url: str, destination_url: str) -> Settings:
    with psycopg.connect(source_url, autocommit=True) as conn:
        conn.execute(_TABLES.encode())
    names = ("orders", "ticket", "offer", "hidden")
    settings = track(
        source_url,
        destination_url,
        tables=[f"public.{name}" for name in names],
        full=["public.orders"],
        source="shop",
    )
    tracked = Tracked(settings)
    for context, statements in _WORK:
        with tracked.source.transaction():
            tracked.source.execute(_EMIT, [context])
            for statement in statements:
                tracked.source.execute(statement.encode())
    with tracked.source.transaction():
        tracked.source.execute(_EMIT, [json.dumps({"user_name": HOSTILE})])
        tracked.source.execute(
            "insert into orders values (100, 'mallory', %s, %s, 'NaN', %s, 'hidden')",
            [HOSTILE, f"{HOSTILE}{'x' * 2000}", f'{{"a": {"[" * 200}1{"]" * 200}}}'],
        )
    tracked.catch_up()
    tracked.close()
    return settings
