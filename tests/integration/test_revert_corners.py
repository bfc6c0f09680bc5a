"""Reverts where rows, constraints, columns or triggers make it hard."""

from collections.abc import Iterator

import pytest

from bemi.errors import BemiError, ConflictError
from tests.integration.conftest import Track
from tests.support.shop import Shop

SCHEMA = (
    # A circle that can be opened, and one that waits for the end.
    "create table teams (id int primary key, lead int, name text unique)",
    "create table people (id int primary key, team int references teams)",
    "alter table teams add foreign key (lead) references people",
    "create table left_side (id int primary key, other int not null)",
    """create table right_side (id int primary key,
        other int not null references left_side deferrable)""",
    "alter table left_side add foreign key (other) references right_side deferrable",
    "create table tree (id int primary key, parent int not null references tree)",
    # Partitions, between which rows move.
    """create table events (at date, id int, what text, primary key (at, id))
        partition by range (at)""",
    "create table events_1 partition of events for values from ('2026-01-01') to ('2026-02-01')",
    "create table events_2 partition of events for values from ('2026-02-01') to ('2026-03-01')",
    "create table counters (id int primary key, n int, touched timestamptz)",
    "create table items (id int primary key, counter int references counters)",
    """create function touch() returns trigger language plpgsql as $$
        begin new.touched := clock_timestamp(); return new; end $$""",
    "create trigger touch before update on counters for each row execute function touch()",
    """create function count_items() returns trigger language plpgsql as $$ begin
        update counters set n = n + case tg_op when 'INSERT' then 1 else -1 end
        where id = coalesce(new.counter, old.counter); return null; end $$""",
    """create trigger count_items after insert or delete on items
        for each row execute function count_items()""",
    "create table wide (id int primary key, a text, b text, big text, c numeric(6,1))",
    "alter table wide alter big set storage external",
)
TABLES = (
    "teams", "people", "left_side", "right_side", "tree", "events", "counters", "items", "wide",
)  # fmt: skip


@pytest.fixture
def shop(tracked: Track) -> Iterator[Shop]:
    made = Shop(tracked(*SCHEMA))
    made.write(
        "insert into teams values (1, null, 'a'), (2, null, 'b')",
        "insert into people values (1, 1), (2, 2)",
        "update teams set lead = id",
        "set constraints all deferred",
        "insert into left_side values (1, 1)",
        "insert into right_side values (1, 1)",
        "insert into tree values (1, 1), (2, 1), (3, 2)",
        "insert into events values ('2026-01-05', 1, 'x'), ('2026-02-05', 2, 'y')",
        "insert into counters values (1, 0, null)",
        "insert into items values (1, 1), (2, 1)",
        f"insert into wide values (1, 'a', 'b', '{'x' * 5000}', 1.5)",
    )
    yield made
    made.close()


def test_circles_are_opened(shop: Shop) -> None:
    before = shop.rows(*TABLES)
    number = shop.write(
        "set constraints all deferred",
        "update teams set lead = null",
        "delete from people",
        "delete from teams",
        "delete from left_side",
        "delete from right_side",
        "delete from tree",
    )
    after = shop.rows(*TABLES)
    plan = shop.plan(transaction=number)
    assert plan.conflicts == ()
    done = plan.apply()
    assert shop.rows(*TABLES) == before
    back = shop.plan(transaction=done.transaction_id)
    script = back.sql()
    back.apply()
    assert shop.rows(*TABLES) == after
    # What it undid is there no more: the script stops at the first row.
    with pytest.raises(Exception, match="is not as the plan found it"):
        shop.at.source.execute(script.encode())


def test_values_change_places(shop: Shop) -> None:
    before = shop.rows(*TABLES)
    number = shop.write(
        "update teams set name = null where id = 1",
        "update teams set name = 'a' where id = 2",
        "update teams set name = 'b' where id = 1",
    )
    shop.plan(transaction=number).apply()
    assert shop.rows(*TABLES) == before
    number = shop.write(
        "delete from events where id = 2",
        "update events set id = 2, at = '2026-02-05' where id = 1",
        "insert into events values ('2026-01-05', 1, 'z')",
    )
    shop.plan(transaction=number).apply()
    assert shop.rows(*TABLES) == before


def test_rows_are_followed_through_keys_and_partitions(shop: Shop) -> None:
    before = shop.rows(*TABLES)
    number = shop.write("update events set what = 'changed' where id = 1")
    move = shop.write("update events set at = '2026-02-07', id = 7 where id = 1")
    plan = shop.plan(transaction=number)
    (row,) = plan.rows
    assert (row.action, row.key, plan.conflicts) == ("update", '["2026-02-07","7"]', ())
    plan.apply()
    assert shop.rows("events")["events"] == ["(2026-02-05,2,y)", "(2026-02-07,7,x)"]
    shop.plan(transaction=move).apply()
    assert shop.rows(*TABLES) == before


def test_triggers_count_for_themselves(shop: Shop) -> None:
    """What a trigger did is in the plan too, and holds, though it fires again."""
    before = shop.rows("counters", "items")
    number = shop.write("delete from items where id = 1", "insert into items values (3, 1)")
    plan = shop.plan(transaction=number)
    assert any("count_items" in note for note in plan.notes)
    applied = plan.apply()
    assert shop.rows("items")["items"] == before["items"]
    assert shop.rows("counters")["counters"][0].startswith("(1,2,")
    # A row's own trigger has the last word, which is told.
    assert applied.altered == ("public.counters 1 touched",)


def test_what_reverts_did_and_undid_is_in_nobodys_way(shop: Shop) -> None:
    before = shop.rows("wide", "items")
    number = shop.write("update wide set a = 'new', b = 'new'", "insert into items values (9)")
    after = shop.rows("wide", "items")
    done = shop.plan(transaction=number).apply()
    assert all(row.done for row in shop.plan(transaction=number).rows)
    again = shop.plan(transaction=done.transaction_id).apply()
    assert shop.rows("wide", "items") == after
    # So the first is there once more, and can be undone once more; or the last one.
    gone = shop.write("delete from wide", "delete from items where id = 9")
    shop.plan(transaction=gone).apply()
    plan = shop.plan(transaction=number)
    assert not plan.conflicts
    assert not any(row.done for row in plan.rows)
    assert not shop.history.plan_revert(shop.url, transaction=again.transaction_id).conflicts
    plan.apply()
    assert shop.rows("wide", "items") == before


def test_columns_are_found_whatever_they_are_called(shop: Shop) -> None:
    shop.at.source.execute("alter table wide rename a to alpha")
    shop.at.source.execute("alter table wide rename to wider")
    shop.at.source.execute("alter table wider drop b")
    shop.at.source.execute("alter table wider alter c type numeric(8,3)")
    shop.at.source.execute("alter table wider add d int default 7")
    shop.write("update wider set alpha = 'newer', c = 3.5, d = 8, big = 'z'")
    before = shop.rows("wider")
    number = shop.write("delete from wider")
    shop.at.catch_up()
    shop.at.source.execute("alter table wider rename alpha to a")
    plan = shop.plan(transaction=number)
    assert {f.column: f.target for f in plan.rows[0].fields} == {
        "id": "1", "a": "newer", "big": "z", "c": "3.500", "d": "8",
    }  # fmt: skip
    plan.apply()
    assert shop.rows("wider") == before


def test_a_column_that_was_dropped_since_is_left_out(shop: Shop) -> None:
    number = shop.write("update wide set a = 'new', b = 'new', c = 2.5")
    shop.at.catch_up()
    shop.at.source.execute("alter table wide rename a to alpha")
    shop.at.source.execute("alter table wide rename to wider")
    shop.at.source.execute("alter table wider drop b")
    shop.at.source.execute("alter table wider alter c type numeric(8,3)")
    plan = shop.plan(transaction=number)
    assert {field.column: (field.target, field.mark) for field in plan.rows[0].fields} == {
        "alpha": ("a", "set"), "c": ("1.5", "set"),
    }  # fmt: skip
    assert any("no column b" in note for note in plan.notes)
    plan.apply()
    assert shop.rows("wider")["wider"][0].startswith("(1,a,xxx")


def test_a_large_value_that_was_not_sent_is_known(shop: Shop) -> None:
    before = shop.rows("wide")
    number = shop.write("update wide set a = 'x'", "update wide set id = 2", "delete from wide")
    shop.plan(transaction=number).apply()
    assert shop.rows("wide") == before


def test_what_stands_in_the_way_is_told(shop: Shop) -> None:
    before = shop.write("delete from items", "delete from counters", "delete from tree")
    shop.write("insert into counters values (1, 5, null)", "insert into teams values (4, 1, 'q')")
    number = shop.write("update teams set name = 'c' where id = 2", "insert into teams values (3)")
    shop.write("update teams set name = 'b' where id = 1", "insert into people values (9, 3)")
    plan = shop.plan(transaction=before)
    assert {(c.table, c.key, c.kind) for c in plan.conflicts} == {("public.counters", "1", "taken")}
    plan = shop.plan(transaction=number)
    assert {(c.key, c.kind) for c in plan.conflicts} == {("2", "unique"), ("3", "children")}
    with pytest.raises(ConflictError):
        plan.apply()
    parents = shop.write("delete from people where id = 9")
    shop.write("delete from teams where id = 3")
    (conflict,) = shop.plan(transaction=parents).conflicts
    assert conflict.kind == "parent"


def test_what_a_trigger_keeps_from_being_written_undoes_all(shop: Shop) -> None:
    number = shop.write("delete from items where id = 1", "update wide set a = 'x'")
    before = shop.rows("items", "wide")
    shop.at.source.execute(
        "create function never() returns trigger language plpgsql as $$begin return null; end$$"
    )
    shop.at.source.execute(
        "create trigger never before insert on items for each row execute function never()"
    )
    with pytest.raises(BemiError, match="0 took the insert"):
        shop.plan(transaction=number).apply()
    assert shop.rows("items", "wide") == before
