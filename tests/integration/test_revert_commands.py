"""`bemi revert` and `bemi replay`, as they are typed; and whatever names and values there are."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import psycopg
import pytest

from bemi.cli import app
from bemi.errors import ConfigError, UsageError
from tests.conftest import MakeDatabase
from tests.integration.conftest import Track
from tests.support.shop import Shop

HOSTILE = (
    'a"b',
    "it's; drop table victim; --",
    "100%s %(x)s",
    "\u202egnp.exe",
    "{}",
    "ü" * 31 + "x",  # 63 bytes
    "sp ace\ttab\nline",
)


@pytest.fixture
def shop(tracked: Track) -> Iterator[Shop]:
    made = Shop(
        tracked(
            "create table todo (id int primary key, task text)",
            "create table victim (id int primary key)",
        )
    )
    yield made
    made.close()


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


class Run(Protocol):
    def __call__(self, shop: Shop, *arguments: str) -> Done: ...


@pytest.fixture
def bemi(capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Calls a command in this process, with the settings of a shop."""

    def run(shop: Shop, *arguments: str) -> Done:
        monkeypatch.setenv("BEMI_SOURCE_URL", shop.url)
        monkeypatch.setenv("BEMI_DESTINATION_URL", shop.at.settings.destination_url)
        capsysbinary.readouterr()
        with pytest.raises(SystemExit) as caught:
            app.main(arguments)
        out, err = (text.decode() for text in capsysbinary.readouterr())
        assert isinstance(caught.value.code, int)
        return Done(caught.value.code, out, err)

    return run


def test_the_command_plans_then_does(shop: Shop, bemi: Run) -> None:
    shop.write("insert into todo values (1, 'a'), (2, 'b')")
    shop.write("update todo set task = 'x'", context='{"request_id": "r-1"}')
    shop.at.catch_up()
    shown = bemi(shop, "revert", "--trace", "r-1")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "2 rows to write" in shown.stdout
    planned = json.loads(bemi(shop, "revert", "--trace", "r-1", "--json").stdout)
    assert [row["action"] for row in planned["rows"]] == ["update", "update"]
    assert shop.rows("todo") == {"todo": ["(1,x)", "(2,x)"]}
    done = bemi(
        shop, "revert", "--trace", "r-1", "--only", "todo:1", "--apply", "--json", "--by", "ada"
    )
    assert json.loads(done.stdout)["applied"]["rows"] == 1
    assert shop.rows("todo") == {"todo": ["(1,a)", "(2,x)"]}
    shop.write("update todo set task = 'y' where id = 2")
    shop.at.catch_up()
    for flags in ([], ["--apply"], ["--json"], ["--apply", "--json"]):
        blocked = bemi(shop, "revert", "--trace", "r-1", *flags)
        assert blocked.returncode == 1
    assert "set by" in bemi(shop, "revert", "--trace", "r-1").stdout
    skipped = bemi(shop, "revert", "--trace", "r-1", "--apply", "--skip-conflicts")
    assert (skipped.returncode, skipped.stdout) == (
        0,
        "0 rows written, 1 as they should be already, 1 skipped for conflicts\n",
    )
    ids = [str(change.id) for change in shop.history.changes(table="todo", operation="create")]
    both = bemi(shop, "revert", *(part for id in ids for part in ("--change", id)), "--sql")
    assert both.returncode == 1  # the rows were set since


def test_what_is_wrong_is_said(shop: Shop, bemi: Run) -> None:
    shop.write("insert into todo values (1, 'a')")
    shop.at.catch_up()
    cases: list[tuple[list[str], int, str]] = [
        ([], 2, "which changes are meant is not said"),
        (["--source", "nobody"], 2, "which changes"),
        (["--transaction", "1"], 1, "no changes match"),
        (["--change", "nonsense"], 2, "'nonsense' is no id of a change"),
        (["--table", "todo", "--sql", "--apply"], 2, "--sql prints a script"),
        (["--table", "todo", "--write-url", "x y"], 1, "--write-url: not a connection string"),
        (["--table", "todo", "--except", "tod:1"], 2, "tod:1 is no table and no row"),
        (["--table", "todo", "--only", "todo:2"], 2, "todo:2 is no table and no row"),
    ]
    for arguments, code, words in cases:
        done = bemi(shop, "revert", *arguments)
        assert (done.returncode, words in done.stderr) == (code, True), done.stderr


def test_changes_are_replayed_onto_a_copy_and_never_onto_the_source(
    shop: Shop, bemi: Run, make_database: MakeDatabase
) -> None:
    copy = make_database()
    with psycopg.connect(copy, autocommit=True) as conn:
        conn.execute("create table todo (extra int, task text, id int primary key)")
        conn.execute("insert into todo values (7, 'old', 1), (8, 'gone', 2)")
        shop.write("insert into todo values (1, 'old'), (2, 'gone')")
        number = shop.write(
            "update todo set task = 'between' where id = 1",
            "update todo set task = 'new', id = 4 where id = 1",
            "delete from todo where id = 2",
            "insert into todo values (3, 'made')",
        )
        shop.at.catch_up()
        plan = shop.history.plan_replay(copy, transaction=number)
        assert plan.conflicts == ()
        assert plan.apply().rows == 3
        rows = conn.execute("select * from todo order by id").fetchall()
        assert rows == [(None, "made", 3), (7, "new", 4)]
        again = shop.history.plan_replay(copy, transaction=number)
        # It is there already; of the row that was moved, its old key can't tell.
        assert [row.done for row in again.rows if row.action != "update"] == [True, True]
    url = shop.at.settings.source_url
    with pytest.raises(UsageError, match="is the source itself"):
        shop.history.plan_replay(url, transaction=number)
    with pytest.raises(UsageError, match="is not the database that"):
        shop.history.plan_revert(copy, transaction=number)
    unsaid = bemi(shop, "replay", "--transaction", str(number))
    assert unsaid.returncode == 1
    assert "write_url is not set" in unsaid.stderr
    said = bemi(shop, "replay", "--transaction", str(number), "--onto", copy, "--json")
    assert json.loads(said.stdout)["what"] == "replay"


def test_names_and_values_are_never_taken_for_sql(tracked: Track, bemi: Run) -> None:
    def quoted(name: str) -> str:
        return '"' + name.replace('"', '""') + '"'

    create, columns = [], ", ".join(quoted(name) for name in HOSTILE)
    for name in HOSTILE:
        types = ", ".join(f"{quoted(column)} text" for column in HOSTILE)
        create.append(
            f"create table {quoted(name)} ({types}, primary key ({quoted(HOSTILE[0])}, "
            f"{quoted(HOSTILE[1])}), unique ({quoted(HOSTILE[2])}))"
        )
        create.append(
            f"create trigger {quoted(name)} before truncate on {quoted(name)} "
            "execute function suppress_redundant_updates_trigger()"
        )
    shop = Shop(tracked("create table victim (id int primary key)", *create))
    places = ", ".join(["%s"] * len(HOSTILE))

    def fill(shift: str) -> int:
        with shop.at.source.transaction():
            for name in HOSTILE:
                into = f"insert into {quoted(name)} ({columns})".replace("%", "%%")
                shop.at.source.execute(
                    f"{into} values ({places})".encode(), [value + shift for value in HOSTILE]
                )
            row = shop.at.source.execute("select pg_current_xact_id()::text::bigint").fetchone()
        assert row is not None
        return int(row[0])

    try:
        tables = [quoted(name) for name in HOSTILE]
        first = fill("")
        everything = shop.rows(*tables)
        second = fill("$bemi$ \\ '")
        gone = shop.write(*(f"delete from {table}" for table in tables))
        script = shop.plan(transaction=gone).sql()
        shop.at.source.execute(script.encode())
        # The script is not of this transaction's number: what it did is a change like others.
        again = shop.write(*(f"delete from {table}" for table in tables))
        shop.plan(transaction=again).apply(by=HOSTILE[1], context={HOSTILE[0]: HOSTILE[1]})
        plan = shop.plan(transaction=second)
        assert plan.conflicts == ()
        plan.apply()
        assert shop.rows(*tables) == everything
        key = json.dumps([HOSTILE[0], HOSTILE[1]])
        for name in HOSTILE:
            own = shop.history.plan_revert(shop.url, table=f"public.{name}", key=key)
            assert {row.table for row in own.rows} == {f"public.{name}"}
            for only in (name, f"{name}:{key}"):
                narrowed = shop.history.plan_revert(shop.url, transaction=first, only=[only])
                assert {row.table for row in narrowed.rows} == {f"public.{name}"}
        shown = bemi(shop, "revert", "--transaction", str(first), "--by", HOSTILE[1])
        assert shown.returncode == 0
        assert "\u202e" not in shown.stdout
        assert shop.rows("victim") == {"victim": []}
    finally:
        shop.close()


def test_hostile_filters_match_nothing(shop: Shop) -> None:
    shop.write("insert into todo values (1, 'a')")
    shop.at.catch_up()
    for value in HOSTILE:
        wanted: list[dict[str, Any]] = [
            {"table": value},
            {"key": value},
            {"trace": value},
            {"context": {value: value}},
            {"changed": value},
            {"source": value, "table": "todo"},
        ]
        for filters in wanted:
            with pytest.raises(Exception, match=r"no changes match|there is no"):
                shop.history.plan_revert(shop.url, **filters)
    with pytest.raises(UsageError):
        shop.history.plan_revert(shop.url, key="a\0b")
    with pytest.raises(ConfigError):
        shop.history.plan_revert("not a url", table="todo")
