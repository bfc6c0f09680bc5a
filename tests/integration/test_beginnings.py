"""A worker that can't begin says why in one message, with what to do, and ends with code 1.

What passes by itself it waits for, and says what that is.
"""

import dataclasses
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from bemi.config import Settings
from bemi.embedded import Server
from bemi.store import schema_version
from tests.integration.conftest import Track
from tests.support import databases
from tests.support.plain_server import plain_servers
from tests.support.tracked import Tracked
from tests.support.tracking import track
from tests.support.waiting import until
from tests.support.workers import Worker

TODOS = "create table todos (id int primary key)"


@pytest.fixture
def at(tracked: Track) -> Tracked:
    return tracked(TODOS)


def url_with(url: str, **parts: Any) -> str:
    return make_conninfo(**{**conninfo_to_dict(url), **parts})


def with_url(settings: Settings, what: str, url: str) -> Settings:
    """The settings with another URL of the source, or the destination."""
    if what == "source":
        return dataclasses.replace(settings, source_url=url)
    return dataclasses.replace(settings, destination_url=url)


class Ended:
    """What a worker said that ended by itself."""

    def __init__(self, settings: Settings, folder: Path, *arguments: str) -> None:
        with Worker(settings, folder, *arguments) as worker:
            self.code = worker.wait(60)
            self.output = worker.log
        self.errors = re.findall(r"^error: (.*)$", self.output, re.MULTILINE)
        self.fixes = re.findall(r"^fix: (.*)$", self.output, re.MULTILINE)


def refused(settings: Settings, folder: Path, *arguments: str, error: str, fix: str) -> Ended:
    """Run the worker; it must end with one message that has the pattern `error`, and `fix`."""
    ended = Ended(settings, folder, *arguments)
    assert ended.code == 1, ended.output
    assert len(ended.errors) == 1, ended.output
    assert re.search(error, ended.errors[0]), ended.output
    assert len(ended.fixes) == 1, ended.output
    assert re.search(fix, ended.fixes[0]), ended.output
    assert "Traceback" not in ended.output
    return ended


@pytest.fixture
def make_role(server: Server) -> Iterator[Callable[..., str]]:
    """Makes roles that log in, with given attributes; dropped after the test."""
    made: list[str] = []

    def make(name: str, attributes: str = "", password: str = "right") -> str:
        with psycopg.connect(server.url(), autocommit=True) as conn:
            conn.execute(
                sql.SQL("create role {} login password {}").format(
                    sql.Identifier(name), sql.Literal(password)
                )
                + sql.SQL(" ")
                + sql.SQL(attributes)
            )
        made.append(name)
        return name

    yield make
    with psycopg.connect(server.url(), autocommit=True) as conn:
        for name in made:
            conn.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


def test_wal_level_replica(at: Tracked, tmp_path: Path, postgres_bin: Path | None) -> None:
    with plain_servers(postgres_bin) as make_server:
        settings = dataclasses.replace(at.settings, source_url=make_server().url())
        refused(settings, tmp_path, error="wal_level.* replica", fix="wal_level = logical|restart")


def test_no_replication_right(at: Tracked, tmp_path: Path, make_role: Callable[..., str]) -> None:
    role = make_role("plain_worker")
    settings = dataclasses.replace(
        at.settings, source_url=url_with(at.settings.source_url, user=role, password="right")
    )
    refused(settings, tmp_path, error="source .*(WAL sender|walsender)", fix="REPLICATION")


def test_a_wrong_password(at: Tracked, tmp_path: Path, postgres_bin: Path | None) -> None:
    with plain_servers(postgres_bin) as make_server:
        locked = make_server()
        with psycopg.connect(locked.url(), autocommit=True) as conn:
            conn.execute("create role guest login password 'right'")
            (file,) = conn.execute("show hba_file").fetchone() or ("",)
            hba = Path(file)
            rule = "host all guest 127.0.0.1/32 scram-sha-256\n"
            hba.write_text(rule + hba.read_text(encoding="utf-8"), encoding="utf-8")
            conn.execute("select pg_reload_conf()")
        for what in ("source", "destination"):
            url = url_with(locked.url(), user="guest", password="wr0ng-secret")
            settings = with_url(at.settings, what, url)
            ended = refused(
                settings,
                tmp_path,
                error=f"{what} .*password",
                fix=f"password in BEMI_{what.upper()}",
            )
            assert "wr0ng-secret" not in ended.output


@pytest.mark.parametrize("what", ["source", "destination"])
def test_an_unknown_database(at: Tracked, tmp_path: Path, what: str) -> None:
    settings = at.settings
    url = url_with(getattr(settings, f"{what}_url"), dbname="nowhere")
    settings = with_url(settings, what, url)
    refused(
        settings,
        tmp_path,
        error=f'{what} .*"nowhere" does not exist',
        fix=f"database's name in BEMI_{what.upper()}_URL",
    )


@pytest.mark.parametrize("arguments", [(), ("--until-caught-up",)], ids=["", "until caught up"])
def test_a_slot_that_another_process_holds(
    at: Tracked, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """The message names who holds it."""
    with closing(
        psycopg.connect(
            url_with(at.settings.source_url, replication="database", application_name="the_other")
        )
    ) as holder:
        pid = holder.info.backend_pid
        holder.pgconn.exec_(
            f"START_REPLICATION SLOT {at.settings.slot} LOGICAL 0/0 "
            "(proto_version '1', publication_names 'bemi')".encode()
        )
        ended = refused(
            at.settings,
            tmp_path,
            "--slot-wait",
            "1",
            *arguments,
            error=f"{at.settings.slot}.*{pid}.*the_other|{at.settings.slot}.*the_other.*{pid}",
            fix=".",
        )
        assert "waiting" in ended.output


def test_a_slot_that_is_gone(at: Tracked, tmp_path: Path) -> None:
    databases.drop_slot(at.source, at.settings.slot)
    gone = f"{at.settings.slot}.* (does not exist|gone)"
    refused(at.settings, tmp_path, error=gone, fix="`bemi recover`")


def test_a_publication_that_is_missing(at: Tracked, tmp_path: Path) -> None:
    at.source.execute("drop publication bemi")
    refused(at.settings, tmp_path, error='publication "bemi"', fix="`bemi recover`")


def test_a_destination_without_a_history(at: Tracked, tmp_path: Path) -> None:
    settings = dataclasses.replace(at.settings, schema="elsewhere")
    refused(settings, tmp_path, error='"elsewhere"', fix="bemi init")


def test_a_source_that_is_not_registered(at: Tracked, tmp_path: Path) -> None:
    settings = dataclasses.replace(at.settings, source="unheard_of")
    refused(settings, tmp_path, error='"unheard_of"', fix="bemi init")


def test_a_destination_of_a_newer_version(at: Tracked, tmp_path: Path) -> None:
    at.query(
        "insert into bemi.schema_versions (version, name, checksum) values (9999, 'later', '') "
        "returning version"
    )
    newest = schema_version.migrations()[-1].version
    refused(
        at.settings, tmp_path, error=rf"version 9999, newer .*\({newest}\)", fix="install|upgrade"
    )


def test_a_destination_that_is_read_only(at: Tracked, tmp_path: Path) -> None:
    database = at.destination.info.dbname
    at.destination.execute(
        f"alter database {database} set default_transaction_read_only = on".encode()
    )
    refused(
        at.settings, tmp_path, error="destination .*read-only", fix="takes writes|read_only = off"
    )


def test_a_writer_without_rights(
    at: Tracked, tmp_path: Path, make_role: Callable[..., str]
) -> None:
    role = make_role("mute_writer")
    settings = dataclasses.replace(
        at.settings,
        destination_url=url_with(at.settings.destination_url, user=role, password="right"),
    )
    refused(settings, tmp_path, error="destination|history|schema", fix=".")


# --- gaps


def lose_changes(at: Tracked) -> tuple[int, int]:
    """Let the slot forget a change that is not stored; where the history ends and where it begins
    again."""
    at.source.execute("insert into todos values (1)")
    at.catch_up()
    at.source.execute("insert into todos values (2)")
    # A walsender ends a moment after its worker.
    until(lambda: slot_is_free(at), 30, "the slot is free")
    row = at.source.execute(
        "select end_lsn - '0/0' from pg_replication_slot_advance(%s, pg_current_wal_lsn())",
        [at.settings.slot],
    ).fetchone()
    assert row is not None
    (checkpoint,) = at.query("select position from bemi.checkpoints")
    return checkpoint["position"], int(row[0])


def slot_is_free(at: Tracked) -> bool:
    row = at.source.execute(
        "select not active from pg_replication_slots where slot_name = %s", [at.settings.slot]
    ).fetchone()
    assert row is not None
    return bool(row[0])


def keys(at: Tracked) -> list[str]:
    rows = at.query("select primary_key from bemi.changes order by epoch, commit_position, ordinal")
    return [row["primary_key"] for row in rows]


def test_a_slot_ahead_of_the_checkpoint_is_a_gap(at: Tracked, tmp_path: Path) -> None:
    ends, begins = lose_changes(at)
    for _ in range(2):
        refused(at.settings, tmp_path, error="missing.*can't be had", fix="--accept-gap")
    (gap,) = at.query("select * from bemi.gaps")
    assert (gap["from_position"], gap["to_position"], gap["cause"]) == (ends, begins, "slot_ahead")
    assert gap["accepted_at"] is None
    assert keys(at) == ["1"]

    at.source.execute("insert into todos values (3)")
    accepted = Ended(at.settings, tmp_path, "--until-caught-up", "--accept-gap")
    assert accepted.code == 0, accepted.output
    (gap,) = at.query("select * from bemi.gaps")
    assert gap["accepted_at"] is not None
    assert keys(at) == ["1", "3"]

    at.source.execute("insert into todos values (4)")
    assert Ended(at.settings, tmp_path, "--until-caught-up").code == 0
    assert keys(at) == ["1", "3", "4"]


def test_another_server_is_a_gap(at: Tracked, tmp_path: Path) -> None:
    """Its positions can't be compared: a new epoch begins."""
    at.source.execute("insert into todos values (1)")
    at.catch_up()
    at.query("update bemi.epochs set system_identifier = '7' returning epoch")
    refused(at.settings, tmp_path, error="another server: its system", fix="--accept-gap")
    at.source.execute("insert into todos values (2)")
    accepted = Ended(at.settings, tmp_path, "--until-caught-up", "--accept-gap")
    assert accepted.code == 0, accepted.output
    assert keys(at) == ["1", "2"]
    rows = at.query("select distinct epoch from bemi.changes order by epoch")
    assert [row["epoch"] for row in rows] == [1, 2]
    (gap,) = at.query("select cause, accepted_at is not null as accepted from bemi.gaps")
    assert gap == {"cause": "epoch_changed", "accepted": True}


def test_a_source_restored_from_an_older_state_is_a_gap(at: Tracked, tmp_path: Path) -> None:
    at.query("update bemi.checkpoints set position = position + (1::bigint << 40) returning 1")
    refused(at.settings, tmp_path, error="restored from an older state", fix="--accept-gap")


def test_a_worker_that_stops_and_starts_again_has_no_gap(at: Tracked, tmp_path: Path) -> None:
    for number in range(3):
        with Worker(at.settings, tmp_path) as worker:
            worker.ready()
            assert worker.stop() == 0, worker.log
        at.source.execute("insert into todos values (%s)", [number])
    assert Ended(at.settings, tmp_path, "--until-caught-up").code == 0
    assert keys(at) == ["0", "1", "2"]
    assert at.query("select from bemi.gaps") == []


# --- what passes by itself


def unused_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("arguments", [(), ("--until-caught-up",)], ids=["", "until caught up"])
@pytest.mark.parametrize("what", ["source", "destination"])
def test_a_server_that_refuses_is_waited_for(
    at: Tracked, tmp_path: Path, what: str, arguments: tuple[str, ...]
) -> None:
    port = unused_port()
    url = url_with(getattr(at.settings, f"{what}_url"), port=port)
    settings = with_url(at.settings, what, url)
    with Worker(settings, tmp_path, *arguments) as worker:
        worker.says(rf"waiting.*can't connect to the {what} .*{port}.*refused")
        assert worker.running
        assert worker.stop() == 0, worker.log
        assert "Traceback" not in worker.log


def test_a_server_that_comes_back_is_gone_on_with(
    at: Tracked, tmp_path: Path, postgres_bin: Path | None
) -> None:
    """The destination is away when the worker starts."""
    with plain_servers(postgres_bin) as make_server:
        home = make_server()
        settings = track(
            at.settings.source_url,
            home.url(),
            schemas=["*"],
            slot=at.settings.slot + "_2",
            publication="second",
        )
        home.stop()
        at.source.execute("insert into todos values (1)")
        with Worker(settings, tmp_path) as worker:
            worker.says("waiting.*destination")
            home.start()
            worker.ready()
            with psycopg.connect(home.url(), autocommit=True) as conn:
                until(
                    lambda: conn.execute("select 1 from bemi.changes").fetchone(),
                    30,
                    "the change is stored",
                )
            assert worker.stop() == 0, worker.log


def test_a_full_server_is_waited_for(
    at: Tracked, tmp_path: Path, make_role: Callable[..., str]
) -> None:
    role = make_role("limited_worker", "replication connection limit 0")
    settings = dataclasses.replace(
        at.settings, source_url=url_with(at.settings.source_url, user=role, password="right")
    )
    with Worker(settings, tmp_path) as worker:
        worker.says("waiting.*too many connections")
        at.source.execute(f"alter role {role} connection limit -1".encode())
        worker.ready()
        assert worker.stop() == 0, worker.log
