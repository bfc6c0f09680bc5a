"""Databases whose settings suit short requests, not a connection that lasts for days."""

from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from tests.support.tracking import track
from tests.support.waiting import until
from tests.support.workers import Worker

SETTINGS = {
    "statement_timeout": "500ms",
    "lock_timeout": "500ms",
    "idle_session_timeout": "500ms",
    "idle_in_transaction_session_timeout": "500ms",
    "default_transaction_isolation": "serializable",
    "client_min_messages": "error",
    "datestyle": "SQL, DMY",
    "bytea_output": "escape",
    "intervalstyle": "iso_8601",
    "timezone": "Asia/Kathmandu",
    "extra_float_digits": "-15",
}


@pytest.mark.timeout(180)
def test_a_worker_is_not_cut_off_and_reads_the_same_values(
    source_url: str, destination_url: str, tmp_path: Path
) -> None:
    # These two were there before the settings, which hold for new sessions.
    with (
        psycopg.connect(source_url, autocommit=True) as source,
        psycopg.connect(destination_url, autocommit=True) as history,
    ):
        source.execute(
            "create schema app;"
            "create table app.values (id int primary key, day date, at timestamptz, raw bytea,"
            " span interval, number float8)"
        )
        settings = track(source_url, destination_url)
        for url in (source_url, destination_url):
            constrain(url)
        with Worker(settings, tmp_path).start().ready() as worker:
            for key in (1, 2, 3):
                source.execute(
                    "insert into app.values values (%s, '2026-05-03', '2026-05-03 14:00+00',"
                    " '\\xff00', '1 day 02:00', 0.1::float8 + 0.2)",
                    [key],
                )
                # Long enough for every limit above.
                source.execute("select pg_sleep(1)")
            until(
                lambda: history.execute("select count(*) from bemi.changes").fetchone() == (3,),
                60,
                "all are captured",
            )
            assert worker.log.count("capturing") == 1
            assert "waiting" not in worker.log
            row = history.execute("select after from bemi.changes limit 1").fetchone()
    assert row is not None
    assert {name: value for name, value in row[0].items() if name != "id"} == {
        "day": "2026-05-03",
        "at": "2026-05-03 14:00:00+00",
        "raw": "\\xff00",
        "span": "1 day 02:00:00",
        "number": 0.30000000000000004,
    }


def constrain(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        settings = dict(SETTINGS)
        if conn.info.server_version >= 170000:
            settings["transaction_timeout"] = "500ms"
        for name, value in settings.items():
            conn.execute(
                sql.SQL("alter database {} set {} to {}").format(
                    sql.Identifier(conn.info.dbname), sql.Identifier(name), sql.Literal(value)
                )
            )
