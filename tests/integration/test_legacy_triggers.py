"""What Bemi's earlier packages left in a source: read as long as it is there, and taken away whole.

The triggers here are of the same names and shape, and written for these tests.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from bemi.capture import legacy_triggers
from bemi.errors import PassingError, SetupError
from tests.conftest import MakeDatabase
from tests.support.asked import Asked
from tests.support.waiting import until

Connection = psycopg.Connection[Any]

# A comment in the statement says the context; there is one message for each row.
BY_COMMENT = """
create function _bemi_row_trigger_func() returns trigger language plpgsql as $$
declare
    told text := substring(current_query() from '/\\*Bemi (.*) Bemi\\*/');
begin
    if told is not null then
        perform pg_logical_emit_message(true, '_bemi', told);
    end if;
    return case when tg_op = 'DELETE' then old else new end;
end $$;
create procedure _bemi_create_triggers() language plpgsql as $$
declare
    each text;
begin
    for each in
        select tablename from pg_tables t where schemaname = 'public' and not exists (
            select from pg_trigger g where g.tgname = left('_bemi_row_trigger_' || tablename, 63)
            and g.tgrelid = format('%I', tablename)::regclass
        )
    loop
        execute format(
            'create trigger %I before insert or update or delete on %I for each row '
            'execute function _bemi_row_trigger_func()', '_bemi_row_trigger_' || each, each
        );
    end loop;
end $$;
create function _bemi_create_table_trigger_func() returns event_trigger language plpgsql as
    $$ begin call _bemi_create_triggers(); end $$;
create event trigger _bemi_create_table_trigger on ddl_command_end
    when tag in ('CREATE TABLE') execute function _bemi_create_table_trigger_func();
call _bemi_create_triggers();
"""
# The one for Supabase: a setting of the session has it.
BY_SETTING = """
create function bemi_set_context(context text) returns text language plpgsql as
    $$ begin perform set_config('bemi.context', context, false); return context; end $$;
create function _bemi_pass_sb_context_func() returns trigger language plpgsql as $$
begin
    if current_setting('bemi.context', true) is not null then
        perform pg_logical_emit_message(true, '_bemi', current_setting('bemi.context', true));
    end if;
    return case when tg_op = 'DELETE' then old else new end;
end $$;
create trigger _bemi_row_trigger_todo before insert or update or delete on todo for each row
    execute function _bemi_pass_sb_context_func();
"""
# Of such names, and not Bemi's.
OTHERS = """
create schema other;
create table other.mine (id int primary key);
create function other._bemi_row_trigger_func() returns trigger language plpgsql as
    $$ begin perform pg_logical_emit_message(true, 'mine', 'x'); return new; end $$;
create trigger _bemi_row_trigger_mine before insert on other.mine for each row
    execute function other._bemi_row_trigger_func();
create procedure other._bemi_create_triggers() language plpgsql as $$ begin null; end $$;
create function other.bemi_set_context(text) returns text language sql as 'select $1';
create function other._bemi_create_table_trigger_func() returns event_trigger language plpgsql as
    $$ begin null; end $$;
create event trigger _bemi_other on ddl_command_end
    execute function other._bemi_create_table_trigger_func();
"""
TABLES = """
create table todo (id int primary key, task text);
create table "Odd ""name" (id int primary key);
create table parts (id int primary key) partition by range (id);
create table parts_1 partition of parts for values from (0) to (10);
"""
OBJECTS = (
    "select 't', tgname::text, tgrelid::regclass::text from pg_trigger where not tgisinternal"
    " union all select 'p', proname::text, pronamespace::regnamespace::text from pg_proc"
    " where oid >= 16384 union all select 'e', evtname::text, '' from pg_event_trigger"
)


@pytest.fixture
def source(make_database: MakeDatabase) -> Iterator[Connection]:
    with psycopg.connect(make_database(), autocommit=True) as conn:
        conn.execute(TABLES.encode())
        yield conn


def objects(conn: Connection) -> set[tuple[str, str, str]]:
    return set(conn.execute(OBJECTS.encode()).fetchall())


@pytest.mark.parametrize("packages", [BY_COMMENT, BY_SETTING], ids=["comment", "setting"])
def test_all_of_it_is_found_and_removed(source: Connection, packages: str) -> None:
    source.execute(OTHERS.encode())
    before = objects(source)
    source.execute(packages.encode())
    left = objects(source) - before - {("t", "_bemi_row_trigger_parts", "parts_1")}
    found = legacy_triggers.find(source)
    # Without the one that a partition has from its parent.
    assert len(found) == len(left)
    legacy_triggers.remove(source, found)
    assert objects(source) == before
    assert legacy_triggers.find(source) == []


def test_both_at_once_in_any_schema(source: Connection) -> None:
    source.execute(BY_COMMENT.encode())
    source.execute("create schema app; create table app.todo (id int); set search_path = app")
    source.execute(BY_SETTING.encode())
    source.execute("reset search_path")
    found = legacy_triggers.find(source)
    names = [(each.kind, each.name, each.table) for each in found]
    assert names[:3] == [
        ("event trigger", "_bemi_create_table_trigger", None),
        ("function", "public._bemi_create_table_trigger_func()", None),
        ("trigger", "_bemi_row_trigger_todo", "app.todo"),
    ]
    source.execute(legacy_triggers.script(found).encode())
    assert legacy_triggers.find(source) == []


def test_tables_are_made_where_they_do_not_find_their_own_procedure(source: Connection) -> None:
    """As Bemi's are, where the history is in the same database: docs/how-to say how."""
    source.execute(BY_COMMENT.encode())
    count = len(legacy_triggers.find(source))
    source.execute("set search_path = ''")
    with pytest.raises(psycopg.errors.UndefinedFunction):
        source.execute("create table public.later (id int)")
    source.execute(
        "alter function public._bemi_create_table_trigger_func() set search_path = public"
    )
    source.execute("create table public.later (id int)")
    assert len(legacy_triggers.find(source)) == count + 1


def test_what_is_used_by_something_else_stays_whole(source: Connection) -> None:
    source.execute(BY_SETTING.encode())
    source.execute("create view v as select bemi_set_context('{}')")
    before = objects(source)
    with pytest.raises(SetupError, match="view v depends on"):
        legacy_triggers.remove(source, legacy_triggers.find(source))
    assert objects(source) == before


def test_a_table_in_use_is_not_waited_for_long(
    source: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(legacy_triggers, "LOCK_TIMEOUT", 0.1)
    source.execute(BY_COMMENT.encode())
    before = objects(source)
    url = f"host={source.info.host} port={source.info.port} dbname={source.info.dbname}"
    with psycopg.connect(url, user="postgres", password=source.info.password) as writer:
        writer.execute("insert into todo values (1)")
        with pytest.raises(PassingError, match=r"public\.todo is in use") as caught:
            legacy_triggers.remove(source, legacy_triggers.find(source))
    assert caught.value.fix
    assert objects(source) == before


def waits(conn: Connection) -> bool:
    row = conn.execute(
        "select exists (select from pg_locks where not granted and locktype = 'relation'"
        " and relation = 'todo'::regclass)"
    ).fetchone()
    assert row is not None
    return bool(row[0])


def test_the_application_is_in_no_deadlock_with_it(source: Connection) -> None:
    source.execute("create table first (id int)")
    source.execute(BY_COMMENT.encode())
    found = legacy_triggers.find(source)
    url = f"host={source.info.host} port={source.info.port} dbname={source.info.dbname}"
    with psycopg.connect(url, user="postgres", password=source.info.password) as writer:
        writer.execute("insert into todo values (1)")

        def go_on() -> None:
            # It holds the one table by then, and waits for the other.
            with psycopg.connect(url, user="postgres", password=source.info.password) as other:
                other.autocommit = True
                until(lambda: waits(other), 20, "it waits for a lock")
            writer.execute("insert into first values (1)")
            writer.commit()

        with ThreadPoolExecutor(1) as pool:
            written = pool.submit(go_on)
            legacy_triggers.remove(source, found)
            written.result()
    assert legacy_triggers.find(source) == []


def test_the_command_lists_and_wants_to_be_told(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEMI_SOURCE_URL", asked.at.settings.source_url)
    remove = ("teardown", "--legacy-triggers")
    assert asked.bemi(*remove)[:2] == (0, "Bemi's earlier packages left nothing\n")
    asked.at.source.execute(BY_COMMENT.encode())
    code, out, _ = asked.bemi(*remove)
    assert code == 1
    assert "trigger _bemi_row_trigger_todo on public.todo" in out
    assert "--yes" in out
    told = json.loads(asked.bemi(*remove, "--json")[1])
    assert (len(told["found"]), told["removed"], told["script"]) == (5, False, None)
    assert asked.bemi(*remove, "--history")[0] == 2
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("bemi.cli.output.ask", lambda question: "n")
    assert asked.bemi(*remove)[1].endswith("nothing was done\n")
    assert len(legacy_triggers.find(asked.at.source)) == 5
    monkeypatch.setattr("bemi.cli.output.ask", lambda question: "y")
    assert asked.bemi(*remove)[0] == 0
    assert legacy_triggers.find(asked.at.source) == []
    # Slot and publication are as they were.
    asked.write("insert into todo (id) values (1)")
    assert len([*asked.ready().changes()]) == 1


def test_who_may_not_gets_the_sql(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    conn = asked.at.source
    conn.execute(BY_COMMENT.encode())
    role = f"plain_{conn.info.dbname}"
    conn.execute(f"create role {role} login password 'plain'".encode())
    url = asked.at.settings.source_url.replace(f"postgres:{conn.info.password}", f"{role}:plain")
    monkeypatch.setenv("BEMI_SOURCE_URL", url)
    try:
        code, out, _ = asked.bemi("teardown", "--legacy-triggers", "--yes", "--json")
        told = json.loads(out)
        assert (code, told["removed"]) == (1, False)
        assert len(legacy_triggers.find(conn)) == 5
        assert told["script"] in asked.bemi("teardown", "--legacy-triggers", "--yes")[1]
        conn.execute(told["script"].encode())
        assert legacy_triggers.find(conn) == []
    finally:
        conn.execute(f"drop owned by {role}".encode())
        conn.execute(f"drop role {role}".encode())


def test_what_they_send_is_read_meanwhile(asked: Asked) -> None:
    """A message for each row, mixed with one for each transaction."""
    asked.at.source.execute(BY_COMMENT.encode())
    asked.at.source.execute(
        b"""insert into todo (id) values (1), (2) /*Bemi {"user_id": 1} Bemi*/"""
    )
    asked.write("insert into todo (id) values (3)", user_id=2)
    asked.write(
        "insert into todo (id) values (4)",
        """update todo set task = 'a' where id in (1, 2) /*Bemi {"user_id": 3} Bemi*/""",
        user_id=2,
    )
    asked.at.source.execute("delete from todo where id = 4")
    found = [
        (change.operation, change.primary_key, change.context)
        for change in asked.ready().changes(oldest_first=True)
    ]
    assert found == [
        ("CREATE", "1", {"user_id": 1}),
        ("CREATE", "2", {"user_id": 1}),
        ("CREATE", "3", {"user_id": 2}),
        ("CREATE", "4", {"user_id": 2}),
        ("UPDATE", "1", {"user_id": 3}),
        ("UPDATE", "2", {"user_id": 3}),
        ("DELETE", "4", {}),
    ]
    legacy_triggers.remove(asked.at.source, legacy_triggers.find(asked.at.source))
    asked.at.source.execute("""delete from todo /*Bemi {"user_id": 9} Bemi*/""")
    contexts = [change.context for change in asked.ready().changes(limit=3)]
    assert contexts == [{}, {}, {}]
