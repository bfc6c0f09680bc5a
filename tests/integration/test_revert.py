"""A revert is a plan first; what it does is exactly what undoes the changes, or nothing."""

from collections.abc import Iterator

import pytest

from bemi.errors import BemiError, ConflictError, UsageError
from tests.integration.conftest import Track
from tests.support.shop import Shop

SHOP = (
    "create table users (id int primary key, email text unique, referrer int references users)",
    """create table orders (id int generated always as identity primary key,
        user_id int not null references users on delete cascade, status text, total numeric,
        doubled numeric generated always as (total * 2) stored, placed timestamptz, tags text[],
        data jsonb)""",
    """create table lines (order_id int references orders, n int, what text,
        primary key (order_id, n))""",
    "create table notes (at int, body text)",
    "alter table notes replica identity full",
)


TABLES = ("users", "orders", "lines", "notes")


@pytest.fixture
def shop(tracked: Track) -> Iterator[Shop]:
    made = Shop(tracked(*SHOP))
    made.write(
        "insert into users values (1, 'ada@x', null), (2, 'bob@x', 1)",
        "insert into orders (user_id, status, total, placed, tags, data) values "
        "(1, 'new', 1.50, '2026-05-03 10:00+02', '{a,\"b c\"}', '{\"a\": [1, null]}'),"
        " (2, 'new', 2, null, null, 'null')",
        "insert into lines values (1, 1, 'milk'), (1, 2, 'oats'), (2, 1, 'tea')",
        "insert into notes values (1, 'a'), (1, 'a'), (2, null)",
    )
    yield made
    made.close()


def test_an_update_is_undone(shop: Shop) -> None:
    before = shop.rows(*TABLES)
    number = shop.write("update orders set status = 'paid', total = 3 where id = 1")
    plan = shop.plan(transaction=number)
    (row,) = plan.rows
    assert (row.table, row.key, row.action, row.done) == ("public.orders", "1", "update", False)
    assert {f.column: (f.present, f.target, f.mark) for f in row.fields} == {
        "status": ("paid", "new", "set"),
        "total": ("3", "1.50", "set"),
    }
    assert not plan.conflicts
    applied = plan.apply(by="ada")
    assert (applied.rows, applied.changes, applied.altered) == (1, 1, ())
    assert shop.rows(*TABLES) == before
    shop.at.catch_up()
    (change,) = shop.history.changes(transaction=applied.transaction_id)
    assert change.context["user"] == "ada"
    assert change.context["revert"]["filters"] == {"transaction": number}


def test_a_transaction_over_all_tables_is_undone_and_done_again(shop: Shop) -> None:
    before = shop.rows(*TABLES)
    number = shop.write(
        "insert into users values (3, 'eve@x', 3)",
        "update users set email = 'bob@y' where id = 2",
        "insert into orders (user_id, status) values (3, 'new')",
        "insert into lines values (3, 1, 'soap')",
        "delete from lines where order_id = 1",
        "delete from orders where id = 1",
        "update lines set n = 7 where order_id = 2",
        "delete from notes where ctid = (select min(ctid) from notes where body = 'a')",
        "update notes set body = 'b' where at = 2",
        "insert into notes values (3, 'c')",
    )
    after = shop.rows(*TABLES)
    plan = shop.plan(transaction=number)
    assert plan.conflicts == ()
    applied = plan.apply()
    assert shop.rows(*TABLES) == before
    again = shop.plan(transaction=applied.transaction_id)
    again.apply()
    assert shop.rows(*TABLES) == after
    # Rows without a key may be there any number of times.
    done = shop.plan(transaction=applied.transaction_id, without=["notes"])
    assert all(row.done for row in done.rows)


def test_what_was_set_since_is_a_conflict(shop: Shop) -> None:
    number = shop.write("update orders set status = 'paid', total = 9 where id = 1")
    other = shop.write("update orders set status = 'sent' where id = 1")
    before = shop.rows(*TABLES)
    plan = shop.plan(transaction=number)
    (conflict,) = plan.conflicts
    (between,) = shop.history.changes(transaction=other)
    assert (conflict.kind, conflict.change) == ("changed", between.id)
    with pytest.raises(ConflictError):
        plan.apply()
    assert plan.apply(skip_conflicts=True).rows == 0
    assert shop.rows(*TABLES) == before
    # Both together are in nobody's way.
    both = shop.history.plan_revert(shop.url, table="orders", key=1, operation="update")
    assert not both.conflicts
    both.apply()
    assert shop.rows("orders")["orders"][0].startswith("(1,1,new,1.50")


def test_without_a_filter_nothing_is_planned(shop: Shop) -> None:
    with pytest.raises(UsageError, match="which changes"):
        shop.plan()
    with pytest.raises(BemiError, match="no changes match"):
        shop.plan(transaction=1)


def test_new_children_block_a_delete(shop: Shop) -> None:
    number = shop.write("insert into users values (3, 'eve@x')")
    shop.write("insert into orders (user_id) values (3)")
    before = shop.rows(*TABLES)
    plan = shop.plan(transaction=number)
    (conflict,) = plan.conflicts
    assert conflict.kind == "children"
    assert "would go with it: public.orders 3" in conflict.message
    with pytest.raises(ConflictError):
        plan.apply()
    assert shop.rows(*TABLES) == before


def test_a_truncate_is_undone(shop: Shop) -> None:
    before = shop.rows(*TABLES)
    number = shop.write("delete from lines where n = 2", "truncate lines, orders")
    plan = shop.plan(transaction=number)
    plan.apply()
    assert shop.rows(*TABLES) == before


def test_a_script_does_the_same(shop: Shop) -> None:
    before = shop.rows(*TABLES)
    number = shop.write(
        "update orders set status = 'it''s \\ %', data = '{\"$bemi$\": 1}' where id = 1",
        "delete from lines where n = 1",
        "update notes set body = 'b' where at = 2",
        "delete from notes where ctid = (select min(ctid) from notes where body = 'a')",
        "insert into notes values (3, 'c')",
    )
    script = shop.plan(transaction=number).sql()
    shop.at.source.execute(script.encode())
    assert shop.rows(*TABLES) == before


def test_keys_that_a_foreign_key_carries_along(tracked: Track) -> None:
    made = Shop(
        tracked(
            "create table invoices (id int primary key, note text)",
            """create table items (invoice int not null references invoices on update cascade,
                n int, what text, primary key (invoice, n))""",
            """create table marks (id int primary key, invoice int not null, n int not null,
                foreign key (invoice, n) references items on update cascade)""",
        )
    )
    tables = ("invoices", "items", "marks")
    try:
        made.write(
            "insert into invoices values (1, 'a'), (2, 'b')",
            "insert into items values (1, 1, 'milk'), (1, 2, 'oats'), (2, 1, 'tea')",
            "insert into marks values (1, 1, 1), (2, 1, 2)",
        )
        before = made.rows(*tables)
        number = made.write(
            "update invoices set id = 9, note = 'c' where id = 1",
            "update items set what = 'soap', n = 7 where invoice = 9 and n = 1",
        )
        after = made.rows(*tables)
        assert after["marks"] == ["(1,9,7)", "(2,9,2)"]
        plan = made.plan(transaction=number)
        assert plan.conflicts == ()
        applied = plan.apply()
        assert made.rows(*tables) == before
        made.at.source.execute(made.plan(transaction=applied.transaction_id).sql().encode())
        assert made.rows(*tables) == after
    finally:
        made.close()
