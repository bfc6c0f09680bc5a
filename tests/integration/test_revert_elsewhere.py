"""Rows that are elsewhere by now, and databases that are not the one that is meant."""

from collections.abc import Iterator

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from bemi.errors import ConflictError, UsageError
from tests.conftest import MakeDatabase
from tests.integration.conftest import Track
from tests.support.shop import Shop


def test_a_row_that_went_with_its_partition_is_not_undone(tracked: Track) -> None:
    shop = Shop(
        tracked(
            "create table e (at int, id int, what text, primary key (at, id))"
            " partition by range (at)",
            "create table e_1 partition of e for values from (1) to (2)",
            "create table e_2 partition of e for values from (2) to (3)",
        )
    )
    shop.write("insert into e values (1, 1, 'a')")
    numbers = [
        shop.write("insert into e values (1, 2, 'c')"),
        shop.write("update e set what = 'b'"),
    ]
    shop.at.catch_up()
    shop.at.source.execute("alter table e detach partition e_1")
    before = shop.rows("e", "e_1")
    for number in numbers:
        told = r"it lay in public\.e_1, which was detached since"
        with pytest.raises(ConflictError, match=told):
            shop.plan(transaction=number).apply()
    assert shop.rows("e", "e_1") == before
    shop.at.source.execute("drop table e_1")
    inserted, updated = (shop.plan(transaction=number) for number in numbers)
    assert [row.done for row in inserted.rows] == [True]
    assert {conflict.kind for conflict in updated.conflicts} == {"gone"}
    shop.close()


@pytest.fixture
def narrow(tracked: Track) -> Iterator[tuple[Shop, str, int]]:
    """A shop, the URL of a role that may not ask which server it is on, and a transaction."""
    shop = Shop(tracked("create table t (id int primary key)"))
    number = shop.write("insert into t values (1)")
    shop.at.catch_up()
    role = "bemi_test_narrow"
    for statement in (
        f"drop role if exists {role}",
        f"create role {role} login password 'x'",
        f"grant select, update, insert, delete on t to {role}",
        "revoke execute on function pg_control_system() from public",
    ):
        shop.at.source.execute(statement.encode())
    yield shop, make_conninfo(shop.url, user=role, password="x"), number
    shop.at.source.execute(f"drop owned by {role}".encode())
    shop.at.source.execute(f"drop role {role}".encode())
    shop.close()


def test_who_may_not_ask_for_the_server_is_told_what_can_be(
    narrow: tuple[Shop, str, int], make_database: MakeDatabase
) -> None:
    shop, url, number = narrow
    plan = shop.history.plan_revert(url, transaction=number)
    assert [note for note in plan.notes if "pg_control_system()" in note]
    with pytest.raises(UsageError, match="may be the source itself"):
        shop.history.plan_replay(url, transaction=number)
    shop.at.source.close()
    copy = make_database(template=str(conninfo_to_dict(shop.url)["dbname"]))
    shop.at.source = psycopg.connect(shop.url, autocommit=True)
    other = make_conninfo(url, dbname=conninfo_to_dict(copy)["dbname"])
    with pytest.raises(UsageError, match="is not the database that"):
        shop.history.plan_revert(other, transaction=number)
    assert shop.history.plan_replay(other, transaction=number).rows
    with psycopg.connect(copy, autocommit=True) as conn:
        conn.execute("drop owned by bemi_test_narrow")
    assert plan.apply().rows == 1
