"""`init` and `teardown` ask, but only on a terminal; the answer no changes nothing."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from bemi.capture import slot
from bemi.config import Settings
from tests.support.waiting import until


@pytest.fixture
def settings(source_url: str, destination_url: str) -> Settings:
    with psycopg.connect(source_url, autocommit=True) as conn:
        conn.execute("create table a (id int primary key); create table keyless (x int)")
    return Settings(source_url=source_url, destination_url=destination_url)


def at_a_terminal(settings: Settings, folder: Path, *command: str, answer: str) -> tuple[int, str]:
    """Runs the command with a terminal as its standard input; exit code and output."""
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "bemi", *command],
            env={
                **os.environ,
                "BEMI_SOURCE_URL": settings.source_url,
                "BEMI_DESTINATION_URL": settings.destination_url,
            },
            cwd=folder,
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        os.write(ours, f"{answer}\n".encode())
        output, _ = process.communicate(timeout=60)
    finally:
        os.close(ours)
        os.close(theirs)
    return process.returncode, output


def test_a_table_without_a_key_is_asked_about(settings: Settings, tmp_path: Path) -> None:
    code, output = at_a_terminal(settings, tmp_path, "init", answer="n")
    assert code == 0
    assert "60 % more WAL" in output
    assert "public.keyless: it has no primary key. Track it so? [y/N]" in output
    assert "set public.keyless" not in output

    code, output = at_a_terminal(settings, tmp_path, "init", answer="y")
    assert code == 0
    assert "set public.keyless to REPLICA IDENTITY FULL" in output

    code, output = at_a_terminal(settings, tmp_path, "init", answer="")
    assert (code, "[y/N]" in output) == (0, False)


def test_the_end_of_input_is_no_answer(settings: Settings, tmp_path: Path) -> None:
    """Ctrl-D."""
    code, output = at_a_terminal(settings, tmp_path, "init", answer="\x04")
    assert code == 0
    assert "set public.keyless" not in output
    for arguments in ([], ["--history"]):
        code, output = at_a_terminal(settings, tmp_path, "teardown", *arguments, answer="\x04")
        assert code == 1
        assert output.endswith("\nnothing was done\n")


def test_teardown_asks_first(settings: Settings, tmp_path: Path) -> None:
    at_a_terminal(settings, tmp_path, "init", answer="n")
    with psycopg.connect(settings.source_url, autocommit=True) as source:
        code, output = at_a_terminal(settings, tmp_path, "teardown", answer="")
        assert code == 1
        assert "nothing was done" in output
        code, output = at_a_terminal(settings, tmp_path, "teardown", "--history", answer="yes")
        assert "Type the schema's name" in output
        assert code == 1
        assert slot.read(source, settings.slot) is not None

        code, output = at_a_terminal(settings, tmp_path, "teardown", answer="y")
        assert code == 0
        until(lambda: slot.read(source, settings.slot) is None, 5, "the slot is gone")
        code, output = at_a_terminal(settings, tmp_path, "teardown", "--history", answer="bemi")
        assert code == 0
        assert "with the history" in output


def test_yes_answers(settings: Settings, tmp_path: Path) -> None:
    at_a_terminal(settings, tmp_path, "init", answer="n")
    code, output = at_a_terminal(settings, tmp_path, "teardown", "--yes", answer="")
    assert code == 0
    assert "[y/N]" not in output
