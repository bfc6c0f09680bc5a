"""What a revert can't see or can't tell apart is told, never written to."""

import dataclasses

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from bemi.errors import ConflictError
from bemi.rules import Rules
from tests.integration.conftest import Track
from tests.integration.test_recover import bemi, lose_slot
from tests.support.baselines import take
from tests.support.shop import Shop


@pytest.mark.parametrize(
    "rules",
    [Rules(mask=("public.pairs.b",)), Rules(exclude=("public.pairs.b",))],
    ids=["mask", "exclude"],
)
def test_a_row_without_a_key_is_not_taken_for_one_that_has_null(
    tracked: Track, rules: Rules
) -> None:
    shop = Shop(
        tracked("create table pairs (a int, b text)", "alter table pairs replica identity full")
    )
    shop.at.settings = dataclasses.replace(shop.at.settings, rules=rules)
    shop.write("insert into pairs values (1, null)")
    number = shop.write("insert into pairs values (1, 'secret')")
    before = shop.rows("pairs")
    plan = shop.plan(transaction=number)
    assert [conflict.kind for conflict in plan.conflicts] == ["lost"]
    with pytest.raises(ConflictError, match="b, by which it would be found, is not known"):
        plan.apply()
    assert shop.rows("pairs") == before
    shop.close()


def test_columns_that_are_not_compared_are_told(tracked: Track) -> None:
    shop = Shop(tracked("create table t (id int primary key, secret text)"))
    rules = Rules(exclude=("public.t.secret",))
    shop.at.settings = dataclasses.replace(shop.at.settings, rules=rules)
    number = shop.write("insert into t values (1, 's')")
    plan = shop.plan(transaction=number)
    assert any("secret of rows that are to be deleted is not compared" in n for n in plan.notes)
    shop.close()


@pytest.mark.parametrize("does", ["cascade", "set null"])
def test_rows_that_row_security_hides_do_not_go_along(tracked: Track, does: str) -> None:
    shop = Shop(
        tracked(
            "create table p (id int primary key)",
            f"create table c (id int primary key, p int references p on delete {does}, who text)",
            "alter table c enable row level security",
            "create policy c on c using (who = current_user)",
        )
    )
    number = shop.write("insert into p values (1)")
    shop.write("insert into c values (1, 1, 'other')")
    shop.at.catch_up()
    role = "bemi_test_hidden"
    shop.at.source.execute(f"drop role if exists {role}".encode())
    shop.at.source.execute(f"create role {role} login password 'x'".encode())
    shop.at.source.execute(f"grant select, update, insert, delete on p, c to {role}".encode())
    url = make_conninfo(shop.url, user=role, password="x")
    try:
        with pytest.raises(ConflictError, match="that row security hides from this role"):
            shop.history.plan_revert(url, transaction=number).apply()
        assert shop.rows("c")["c"] == ["(1,1,other)"]
    finally:
        shop.at.source.execute(f"drop owned by {role}".encode())
        shop.at.source.execute(f"drop role {role}".encode())
        shop.close()


def test_a_child_that_spells_its_parent_differently_is_one(tracked: Track) -> None:
    shop = Shop(
        tracked(
            "create table p (id numeric primary key)",
            "create table c (id int primary key, p numeric references p on delete set null,"
            " n text)",
        )
    )
    first = shop.write("insert into p values (1.0)")
    shop.write("insert into c values (1, 1, 'a')")
    second = shop.write("update c set n = 'b'")
    shop.at.catch_up()
    ids = [
        change.id
        for number in (first, second)
        for change in shop.history.changes(transaction=number)
    ]
    (conflict,) = shop.history.plan_revert(shop.url, id=ids).conflicts
    assert (conflict.table, conflict.kind) == ("public.p", "children")
    shop.close()


def test_a_detached_partition_gets_no_rows_of_others(tracked: Track) -> None:
    shop = Shop(
        tracked(
            "create table e (at int, id int, primary key (at, id)) partition by range (at)",
            "create table e_1 partition of e for values from (1) to (2)",
            "create table e_2 partition of e for values from (2) to (3)",
        )
    )
    shop.write("insert into e values (1, 1)")
    shop.write("insert into e values (2, 1)")
    number = shop.write("delete from e where at = 1")
    shop.at.catch_up()
    shop.at.source.execute("alter table e detach partition e_2")
    shop.plan(transaction=number).apply()
    assert shop.rows("e", "e_2") == {"e": ["(1,1)"], "e_2": ["(2,1)"]}
    shop.close()


def test_another_table_with_the_number_of_one_is_not_written_to(tracked: Track) -> None:
    """As a dump that is restored elsewhere: the numbers of tables are those of others by then."""
    at = tracked("create table users (id int primary key, name text)")
    shop = Shop(at)
    shop.write("insert into users values (1, 'ada')")
    number = shop.write("update users set name = 'new' where id = 1")
    at.catch_up()
    at.source.close()
    lose_slot(at.settings)
    name = conninfo_to_dict(shop.url)["dbname"]
    maintenance = make_conninfo(shop.url, dbname="postgres")
    with psycopg.connect(maintenance, autocommit=True) as admin:
        admin.execute(f'create database "{name}_b" template "{name}"'.encode())
        admin.execute(f'drop database "{name}" with (force)'.encode())
        admin.execute(f'alter database "{name}_b" rename to "{name}"'.encode())
    at.source = at.connect()
    at.source.execute("alter table users rename to pets")
    at.source.execute("create table users (id int primary key, name text)")
    at.source.execute("insert into users values (1, 'new')")
    assert bemi(at.settings, "recover")[0] == 0
    at.source.execute("insert into pets values (2, 'rex')")
    plan = shop.plan(transaction=number)
    assert [conflict.kind for conflict in plan.conflicts] == ["lost"]
    with pytest.raises(ConflictError, match="the source is another database since"):
        plan.apply()
    assert shop.rows("pets")["pets"] == ["(1,new)", "(2,rex)"]
    shop.close()


def test_a_column_that_was_added_behind_the_worker_is_seen(tracked: Track) -> None:
    shop = Shop(tracked("create table t (id int primary key, a text)"))
    number = shop.write("insert into t values (1, 'a'), (2, 'b'), (3, 'c')")
    shop.at.catch_up()
    shop.at.source.execute("alter table t add x text, add y int[] default '{1,2}'")
    shop.at.source.execute("update t set x = 'precious' where id = 1")
    shop.at.source.execute("update t set y = '{1}' where id = 2")
    plan = shop.history.plan_revert(shop.url, transaction=number)
    assert [(each.key, each.kind, each.message) for each in plan.conflicts] == [
        ("1", "changed", "x was added since, and holds what the history does not know"),
        ("2", "changed", "y was added since, and holds what the history does not know"),
    ]
    assert not [note for note in plan.notes if "not compared" in note]
    done = plan.apply(skip_conflicts=True)
    assert (done.rows, done.skipped) == (1, 2)
    assert shop.rows("t")["t"] == ['(1,a,precious,"{1,2}")', "(2,b,,{1})"]
    shop.close()


def test_a_column_that_was_added_with_a_default_is_compared_with_it(tracked: Track) -> None:
    """Which the history has of no row that was there before; nor has a baseline set it."""
    shop = Shop(tracked("create table t (id int primary key, a text)"))
    first = shop.write("insert into t values (1, 'a')")
    second = shop.write("insert into t values (2, 'a')")
    third = shop.write("insert into t values (3, 'a')")
    shop.at.catch_up()
    shop.at.source.execute("alter table t add x date default '2026-05-01'")
    last = shop.write("update t set x = '2026-05-02' where id = 2")
    assert not shop.plan(transaction=first).conflicts
    (conflict,) = shop.plan(transaction=second).conflicts
    (change,) = shop.history.changes(transaction=last)
    assert (conflict.kind, conflict.change) == ("changed", change.id)
    assert not shop.plan(transaction=third).conflicts
    take(shop.at.settings, chosen=lambda _: True)
    assert shop.plan(transaction=third).apply().rows == 1
    assert shop.rows("t")["t"] == ["(1,a,2026-05-01)", "(2,a,2026-05-02)"]
    shop.close()


def test_what_may_have_set_a_masked_value_since_is_a_conflict(tracked: Track) -> None:
    shop = Shop(tracked("create table t (id int primary key, a text, secret text)"))
    rules = Rules(mask=("public.t.secret",))
    shop.at.settings = dataclasses.replace(shop.at.settings, rules=rules)
    number = shop.write("insert into t values (1, 'a', 's'), (2, 'b', 's')")
    update = shop.write("update t set a = 'A' where id = 2")
    last = shop.write("update t set secret = 'other' where id = 1")
    conflicts = shop.plan(transaction=number).conflicts
    (change,) = shop.history.changes(transaction=last)
    assert [(each.kind, each.message, each.change) for each in conflicts if each.key == "1"] == [
        ("changed", "secret may have been set since, which can't be told", change.id)
    ]
    assert {each.key for each in conflicts} == {"1", "2"}
    # What was updated and is chosen too, is undone with it.
    ids = [
        each.id for each in shop.history.changes(transaction=number) if each.primary_key == "2"
    ] + [each.id for each in shop.history.changes(transaction=update)]
    assert shop.history.plan_revert(shop.url, id=ids).apply().rows == 1
    assert shop.rows("t")["t"] == ["(1,a,other)"]
    shop.close()


def test_a_row_that_was_replaced_does_not_keep_what_is_not_known(tracked: Track) -> None:
    """The one that is there has another secret than the one that would come back."""
    shop = Shop(
        tracked(
            "create table t (id int primary key, a text, secret text)",
            "create table s (id int primary key, a text, secret text)",
        )
    )
    rules = Rules(mask=("public.t.secret",), exclude=("public.s.secret",))
    shop.at.settings = dataclasses.replace(shop.at.settings, rules=rules)
    for table in ("t", "s"):
        shop.write(f"insert into {table} values (1, 'a', 'of the first')")
        number = shop.write(
            f"delete from {table}", f"insert into {table} values (1, 'b', 'of the second')"
        )
        plan = shop.plan(transaction=number)
        assert {conflict.kind for conflict in plan.conflicts} == {"lost"}
        with pytest.raises(ConflictError, match="secret can't be restored"):
            plan.apply()
    shop.close()
