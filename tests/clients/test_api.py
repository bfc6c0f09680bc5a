"""The client of the HTTP API in JavaScript, against a server that runs."""

import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from bemi.api.routes import live
from tests.integration.conftest import Track
from tests.support import api_types, javascript
from tests.support.tracked import Tracked
from tests.support.web import Web, serve

TABLE = "create table big (id bigint primary key, price numeric, ratio float8, name text)"
EMIT = """select pg_logical_emit_message(true, '_bemi', '{"user_id": "ann"}')"""
LARGE = 9007199254740993
PRICE = "12345678901234567890.10"


@pytest.fixture
def at(tracked: Track) -> Tracked:
    there = tracked(TABLE, full=["*"])
    for number in range(3):
        with there.source.transaction():
            there.source.execute(EMIT)
            insert = f"insert into big values (%s, {PRICE}, 0.1, '\"number:1e400')"
            there.source.execute(insert.encode(), [LARGE + number])
    there.catch_up()
    return there


@pytest.fixture
def web(at: Tracked) -> Iterator[Web]:
    with serve(at.settings, write_urls={at.settings.source: at.settings.source_url}) as running:
        yield running


def environment(web: Web) -> dict[str, str]:
    return {**os.environ, "HISTORY_URL": web.base, "TOKEN": web.token("admin")}


def test_the_types_are_those_of_the_description() -> None:
    assert api_types.FILE.read_text(encoding="utf-8") == api_types.types(), (
        "run `python -m tests.support.api_types`"
    )


def test_what_it_asks_is_answered(web: Web) -> None:
    program = ["node", "conformance/api.mjs", "ask"]
    answered = json.loads(javascript.run(program, cwd=javascript.built(), env=environment(web)))
    ids = [f"bigint {LARGE + number}" for number in range(3)]
    assert answered == {
        "page": [2, True],
        "all": ids,
        "values": [ids[2], '"number:1e400', f"exact {PRICE}", 0.1],
        "rows": ids,
        "transactions": 3,
        "plan": 3,
        "me": "viewer",
        "csv": 5,
        "revoked": True,
        "problems": [
            [404, "urn:bemi:unknown", "Not Found", None],
            [422, "urn:bemi:wrong-values", "Unprocessable Entity", None],
            [401, "urn:bemi:unauthenticated", "Unauthorized", None],
            [404, "urn:bemi:http", "Not Found", None],
            [404, "urn:bemi:http", "Not Found", None],
        ],
        "aborted": "AbortError",
    }


def test_a_stream_that_breaks_off_goes_on(
    at: Tracked, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_RETRY", 10)
    package = javascript.built()
    with subprocess.Popen(
        ["node", "conformance/api.mjs", "stream"],
        cwd=package,
        env=environment(web),
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdout is not None
        try:
            told = [read(program) for _ in range(3)]
            at.source.execute("insert into big values (1, 1, 1, 'last')")
            at.catch_up()
            told += [read(program), read(program)]
            at.source.execute("insert into big values (2)")
            at.catch_up()
            told += [read(program), read(program)]
            assert program.wait(20) == 0
        finally:
            program.kill()
    assert told == [
        *(["change", f"bigint {LARGE + number}"] for number in range(3)),
        ["change", 1],
        ["resumed", [False, True]],
        ["change", 2],
        ["refused", [401, "urn:bemi:unauthenticated", "Unauthorized", None]],
    ]


def test_the_example_shows_changes_as_they_come(at: Tracked, web: Web) -> None:
    javascript.built()
    folder = javascript.ROOT / "examples" / "javascript"
    with subprocess.Popen(
        ["node", "--import", folder / "resolve.mjs", folder / "history" / "watch.mjs", "big"],
        env=environment(web),
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdout is not None
        try:
            told = [program.stdout.readline().split()[1:] for _ in range(3)]
            at.source.execute("delete from big")
            at.catch_up()
            told += [program.stdout.readline().split()[1:] for _ in range(3)]
            program.terminate()
            assert program.wait(20) == 0
        finally:
            program.kill()
    ids = [str(LARGE + number) for number in range(3)]
    assert told == [
        *(["CREATE", "big", each, "by", "ann"] for each in ids),
        *(["DELETE", "big", each, "by", "nobody"] for each in ids),
    ]


def read(program: subprocess.Popen[str]) -> Any:
    assert program.stdout is not None
    return json.loads(program.stdout.readline())
