"""Pages of a state are the state, whatever keys have become of."""

from typing import Any

import psycopg
import pytest

from bemi.history import moments, paging, state
from bemi.history.change import Row
from bemi.history.moments import Moment
from tests.integration.conftest import Track

KEYS = ["", " ", "'", '"', "%s", "{}", "\\", "Z", "a", "ä", "z", "木", "\u202e", "10", "9"]


def paged(
    conn: psycopg.Connection[Any], place: Moment, table: str, limit: int
) -> tuple[list[Row], int]:
    """All rows of the pages, and how many pages there were."""
    found: list[Row] = []
    behind: str | None = None
    number = 0
    while True:
        page = paging.page(conn, "bemi", place, table, behind=behind, limit=limit)
        assert len(page.rows) <= limit
        assert page.uncertain is None
        found += page.rows
        number += 1
        if page.following is None:
            return found, number
        assert behind is None or page.following != behind
        behind = page.following


def test_pages_of_a_state_are_the_state(tracked: Track, monkeypatch: pytest.MonkeyPatch) -> None:
    at = tracked(
        "create table todo (id text primary key, task text)",
        "create table pair (a int, b int, primary key (a, b))",
        "create table part (id int primary key, n int) partition by range (id)",
        "create table part_1 partition of part for values from (0) to (5)",
        "create table part_2 partition of part for values from (5) to (100)",
        full=("public.*",),
    )
    for statement in (
        "insert into part select n, n from generate_series(0, 9) n",
        "update part set id = id + 20 where id in (1, 7)",
        "insert into pair select a, b from generate_series(9, 11) a, generate_series(1, 2) b",
        "delete from pair where a = 10",
    ):
        at.source.execute(statement.encode())
    for key in KEYS:
        at.source.execute("insert into todo values (%s, 'x')", [key])
    at.source.execute("update todo set id = id || '!' where id in ('a', '木', '')")
    at.source.execute("delete from todo where id in ('9', 'Z')")
    at.catch_up()
    # Of thirty keys there are none any more: most of what is searched is not there.
    at.source.execute("insert into todo select 'g' || n, 'x' from generate_series(1, 30) n")
    at.source.execute("update todo set task = 'y' where id = 'g2'")
    at.source.execute("delete from todo where id like 'g%'")
    at.source.execute("alter table todo rename to task")
    at.source.execute("insert into task values ('new', 'x')")
    at.catch_up()
    with psycopg.connect(at.settings.destination_url, autocommit=True) as conn:
        last = moments.newest(conn, "bemi", at.settings.source)
        for table, rows in (("task", 14), ("pair", 4), ("part", 10), ("part_2", 6)):
            name = f"public.{table}"
            whole = [
                Row.of(row)
                for row in state.state(
                    conn, "bemi", last.source, name, last.position, epoch=last.epoch
                )
            ]
            assert len(whole) == rows
            for limit in (1, 2, 50):
                found, pages = paged(conn, last, name, limit)
                assert len(found) == rows
                assert sorted(map(repr, found)) == sorted(map(repr, whole))
                assert pages >= rows / limit
        # A page of large values ends before it fills the memory.
        monkeypatch.setattr("bemi.history.paging._LARGEST", 1)
        found, pages = paged(conn, last, "public.part", 50)
        assert (len(found), pages) == (10, 10)
