"""Servers that Bemi was never set up for: an application with an integration runs as ever."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

import bemi
from bemi.context import notice
from bemi.embedded import Server
from tests.conformance.clients.client import Client, Opens, OpensPlain, Session
from tests.integration.facts.servers import standby_of
from tests.support.plain_server import plain_servers
from tests.support.waiting import until
from tests.support.wal import TODO

INSERT = "insert into todo (task) values ({}) returning task"


@pytest.fixture(scope="module")
def primary(postgres_bin: Path | None) -> Iterator[Server]:
    """With `wal_level = replica`, which has no logical decoding."""
    with plain_servers(postgres_bin) as make:
        server = make()
        with psycopg.connect(server.url("postgres")) as conn:
            conn.execute(TODO)
        yield server


@pytest.fixture(scope="module")
def standby(primary: Server, postgres_bin: Path | None) -> Iterator[Server]:
    with standby_of(primary, postgres_bin) as server:
        with psycopg.connect(server.url("postgres"), autocommit=True) as conn:
            there = "select to_regclass('todo') is not null"
            until(lambda: (conn.execute(there).fetchone() or [False])[0], 20, "the table is there")
        yield server


def test_no_logical_decoding(
    client: Client, primary: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """without logical decoding it is said once, and writing is as ever"""
    monkeypatch.setattr(notice, "_told", set())
    with pytest.warns(RuntimeWarning, match="wal_level is not logical") as caught:
        _write_in_both_ways(client, primary.url("postgres"))
    assert len(caught) == 1


def _write_in_both_ways(client: Client, url: str) -> None:
    for autocommit in (True, False):
        with (
            client.open(url, autocommit=autocommit) as session,
            bemi.context(user_id="ann"),
        ):
            assert session.run(INSERT, ["a"]) == [("a",)]
            update = "update todo set n = 1 where task = {} returning n"
            assert session.run(update, ["a"]) == [(1,)]
            assert session.run("delete from todo returning n") == [(1,)]
            if not autocommit:
                session.commit()


def test_a_standby(client: Client, standby: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """on a standby it is said once, reading is as ever and writing fails as ever"""
    monkeypatch.setattr(notice, "_told", set())
    url = standby.url("postgres")

    def play(session: Session, autocommit: bool) -> Iterator[object]:
        yield session.run("select count(*) from todo")
        try:
            session.run(INSERT, ["a"])
        except Exception as error:  # noqa: BLE001 - what it is is what is compared
            yield type(error), str(error)
        if not autocommit:
            session.rollback()
        yield session.run("select 1")

    def played(opens: Opens | OpensPlain) -> list[list[object]]:
        found = []
        for autocommit in (True, False):
            with opens(url, autocommit=autocommit) as session:
                found.append([*play(session, autocommit)])
        return found

    expected = played(client.open_plain)
    assert [len(each) for each in expected] == [3, 3]
    with (
        bemi.context(user_id="ann"),
        pytest.warns(RuntimeWarning, match="the server is a standby") as caught,
    ):
        assert played(client.open) == expected
    assert len(caught) == 1
