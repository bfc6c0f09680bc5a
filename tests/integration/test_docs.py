"""The code blocks of README and the documentation do what the pages say.

README and the tutorial begin with an empty database, as their reader does. Every other page
begins with the tutorial's: the table `todo`, tracked, with the four transactions of PREPARED, and
a role `auditor` for the examples that let somebody read.
"""

import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from bemi import config
from bemi.capture import worker
from bemi.capture.setup import init
from bemi.embedded import Server
from tests.support import databases
from tests.support.documents import Reader, blocks, environment

ROOT = Path(__file__).parents[2]
FROM_NOTHING = (ROOT / "README.md", ROOT / "docs/tutorial.md")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "spec").glob("*.md")])

TABLE = """
create table todo (
    id bigint generated always as identity primary key,
    task text not null,
    done boolean not null default false
)
"""
PREPARED = (
    (
        '{"user_id": 42, "endpoint": "/todo", "method": "POST", "request_id": "req-1"}',
        "insert into todo (task) values ('Buy milk'), ('Call Ada')",
    ),
    (
        '{"user_id": 42, "endpoint": "/todo/1", "method": "PUT", "request_id": "req-2"}',
        "update todo set done = true where id = 1",
    ),
    (None, "update todo set task = 'Call Ada back' where id = 2"),
    (
        '{"user_id": 7, "endpoint": "/todo/2", "method": "DELETE", "request_id": "req-3"}',
        "delete from todo where id = 2",
    ),
)


@pytest.fixture(scope="module")
def pages_server(postgres_bin: Path | None) -> Iterator[Server]:
    """Of the pages alone: what one tells its reader may make roles, or alter the whole server."""
    with Server(settings={"fsync": "off", "full_page_writes": "off"}, bin=postgres_bin) as running:
        yield running


@pytest.fixture
def page_server(pages_server: Server) -> Iterator[Server]:
    """As new for each page."""
    yield pages_server
    pages_server.start()
    with psycopg.connect(pages_server.url(), autocommit=True) as conn:
        made = conn.execute(
            "select datname from pg_database where not datistemplate and datname <> 'postgres'"
        )
        for (name,) in made.fetchall():
            databases.drop(pages_server, name)
        roles = conn.execute(
            "select rolname from pg_roles where rolname !~ '^pg_' and rolname <> current_user"
        )
        for (name,) in roles.fetchall():
            conn.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))
        conn.execute("alter system reset all")
        conn.execute("select pg_reload_conf()")


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if any(b.runs for b in blocks(page.read_text()))],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_code_blocks_run(
    page: Path, page_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = page_server.create_database("shop")
    environ = environment(url, page_server.bin("postgres").parent)
    if page not in FROM_NOTHING:
        prepare(url, environ)
    for name in ("DATABASE_URL", "BEMI_SOURCE_URL"):
        monkeypatch.setenv(name, environ[name])
    reader = Reader(page, environ, tmp_path)
    try:
        for block in blocks(page.read_text()):
            if block.runs:
                try:
                    reader.run(block)
                except Exception as error:
                    where = f"{page.relative_to(ROOT)}:{block.line}"
                    raise AssertionError(f"{where}: the code block fails: {error}") from error
    finally:
        reader.close()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_code_block_names_its_language(page: Path) -> None:
    unnamed = [block.line for block in blocks(page.read_text()) if not block.language]
    assert not unnamed, "a block whose language is not named would never be run"


def prepare(url: str, environ: dict[str, str]) -> None:
    settings = config.load(environ=environ)
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(TABLE)
        conn.execute("create role auditor login")
        init(settings, full=["public.todo"], report=lambda _line: None)
        for context, statement in PREPARED:
            with conn.transaction():
                if context is not None:
                    conn.execute("select pg_logical_emit_message(true, '_bemi', %s)", [context])
                conn.execute(statement.encode())
    worker.run(settings, stop=threading.Event(), until_caught_up=True)
