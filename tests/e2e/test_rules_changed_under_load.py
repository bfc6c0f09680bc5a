"""Rules change again and again while applications write: no change is lost, and what was to be
masked is nowhere on the destination's disk.
"""

import re
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from psycopg import sql

from bemi.config import Settings
from bemi.embedded import Server
from tests.e2e.conftest import SETTINGS
from tests.support import workload
from tests.support.several import FileWorker
from tests.support.tracking import track
from tests.support.waiting import until

ENDS: Final = 100.0
ROUNDS: Final = 6

CANARY: Final = "CANARY-"
"""Only in columns that some rule hides, in each version of the rules."""
SHOWN: Final = "SHOWN-"
"""In columns that no rule hides: that these are found shows that the search finds."""
KEY: Final = "a key for hashes that nobody may read"

TABLES: Final = """
create table app.people (
    id int generated always as identity primary key,
    email text, phone text, avatar text, bio text, name text
);
alter table app.people replica identity full;
alter table app.people alter bio set storage external;
create table app.logins (token text primary key, phone text, name text);
create table app.photos (id int generated always as identity primary key, avatar text, name text);
alter table app.photos alter avatar set storage external;
"""

# email: each way in turn. phone: hashed, bio: masked, avatar: never there; token: a key.
RULES: Final = """\
ignore = ["app.people.{ignored}"]
mask = ["*.bio"{mask}]
hash = ["*.phone", "app.logins.token"{hash}]
exclude = ["avatar"{exclude}]
"""
EMAIL: Final = ', "app.people.email"'


class Hidden:
    """An application that writes what must not be seen."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.failure: Exception | None = None
        self.done: dict[str, int] = {"people": 0, "logins": 0, "photos": 0}
        """Changes of each table that were committed."""
        self.tokens: set[str] = set()

    def __enter__(self) -> "Hidden":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        try:
            with psycopg.connect(self._url, autocommit=True) as conn:
                number = 0
                while not self._stop.is_set():
                    number += 1
                    self._write(conn, number)
                    self._stop.wait(0.02)
        except psycopg.Error as error:
            self.failure = error

    def _write(self, conn: psycopg.Connection[Any], number: int) -> None:
        canary, shown = f"{CANARY}{number}", f"{SHOWN}{number}"
        long = canary * 300  # toasted
        with conn.transaction():
            row = conn.execute(
                "insert into app.people (email, phone, avatar, bio, name)"
                " values (%s, %s, %s, %s, %s) returning id",
                [canary, canary, canary, long, shown],
            ).fetchone()
            assert row is not None
            conn.execute("update app.people set name = %s where id = %s", [shown + "x", row[0]])
        conn.execute(
            "update app.people set email = %s, phone = %s, avatar = %s, name = 'new' where id = %s",
            [canary + "b", canary + "b", canary + "b", row[0]],
        )
        with conn.transaction():
            conn.execute("insert into app.logins values (%s, %s, %s)", [canary, canary, shown])
            conn.execute("update app.logins set name = 'new' where token = %s", [canary])
            conn.execute(
                "update app.logins set token = %s, phone = 'x' where token = %s",
                [canary + "b", canary],
            )
        self.tokens |= {canary, canary + "b"}
        photo = conn.execute(
            "insert into app.photos (avatar, name) values (%s, %s) returning id", [long, shown]
        ).fetchone()
        assert photo is not None
        conn.execute("update app.photos set name = 'new' where id = %s", [photo[0]])
        self.done["people"] += 3
        self.done["logins"] += 3
        self.done["photos"] += 2
        if number % 3 == 0:
            conn.execute("delete from app.people where id = %s", [row[0]])
            conn.execute("delete from app.logins where token = %s", [canary + "b"])
            conn.execute("delete from app.photos where id = %s", [photo[0]])
            for table in self.done:
                self.done[table] += 1


@pytest.fixture
def destination(postgres_bin: Path | None) -> Iterator[Server]:
    """A server that holds nothing but the history."""
    with Server(settings=SETTINGS, bin=postgres_bin) as running:
        yield running


@pytest.mark.timeout(300)
def test_no_change_is_lost_and_what_is_masked_is_nowhere(
    source_url: str, destination: Server, tmp_path: Path, seed: int
) -> None:
    url = destination.create_database("history")
    settings, oracle = workload.prepare(source_url, url, source="app")
    write_file(tmp_path, settings, 0)
    with (
        FileWorker(tmp_path) as process,
        workload.Workload(source_url, seed=seed, clients=2, rate=600) as load,
    ):
        process.ready()
        with psycopg.connect(source_url, autocommit=True) as conn:
            conn.execute(TABLES.encode())
        process.says("table added(.|\n)*table added(.|\n)*table added")
        with Hidden(source_url) as hidden:
            for number in range(1, ROUNDS + 1):
                wait_for_more(load, hidden, url)
                write_file(tmp_path, settings, number)
                if number % 2:
                    process.signal(signal.SIGHUP)  # else it finds out by itself
                until(
                    lambda number=number: process.log.count('"capturing"') > number,  # type: ignore[misc]
                    ENDS,
                    f"the rules are taken: {process.log}",
                )
            wait_for_more(load, hidden, url)
        load.stop()
        assert process.stop() == 0
        logs = process.log
    last = FileWorker(tmp_path, "--until-caught-up").start()
    assert last.wait(ENDS) == 0, last.log

    findings = oracle.compare(settings)
    print(findings)
    # What it does not know of are the hidden tables' changes: exactly those.
    assert findings.faults == {"extra": sum(hidden.done.values())}, oracle.examples(settings)
    with psycopg.connect(url, autocommit=True) as conn:
        judge_history(conn, hidden)
        assert found_in_tables(conn, CANARY) == []
        assert found_in_tables(conn, SHOWN) == ["row_changes"]
        conn.execute("checkpoint")
    written = [path for path in destination.folder.rglob("*") if path.is_file()]
    assert found_in_files(written, SHOWN)
    assert found_in_files(written, CANARY) == []
    assert found_in_files(written, KEY) == []
    for secret in (CANARY, KEY):
        assert secret not in logs + last.log


def test_a_rule_that_matches_nothing_is_told(
    source_url: str, destination_url: str, tmp_path: Path
) -> None:
    """At the start, when the rules change, and when the table does: nothing else would tell."""
    with psycopg.connect(source_url, autocommit=True) as conn:
        conn.execute("create table people (id int primary key, phone text, email text)")
    settings = track(source_url, destination_url, schemas=["public"])

    def write(mask: str) -> None:
        text = (
            f'source_url = "{source_url}"\ndestination_url = "{destination_url}"\n'
            f'source = "{settings.source}"\nrules.mask = {mask}\n'
        )
        (tmp_path / "new").write_text(text, encoding="utf-8")
        (tmp_path / "new").rename(tmp_path / "bemi.toml")

    def told(glob: str) -> str:
        return rf"rule matches nothing.*rules\.mask\[\d\] '{glob}' matches no column"

    write('["people.phnoe"]')
    with FileWorker(tmp_path) as process:
        process.says(told("people.phnoe") + "(.|\n)*capturing")
        write('["people.phone", "people.emial"]')
        process.signal(signal.SIGHUP)
        process.says(told("people.emial"))
        assert "people.phone'" not in process.log
        with psycopg.connect(source_url, autocommit=True) as conn:
            conn.execute("alter table people rename phone to mobile")
        process.says(told("people.phone"))
        assert process.stop() == 0
        assert len(re.findall(told(".*"), process.log)) == 3


def write_file(folder: Path, settings: Settings, number: int) -> None:
    """The file with the rules of this round, in one step."""
    ways = ["", "", ""]
    ways[number % 3] = EMAIL
    mask, hashed, exclude = ways
    ignored = ("avatar", "id")[number % 2]
    rules = RULES.format(ignored=ignored, mask=mask, hash=hashed, exclude=exclude)
    new = folder / "new"
    new.write_text(
        f"""
hash_key = "{KEY}"
source = "app"
source_url = "{settings.source_url}"
destination_url = "{settings.destination_url}"
schemas = ["app"]
[rules]
{rules}""",
        encoding="utf-8",
    )
    new.rename(folder / "bemi.toml")


def wait_for_more(load: workload.Workload, hidden: Hidden, url: str) -> None:
    """More of both loads, and some of the hidden tables stored under the newest rules."""
    rows, done = load.rows, dict(hidden.done)
    until(
        lambda: (
            load.rows > rows + 300 and all(hidden.done[table] > done[table] + 10 for table in done)
        ),
        ENDS,
        "more load",
    )
    with psycopg.connect(url, autocommit=True) as conn:
        until(
            lambda: (
                conn.execute(
                    "select from bemi.changes where \"table\" = 'people'"
                    " and rules = (select max(rules_id) from bemi.rules) limit 1"
                ).fetchone()
                is not None
            ),
            ENDS,
            "changes under the newest rules",
        )


def judge_history(conn: psycopg.Connection[Any], hidden: Hidden) -> None:
    """Every change is there, under the version of the rules that held then."""
    rows = conn.execute(
        'select "table", primary_key, before, after, flags, rules from bemi.changes'
        ' where "table" = any(%s) order by epoch, commit_position, ordinal',
        [list(hidden.done)],
    ).fetchall()
    counted = {table: sum(row[0] == table for row in rows) for table in hidden.done}
    assert counted == hidden.done
    versions = [row[5] for row in rows]
    assert versions == sorted(versions)
    assert len(set(versions)) == ROUNDS + 1
    ways = set()
    for table, _, before, after, flags, _ in rows:
        for image in (before, after):
            assert "avatar" not in image
            if table == "people" and image:
                assert image["bio"] == "***"
                ways.add(next((f for f in flags or () if f.endswith(":email")), "excluded"))
    assert ways == {"masked:email", "hashed:email", "excluded"}
    keys = {row[1] for row in rows if row[0] == "logins"}
    assert len(keys) == len(hidden.tokens)  # equal ones stay equal, and no others are
    assert not keys & hidden.tokens


def found_in_tables(conn: psycopg.Connection[Any], text: str) -> list[str]:
    """Tables of the history that have the text anywhere; what is compressed on disk is seen too."""
    tables = conn.execute(
        "select c.relname from pg_class c where c.relnamespace = 'bemi'::regnamespace"
        " and c.relkind in ('r', 'p') and not c.relispartition"
    ).fetchall()
    found = []
    for (name,) in tables:
        row = conn.execute(
            sql.SQL("select exists (select from {} t where t::text like %s)").format(
                sql.Identifier("bemi", name)
            ),
            [f"%{text}%"],
        ).fetchone()
        assert row is not None
        if row[0]:
            found.append(name)
    return found


def found_in_files(files: Sequence[Path], text: str) -> list[Path]:
    return [path for path in files if text.encode() in path.read_bytes()]
