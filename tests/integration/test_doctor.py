"""`doctor`: each check finds what it is there for, and none hides another."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from bemi.capture import preflight, setup, worker
from bemi.capture.checks import CHECKS, Finding
from bemi.capture.preflight import diagnose
from bemi.config import Settings
from bemi.embedded import Server
from bemi.errors import SetupError
from bemi.rules import Rules, Skip
from bemi.store import migrate
from tests.support.plain_server import MakeServer, plain_servers
from tests.support.waiting import until

Connection = psycopg.Connection[Any]


@pytest.fixture
def source(source_url: str) -> Iterator[Connection]:
    with psycopg.connect(source_url, autocommit=True) as conn:
        yield conn


@pytest.fixture
def destination(destination_url: str) -> Iterator[Connection]:
    with psycopg.connect(destination_url, autocommit=True) as conn:
        yield conn


@pytest.fixture
def settings(source: Connection, source_url: str, destination_url: str) -> Settings:
    source.execute("create table a (id int primary key)")
    return Settings(source_url=source_url, destination_url=destination_url)


@pytest.fixture
def make_plain_server(postgres_bin: Path | None) -> Iterator[MakeServer]:
    with plain_servers(postgres_bin) as make:
        yield make


def init(settings: Settings, **options: Any) -> None:
    setup.init(settings, report=lambda line: None, **options)


def found(settings: Settings, **options: Any) -> dict[str, Finding]:
    return {finding.check: finding for finding in diagnose(settings, **options)}


def levels(settings: Settings) -> dict[str, str]:
    return {check: finding.level for check, finding in found(settings).items()}


def test_a_source_that_is_set_up_has_no_failure(settings: Settings) -> None:
    init(settings)
    findings = found(settings)
    assert list(findings) == [check.name for check in CHECKS]
    # The tests' own server has fsync off, and no bound on the WAL that slots keep.
    unwise = {name for name, finding in findings.items() if finding.level != "ok"}
    assert unwise == {"WAL retention", "durability"}


def test_every_finding_that_is_not_ok_has_a_fix(settings: Settings) -> None:
    for finding in found(settings).values():
        assert finding.fix or finding.level in ("ok", "not checked"), finding


def test_every_check_is_documented_in_its_order() -> None:
    page = Path(__file__).parents[2] / "docs/reference/doctor.md"
    documented = re.findall(r"^\| `(.+?)` \|", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert documented == [check.name for check in CHECKS]


def test_before_init_nothing_is_a_failure(settings: Settings) -> None:
    findings = found(settings)
    assert "failure" not in {finding.level for finding in findings.values()}
    for check in ("publication", "slot", "history"):
        assert findings[check].level == "warning"
        assert findings[check].message.startswith("not set up yet")
        assert findings[check].fix == "run `bemi init`"
    assert findings["tracked"].level == "not checked"


def test_what_a_history_lost_is_for_recover(settings: Settings) -> None:
    """Once there is a history `init` would go on without what was lost."""
    setup.init(settings, report=lambda _: None)
    with psycopg.connect(settings.source_url, autocommit=True) as conn:
        conn.execute("select pg_drop_replication_slot(%s)", [settings.slot])
        conn.execute("drop publication bemi")
    findings = found(settings)
    for check in ("publication", "slot"):
        assert findings[check].level == "failure"
        assert (findings[check].fix or "").startswith("`bemi recover`")


def test_a_failing_check_hides_only_what_rests_on_it(
    settings: Settings, source_url: str, destination_url: str
) -> None:
    wrong = psycopg.conninfo.make_conninfo(source_url, password="hunter2")
    findings = found(Settings(source_url=wrong, destination_url=destination_url))
    assert findings["source"].level == "failure"
    assert "hunter2" not in str(findings)
    assert findings["wal_level"] == Finding(
        "wal_level", "not checked", "not checked, because of: source"
    )
    assert findings["writable"].level == "ok"

    findings = found(Settings(source_url=source_url, destination_url="postgresql://127.0.0.1:1/x"))
    assert findings["destination"].level == "failure"
    assert findings["writable"].level == "not checked"
    assert findings["wal_level"].level == "ok"


def test_what_init_made_and_is_gone_is_a_failure(settings: Settings, source: Connection) -> None:
    init(settings)
    source.execute("select pg_drop_replication_slot(%s)", [settings.slot])
    assert levels(settings)["slot"] == "failure"
    source.execute("drop publication bemi")
    findings = found(settings)
    assert findings["publication"].level == findings["slot"].level == "failure"
    assert findings["tracked"].level == "not checked"


def test_a_publication_that_is_not_ours(settings: Settings, source: Connection) -> None:
    source.execute("create publication bemi for table a with (publish = 'insert')")
    finding = found(settings)["publication"]
    assert finding.level == "failure"
    assert "leaves out" in finding.message
    source.execute((finding.fix or "").encode())
    assert found(settings)["publication"].level == "ok"


def test_tables_that_can_not_be_tracked(settings: Settings, source: Connection) -> None:
    source.execute("create table keyless (x int); create unlogged table u (id int primary key)")
    finding = found(settings)["tables"]
    assert finding.level == "warning"
    assert "2 of 3 tables" in finding.message
    assert "public.keyless (it has no primary key)" in finding.message
    for statement in (finding.fix or "").splitlines():
        source.execute(statement.encode())
    assert found(settings)["tables"].level == "ok"


def test_a_key_dropped_after_init_is_a_failure(settings: Settings, source: Connection) -> None:
    """The application's own updates fail from then on."""
    init(settings)
    source.execute("alter table a drop constraint a_pkey")
    finding = found(settings)["tables"]
    assert finding.level == "failure"
    assert "public.a (it has no primary key)" in finding.message


def test_tables_made_since_and_tables_no_longer_wanted(
    settings: Settings, source: Connection, source_url: str, destination_url: str
) -> None:
    init(settings)
    source.execute("create table later (id int primary key)")
    assert "public.later" in found(settings)["tracked"].message
    narrow = Settings(source_url=source_url, destination_url=destination_url, tables=("later",))
    init(narrow)
    finding = found(narrow)["tracked"]
    assert finding.message == "tracked, though the rules do not want them: public.a"
    source.execute((finding.fix or "").encode())
    # The rules of the last init hold where the settings name none.
    assert found(settings)["tracked"].message == "tables tracked: 1"


def test_rules_that_match_nothing(settings: Settings, source: Connection) -> None:
    """What they were to hide is stored as it is, and nothing else tells."""
    assert found(settings)["rules"].message == "there are no rules for columns and changes"
    rules = Rules(mask=("a.phone",), skip=(Skip(tables=("b",)),))
    settings = replace(settings, rules=rules)
    finding = found(settings)["rules"]
    assert finding.level == "warning"
    assert finding.message == (
        "rules.mask[0] 'a.phone' matches no column of a tracked table; "
        "rules.skip[0].tables[0] 'b' matches no tracked table"
    )
    source.execute("alter table a add phone text; create table b (id int primary key)")
    assert found(settings)["rules"].level == "ok"
    init(settings)
    source.execute("alter table a rename phone to mobile")
    assert "'a.phone'" in found(settings)["rules"].message


def test_a_lost_primary_key_index_choice_is_no_crash(
    settings: Settings, source: Connection
) -> None:
    source.execute(
        "create table r (x int not null); create unique index i on r (x);"
        " alter table r replica identity using index i; drop index i"
    )
    assert "gone or invalid" in found(settings)["tables"].message


def test_a_role_without_rights(
    settings: Settings, source: Connection, destination: Connection
) -> None:
    name = f"weak_{source.info.dbname}"
    role = sql.Identifier(name)
    source.execute(sql.SQL("create role {} login password 'x'").format(role))
    try:
        weak = Settings(
            source_url=psycopg.conninfo.make_conninfo(settings.source_url, user=name, password="x"),
            destination_url=psycopg.conninfo.make_conninfo(
                settings.destination_url, user=name, password="x"
            ),
        )
        findings = found(weak)
        assert findings["replication"].level == "failure"
        assert findings["may publish"].level == "warning"
        assert findings["writable"].level == "failure"
        assert "lacks create on database" in findings["writable"].message
        destination.execute((findings["writable"].fix or "").encode())
        assert found(weak)["writable"].level == "ok"
        # What an owner is told to run, run as an owner, is enough.
        fix = findings["may publish"].fix or ""
        source.execute(fix.removeprefix("as the owner of the tables: ").encode())
        assert found(weak)["may publish"].level == "ok"
        source.execute("create table later (id int primary key)")
        finding = found(weak)["may publish"]
        assert 'belongs to "postgres"' in finding.message
        source.execute((finding.fix or "").encode())
        assert found(weak)["may publish"].level == "ok"
    finally:
        destination.execute(sql.SQL("drop owned by {}").format(role))
        source.execute(sql.SQL("drop role {}").format(role))


def test_a_role_that_may_not_read_the_history(settings: Settings, destination: Connection) -> None:
    init(settings)
    name = f"stranger_{destination.info.dbname}"
    role = sql.Identifier(name)
    destination.execute(sql.SQL("create role {} login password 'x'").format(role))
    try:
        url = psycopg.conninfo.make_conninfo(settings.destination_url, user=name, password="x")
        stranger = replace(settings, destination_url=url)
        finding = found(stranger)["history"]
        assert finding.level == "failure"
        assert "permission denied for schema bemi" in finding.message
        fix = finding.fix or ""
        destination.execute(fix.removeprefix("as the owner of the history: ").encode())
        assert found(stranger)["history"].level == "ok"
    finally:
        destination.execute(sql.SQL("drop owned by {}").format(role))
        destination.execute(sql.SQL("drop role {}").format(role))


def test_a_destination_that_takes_no_writes(settings: Settings, destination: Connection) -> None:
    destination.execute(
        sql.SQL("alter database {} set default_transaction_read_only = on").format(
            sql.Identifier(destination.info.dbname)
        )
    )
    finding = found(settings)["writable"]
    assert (finding.level, finding.fix is not None) == ("failure", True)
    assert "default_transaction_read_only" in finding.message


def test_a_history_of_a_newer_version(settings: Settings, destination: Connection) -> None:
    migrate.migrate(destination, "bemi")
    destination.execute(
        "insert into bemi.schema_versions (version, name, checksum) values (999, 'later', 'x')"
    )
    finding = found(settings)["history"]
    assert finding.level == "failure"
    assert "newer" in finding.message


def test_a_destination_that_commits_lazily(settings: Settings, destination: Connection) -> None:
    destination.execute(
        sql.SQL("alter database {} set synchronous_commit = off").format(
            sql.Identifier(destination.info.dbname)
        )
    )
    assert found(settings)["durability"].level == "warning"


def test_encoding_sql_ascii(make_database: Any) -> None:
    url = make_database(encoding="SQL_ASCII", locale="C")
    findings = found(Settings(source_url=url))
    assert findings["encoding"].level == "warning"
    assert "SQL_ASCII" in findings["encoding"].message
    # As a destination too it would do harm, where it is only unhandy as a source.
    assert findings["destination encoding"].level == "failure"


def test_a_clock_that_is_wrong(settings: Settings) -> None:
    finding = found(settings, clock=lambda: time.time() + 60)["clocks"]
    assert finding.level == "warning"
    assert "the source's clock is 60.0 s behind this machine's" in finding.message
    finding = found(settings, clock=lambda: time.time() - 60)["clocks"]
    assert "the destination's clock is 60.0 s ahead of this machine's" in finding.message


def test_a_slot_that_does_not_follow_to_a_standby(
    settings: Settings, source: Connection, server: Server
) -> None:
    init(settings)
    finding = found(settings)["failover"]
    assert finding.level == "ok"
    if source.info.server_version < 170000:
        assert "before PostgreSQL 17" in finding.message
        return
    source.execute("select pg_drop_replication_slot(%s)", [settings.slot])
    source.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", [settings.slot])
    finding = found(settings)["failover"]
    assert finding.level == "warning"
    # The command of the fix, as it is printed, with the password that it leaves out.
    command = (finding.fix or "").partition(": ")[2]
    done = subprocess.run(
        ["bash", "-c", command],
        env={
            **os.environ,
            "PATH": f"{server.bin('psql').parent}:{os.environ['PATH']}",
            "PGPASSWORD": source.info.password,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert found(settings)["failover"].level == "ok"


WIDE = "pg_stat_user_tables where relname = 'wide'"


def test_prices_of_identities_are_measured(settings: Settings, source: Connection) -> None:
    source.execute(
        "create table wide (id int primary key, v text);"
        " alter table wide alter v set storage external;"
        " alter table wide replica identity full;"
        " create table idle (id int primary key)"
    )
    init(settings)
    for table in ("a", "wide"):
        source.execute(f"insert into {table} select generate_series(1, 200)".encode())
    source.execute("update wide set v = repeat('x', 10000)")
    source.execute("vacuum full wide")
    source.execute("analyze a, wide")
    worker.run(settings, stop=threading.Event(), until_caught_up=True)
    # A session counts when it comes to it.
    until(lambda: fetch(source, f"select n_tup_upd from {WIDE}") == 200, 60, "it is counted")
    source.execute("select pg_stat_reset()")
    source.execute("update a set id = id + 1000 where id <= 50; delete from wide where id <= 7")
    until(lambda: fetch(source, f"select n_tup_del from {WIDE}") == 7, 60, "it is counted")
    finding = found(settings)["identity prices"]
    assert finding.level == "ok"
    wide, a = finding.figures
    assert (wide.table, wide.identity) == ("public.wide", "full")
    assert (a.table, a.identity) == ("public.a", "default")
    assert wide.row_bytes == pytest.approx(10_000, rel=0.3), "a large value is in the old row"
    assert a.row_bytes == pytest.approx(10, abs=2)
    assert a.changes_a_day / wide.changes_a_day == pytest.approx(50 / 7)
    for price in (wide, a):
        assert price.row_bytes is not None
        assert price.full_wal_bytes_a_day == pytest.approx(price.changes_a_day * price.row_bytes)
        assert price.default_lookups_a_day == price.changes_a_day
        assert price.default_lookup_seconds_a_day is not None
        assert price.default_lookup_seconds_a_day > 0


def test_the_price_of_full_is_what_it_adds_to_the_log(make_plain_server: MakeServer) -> None:
    """Without images of pages, which say more of checkpoints than of rows."""
    server = make_plain_server(wal_level="logical", full_page_writes="off", autovacuum="off")
    settings = Settings(source_url=server.create_database("app"))
    with psycopg.connect(settings.source_url, autocommit=True) as conn:
        conn.execute("create table t (id int primary key, n int, a text, b text)")
        conn.execute(
            "insert into t select i, 0, repeat('y', i % 300), null from generate_series(1, 2000) i"
        )
        conn.execute("analyze t")

        def update() -> int:
            before = fetch(conn, "select pg_current_wal_insert_lsn() - '0/0'")
            conn.execute("update t set n = n + 1")
            conn.execute("vacuum t")
            return int(fetch(conn, "select pg_current_wal_insert_lsn() - '0/0'") - before)

        update()
        default = update()
        conn.execute("alter table t replica identity full")
        update()
        added = (update() - default) / 2000
        until(
            # A session counts when it comes to it, which may be at its next statement.
            lambda: fetch(conn, "select n_tup_upd from pg_stat_user_tables") >= 8000,
            60,
            "it is counted",
        )
        (finding,) = found(settings)["identity prices"].figures
    assert finding.row_bytes == pytest.approx(added, rel=0.15)
    assert finding.default_lookup_seconds_a_day is None, "there is no history yet"


def test_a_slot_that_fills_its_room_is_warned_of_long_before(make_plain_server: MakeServer) -> None:
    server = make_plain_server(wal_level="logical", max_slot_wal_keep_size="128MB")
    settings = Settings(source_url=server.create_database("filling"))
    with psycopg.connect(settings.source_url, autocommit=True) as conn:
        conn.execute("create table t (id int primary key)")
        init(settings)
        assert levels(settings)["slot"] == "ok"
        for _ in range(20):
            conn.execute("select pg_logical_emit_message(true, 'x', repeat('x', 4000000))")
        row = conn.execute("select wal_status from pg_replication_slots").fetchone()
    assert row is not None
    assert row[0] in ("reserved", "extended"), "it is far from being lost"
    slot = found(settings)["slot"]
    assert (slot.level, "more than half of its room" in slot.message) == ("warning", True)


def test_the_price_of_a_row_that_nothing_tells_is_unknown(make_plain_server: MakeServer) -> None:
    """A page has room for many rows: its size is not that of the one row in it."""
    server = make_plain_server(wal_level="logical", autovacuum="off")
    settings = Settings(source_url=server.create_database("app"))
    with psycopg.connect(settings.source_url, autocommit=True) as conn:
        conn.execute(
            "create table one (id int primary key, v int);"
            "create table many (id int primary key, v text);"
            "create table large (id int primary key, v text);"
            "alter table large alter v set storage external;"
            "insert into one values (1, 0);"
            "insert into many select i, repeat('x', 100) from generate_series(1, 500) i;"
            "insert into large select i, repeat('x', 100000) from generate_series(1, 2) i"
        )
        conn.execute(
            "update one set v = 1; update many set id = -id where id <= 1;update large set id = -id"
        )
        until(
            lambda: fetch(conn, "select sum(n_tup_upd) from pg_stat_user_tables") == 4,
            60,
            "it is counted",
        )
        prices = {each.table: each for each in found(settings)["identity prices"].figures}
    assert list(prices) == ["public.large", "public.many", "public.one"]
    one, many, large = (prices[f"public.{name}"] for name in ("one", "many", "large"))
    assert (one.row_bytes, one.full_wal_bytes_a_day) == (None, None)
    assert many.row_bytes == pytest.approx(110, rel=0.3)
    assert large.row_bytes == pytest.approx(100_000, rel=0.3)


def test_a_table_that_others_keep_locked_holds_nothing_up(
    settings: Settings, source: Connection
) -> None:
    init(settings)
    source.execute("insert into a select generate_series(1, 100)")
    source.execute("vacuum a")  # it has a number of rows then, and the planner no widths
    url = make_conninfo(settings.source_url, options="-c lock_timeout=10s")
    with psycopg.connect(settings.source_url) as other:
        other.execute("lock table a in access exclusive mode")
        findings = found(replace(settings, source_url=url))
    assert findings["tables"].level == findings["tracked"].level == "ok"
    assert findings["identity prices"].level == "not checked"
    assert "locked" in findings["identity prices"].message
    assert {finding.level for finding in findings.values()} == {"ok", "warning", "not checked"}
    assert found(settings)["identity prices"].level == "ok"


def fetch(conn: Connection, query: str) -> Any:
    row = conn.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def test_settings_of_a_server(make_plain_server: MakeServer) -> None:
    server = make_plain_server(
        wal_level="replica", wal_sender_timeout="0", max_slot_wal_keep_size="1GB", fsync="on"
    )
    settings = Settings(source_url=server.create_database("app"))
    seen = levels(settings)
    assert seen["wal_level"] == "failure"
    assert seen["wal_sender_timeout"] == "warning"
    assert seen["WAL retention"] == seen["durability"] == "ok"


def test_full_servers(make_plain_server: MakeServer) -> None:
    server = make_plain_server(
        wal_level="logical", max_replication_slots="1", wal_sender_timeout="3s"
    )
    settings = Settings(source_url=server.create_database("app"))
    with psycopg.connect(settings.source_url, autocommit=True) as conn:
        conn.execute("select pg_create_physical_replication_slot('standby')")
    findings = found(settings)
    assert findings["free slots"].level == "failure"
    assert findings["wal_sender_timeout"].level == "warning"


def test_a_standby(make_plain_server: MakeServer) -> None:
    """As a source and as a destination: neither can be one."""
    server = make_plain_server(wal_level="logical")
    url = server.create_database("app")
    server.stop()
    (server.data / "standby.signal").touch()
    server.start()
    findings = found(Settings(source_url=url))
    assert findings["primary"].level == "failure"
    assert findings["writable"].level == "failure"
    assert findings["slot"].level == "warning"
    with psycopg.connect(url) as conn, pytest.raises(SetupError, match="standby"):
        preflight.require(conn, Settings(source_url=url))


def test_from_the_command_line(settings: Settings, source: Connection, tmp_path: Path) -> None:
    def bemi(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "bemi", *arguments],
            env={
                **os.environ,
                "BEMI_SOURCE_URL": settings.source_url,
                "BEMI_DESTINATION_URL": settings.destination_url,
            },
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    assert bemi("doctor").returncode == 0
    made = bemi("init", "--json")
    assert made.returncode == 0, made.stderr
    assert [table["table"] for table in json.loads(made.stdout)["tracked"]] == ["a"]
    again = bemi("init")
    assert (again.returncode, again.stderr) == (0, "")
    assert "everything was in place" in again.stdout
    source.execute("alter table a drop constraint a_pkey")
    sick = bemi("doctor", "--json")
    assert sick.returncode == 1
    (failure,) = [one for one in json.loads(sick.stdout) if one["level"] == "failure"]
    assert failure["check"] == "tables"
    assert bemi("doctor").returncode == 1
    gone = bemi("teardown", "--history")
    assert (gone.returncode, gone.stderr) == (0, "")
    assert "\x1b" not in gone.stdout + sick.stdout + made.stdout
    wrong = bemi("init", "--full", "nope")
    assert wrong.returncode == 1
    assert wrong.stderr.splitlines()[0] == "error: --full nope matches no table"
    assert wrong.stderr.splitlines()[1].startswith("fix: ")
    assert bemi("init", "--no-such-flag").returncode == 2
