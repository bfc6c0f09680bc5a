"""What a statement does is told by its words, wherever else these words may stand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bemi.context.statements import Statement, classify

WRITES = [
    "insert into t values (1)",
    "  -- who\n  Update t set a = 'x;y'",
    "/* a /* b */ c */ delete from t",
    "select 1 -- a carriage return ends it\rinto t",
    "merge into t using s on true when matched then delete",
    "truncate t",
    "copy t (a, b) from stdin",
    "with x as (update t set a = 1 returning *) select * from x",
    "with x as (select 1) insert into t select * from x",
    "with x as materialized (select 1), y as (delete from t returning 1) select 1 from y",
    "explain analyze update t set a = 1",
    "explain (analyze, buffers) insert into t values (1)",
    "execute add_one(7)",
    "select a into b from t",
    "create table t (a int)",
    "alter table t add b int",
    "select 1; delete from t",
    "call close_month()",
    "do $$ begin delete from t; end $$",
    "insert into t values ($$ ; rollback $$)",
    "copy (delete from t returning a) to stdout",
    "with recursive x as (select 1) search depth first by a set o insert into t select 1 from x",
    "explain analyze execute add_one(7)",
    "explain (analyze) create table u as select 1",
    "import foreign schema app from server other into here",
    "reassign owned by ann to bob",
]

READS = [
    "",
    ";",
    "/* never ends",
    "select 1",
    "select * from t for update",
    "select * from t for no key update of t",
    "with x as (select 1) select * from t for update",
    "select 'insert into t', \"delete\" from t",
    "select $x$; delete from t; $x$",
    "select e'\\'; delete from t; --'",
    "select 'it''s; delete from t'",
    "copy t to stdout",
    "copy (select a from t) to stdout",
    "explain update t set a = 1",
    "values (1), (2)",
    "table t",
    "declare c cursor for select 1",
    "fetch 10 from c",
    "set search_path to app",
    "show all",
    "listen changes",
    "vacuum t",
]


@pytest.mark.parametrize("text", WRITES)
def test_what_writes(text: str) -> None:
    assert classify(text).writes
    assert classify(text.encode()).writes
    assert classify(text.upper()).writes


@pytest.mark.parametrize("text", READS)
def test_what_does_not_write(text: str) -> None:
    assert not classify(text).writes


@pytest.mark.parametrize(
    ("text", "wrappable"),
    [
        ("insert into t values (1)", True),
        ("create table t (a int)", True),
        ("create unique index i on t (a)", True),
        ("grant select on t to r", True),
        ("insert into t values (1); delete from t", True),
        ("create index concurrently i on t (a)", False),
        ("drop index concurrently i", False),
        ("create database d", False),
        ("alter system set a = 1", False),
        ("call close_month()", False),
        ("do $$ begin commit; end $$", False),
        ("vacuum t", False),
        ("begin; insert into t values (1); commit", False),
        ("insert into t values (1); vacuum t", False),
    ],
)
def test_what_can_run_in_a_block_that_is_opened_for_it(text: str, wrappable: bool) -> None:
    assert classify(text).wrappable is wrappable


@pytest.mark.parametrize(
    ("text", "controls"),
    [
        ("begin isolation level serializable", [("begin", "")]),
        ("start transaction read only", [("begin", "")]),
        ("commit", [("end", "")]),
        ("end work", [("end", "")]),
        ("rollback and chain", [("rollback", "")]),
        ("abort", [("rollback", "")]),
        ("prepare transaction 'x'", [("end", "")]),
        ("commit prepared 'x'", []),
        ("rollback prepared 'x'", []),
        ("savepoint a", [("savepoint", "a")]),
        ('savepoint "A""b"', [("savepoint", 'A"b')]),
        ("release a", [("release", "a")]),
        ("release savepoint A", [("release", "a")]),
        ("rollback to a", [("rollback to", "a")]),
        ("ROLLBACK WORK TO SAVEPOINT a", [("rollback to", "a")]),
        ("savepoint savepoint", [("savepoint", "savepoint")]),
        ("begin; savepoint a; commit", [("begin", ""), ("savepoint", "a"), ("end", "")]),
    ],
)
def test_what_it_does_to_the_transaction(text: str, controls: list[tuple[str, str]]) -> None:
    assert list(classify(text).controls) == controls


def test_functions_that_are_named_count_as_writes() -> None:
    named = frozenset(("close_month",))
    assert classify("select app.Close_Month(3)", named).writes
    assert classify('select "close_month" (3)', named).writes
    assert not classify("select close_month from t", named).writes
    assert not classify("select 'close_month(3)'", named).writes


def test_several_statements_are_told() -> None:
    assert classify("select 1; select 2").several
    assert not classify("select ';'; ").several


@given(st.text())
def test_any_text_has_an_answer(text: str) -> None:
    assert isinstance(classify(text), Statement)


@given(st.text(alphabet="'\"$;-/*e\\ a\n("))
def test_any_quoting_has_an_answer(text: str) -> None:
    assert isinstance(classify(text), Statement)


@given(st.text().filter(lambda text: "'" not in text and "\0" not in text))
def test_what_stands_in_a_text_does_not_count(text: str) -> None:
    assert not classify(f"select '{text}', 1").writes
    assert classify(f"insert into t values ('{text}')").writes


ROLES = ["set role ann", "SET LOCAL ROLE ann", "set session authorization ann", "reset role",
         "set local session authorization ann", "set session session authorization ann",
         "set session_authorization = ann", "set local session_authorization to ann",
         "reset session authorization", "reset all", "discard all",
         "select set_config('role', 'ann', true)", "select 1; set role ann"]  # fmt: skip


@pytest.mark.parametrize("text", ROLES)
def test_what_may_change_the_role(text: str) -> None:
    assert classify(text).roles


@pytest.mark.parametrize("text", ["set search_path to role", "select 1", "create role ann"])
def test_what_leaves_the_role(text: str) -> None:
    assert not classify(text).roles


def test_long_texts_take_no_longer_than_they_are_long() -> None:
    """A quadratic expression would not come back from these before the tests' time limit."""
    blanks = " " * 2_000_000
    assert classify(f"insert into t values (1){blanks}; select 1").writes
    assert not classify(f"select{blanks}x{blanks}1").writes
