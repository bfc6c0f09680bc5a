"""The pytest plugin, as a project's own tests use it: in a pytest of its own, on a real server."""

import signal
import subprocess
import sys

import psycopg
import pytest
from psycopg import conninfo

from bemi import config
from tests.support.waiting import until

pytest_plugins = ["pytester"]

PLUGIN = "bemi.testing.plugin"

TABLES = """
create table todo (
    id bigint generated always as identity primary key,
    task text not null,
    done boolean not null default false
);
create table person (id int primary key, email text not null, note jsonb);
insert into todo (task) values ('Seed'), ('Other');
"""

CONFTEST = """
import bemi
import psycopg
import pytest

@pytest.fixture
def db(bemi_url):
    with psycopg.connect(bemi_url, autocommit=True) as connection:
        yield connection

@pytest.fixture
def rows(db):
    def rows(*tables):
        return [db.execute(f"select * from {table} order by 1, 2").fetchall() for table in tables]
    return rows

@pytest.fixture
def request_of(db):
    def request_of(statement, **context):
        with bemi.context(**context), db.transaction():
            bemi.emit(db)
            db.execute(statement)
    return request_of
"""


@pytest.fixture
def project(
    pytester: pytest.Pytester, source_url: str, monkeypatch: pytest.MonkeyPatch
) -> pytest.Pytester:
    """A project with a test database, and settings of a developer's that are not for its tests."""
    with psycopg.connect(source_url, autocommit=True) as conn:
        conn.execute(TABLES)
    pytester.makeconftest(CONFTEST)
    monkeypatch.setenv("BEMI_TEST_URL", source_url)
    monkeypatch.setenv("BEMI_SOURCE_URL", "postgresql://nobody@127.0.0.1:1/production")
    monkeypatch.setenv("BEMI_SLOT", "production")
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # others' take their time
    return pytester


def traces(url: str) -> list[str]:
    """What there is of Bemi's in a database and its server."""
    with psycopg.connect(url, autocommit=True) as conn:
        rows = conn.execute(
            "select slot_name::text from pg_replication_slots where database = current_database()"
            " union all select pubname from pg_publication"
            " union all select nspname from pg_namespace where nspname like 'bemi%'"
            " union all select relname from pg_class where relreplident = 'f'"
        ).fetchall()
    return [row[0] for row in rows]


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return project.runpytest_subprocess("-p", PLUGIN, "-p", "no:cacheprovider", *arguments)


def test_what_a_test_changed_and_what_is_said_where_it_did_not(
    project: pytest.Pytester, source_url: str
) -> None:
    project.makepyfile(
        """
        import datetime, decimal, uuid
        from unittest.mock import ANY
        import psycopg
        import pytest

        @pytest.fixture
        def early(db):
            db.execute("insert into todo (task) values ('Early')")

        def test_passes(db, bemi_history, early, request_of):
            bemi_history.assert_unchanged()
            request_of("insert into todo (task) values ('Mine')", user_id=42, request_id="r-1")
            request_of("update todo set done = true where task = 'Mine'", user_id=42)
            (created,) = bemi_history.assert_created("todo", {"task": "Mine", "done": False})
            assert created.context["request_id"] == "r-1"
            key = created.primary_key
            bemi_history.assert_changed("public.todo", {"done": [False, True]}, key=key, times=1)
            bemi_history.assert_context("user_id", table="todo", user_id="42")
            bemi_history.assert_unchanged("person")
            bemi_history.assert_unchanged("todo", key=1)
            bemi_history.assert_not_readable("4111 1111 1111 1111")
            assert [c.operation for c in bemi_history.changes(table="todo")] == ["CREATE", "UPDATE"]
            assert len(bemi_history.changes(changed="done", context={"user_id": 42})) == 1
            bemi_history.begin()
            db.execute("delete from todo where task = 'Mine'")
            bemi_history.assert_deleted("todo", {"task": "Mine"}, times=1)
            with pytest.raises(AssertionError, match="no row of todo was created"):
                bemi_history.assert_created("todo")

        def test_values(db, bemi_history):
            db.execute(
                "create table kinds (id int primary key, u uuid, t timestamptz, d date, n numeric,"
                " f float8, j jsonb, b bytea, a int[], z text, s time)"
            )
            db.execute("alter publication bemi_pytest_DATABASE add table kinds")
            id, at = uuid.uuid4(), datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
            values = {
                "id": 1, "u": id, "t": at, "d": at.date(), "n": decimal.Decimal("1.50"), "f": 0.1,
                "j": {"a": [1, True, 0.1, None]}, "b": b"\\x00\\xff", "a": [1, 2], "z": None,
                "s": at.time(),
            }
            row = [*values.values()]
            row[6] = psycopg.types.json.Jsonb(row[6])
            db.execute(f"insert into kinds values ({', '.join(['%s'] * len(row))})", row)
            (made,) = [c for c in bemi_history.changes() if c.table == "kinds"]
            from bemi.testing.matching import is_value
            wrong = [name for name, each in values.items() if not is_value(made.after[name], each)]
            assert wrong == []
            assert is_value(made.after["f"], pytest.approx(0.1)) and is_value(made.after["u"], ANY)
            others = [not is_value(1, True), not is_value(True, 1), not is_value(None, 0),
                not is_value("1", "2"), not is_value([1], [True]), not is_value("true", True)]
            assert all(others), others

        def test_not_so(db, bemi_history, request_of):
            request_of("update todo set task = 'Call Ada' where id = 1", user_id=42)
            bemi_history.assert_changed("todo", {"done": [False, True]})

        def test_hostile(db, bemi_history):
            hostile = "\\x1b[31m\\u202e'; drop table x"
            db.execute("insert into person values (1, %s, null)", [hostile])
            bemi_history.assert_deleted("person", {"email": "\\x1b[31m"})

        def test_too_often(db, bemi_history):
            db.execute("insert into todo (task) values ('a'), ('b')")
            bemi_history.assert_created("todo", {"nope": 1}, times=3)

        def test_nothing_committed(db, bemi_history):
            with db.transaction(force_rollback=True):
                db.execute("delete from todo")
            bemi_history.assert_deleted("todo")

        def test_changed(db, bemi_history):
            db.execute("delete from todo where id = 2")
            bemi_history.assert_unchanged("todo", key=2)

        def test_without_context(db, bemi_history, request_of):
            request_of("insert into todo (task) values ('With')", user_id=1)
            db.execute("insert into todo (task) values ('Without')")
            bemi_history.assert_context("user_id", user_id=1)

        def test_readable(db, bemi_history):
            db.execute("insert into person values (2, 'a', '{\\"card\\": [\\"no 4111 1111\\"]}')")
            bemi_history.assert_not_readable("4111 1111")

        def test_misspelt(bemi_history):
            bemi_history.assert_unchanged("todos")

        def test_one_value(bemi_history):
            bemi_history.assert_changed("todo", {"done": True})

        @pytest.mark.parametrize("name", ['"; drop table todo; --', "x" * 63, "a\\0b", "ü.\\u202e"])
        def test_hostile_names(bemi_history, name):
            from bemi import BemiError
            with pytest.raises((BemiError, AssertionError)):
                bemi_history.assert_created(name, {name: name})
            with pytest.raises((BemiError, AssertionError)):
                bemi_history.assert_created("todo", {name: name}, key=name)
            with pytest.raises((BemiError, AssertionError)):
                bemi_history.assert_context(name, **{name: name})
            bemi_history.assert_not_readable(name)
        """.replace("DATABASE", config.database_name(source_url, key="source_url"))
    )
    result = run(project, "-vv")
    result.assert_outcomes(passed=6, failed=9)
    said = result.stdout.str()
    for lines in (
        [
            "E       AssertionError: no update of todo changed done from False to True",
            "E       changes of todo in this test (1):",
            "E         UPDATE todo 1: task 'Seed' -> 'Call Ada'  [[]user_id 42[]]",
        ],
        [r"E         CREATE person 1: *email \"\x1b[[]31m\u202e'; drop table x\"*"],
        [
            "E       AssertionError: 0 times instead of 3: row of todo was created with nope 1",
            "E       todo has no column nope: done, id, task",
        ],
        ["E       changes of todo in this test: none", "E       Bemi sees what is committed:*"],
        ["E       AssertionError: todo 2 was changed", "E         DELETE todo 2: *task 'Other'*"],
        [
            "E       AssertionError: 1 of 2 changes in this test were made without a context*",
            "E         CREATE todo *'Without'*[[]no context[]]",
        ],
        ["E       '4111 1111' in after, note of CREATE person 2"],
        [
            "E       bemi.errors.UsageError: the changes of public.todos are not kept: there*",
            "E       fix: those that are: public.person, public.todo",
        ],
        ["E       fix: give both, as in {'done': [[]False, True[]]}"],
    ):
        result.stdout.fnmatch_lines([line.replace('\\"', '"') for line in lines])
    assert "\x1b[31m" not in said.replace("\x1b[31mFAILED", "")
    assert "\u202e" not in said
    assert traces(source_url) == []


def test_tests_that_write_without_a_context_or_leave_secrets_readable_fail(
    project: pytest.Pytester, source_url: str
) -> None:
    project.makeini(
        "[pytest]\nbemi_config = rules.toml\nbemi_require_context = true\n"
        "bemi_require_masked = true\n"
    )
    project.makefile(".toml", rules='[rules]\nmask = ["person.email"]\nhash = ["person.note"]\n')
    project.makepyfile(
        """
        import pytest

        @pytest.fixture
        def arranged(db):
            db.execute("insert into todo (task) values ('Without a context')")

        def test_passes(arranged, request_of):
            request_of("insert into person values (1, 'ada@example.com', null)", user_id=1)

        def test_reads_only(rows):
            rows("todo")

        def test_without(db):
            db.execute("insert into todo (task) values ('Without')")

        @pytest.mark.bemi_require_context("request_id")
        def test_without_key(request_of):
            request_of("insert into todo (task) values ('x')", user_id=1)

        @pytest.mark.bemi_require_context(False)
        def test_may(db):
            db.execute("insert into todo (task) values ('Without')")

        def test_leaks(request_of):
            request_of("insert into person values (2, 'eve@example.com', null);"
                " insert into todo (task) values ('mail eve@example.com')", user_id=1)

        @pytest.mark.bemi_require_masked(False)
        def test_leaks_in_context(request_of, bemi_history):
            bob = "bob@example.com"
            request_of(f"insert into person values (3, '{bob}', null)", to=bob)
            with pytest.raises(AssertionError) as raised:
                bemi_history.assert_masked()
            assert "the email of person 3 in context, to of CREATE person 3" in str(raised.value)
        """
    )
    result = run(project)
    result.assert_outcomes(passed=4, failed=3)
    result.stdout.fnmatch_lines_random(
        [
            "1 of 1 changes in this test were made without a context",
            "1 of 1 changes in this test were made without a context with request_id",
            "the email of person 2 in after, task of CREATE todo *",
        ]
    )
    assert traces(source_url) == []


WAITS = """
import pathlib
import time

def test_waits(db, bemi_history):
    db.execute("insert into todo (task) values ('x')")
    bemi_history.assert_created("todo")
    pathlib.Path("ready").touch()
    time.sleep(100)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_of_tests_that_are_ended(
    project: pytest.Pytester, source_url: str, number: signal.Signals
) -> None:
    """By Ctrl-C, or without a chance to clean up."""
    project.makepyfile(WAITS)
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "-p", PLUGIN],
        cwd=project.path,
        stdout=subprocess.PIPE,
    )
    try:
        until((project.path / "ready").exists, 60, "the test waits")
        assert traces(source_url) != []
        process.send_signal(number)
        process.wait(60)
    finally:
        process.kill()
        process.communicate()
    until(lambda: traces(source_url) == [], 30, "nothing is left")


def test_what_a_killed_keeper_left_is_told_and_taken_away_by_the_next(
    project: pytest.Pytester, source_url: str
) -> None:
    project.makepyfile(
        """
        import os, signal
        def test_killed(db, bemi_session, bemi_history):
            os.kill(bemi_session._keeper.pid, signal.SIGKILL)
            db.execute("insert into todo (task) values ('x')")
            bemi_history.assert_created("todo")
        """
    )
    result = run(project)
    result.assert_outcomes(failed=1, errors=1)
    result.stdout.fnmatch_lines(["*the process that keeps the history has ended*"])
    assert traces(source_url) != []
    project.makepyfile("def test_unchanged(bemi_history): bemi_history.assert_unchanged()")
    run(project).assert_outcomes(passed=1)
    assert traces(source_url) == []


def test_each_worker_of_xdist_has_a_database_and_a_slot_of_its_own(
    project: pytest.Pytester, source_url: str, destination_url: str
) -> None:
    with psycopg.connect(destination_url, autocommit=True) as conn:
        conn.execute(TABLES)
    project.makeconftest(
        CONFTEST
        + f"""
URLS = {{"gw0": {source_url!r}, "gw1": {destination_url!r}}}

@pytest.fixture(scope="session")
def bemi_url(worker_id):
    return URLS[worker_id].replace("postgresql://", "postgresql+psycopg://")  # SQLAlchemy's
"""
    )
    project.makepyfile(
        """
        import psycopg
        import pytest

        @pytest.fixture
        def db(bemi_url):
            with psycopg.connect(bemi_url.replace("+psycopg", ""), autocommit=True) as connection:
                yield connection

        @pytest.mark.parametrize("number", range(6))
        def test_alone(db, bemi_history, bemi_session, number):
            db.execute("insert into todo (task) values (%s)", [f"Number {number}"])
            (change,) = bemi_history.changes()
            assert change.after["task"] == f"Number {number}"
            slots = db.execute("select slot_name from pg_replication_slots"
                " where database = current_database()").fetchall()
            assert slots == [(bemi_session.kept.name,)]
        """
    )
    run(project, "-p", "xdist", "-n", "2").assert_outcomes(passed=6)
    assert traces(source_url) == traces(destination_url) == []


def test_the_history_may_be_elsewhere_and_runs_do_not_share_a_database(
    project: pytest.Pytester, source_url: str, destination_url: str
) -> None:
    project.makeini(f"[pytest]\nbemi_history_url = {destination_url}\nbemi_baseline = false\n")
    project.makepyfile(
        """
        import os, subprocess, sys

        def test_elsewhere(db, bemi_history):
            db.execute("insert into todo (task) values ('x')")
            bemi_history.assert_created("todo", {"task": "x"})
            assert db.execute("select from pg_namespace where nspname like 'bemi%'").rowcount == 0
            code = "from bemi.testing import keeper; keeper._GONE = 0.5; keeper.main()"
            order = ('{"url": "%s", "history_url": "", "config": "", "baseline": false}\\n'
                % os.environ["BEMI_TEST_URL"])
            other = subprocess.run([sys.executable, "-c", code], input=order.encode(),
                stdout=subprocess.PIPE)
            assert b"another test run uses the database" in other.stdout
        """
    )
    run(project).assert_outcomes(passed=1)
    assert traces(source_url) == traces(destination_url) == []


def test_a_role_that_may_not_let_triggers_rest(
    project: pytest.Pytester, source_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they write once more is undone too; what they alter again and again is refused."""
    role = config.database_name(source_url, key="source_url") + "_tester"
    with psycopg.connect(source_url, autocommit=True) as conn:
        conn.execute(f"create role {role} login replication password 'secret'")
        conn.execute(f"alter database {conn.info.dbname} owner to {role}")
        conn.execute(f"grant create on schema public to {role}")
        conn.execute(f"alter table person owner to {role}")
        conn.execute(f"alter table todo owner to {role}; set role {role}")
        conn.execute(
            "create table log (id int generated always as identity primary key, said text);"
            "create function note() returns trigger language plpgsql as"
            " 'begin insert into log (said) values (tg_op); return null; end';"
            "create trigger noted after insert or update or delete on todo"
            " for each row execute function note();"
            "create function alter_it() returns trigger language plpgsql as"
            " 'begin new.email := new.email || ''!''; return new; end';"
            "create trigger altered before update on person"
            " for each row execute function alter_it();"
            "insert into person values (1, 'a')"
        )
    monkeypatch.setenv(
        "BEMI_TEST_URL", conninfo.make_conninfo(source_url, user=role, password="secret")
    )
    project.makepyfile(
        """
        import bemi
        import pytest

        def test_undone(db, rows, bemi_checkpoint):
            was = rows("todo", "log")
            with bemi_checkpoint() as point:
                db.execute("insert into todo (task) values ('x'); update todo set done = true")
            assert rows("todo", "log") == was
            assert point.rolled_back.notes == ("public.todo: triggers fire: noted",)

        def test_refused(db, bemi_checkpoint):
            with pytest.raises(bemi.BemiError, match="triggers alter 1 rows each time") as raised:
                with bemi_checkpoint():
                    db.execute("update person set email = 'b'")
            assert "grant set on parameter session_replication_role" in raised.value.fix
        """
    )
    run(project).assert_outcomes(passed=2)
    with psycopg.connect(source_url, autocommit=True) as conn:
        conn.execute(f"reassign owned by {role} to postgres; drop owned by {role}")
        conn.execute(f"drop role {role}")
    assert traces(source_url) == []


def test_unused_it_costs_nothing(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing but pytest and the standard library is loaded, and no database is looked for."""
    monkeypatch.delenv("BEMI_TEST_URL", raising=False)
    pytester.makepyfile(
        """
        import sys
        import pytest

        def test_light():
            heavy = {"psycopg", "msgspec", "cyclopts", "bemi.history", "bemi.capture", "bemi.store",
                "bemi.testing.session", "bemi.connections", "bemi.config"}
            assert "bemi.testing.plugin" in sys.modules
            assert heavy & set(sys.modules) == set()

        def test_url(bemi_history):
            pass

        class TestWrong:
            @pytest.fixture(scope="session")
            def bemi_url(self):
                return "postgresql://nobody@127.0.0.1:1/nothing"

            def test_wrong(self, bemi_history):
                pass
        """
    )
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(passed=1, errors=2)
    result.stdout.fnmatch_lines(
        [
            "bemi: which database do the tests use?",
            "fix: set bemi_url in pytest's settings*",
            "bemi: can't connect to the source 127.0.0.1:1/nothing*",
        ]
    )


MORE_TABLES = """
create table team (id int primary key, lead int);
create table member (id int primary key, team int not null references team on delete cascade);
alter table team add foreign key (lead) references member;
create table plain (x text, n int);
create table log (id int generated always as identity primary key, said text);
create unlogged table scratch (id int primary key);
create function note() returns trigger language plpgsql as
    'begin insert into log (said) values (tg_op); return null; end';
create trigger noted after insert or update or delete on todo for each row execute function note();
insert into team values (1), (2);
insert into member values (1, 1), (2, 2), (3, 2);
update team set lead = id;
insert into plain values ('a', 1), ('a', 1), ('b', null);
"""


def test_the_database_is_as_it_was_whatever_was_committed(
    project: pytest.Pytester, source_url: str
) -> None:
    """Over several connections and processes, with foreign keys in a circle, other keys, rows
    without a key, TRUNCATE, triggers, sequences; in a block, within another one, after a test."""
    with psycopg.connect(source_url, autocommit=True) as conn:
        conn.execute(MORE_TABLES)
    project.makepyfile(
        """
        import datetime, os, subprocess, sys
        import psycopg
        import pytest
        import bemi

        ALL = "todo", "person", "team", "member", "plain", "log"

        @pytest.fixture(scope="module", autouse=True)
        def arranged(bemi_url):
            with psycopg.connect(bemi_url, autocommit=True) as db:
                db.execute("insert into todo (task) values ('For all tests')")

        @pytest.fixture
        def early(db):
            db.execute("insert into todo (task) values ('For one test')")

        def test_all(db, bemi_url, rows, bemi_checkpoint, bemi_history):
            was = rows(*ALL)
            with bemi_checkpoint() as point:
                db.execute("insert into todo (task) values ('x'); update todo set done = not done;"
                    " update todo set task = 'y' where id = 1; delete from todo where id = 2")
                with psycopg.connect(bemi_url) as other:
                    other.execute("update plain set n = 5 where x = 'b'; delete from plain where"
                        " x = 'a'; insert into plain values ('a', 1)")
                    other.execute("update team set lead = null; delete from team where id = 2;"
                        " insert into team values (7, 1)")
                code = ("import psycopg, sys; c = psycopg.connect(sys.argv[1]); c.execute("
                    "'insert into person values (1, $$a$$)'); c.commit()")
                subprocess.run([sys.executable, "-c", code, bemi_url], check=True)
                assert rows(*ALL) != was
                bemi_history.assert_created("person", {"email": "a"})
            assert rows(*ALL) == was
            assert point.rolled_back.sequences == ("public.log_id_seq", "public.todo_id_seq")
            assert point.rolled_back.notes == ()
            bemi_history.assert_unchanged()

        def test_truncate(db, rows, bemi_checkpoint):
            was, ids = rows(*ALL), db.execute("select last_value from todo_id_seq").fetchone()
            with bemi_checkpoint(reset_sequences=True):
                db.execute("truncate todo, team, member, plain, log restart identity")
                db.execute("insert into todo (task) values ('x')")
                db.execute("insert into plain values ('c', 0)")
            assert rows(*ALL) == was
            assert db.execute("select last_value from todo_id_seq").fetchone() == ids

        def test_keys(db, rows, bemi_checkpoint):
            was = rows(*ALL)
            with bemi_checkpoint():
                db.execute("update team set lead = null; update member set id = id + 100;"
                    " update member set id = 3 where id = 101; update member set id = 1 where id ="
                    " 102")
            assert rows(*ALL) == was

        def test_nested_and_failing(db, rows, bemi_checkpoint, bemi_history):
            was = rows(*ALL)
            with pytest.raises(ZeroDivisionError), bemi_checkpoint():
                db.execute("insert into todo (task) values ('outer')")
                inner = rows(*ALL)
                for name in ("a", "b"):
                    with bemi_checkpoint():
                        db.execute("update todo set task = %s", [name])
                        bemi_history.assert_changed("todo", {"task": ["outer", name]}, times=1)
                    assert rows(*ALL) == inner
                bemi_history.assert_created("todo", {"task": "outer"}, times=1)
                1 / 0
            assert rows(*ALL) == was

        def test_open_transaction(db, bemi_url, rows, bemi_checkpoint, monkeypatch):
            from bemi.testing import checkpoint
            monkeypatch.setattr(checkpoint, "_LOCK_PATIENCE", 0.2)
            was = rows(*ALL)
            with psycopg.connect(bemi_url) as other:
                with pytest.raises(bemi.BemiError, match="open: PID .*set task = 'open'"):
                    with bemi_checkpoint() as point:
                        db.execute("update todo set task = 'x'")
                        other.execute("update todo set task = 'open'")
                other.rollback()
            point.roll_back()
            assert rows(*ALL) == was

        def test_tables_made_since(db, bemi_checkpoint, bemi_history):
            db.execute("create table made (id int primary key); insert into made values (1)")
            with bemi_checkpoint():
                db.execute("truncate made; insert into made values (2)")
                bemi_history.assert_created("made", {"id": 2})
            assert db.execute("table made").fetchall() == [(1,)]
            with bemi_checkpoint() as point:
                db.execute("create table late (id int primary key); insert into late values (1)")
                with pytest.raises(bemi.BemiError, match="it was made since the test began"):
                    bemi_history.assert_unchanged("late")
            (note,) = point.rolled_back.notes
            assert note == "public.late was made meanwhile, and stays as it is"

        @pytest.mark.bemi_rollback(reset_sequences=True)
        def test_fails(db, early):
            db.execute("insert into todo (task) values ('In a test that fails')")
            assert db.execute("select count(*) from todo").fetchone() == (5,)
            assert not "it fails"

        def test_as_before(db):
            found = [task for (task,) in db.execute("select task from todo order by id")]
            assert found == ["Seed", "Other", "For all tests"]

        def test_states(db, rows, request_of, bemi_state, bemi_history, bemi_rollback):
            request_of("insert into todo (task) values ('r1')", request_id="r-1")
            before, at = rows(*ALL), datetime.datetime.now(datetime.UTC)
            request_of("update todo set done = true", request_id="r-2")
            request_of("delete from todo where task = 'r1'", request_id="r-3")
            now = rows(*ALL)
            with bemi_state.before(request="r-2"):
                assert rows(*ALL) == before
                db.execute("delete from todo")
            assert rows(*ALL) == now
            (created,) = bemi_history.assert_created("todo")
            for when in (at, at.isoformat(), created.id):
                with bemi_state.at(when):
                    assert rows(*ALL) == before
            with bemi_state.before(operation="delete"):
                assert db.execute("select count(*) from todo where done").fetchone() == (4,)
            assert rows(*ALL) == now
            bemi_history.assert_changed("todo", {"done": [False, True]}, times=4)
            for request in ("r-4", "'; drop table todo; --", "\\u202e", "x" * 64):
                with pytest.raises(bemi.BemiError, match="no change since the tests began"):
                    with bemi_state.before(request=request):
                        pass
            with pytest.raises(bemi.BemiError, match="begins after"):
                with bemi_state.at(at - datetime.timedelta(days=1)):
                    pass
            assert rows(*ALL) == now
        """
    )
    result = run(project, "-rP")
    result.assert_outcomes(passed=8, failed=1, warnings=1)
    result.stdout.fnmatch_lines(["*public.scratch is not rolled back: *unlogged*"])
    result.stdout.fnmatch_lines(["rolled back: 4 rows, in * ms", "sequences *, set back: *"])
    assert traces(source_url) == []
