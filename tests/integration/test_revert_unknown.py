"""What the history does not know is said, and never made up; what it can tell, it is asked for."""

import dataclasses
from collections.abc import Iterator

import pytest

from bemi.rules import Rules
from tests.integration.conftest import Track
from tests.support.shop import Shop


@pytest.fixture
def shop(tracked: Track) -> Iterator[Shop]:
    made = Shop(
        tracked(
            "create table users (id int primary key, name text, secret text)",
            "insert into users values (1, 'ada', 's1'), (2, 'bob', 's2')",
            "create table pairs (a int, b text)",
            "insert into pairs values (1, 'x'), (1, 'x'), (2, null)",
            "alter table pairs replica identity full",
        )
    )
    yield made
    made.close()


def test_an_old_row_that_is_not_known_is_a_conflict(shop: Shop) -> None:
    number = shop.write(
        "update users set name = 'eve' where id = 1", "delete from users where id = 2"
    )
    plan = shop.plan(transaction=number)
    assert {conflict.kind for conflict in plan.conflicts} == {"lost"}
    assert {row.key for row in plan.rows if row.conflicts} == {"1", "2"}
    assert "the history does not know the value before" in plan.conflicts[0].message
    # What has happened since is known.
    later = shop.write("update users set name = 'kim' where id = 1")
    plan = shop.plan(transaction=later)
    assert not plan.conflicts
    plan.apply()
    assert shop.rows("users") == {"users": ["(1,eve,s1)"]}


def test_what_rules_keep_out_is_told(shop: Shop) -> None:
    rules = Rules(mask=("public.users.secret",), exclude=("public.pairs.b",))
    shop.at.settings = dataclasses.replace(shop.at.settings, rules=rules)
    shop.at.catch_up()
    number = shop.write("insert into users values (3, 'eve', 's3')")
    changed = shop.write("update users set name = 'kim', secret = 's4' where id = 3")
    plan = shop.plan(transaction=changed)
    assert not plan.conflicts
    assert any("masked" in note for note in plan.notes)
    plan.apply()
    assert shop.rows("users")["users"][-1] == "(3,eve,s4)"
    plan = shop.plan(transaction=number)
    assert any("secret of rows that are to be deleted is not compared" in n for n in plan.notes)
    deleted = shop.write("delete from users where id = 3", "insert into users values (4, 'ann')")
    plan = shop.plan(transaction=deleted)
    (conflict,) = plan.conflicts
    assert (conflict.key, conflict.kind) == ("3", "lost")
    assert "secret can't be restored: it is masked in the history" in conflict.message
    assert shop.plan(transaction=deleted).apply(skip_conflicts=True).rows == 1


def test_equal_rows_without_a_key_are_counted(shop: Shop) -> None:
    before = shop.rows("pairs")
    number = shop.write(
        "delete from pairs where ctid = '(0,1)'",
        "update pairs set b = 'y' where a = 1",
        "insert into pairs values (2, null), (2, null)",
    )
    after = shop.rows("pairs")
    plan = shop.plan(transaction=number)
    assert sorted(row.action for row in plan.rows) == ["delete", "delete", "insert", "update"]
    done = plan.apply()
    assert shop.rows("pairs") == before
    shop.plan(transaction=done.transaction_id).apply()
    assert shop.rows("pairs") == after


def test_which_of_two_equal_rows_was_reverted_is_known(tracked: Track) -> None:
    shop = Shop(
        tracked("create table pairs (a int, b int)", "alter table pairs replica identity full")
    )
    shop.write("insert into pairs values (1, 0), (2, 0)")
    first = shop.write("insert into pairs values (3, 0)", "update pairs set a = 3 where a = 1")
    second = shop.write("insert into pairs values (3, 0)", "update pairs set a = 3 where a = 2")
    done = shop.plan(transaction=second).apply()
    assert shop.rows("pairs")["pairs"] == ["(2,0)", "(3,0)", "(3,0)"]
    assert shop.plan(transaction=second).apply().rows == 0
    assert shop.plan(transaction=first).apply().rows == 2
    assert shop.rows("pairs")["pairs"] == ["(1,0)", "(2,0)"]
    shop.plan(transaction=done.transaction_id).apply()
    assert shop.rows("pairs")["pairs"] == ["(1,0)", "(3,0)", "(3,0)"]
    assert shop.plan(transaction=second).apply().rows == 2
    assert shop.rows("pairs")["pairs"] == ["(1,0)", "(2,0)"]
    shop.close()


def test_rows_without_a_key_go_and_come_as_often_as_they_are_told_to(tracked: Track) -> None:
    shop = Shop(
        tracked("create table pairs (a int, b int)", "alter table pairs replica identity full")
    )
    shop.write("insert into pairs values (1, 0), (1, 0), (2, 0)")
    number = shop.write("update pairs set b = 1", "delete from pairs where a = 1")
    before, after = ["(1,0)", "(1,0)", "(2,0)"], ["(2,1)"]
    plan = shop.plan(transaction=number)
    # What the worker has not read yet can't be told from what was there.
    told = "rows without a key come back whether they are back already or not"
    assert [note for note in plan.notes if told in note]
    done = plan.apply()
    assert shop.rows("pairs")["pairs"] == before
    assert shop.plan(transaction=number).apply().rows == 0
    shop.plan(transaction=done.transaction_id).apply()
    assert shop.rows("pairs")["pairs"] == after
    assert shop.plan(transaction=done.transaction_id).apply().rows == 0
    shop.plan(transaction=number).apply()
    assert shop.rows("pairs")["pairs"] == before
    shop.close()


def test_a_truncate_of_rows_that_are_not_known_is_a_conflict(shop: Shop) -> None:
    number = shop.write("truncate users", "insert into users values (5, 'new')")
    plan = shop.plan(transaction=number)
    (conflict,) = plan.conflicts
    assert (conflict.kind, conflict.key) == ("lost", None)
    assert "the rows that TRUNCATE took are not known" in conflict.message
