"""With `init --ddl`, statements that change the schema are in the history, with their context."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from bemi.capture import event_triggers
from bemi.capture.ddl import PREFIX
from bemi.capture.preflight import diagnose
from bemi.capture.setup import InitResult, init
from bemi.capture.teardown import teardown
from bemi.config import Settings
from bemi.rules import Rules
from tests.integration.conftest import Track
from tests.support import databases
from tests.support.plain_server import MakeServer, plain_servers
from tests.support.tracked import Row, Tracked

SCHEMA = (
    "create schema app",
    "create table app.t (id int primary key, email text, big text)",
)


@pytest.fixture
def recorded(tracked: Track) -> Tracked:
    """A source that is tracked, with event triggers."""
    found = tracked(*SCHEMA)
    _init(found.settings)
    return found


@pytest.fixture
def make_plain_server(postgres_bin: Path | None) -> Iterator[MakeServer]:
    with plain_servers(postgres_bin) as make:
        yield make


def _init(settings: Settings, *, ddl: bool = True) -> InitResult:
    return init(settings, ddl=ddl, report=lambda line: None)


def _ddl(tracked: Tracked) -> list[Row]:
    """Catch up, and read all that is recorded, in order; not that the worker adds new tables."""
    tracked.catch_up()
    return tracked.query(
        "select * from bemi.ddl where tag <> 'ALTER PUBLICATION' "
        "order by epoch, commit_position, position"
    )


def _run(tracked: Tracked, statement: str, context: dict[str, Any] | None = None) -> None:
    """In a transaction of its own, with a context where one is given."""
    with tracked.source.transaction():
        if context is not None:
            tracked.source.execute(
                "select pg_logical_emit_message(true, '_bemi', %s)", [json.dumps(context)]
            )
        tracked.source.execute(statement.encode())


KINDS: list[tuple[str, list[tuple[str, str | None, str | None]]]] = [
    (
        "create table app.u (id serial primary key)",
        [
            ("CREATE SEQUENCE", "sequence", "app.u_id_seq"),
            ("CREATE TABLE", "table", "app.u"),
            ("CREATE INDEX", "index", "app.u_pkey"),
            ("ALTER SEQUENCE", "sequence", "app.u_id_seq"),
        ],
    ),
    ("alter table app.t add column n int default 1", [("ALTER TABLE", "table", "app.t")]),
    ("alter table app.t rename email to mail", [("ALTER TABLE", "table column", "app.t.mail")]),
    (
        "alter table app.t drop column mail",
        [("ALTER TABLE", "table column", "app.t.mail"), ("ALTER TABLE", "table", "app.t")],
    ),
    (
        "alter table app.t add constraint positive check (n > 0)",
        [("ALTER TABLE", "table", "app.t")],
    ),
    (
        "alter table app.t drop constraint positive",
        [
            ("ALTER TABLE", "table constraint", "positive on app.t"),
            ("ALTER TABLE", "table", "app.t"),
        ],
    ),
    ("alter table app.t replica identity full", [("ALTER TABLE", "table", "app.t")]),
    ("create index on app.t (n)", [("CREATE INDEX", "index", "app.t_n_idx")]),
    ("alter index app.t_n_idx rename to i", [("ALTER INDEX", "index", "app.i")]),
    ("drop index app.i", [("DROP INDEX", "index", "app.i")]),
    ("create view app.v as select 1 as one", [("CREATE VIEW", "view", "app.v")]),
    (
        "create materialized view app.m as select 1 as one",
        [("CREATE MATERIALIZED VIEW", "materialized view", "app.m")],
    ),
    ("refresh materialized view app.m", []),
    ("create type app.mood as enum ('a')", [("CREATE TYPE", "type", "app.mood")]),
    ("alter type app.mood add value 'b'", [("ALTER TYPE", "type", "app.mood")]),
    ("create domain app.d as int", [("CREATE DOMAIN", "type", "app.d")]),
    (
        "create function app.f() returns trigger language plpgsql as 'begin return new; end'",
        [("CREATE FUNCTION", "function", "app.f()")],
    ),
    (
        "create trigger g before insert on app.t for each row execute function app.f()",
        [("CREATE TRIGGER", "trigger", "g on app.t")],
    ),
    ("drop trigger g on app.t", [("DROP TRIGGER", "trigger", "g on app.t")]),
    ("create policy p on app.t using (true)", [("CREATE POLICY", "policy", "p on app.t")]),
    ("comment on column app.t.n is 'a number'", [("COMMENT", "table column", "app.t.n")]),
    ("grant select on app.t to public", [("GRANT", "table", None)]),
    ("select 1 as one into app.s", [("SELECT INTO", "table", "app.s")]),
    ("create table app.c as select 1 as one", [("CREATE TABLE AS", "table", "app.c")]),
    ("create extension pg_trgm", [("CREATE EXTENSION", "extension", "pg_trgm")]),
    (
        "create table app.p (id int primary key) partition by range (id)",
        [("CREATE TABLE", "table", "app.p"), ("CREATE INDEX", "index", "app.p_pkey")],
    ),
    (
        "create table app.p1 partition of app.p for values from (0) to (9)",
        [("CREATE TABLE", "table", "app.p1")],
    ),
    ("alter table app.p detach partition app.p1", [("ALTER TABLE", "table", "app.p")]),
    ("alter table app.t rename to w", [("ALTER TABLE", "table", "app.w")]),
    ("alter table app.w set schema public", [("ALTER TABLE", "table", "public.w")]),
    ("drop table app.u", [("DROP TABLE", "table", "app.u")]),
    (
        "drop schema app cascade",
        [
            ("DROP SCHEMA", "schema", "app"),
            ("DROP SCHEMA", "view", "app.v"),
            ("DROP SCHEMA", "materialized view", "app.m"),
            ("DROP SCHEMA", "table", "app.s"),
            ("DROP SCHEMA", "table", "app.c"),
            ("DROP SCHEMA", "table", "app.p"),
            ("DROP SCHEMA", "table", "app.p1"),
        ],
    ),
    ("create temp table x (id int primary key)", []),
    ("alter table x add column n int", []),
    ("create index on x (n)", []),
    ("drop table x", []),
    ("alter table w drop column n", [
        ("ALTER TABLE", "table column", "public.w.n"), ("ALTER TABLE", "table", "public.w")
    ]),
]  # fmt: skip


def test_each_kind_of_statement_is_recorded_with_its_context(recorded: Tracked) -> None:
    # None is without a statement, and the whole catalog changes below; so all in one test.
    for number, (statement, _) in enumerate(KINDS):
        _run(recorded, statement, {"n": number})
    rows = _ddl(recorded)
    for number, (statement, expected) in enumerate(KINDS):
        found = [row for row in rows if row["context"] == {"n": number}]
        told = {(row["tag"], row["object_type"], row["identity"]) for row in found}
        assert told == set(expected), statement
        assert len(found) == len(expected), statement
        assert {row["statement"] for row in found} <= {statement}
        assert len({row["transaction_id"] for row in found}) <= 1
    assert all(row["detail"]["role"] == "postgres" for row in rows)
    assert not [row for row in rows if "failed" in row["detail"]]


def test_objects_of_a_table_name_its_oid(recorded: Tracked) -> None:
    for statement in (
        "create index i on app.t (email)",
        "create function app.f() returns trigger language plpgsql as 'begin return new; end'",
        "create trigger g before insert on app.t for each row execute function app.f()",
        "create policy p on app.t using (true)",
        "alter policy p on app.t using (false)",
        "create statistics app.s on id, email from app.t",
        "comment on column app.t.email is 'x'",
        "alter table app.t rename email to mail",
        "drop trigger g on app.t",
        "drop policy p on app.t",
        "alter table app.t drop column mail",
        "drop table app.t",
    ):
        _run(recorded, statement)
    oid = {row["identity"]: row["relation"] for row in _ddl(recorded)}
    assert oid.pop("app.f()") is None
    assert len(oid) >= 7
    assert len(set(oid.values())) == 1
    assert None not in oid.values()


def test_a_table_is_told_as_it_is_afterwards(recorded: Tracked) -> None:
    _run(
        recorded,
        "create domain app.d as text; create type app.\"Mood\" as enum ('a');"
        "create table app.u ("
        '    b int, a int, "Ä ""x""" numeric(10, 2) not null, kept app.d, mood app."Mood"[],'
        "    twice int generated always as (b * 2) stored, primary key (a, b)"
        ")",
    )
    _run(recorded, "alter table app.u add column late int default 7")
    _run(recorded, "alter table app.u drop column kept, replica identity full")
    told = [
        row["detail"]["table"]
        for row in _ddl(recorded)
        if row["identity"] == "app.u" and "table" in row["detail"]
    ]
    first, second, third = told
    assert (first["schema"], first["name"], first["kind"]) == ("app", "u", "r")
    assert first["primary_key"] == ["a", "b"]
    assert first["replica_identity"] == "d"
    columns = [
        (c["number"], c["name"], c["type"], c["not_null"], c["generated"]) for c in first["columns"]
    ]
    assert columns == [
        (1, "b", "integer", True, ""),
        (2, "a", "integer", True, ""),
        (3, 'Ä "x"', "numeric(10,2)", True, ""),
        (4, "kept", "app.d", False, ""),
        (5, "mood", 'app."Mood"[]', False, ""),
        (6, "twice", "integer", False, "s"),
    ]
    assert [c["base_type_oid"] for c in first["columns"]][3] == 25
    assert not any(c["filled"] for c in first["columns"])
    assert [c["name"] for c in second["columns"] if c["filled"]] == ["late"]
    assert [c["number"] for c in third["columns"]] == [1, 2, 3, 5, 6, 7]
    assert third["replica_identity"] == "f"
    # A default may be a value: it is not told.
    kinds = {"number", "name", "type", "type_oid", "base_type_oid", "not_null", "generated"}
    assert {*second["columns"][-1]} == kinds | {"stamp", "filled", "modifier"}


def test_rolled_back_ddl_leaves_nothing(recorded: Tracked) -> None:
    with recorded.source.transaction(force_rollback=True):
        recorded.source.execute("create table app.gone (id int)")
    with recorded.source.transaction():
        recorded.source.execute("create table app.kept (id int)")
        with recorded.source.transaction(force_rollback=True):
            recorded.source.execute("alter table app.kept add column gone int")
    assert [row["identity"] for row in _ddl(recorded)] == ["app.kept"]


def test_ddl_and_rows_of_one_transaction_share_a_context(recorded: Tracked) -> None:
    with recorded.source.transaction():
        recorded.source.execute("insert into app.t values (1)")
        recorded.source.execute("alter table app.t add column n int")
        recorded.source.execute(
            """select pg_logical_emit_message(true, '_bemi', '{"job": "migration"}')"""
        )
        recorded.source.execute("update app.t set n = 5")
    (row,) = _ddl(recorded)
    changes = recorded.changes()
    assert [change["operation"] for change in changes] == ["CREATE", "UPDATE"]
    for change in changes:
        assert change["context"] == row["context"] == {"job": "migration"}
        assert change["transaction_id"] == row["transaction_id"]
        assert change["commit_position"] == row["commit_position"]
    assert changes[0]["position"] < row["position"] < changes[1]["position"]


def test_it_is_recorded_once(recorded: Tracked) -> None:
    _run(recorded, "create table app.u (id int)")
    before = _ddl(recorded)
    recorded.catch_up()
    _run(recorded, "insert into app.t values (1)")
    assert _ddl(recorded) == before


@pytest.mark.parametrize(
    "broken",
    [
        """create or replace function bemi_ddl.described(relation oid) returns json
        language sql as 'select (1 / 0)::text::json'""",
        """create or replace function bemi_ddl.statement(tag text, first boolean) returns json
        language plpgsql as 'begin raise exception ''broken''; end'""",
        "drop function bemi_ddl.described(oid)",
        "drop function bemi_ddl.statement(text, boolean)",
    ],
)
def test_what_goes_wrong_in_it_never_fails_the_statement(recorded: Tracked, broken: str) -> None:
    recorded.source.execute(broken.encode())
    _run(recorded, "create table app.u (id int primary key)", {"user_id": 7})
    assert recorded.source.execute("select count(*) from app.u").fetchone() == (0,)
    rows = [row for row in _ddl(recorded) if row["context"]]
    # That something was done is told all the same.
    assert rows[-1]["tag"] == "CREATE TABLE"
    assert len(rows[-1]["detail"]["failed"]) == 5
    recorded.source.execute("drop table app.u")


def test_bemis_own_schema_is_no_news(make_plain_server: MakeServer) -> None:
    url = make_plain_server(wal_level="logical").create_database("both")
    settings = Settings(source_url=url)
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("create table a (id int primary key)")
    _init(settings)
    both = Tracked(settings)
    try:
        both.source.execute("select bemi.ensure_partitions(now(), now() + interval '1 year')")
        both.source.execute("create index on bemi.gaps (cause)")
        both.source.execute("drop index bemi.gaps_cause_idx")
        _init(settings)
        both.source.execute("create table b (id int primary key)")
        assert {row["identity"] for row in _ddl(both)} == {"public.b", "public.b_pkey"}
    finally:
        both.close()


def test_a_replica_does_not_record_again(recorded: Tracked) -> None:
    """What applies a logical stream's DDL works under this setting, as pg_restore may."""
    recorded.source.execute("set session_replication_role = replica")
    recorded.source.execute("create table app.u (id int)")
    recorded.source.execute("set session_replication_role = origin")
    assert _ddl(recorded) == []


def test_whoever_may_change_the_schema_needs_no_other_right(recorded: Tracked) -> None:
    role = databases.unused_name("dev")
    name = sql.Identifier(role)
    conn = recorded.source
    conn.execute(sql.SQL("create role {}").format(name))
    try:
        conn.execute(sql.SQL("grant create, usage on schema app to {}").format(name))
        conn.execute(sql.SQL("alter table app.t owner to {}").format(name))
        conn.execute(sql.SQL("set role {}").format(name))
        conn.execute("set search_path = app")
        conn.execute("alter table t add column n int")
        conn.execute("create table u (id int primary key)")
        # Their functions are nobody's to call.
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("select bemi_ddl.described(1)")
    finally:
        conn.execute("reset role")
        conn.execute(sql.SQL("drop owned by {}").format(name))
        conn.execute(sql.SQL("drop role {}").format(name))
    rows = _ddl(recorded)
    assert {"app.t", "app.u"} <= {row["identity"] for row in rows}
    assert not [row for row in rows if "failed" in row["detail"]]


def test_long_statements_are_cut_and_that_is_said(recorded: Tracked) -> None:
    long = "create table app.u (id int primary key) /* " + "é" * 40_000 + " */"
    _run(recorded, long)
    table, index = _ddl(recorded)
    assert table["detail"]["statement_cut"]
    assert long.startswith(table["statement"])
    assert 16_000 < len(table["statement"].encode()) <= 65_536
    # It is the same statement: its whole text is with the first.
    assert index["detail"]["statement_cut"]
    assert index["statement"] == long[:1000]


def test_statements_that_may_hold_a_password_are_left_out(recorded: Tracked) -> None:
    _run(recorded, "create foreign data wrapper w options (secret 'hunter2')")
    _run(recorded, "create server s foreign data wrapper w options (password 'hunter2')")
    rows = _ddl(recorded)
    assert [row["identity"] for row in rows] == ["w", "s"]
    assert not [row for row in rows if row["statement"] is not None]
    assert all(row["detail"]["statement_left_out"] for row in rows)
    assert "hunter2" not in str(rows)


def test_no_text_where_rules_replace_values(recorded: Tracked) -> None:
    settings = recorded.settings
    masked = Tracked(_with_rules(settings, Rules(mask=("app.t.email",))))
    try:
        _run(masked, "insert into app.t values (1, 'canary'); alter table app.t add n int")
        rows = _ddl(masked)
    finally:
        masked.close()
    assert [(row["identity"], row["statement"]) for row in rows] == [("app.t", None)]
    assert rows[0]["detail"]["statement_left_out"]
    assert "canary" not in str(rows)


def _with_rules(settings: Settings, rules: Rules) -> Settings:
    return dataclasses.replace(settings, rules=rules)


@pytest.mark.parametrize(
    "content", ["", "no json", "[]", '{"tag": 1}', '{"tag": "X", "relation": "app.t"}']
)
def test_what_others_emit_under_the_prefix_is_kept_apart(recorded: Tracked, content: str) -> None:
    with recorded.source.transaction():
        recorded.source.execute("select pg_logical_emit_message(true, %s, %s)", [PREFIX, content])
        recorded.source.execute("insert into app.t values (1)")
    (row,) = _ddl(recorded)
    assert row["tag"] == "UNREADABLE"
    assert row["detail"]["bytes"] == len(content)
    assert len(recorded.changes()) == 1


@pytest.mark.parametrize(
    ("statement", "column", "reason"),
    [
        ("alter table app.t alter email type int using email::int", "email", "type"),
        ("alter table app.t add column n float default random()", "n", "default"),
        ("alter table app.t add column n int default 5", "n", None),
    ],
)
def test_values_that_were_rewritten_are_a_gap_of_their_column(
    recorded: Tracked, statement: str, column: str, reason: str | None
) -> None:
    recorded.source.execute("insert into app.t values (1, '5')")
    recorded.changes()
    _run(recorded, statement)
    recorded.source.execute("update app.t set big = 'x'")
    rows = _ddl(recorded)
    oid = rows[0]["relation"]
    reasons = [row["detail"]["reasons"] for row in rows if "reasons" in row["detail"]]
    assert reasons == ([[reason]] if reason else [])
    (gap,) = recorded.query("select * from bemi.gaps")
    assert (gap["cause"], gap["relation"], gap["columns"]) == ("rewrite", oid, [column])
    assert gap["from_position"] <= rows[0]["commit_position"] <= gap["to_position"]


def test_concurrent_indexes(recorded: Tracked) -> None:
    """They run in several transactions, outside of a block."""
    recorded.source.execute("create index concurrently i on app.t (email)")
    recorded.source.execute("reindex index concurrently app.i")
    recorded.source.execute("drop index concurrently app.i")
    assert [row["tag"] for row in _ddl(recorded)] == ["CREATE INDEX", "DROP INDEX"]


def test_nothing_is_written_while_wal_is_not_logical(make_plain_server: MakeServer) -> None:
    url = make_plain_server(wal_level="replica").create_database("app")
    with psycopg.connect(url, autocommit=True) as conn:
        assert event_triggers.install(conn)
        conn.execute("create extension if not exists plpgsql")
        # What would fail if it were called.
        conn.execute("drop function bemi_ddl.described(oid)")
        conn.execute("create table a (id int primary key)")
        conn.execute("alter table a add column b float default random()")
        conn.execute("drop table a")


def test_twice_changes_nothing_and_what_was_disabled_is_mended(recorded: Tracked) -> None:
    assert not _init(recorded.settings).changed
    recorded.source.execute("alter event trigger bemi_sql_drop disable")
    assert _finding(recorded.settings).level == "warning"
    assert "bemi_sql_drop is disabled" in _finding(recorded.settings).message
    # What was asked for once is kept in order, asked for or not.
    assert _init(recorded.settings, ddl=False).changed
    assert _finding(recorded.settings).level == "ok"
    recorded.source.execute("drop event trigger bemi_table_rewrite")
    assert "bemi_table_rewrite is missing" in _finding(recorded.settings).message
    recorded.source.execute("comment on function bemi_ddl.record() is 'older'")
    assert "another version" in _finding(recorded.settings).message
    assert _init(recorded.settings).changed
    assert _finding(recorded.settings).level == "ok"
    event_triggers.remove(recorded.source)
    assert "are gone" in _finding(recorded.settings).message
    assert not _init(recorded.settings, ddl=False).changed


def _finding(settings: Settings) -> Any:
    (finding,) = [each for each in diagnose(settings) if each.check == "DDL"]
    return finding


def test_doctor_says_that_they_are_a_choice(tracked: Track) -> None:
    found = tracked(*SCHEMA)
    assert _finding(found.settings).level == "ok"
    assert "--ddl" in _finding(found.settings).message


def test_teardown_takes_them_away(recorded: Tracked) -> None:
    result = teardown(recorded.settings, history=False, report=lambda line: None)
    assert "dropped the event triggers that record DDL" in result.changed
    assert event_triggers.read(recorded.source).installed == "no"
    left = "select count(*) from pg_namespace where nspname = 'bemi_ddl'"
    assert recorded.source.execute(left).fetchone() == (0,)


def test_a_role_that_may_not_gets_the_sql_for_one_that_may(make_plain_server: MakeServer) -> None:
    server = make_plain_server(wal_level="logical")
    source, history = server.create_database("app"), server.create_database("history")
    with psycopg.connect(source, autocommit=True) as conn:
        conn.execute("create role owner login replication password 'open'")
        for name in ("app", "history"):
            conn.execute(sql.SQL("alter database {} owner to owner").format(sql.Identifier(name)))
        settings = Settings(
            source_url=psycopg.conninfo.make_conninfo(source, user="owner", password="open"),
            destination_url=psycopg.conninfo.make_conninfo(history, user="owner", password="open"),
        )
        script = _init(settings).ddl_script
        assert script is not None
        assert event_triggers.read(conn).installed == "no"
        assert _finding(settings).level == "warning"
        # As a superuser runs it, with psql or otherwise; twice does no harm.
        conn.execute(script.encode())
        conn.execute(script.encode())
        assert event_triggers.read(conn) == event_triggers.State("yes")
        assert _init(settings).ddl_script is None
        assert _finding(settings).level == "ok"
        # They are a superuser's: who made the rest can't take them away.
        result = teardown(settings, history=False, report=lambda line: None)
        (note,) = result.notes
        assert "drop event trigger" in note
        conn.execute(event_triggers.removal().encode())
        assert event_triggers.read(conn).installed == "no"
