"""The publication was dropped, and made again: changes between can't be read any more.

Until PostgreSQL 17 that ends the stream with an error, from 18 on the server skips them with a
warning. Either way the worker stops before anything behind them counts as captured.
"""

from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from bemi.capture.setup import init
from bemi.config import Settings
from tests.support.tracking import confirmed, track
from tests.support.workers import Worker, catch_up


@pytest.mark.timeout(180)
def test_changes_made_without_the_publication_are_never_skipped_silently(
    source_url: str, destination_url: str, tmp_path: Path
) -> None:
    with psycopg.connect(source_url, autocommit=True) as source:
        source.execute("create schema app; create table app.todo (id int primary key)")
        settings = track(source_url, destination_url)
        source.execute("insert into app.todo values (1)")
        catch_up(settings, tmp_path)
        source.execute("drop publication bemi")
        source.execute("insert into app.todo values (2)")
        lost_before = flushed(source)
        source.execute("create publication bemi for table app.todo")
        source.execute("insert into app.todo values (3)")

        worker = Worker(settings, tmp_path).start()
        assert worker.wait(60) == 1
        assert "publication was dropped" in worker.log
        assert "bemi recover --new-slot" in worker.log
        assert keys(settings) == ["1"]
        assert confirmed(settings) < lost_before

        # What it says to do.
        init(settings, new_slot=True, report=lambda _: None)
        source.execute("insert into app.todo values (4)")
        catch_up(settings, tmp_path, "--accept-gap")
    assert keys(settings) == ["1", "4"]
    with psycopg.connect(settings.destination_url) as history:
        gaps = history.execute(
            "select from_position <= %s and to_position >= %s, accepted_at is not null "
            "from bemi.gaps",
            [lost_before, lost_before],
        ).fetchall()
    assert gaps == [(True, True)]


def flushed(source: psycopg.Connection[tuple[object, ...]]) -> int:
    row = source.execute("select pg_current_wal_lsn() - '0/0'::pg_lsn").fetchone()
    assert row is not None
    return int(str(row[0]))


def keys(settings: Settings) -> list[str]:
    with psycopg.connect(settings.destination_url) as history:
        query = sql.SQL("select primary_key from {} order by commit_position, ordinal")
        rows = history.execute(query.format(sql.Identifier(settings.schema, "changes")))
        return [row[0] for row in rows]
