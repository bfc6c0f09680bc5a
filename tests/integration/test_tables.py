"""Which tables can be tracked, and what happens to those that are created later."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import psycopg
import pytest
from psycopg import sql

from bemi.capture import publication
from bemi.capture.tables import TableState, add_new_tables, survey, with_remembered_rules
from bemi.config import Settings
from bemi.rules import Rules, Skip
from bemi.store.migrate import migrate
from bemi.store.sources import Setup

Connection = psycopg.Connection[Any]

REFUSED: Final = (
    psycopg.errors.ObjectNotInPrerequisiteState,
    psycopg.errors.InvalidColumnReference,
)


@pytest.fixture
def source(source_url: str) -> Iterator[Connection]:
    with psycopg.connect(source_url, autocommit=True) as conn:
        yield conn


@pytest.fixture
def settings(source_url: str) -> Settings:
    return Settings(source_url=source_url)


def state_of(source: Connection, settings: Settings, name: str) -> TableState:
    found = {state.qualified: state for state in survey(source, settings)}
    return found[name if "." in name else f"public.{name}"]


@pytest.mark.parametrize(
    ("ddl", "identity"),
    [
        ("create table t (id int primary key)", "primary key"),
        ("create table t (a int, b int, primary key (b, a))", "primary key"),
        ("create table t (a int); alter table t replica identity full", "full"),
        (
            (
                "create table t (a int not null); create unique index i on t (a);"
                " alter table t replica identity using index i"
            ),
            "index i",
        ),
        (
            # An index with included columns identifies by its key alone.
            (
                "create table t (a int not null, b int);"
                " create unique index i on t (a) include (b);"
                " alter table t replica identity using index i"
            ),
            "index i",
        ),
        (
            (
                "create table t (a int generated always as (1) stored);"
                " alter table t replica identity full"
            ),
            "full",
        ),
    ],
)
def test_an_effective_identity(
    source: Connection, settings: Settings, ddl: str, identity: str
) -> None:
    source.execute(ddl.encode())
    state = state_of(source, settings, "t")
    assert (state.identity, state.reason, state.fix) == (identity, None, None)
    _published_takes_updates(source, works=True)


@pytest.mark.parametrize(
    ("ddl", "reason"),
    [
        ("create table t (a int)", "no primary key"),
        ("create table t (a int not null unique)", "no primary key"),
        ("create table t (a int unique)", "no primary key"),
        ("create table t (a int primary key deferrable)", "deferrable"),
        ('create table t (a int, "b c" int, primary key (a, "b c") deferrable)', "deferrable"),
        ("create table t (a int primary key); alter table t replica identity nothing", "NOTHING"),
        ("create table t (a int); alter table t replica identity nothing", "NOTHING"),
        (
            (
                "create table t (a int not null, b int not null unique);"
                " create unique index i on t (a); alter table t replica identity using index i;"
                " drop index i"
            ),
            "gone or invalid",
        ),
        (
            (
                "create table t (a int primary key, b int not null);"
                " create unique index i on t (b); alter table t replica identity using index i;"
                " drop index i"
            ),
            "gone or invalid",
        ),
    ],
)
def test_a_table_without_an_effective_identity_and_the_statement_that_mends_it(
    source: Connection, settings: Settings, ddl: str, reason: str
) -> None:
    source.execute(ddl.encode())
    state = state_of(source, settings, "t")
    assert state.identity == "none"
    assert state.reason is not None
    assert reason in state.reason
    _published_takes_updates(source, works=False)

    assert state.fix is not None
    source.execute(state.fix.encode())
    mended = state_of(source, settings, "t")
    assert mended.reason is None
    source.execute("update t set a = a + 1")


def test_a_deferrable_identity_index_can_not_be_chosen_at_all(
    source: Connection, settings: Settings
) -> None:
    """PostgreSQL refuses it, so there is no such state to report."""
    source.execute("create table t (a int not null unique deferrable)")
    with pytest.raises(psycopg.Error):
        source.execute("alter table t replica identity using index t_a_key")


def test_an_unlogged_table_is_not_in_the_log(source: Connection, settings: Settings) -> None:
    source.execute("create unlogged table t (id int primary key)")
    state = state_of(source, settings, "t")
    assert "unlogged" in (state.reason or "")
    source.execute((state.fix or "").encode())
    assert state_of(source, settings, "t").reason is None


def test_full_over_a_virtual_generated_column_fails_updates(
    source: Connection, settings: Settings
) -> None:
    if source.info.server_version < 180000:
        pytest.skip("virtual generated columns came with PostgreSQL 18")
    source.execute(
        "create table t (id int primary key, a int generated always as (1) virtual);"
        " alter table t replica identity full"
    )
    state = state_of(source, settings, "t")
    assert "virtual" in (state.reason or "")
    _published_takes_updates(source, works=False)
    source.execute((state.fix or "").encode())
    assert state_of(source, settings, "t").reason is None


def test_only_ordinary_tables_and_leaf_partitions_are_listed(
    source: Connection, settings: Settings
) -> None:
    source.execute(
        """
        create schema shop;
        create table shop.plain (id int primary key);
        create table shop.parted (id int primary key) partition by range (id);
        create table shop.leaf partition of shop.parted for values from (0) to (10);
        create table shop.inner_root partition of shop.parted for values from (10) to (20)
            partition by range (id);
        create table shop.inner_leaf partition of shop.inner_root for values from (10) to (20);
        create table shop.child () inherits (shop.plain);
        create temporary table passing (id int primary key);
        create view shop.looked as select * from shop.plain;
        create materialized view shop.stored as select * from shop.plain;
        create foreign data wrapper nowhere;
        create server far foreign data wrapper nowhere;
        create foreign table shop.far (id int) server far;
        create sequence shop.numbers;
        """
    )
    assert [(state.qualified, state.root) for state in survey(source, settings)] == [
        ("shop.child", None),
        ("shop.inner_leaf", "shop.parted"),
        ("shop.leaf", "shop.parted"),
        ("shop.plain", None),
    ]
    # An inheriting table has no key of its own.
    assert state_of(source, settings, "shop.child").reason == "it has no primary key"


def test_bemis_own_schemas_are_not_listed(source: Connection, settings: Settings) -> None:
    """Neither the configured one, nor another Bemi's history in the same database."""
    migrate(source, "bemi")
    migrate(source, "other_history")
    source.execute("create table bemi.mine (id int primary key)")
    source.execute("create schema others; create table others.row_changes (id int primary key)")
    assert [state.qualified for state in survey(source, settings)] == ["others.row_changes"]


@pytest.mark.parametrize(
    ("rules", "wanted"),
    [
        ({}, ["app.a", "app.b", "log.a", "public.a", "public.leaf"]),
        ({"tables": ("a",)}, ["public.a"]),
        ({"tables": ("app.*",)}, ["app.a", "app.b"]),
        ({"tables": ("*.a",)}, ["app.a", "log.a", "public.a"]),
        ({"tables": ("root",)}, ["public.leaf"]),
        ({"tables": ("leaf",)}, ["public.leaf"]),
        ({"schemas": ("l*",)}, ["log.a"]),
        ({"schemas": ("log",), "tables": ("app.b",)}, ["app.b", "log.a"]),
        ({"tables": ("A",)}, []),
    ],
)
def test_rules_choose_tables(
    source: Connection, source_url: str, rules: dict[str, Any], wanted: list[str]
) -> None:
    source.execute(
        """
        create schema app; create schema log;
        create table a (id int primary key); create table app.a (id int primary key);
        create table app.b (id int primary key); create table log.a (id int primary key);
        create table root (id int primary key) partition by range (id);
        create table leaf partition of root for values from (0) to (10);
        """
    )
    states = survey(source, Settings(source_url=source_url, **rules))
    assert [state.qualified for state in states if state.wanted] == wanted


def test_rules_of_init_are_remembered_unless_settings_have_some(source_url: str) -> None:
    setup = Setup(tables=("public.a",))
    bare = Settings(source_url=source_url)
    assert with_remembered_rules(bare, setup).tables == ("public.a",)
    assert with_remembered_rules(bare, None) == bare
    ruled = Settings(source_url=source_url, schemas=("app",))
    assert with_remembered_rules(ruled, setup) == ruled


def test_odd_names(source: Connection, settings: Settings) -> None:
    source.execute('create schema "a.B"; create table "a.B"."c ""d%s" (id int primary key)')
    publication.create(source, "bemi")
    found = add_new_tables(source, settings)
    assert [state.qualified for state in found.added] == ['a.B.c "d%s']
    assert state_of(source, settings, 'a.B.c "d%s').published


def test_new_tables_are_added_with_track(source: Connection, settings: Settings) -> None:
    publication.create(source, "bemi")
    source.execute("create table a (id int primary key); create table b (x int)")
    found = add_new_tables(source, settings)
    assert [state.qualified for state in found.added] == ["public.a"]
    assert [(state.qualified, state.reason) for state in found.untracked] == [
        ("public.b", "it has no primary key")
    ]
    assert state_of(source, settings, "a").published
    assert add_new_tables(source, settings).added == ()


def test_an_inheriting_table_is_not_taken_along(source: Connection, settings: Settings) -> None:
    """It has no identity, so that its updates would fail."""
    publication.create(source, "bemi")
    source.execute("create table a (id int primary key); create table kid () inherits (a)")
    assert [state.qualified for state in add_new_tables(source, settings).added] == ["public.a"]
    source.execute("insert into kid values (1); update kid set id = 2")


def test_new_tables_are_only_shown_with_warn(source: Connection, source_url: str) -> None:
    settings = Settings(source_url=source_url, new_tables="warn")
    publication.create(source, "bemi")
    source.execute("create table a (id int primary key)")
    found = add_new_tables(source, settings)
    assert found.added == ()
    (state,) = found.untracked
    assert "warn" in (state.reason or "")
    assert not state_of(source, settings, "a").published
    source.execute((state.fix or "").encode())
    assert state_of(source, settings, "a").published


def test_a_role_that_may_not_publish_gets_the_statement_for_an_owner(
    source: Connection, settings: Settings
) -> None:
    publication.create(source, "bemi")
    source.execute("create table a (id int primary key)")
    database = sql.Identifier(source.info.dbname)
    role = f"watcher_of_{source.info.dbname}"
    name = sql.Identifier(role)
    source.execute(sql.SQL("create role {}").format(name))
    try:
        with _as_role(source, role):
            (state,) = add_new_tables(source, settings).untracked
        assert "belongs to postgres" in (state.reason or "")
        # From here on the publication is the role's own, and the table is not.
        source.execute(sql.SQL("grant create on database {} to {}").format(database, name))
        source.execute(sql.SQL("alter publication bemi owner to {}").format(name))
        with _as_role(source, role):
            (state,) = add_new_tables(source, settings).untracked
        assert "another role" in (state.reason or "")
        source.execute((state.fix or "").encode())
        assert state_of(source, settings, "a").published
    finally:
        source.execute(sql.SQL("drop owned by {}").format(name))
        source.execute(sql.SQL("drop role {}").format(name))


def test_a_locked_table_is_left_for_the_next_time(
    source: Connection, source_url: str, settings: Settings
) -> None:
    publication.create(source, "bemi")
    source.execute("create table a (id int primary key); create table b (id int primary key)")
    with psycopg.connect(source_url) as other:
        other.execute("lock table a in share mode")
        found = add_new_tables(source, settings)
        assert [state.qualified for state in found.added] == ["public.b"]
        assert "lock" in (found.untracked[0].reason or "")
    assert [state.qualified for state in add_new_tables(source, settings).added] == ["public.a"]


def test_tables_that_others_keep_locked_are_surveyed_all_the_same(
    source: Connection, source_url: str, settings: Settings
) -> None:
    """As TRUNCATE, VACUUM FULL and most of ALTER TABLE lock them, for hours at times."""
    publication.create(source, "bemi")
    source.execute(
        """
        create table a (id int primary key); create table b (id int primary key);
        create table parted (id int primary key) partition by range (id);
        create table leaf partition of parted for values from (0) to (10);
        create table alone (id int primary key) partition by range (id);
        create table other partition of alone for values from (0) to (10);
        alter publication bemi add table a, parted, other;
        """
    )
    source.execute("set lock_timeout to '5s'")
    with psycopg.connect(source_url) as other:
        other.execute("lock table a, b, parted, leaf, other in access exclusive mode")
        found = survey(source, settings)
    assert {state.qualified: state.published for state in found} == {
        "public.a": True,
        "public.b": False,
        "public.leaf": True,
        "public.other": True,
    }


@pytest.mark.parametrize(
    ("kind", "since"), [("for all tables", 140000), ("for tables in schema app", 150000)]
)
def test_what_a_foreign_kind_of_publication_takes_in_counts_as_published(
    source: Connection, settings: Settings, kind: str, since: int
) -> None:
    """The application's updates fail by it as by one of ours."""
    if source.info.server_version < since:
        return
    source.execute("create schema app; create table app.a (id int); create unlogged table app.b ()")
    source.execute(f"create publication bemi {kind}".encode())
    found = {state.qualified: state.published for state in survey(source, settings)}
    assert found == {"app.a": True, "app.b": False}


def test_adding_a_table_waits_for_no_writer(
    source: Connection, source_url: str, settings: Settings
) -> None:
    publication.create(source, "bemi")
    source.execute("create table a (id int primary key)")
    with psycopg.connect(source_url) as writer:
        writer.execute("insert into a values (1)")
        assert len(add_new_tables(source, settings).added) == 1


def test_a_key_that_was_dropped_later_is_noticed(source: Connection, settings: Settings) -> None:
    publication.create(source, "bemi")
    source.execute("create table a (id int primary key)")
    add_new_tables(source, settings)
    source.execute("alter table a drop constraint a_pkey")
    (state,) = add_new_tables(source, settings).failing
    assert (state.qualified, state.reason) == ("public.a", "it has no primary key")


def test_a_dropped_publication_is_a_finding(source: Connection, settings: Settings) -> None:
    source.execute("create table a (id int primary key)")
    (state,) = add_new_tables(source, settings).untracked
    assert "does not exist" in (state.reason or "")


def _published_takes_updates(source: Connection, *, works: bool) -> None:
    """What PostgreSQL itself thinks of the table `t`, once it is published."""
    publication.create(source, "probe")
    publication.add(source, "probe", [sql.Identifier("t")])
    try:
        if works:
            source.execute("delete from t")
        else:
            with pytest.raises(REFUSED):
                source.execute("delete from t")
    finally:
        publication.drop(source, "probe")


@contextlib.contextmanager
def _as_role(conn: Connection, role: str) -> Iterator[None]:
    conn.execute(sql.SQL("set role {}").format(sql.Identifier(role)))
    try:
        yield
    finally:
        conn.execute("reset role")


def test_rules_are_held_against_the_tables_that_are_tracked(
    source: Connection, settings: Settings
) -> None:
    """A partition's columns go by the name of the table above it; what can't be tracked is out."""
    publication.create(source, "bemi")
    source.execute(
        "create table p (id int primary key, low text) partition by range (id);"
        "create table p_1 partition of p for values from (0) to (9);"
        "create table keyless (gone text); create table empty ();"
        "alter table empty replica identity full"
    )
    globs = ("p.low", "p_1.low", "*.gone", "id")
    rules = Rules(mask=globs, skip=(Skip(tables=("p", "p_1", "empty")),))
    settings = replace(settings, rules=rules)
    unmatched = [
        "rules.mask[1] 'p_1.low' matches no column of a tracked table",
        "rules.mask[2] '*.gone' matches no column of a tracked table",
        "rules.skip[0].tables[1] 'p_1' matches no tracked table",
    ]
    # Before they are published, and afterwards.
    for _ in range(2):
        assert list(add_new_tables(source, settings).unmatched) == unmatched
    source.execute("alter table p rename low to high")
    assert "rules.mask[0]" in add_new_tables(source, settings).unmatched[0]
