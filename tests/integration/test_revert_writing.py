"""What is written is what the plan says, whatever triggers make of it and settings there are."""

import pytest
from psycopg.conninfo import make_conninfo

from bemi.errors import BemiError
from tests.integration.conftest import Track
from tests.support.shop import Shop

NOTED = """
create function note() returns trigger language plpgsql as $$
begin
    insert into noted values (current_setting('TimeZone'), old.at::text);
    return null;
end $$
"""


def test_a_script_leaves_triggers_their_settings_and_names_types_in_full(tracked: Track) -> None:
    shop = Shop(
        tracked(
            "create schema kinds",
            "create type kinds.mood as enum ('calm', 'busy')",
            "create type public.mood as enum ('other')",
            "create table t (id int primary key, at timestamptz, moods kinds.mood[])",
            "create table noted (zone text, at text)",
            NOTED,
            "create trigger note after update on t for each row execute function note()",
        )
    )
    shop.write("insert into t values (1, '2026-05-01 12:00+00', '{calm}')")
    number = shop.write("update t set at = '2026-05-01 12:30+00', moods = '{busy,calm}'")
    shop.at.catch_up()
    url = make_conninfo(shop.url, options="-c search_path=kinds,public")
    script = shop.history.plan_revert(url, transaction=number).sql()
    settings = "set timezone = 'Asia/Tokyo'; set datestyle = 'German'; delete from noted"
    shop.at.source.execute(settings.encode())
    shop.at.source.execute(script.encode())
    assert shop.rows("noted")["noted"] == ['(Asia/Tokyo,"01.05.2026 21:30:00 JST")']
    assert shop.rows("t")["t"] == ['(1,"01.05.2026 21:00:00 JST",{calm})']
    shop.close()


BACK = """
create function back() returns trigger language plpgsql as $$
begin
    execute format('insert into %I select ($1).*', tg_table_name) using old;
    return null;
end $$;
create trigger back after delete on t for each row execute function back();
create trigger back after delete on k for each row execute function back();
"""


def test_rows_that_come_back_while_they_are_deleted_undo_all(tracked: Track) -> None:
    shop = Shop(
        tracked(
            "create table t (a text)",
            "create table k (id int primary key, a text)",
            "alter table t replica identity full",
        )
    )
    numbers = {
        "t": shop.write("insert into t values ('a')"),
        "k": shop.write("insert into k values (1, 'a')"),
    }
    before = shop.rows("t", "k")
    shop.at.source.execute(BACK.encode())
    for table, number in numbers.items():
        told = rf"of the rows of public\.{table} that were deleted, 1 is there again"
        with pytest.raises(BemiError, match=told):
            shop.plan(transaction=number).apply()
    assert shop.rows("t", "k") == before
    shop.close()


ALTER = """
create function alter_t() returns trigger language plpgsql as $$
begin new.n := new.n + 100; return new; end $$;
create trigger alter_it before insert or update on t for each row execute function alter_t();
create function alter_s() returns trigger language plpgsql as $$
begin update s set n = n + 100 where a = new.a and n < 100; return null; end $$;
create trigger alter_it after insert or update on s for each row execute function alter_s();
"""


def test_what_triggers_make_of_rows_without_a_key_is_told(tracked: Track) -> None:
    shop = Shop(
        tracked(
            "create table t (a text, n int)",
            "create table s (a text, n int)",
            "alter table t replica identity full",
            "alter table s replica identity full",
        )
    )
    numbers = {}
    for table in ("t", "s"):
        shop.write(f"insert into {table} values ('x', 1), ('y', 2), ('y', 2)")
        numbers[table] = shop.write(
            f"update {table} set a = 'z' where n = 1", f"delete from {table} where a = 'y'"
        )
    shop.at.source.execute(ALTER.encode())
    altered = {}
    for table, number in numbers.items():
        done = shop.plan(transaction=number).apply()
        assert done.rows == 3
        altered[table] = [each.split(" ")[-1] for each in done.altered]
    # A row that was written once more is another one, as far as anybody can tell.
    assert altered == {"t": ["n", "n"], "s": ["*", "*", "*"]}
    shop.close()


def test_rows_without_a_key_change_places(tracked: Track) -> None:
    """Each is written several times, and lies elsewhere each time."""
    shop = Shop(
        tracked(
            "create table t (u int unique, up int references t (u), a text)",
            "create table s (u int unique, a text)",
            "alter table t replica identity full",
            "alter table s replica identity full",
        )
    )
    shop.write(
        "insert into t values (1, null, 'a'), (2, 1, 'b')", "update t set up = 2 where u = 1"
    )
    shop.write("insert into s values (1, 'a'), (2, 'b')")
    before = shop.rows("s", "t")
    numbers = [
        shop.write("update t set up = null", "delete from t"),
        shop.write(
            "update s set u = null where u = 1",
            "update s set u = 1 where a = 'b'",
            "update s set u = 2 where a = 'a'",
        ),
    ]
    after = shop.rows("s", "t")
    done = [shop.plan(transaction=number).apply() for number in numbers]
    assert shop.rows("s", "t") == before
    assert [each.altered for each in done] == [(), ()]
    for each in done:
        script = shop.plan(transaction=each.transaction_id).sql()
        shop.at.source.execute(script.encode())
    assert shop.rows("s", "t") == after
    shop.close()


def test_rows_without_a_key_move_between_partitions(tracked: Track) -> None:
    shop = Shop(
        tracked(
            "create table e (at int, what text) partition by range (at)",
            "create table e_1 partition of e for values from (1) to (2)",
            "create table e_2 partition of e for values from (2) to (3)",
            "alter table e_1 replica identity full",
            "alter table e_2 replica identity full",
        )
    )
    shop.write("insert into e values (1, 'a'), (1, 'a'), (2, 'b')")
    before = shop.rows("e_1", "e_2")
    number = shop.write("update e set at = 2 where at = 1", "delete from e where what = 'b'")
    done = shop.plan(transaction=number).apply()
    assert (done.rows, done.altered) == (3, ())
    assert shop.rows("e_1", "e_2") == before
    shop.close()
