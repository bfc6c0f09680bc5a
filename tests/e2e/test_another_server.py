"""The settings point at another server than the one whose history this is."""

import dataclasses
from pathlib import Path

import psycopg
import pytest

from bemi.embedded import Server
from tests.conftest import SETTINGS
from tests.support.tracking import track
from tests.support.waiting import until
from tests.support.workers import Worker, catch_up


@pytest.mark.timeout(180)
def test_catching_up_with_another_server_is_not_done_by_what_an_older_one_left(
    postgres_bin: Path | None, source_url: str, destination_url: str, tmp_path: Path
) -> None:
    with psycopg.connect(source_url, autocommit=True) as source:
        source.execute("create schema app; create table app.todo (id int primary key)")
        settings = track(source_url, destination_url)
        source.execute("insert into app.todo values (1)")
    catch_up(settings, tmp_path)
    with Server(settings=SETTINGS, bin=postgres_bin) as other:
        url = other.create_database("shop")
        with psycopg.connect(url, autocommit=True) as source:
            source.execute("create schema app; create table app.todo (id int primary key)")
            source.execute("create publication bemi for table app.todo")
            source.execute(
                "select pg_create_logical_replication_slot(%s, 'pgoutput')", [settings.slot]
            )
            source.execute("insert into app.todo values (1)")
        moved = dataclasses.replace(settings, source_url=url)
        worker = Worker(moved, tmp_path, "--until-caught-up").start()
        assert worker.wait(60) == 1
        assert "another server" in worker.log


@pytest.mark.timeout(180)
def test_a_gap_is_accepted_once(source_url: str, destination_url: str, tmp_path: Path) -> None:
    """`--accept-gap` is the operator's answer to the gap that is there, not to later ones."""
    with psycopg.connect(source_url, autocommit=True) as source:
        source.execute("create schema app; create table app.todo (id int primary key)")
        settings = track(source_url, destination_url)
        source.execute("insert into app.todo values (1)")
        lose(source, settings.slot)
        with Worker(settings, tmp_path, "--accept-gap").start().ready() as worker:
            source.execute("insert into app.todo values (2)")
            with psycopg.connect(settings.destination_url, autocommit=True) as history:
                # As if the history had been restored from a backup behind the worker's back.
                until(
                    lambda: history.execute("select 1 from bemi.changes").fetchone(),
                    30,
                    "captured",
                )
                history.execute("update bemi.checkpoints set position = position - 1000000")
            source.execute("insert into app.todo values (3)")
            assert worker.wait(60) == 1
            assert "bemi run --accept-gap" in worker.log


def lose(source: psycopg.Connection[tuple[object, ...]], slot: str) -> None:
    """Move the slot on, past changes that nobody captured."""
    source.execute("select pg_replication_slot_advance(%s, pg_current_wal_lsn())", [slot])
