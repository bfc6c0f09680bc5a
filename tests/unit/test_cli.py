"""Exit codes, errors and help of the command line, without any server."""

import io
import json
import logging
import os
import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

import bemi
from bemi.capture.results import Result
from bemi.cli import app, demo, logs, output, taking
from bemi.cli.app import COMMANDS

PASSWORD = "s3cret"
UNREACHABLE = f"postgresql://app:{PASSWORD}@127.0.0.1:1/todo"


@pytest.fixture(autouse=True)
def no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("BEMI_"):
            monkeypatch.delenv(name)


def run(*arguments: str, **environ: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "bemi", *arguments],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, **environ},
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


def called(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """As `run`, in this process: quicker."""
    with pytest.raises(SystemExit) as caught:
        app.main(arguments)
    out, err = capsys.readouterr()
    assert isinstance(caught.value.code, int)
    return caught.value.code, out, err


def test_python_m_bemi_is_the_command() -> None:
    assert run("--version") == (0, f"{bemi.__version__}\n", "")


def test_the_version_is_that_of_the_package() -> None:
    pyproject = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert f'\nversion = "{bemi.__version__}"\n' in pyproject


def test_help_says_what_each_command_does(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = called(capsys, "--help")
    assert code == 0
    for name in COMMANDS:
        line = next(line for line in out.splitlines() if f" {name} " in line)
        assert len(line.strip("│ ").split()) > 3, line


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help(capsys: pytest.CaptureFixture[str], name: str) -> None:
    code, out, _ = called(capsys, name, "--help")
    assert code == 0
    assert f"Usage: bemi {name}" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["chnges"], 'Did you mean "changes"?'),
        (["changes", "--tabel", "todo"], "Did you mean --table?"),
        (["changes", "todo"], "'todo' is not expected here"),
        (["changes", "--since", "may"], "yesterday 14:30"),
        (["changes", "--limit", "0"], "--limit"),
        (["changes", "--limit", "many"], "--limit"),
        (["changes", "--context", "user_id"], "KEY=VALUE"),
        (["changes", "--operation", "insert"], "--operation"),
        (["changes", "--table", "\udcff"], "UTF-8"),
        (["run", "--slot-wait", "soon"], "--slot-wait"),
    ],
)
def test_wrong_use_is_exit_code_2_with_what_to_do(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    code, out, err = called(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert "\nfix: see `bemi" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["changes", "--json", "--ndjson"], "--json and --ndjson are two forms"),
        (["changes", "--csv", "--json"], "--json and --csv are two forms"),
        (["status", "--table", "todo"], "--table is for the coverage"),
    ],
)
def test_flags_that_do_not_go_together_are_exit_code_2(
    capfd: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    code, _, err = called(capfd, *arguments)
    assert code == 2
    assert message in err
    assert "\nfix: give " in err


ARGUMENTS = {
    "source": ["list"],
    "show": ["00000000-0000-0000-0000-000000000000"],
    "history": ["todo", "1"],
    "blame": ["todo", "1"],
    "trace": ["r-1"],
    "at": ["1h", "todo"],
    "diff": ["todo", "--from", "1h"],
    "travel": ["--at", "1h"],
    "restore": ["--at", "1h", "--into", "rescue"],
}


WITHOUT_JSON = ("demo", "run", "serve")
"""Those that go on until they are stopped, or are for people alone."""


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "demo"])
def test_a_missing_setting_is_exit_code_1_with_the_fix(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    code, out, err = called(capsys, name, *ARGUMENTS.get(name, []))
    assert (code, out) == (1, "")
    assert "error: " in err
    assert "fix: set it in the environment, as in BEMI_" in err


@pytest.mark.parametrize(
    "command",
    [
        *([name, *ARGUMENTS.get(name, [])] for name in COMMANDS if name not in WITHOUT_JSON),
        *(["source", name, "shop"] for name in ("add", "pause", "resume", "remove")),
    ],
)
def test_with_json_an_error_is_one_json_value_too(
    capfd: pytest.CaptureFixture[str], command: list[str]
) -> None:
    code, out, err = called(capfd, *command, "--json")
    assert code == 1
    said = json.loads(out)
    assert err == f"error: {said['error']}\nfix: {said['fix']}\n"
    assert "is not set" in said["error"]


def test_with_json_wrong_use_is_one_json_value_too(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = called(capfd, "changes", "todo", "--json")
    assert code == 2
    assert json.loads(out)["fix"] == "see `bemi changes --help`"
    assert called(capfd, "changes", "--ndjson")[1] == ""


@pytest.mark.parametrize("name", ["status", "changes", "init"])
def test_an_unreachable_server_is_said_without_the_password(name: str) -> None:
    code, _, err = run(name, BEMI_SOURCE_URL=UNREACHABLE)
    assert code == 1
    assert "127.0.0.1:1/todo" in err
    assert PASSWORD not in err
    assert "Traceback" not in err


def test_flags_win_over_variables() -> None:
    code, _, err = run("changes", "--destination-url", UNREACHABLE, BEMI_SOURCE_URL="dbname=x")
    assert code == 1
    assert "127.0.0.1:1/todo" in err


def test_starting_a_command_loads_neither_psycopg_nor_rich() -> None:
    code = (
        "import sys; from bemi.cli import app\n"
        "try: app.main(['changes'])\n"
        "except SystemExit: print([name for name in ('psycopg', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    script = tmp_path / "long.py"
    script.write_text(
        "from bemi.cli import app\n"
        "app.app.command(lambda: print('x' * 999_999), name='long')\n"
        "app.main(['long'])\n"
    )
    reader, writer = os.pipe()
    with subprocess.Popen([sys.executable, script], stdout=writer, stderr=subprocess.PIPE) as done:
        os.close(writer)
        assert os.read(reader, 1) == b"x"
        os.close(reader)
        _, err = done.communicate(timeout=30)
    assert (done.returncode, err) == (0, b"")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("writes", "flags"),
    [
        ("lambda: print('x')", []),
        ("lambda: print('x' * 999_999)", []),
        ("lambda: output.print_json('x')", []),
        ("lambda: output.console().print('x')", []),
        ("lambda *, json: config.load()", ["--json"]),
    ],
)
def test_output_that_can_not_be_written_is_an_error(
    tmp_path: Path, writes: str, flags: list[str], unbuffered: str
) -> None:
    script = tmp_path / "full.py"
    script.write_text(
        "import resource\n"
        "from bemi import config\n"
        "from bemi.cli import app, output\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))\n"
        f"app.app.command({writes}, name='full')\n"
        f"app.main(['full', *{flags}])\n"
    )
    with (tmp_path / "output").open("w") as output_file:
        done = subprocess.run(
            [sys.executable, script],
            check=False,
            stdout=output_file,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            text=True,
        )
    assert done.stderr.splitlines()[-1] == "error: can't write the output: File too large"
    assert "Traceback" not in done.stderr
    assert done.returncode == 1


def test_other_failures_of_the_system_are_not_taken_for_it(tmp_path: Path) -> None:
    script = tmp_path / "gone.py"
    script.write_text(
        "from bemi.cli import app\n"
        "app.app.command(lambda: open('/nowhere/at/all'), name='gone')\n"
        "app.main(['gone'])\n"
    )
    done = subprocess.run([sys.executable, script], check=False, capture_output=True, text=True)
    assert "FileNotFoundError" in done.stderr
    assert "can't write" not in done.stderr


def test_the_demo_says_what_to_type_in_another_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bemi"
    program.touch(mode=0o755)
    monkeypatch.setattr(sys, "argv", [str(program), "demo"])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert demo._program() == "bemi"
    monkeypatch.setenv("PATH", "/nowhere")
    assert demo._program() == str(program)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "__main__.py"), "demo"])
    assert demo._program() == f"{sys.executable} -m bemi"


class TestOutput:
    def test_hostile_text_does_not_command_the_terminal(self) -> None:
        assert output.printable("a\x1b[31m\r\n\x9b\u202eb\ud800") == (
            "a\\x1b[31m\\r\\n\\x9b\\u202eb\\ud800"
        )
        assert str(output.text("[bold]x[/bold] :smile:")) == "[bold]x[/bold] :smile:"

    def test_names_are_dim_and_values_are_not(self) -> None:
        shown = output._pairs({"task": "Buy milk"})
        assert str(shown) == "task Buy milk"
        assert [(span.start, span.end, span.style) for span in shown.spans if span.style] == [
            (0, 5, "dim")
        ]

    def test_numbers_are_shown_with_all_their_digits(self) -> None:
        raw = msgspec.Raw(b'{"a": 9007199254740993, "b": 1.10, "c": [1.0, null], "d": "x"}')
        assert output.members(raw) == {
            "a": "9007199254740993",
            "b": "1.10",
            "c": "[1.0, null]",
            "d": "x",
        }

    def test_json_is_exact_and_one_value(self, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
        digits = "12345678901234567890." + "1" * 50
        output.print_json([{"n": msgspec.Raw(f'{{"x": {digits}, "s": "é\\n"}}'.encode())}])
        printed = capfdbinary.readouterr().out
        read = json.loads(printed, parse_float=Decimal)
        assert read == [{"n": {"x": Decimal(digits), "s": "é\n"}}]

    def test_ndjson_is_one_line(self, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
        output.print_ndjson({"n": msgspec.Raw(b'{"x":\n1}')})
        assert capfdbinary.readouterr().out in (b"", b'{"n":{"x": 1}}\n')
        sys.stdout.flush()

    @pytest.mark.parametrize(
        ("seconds", "shown"),
        [(0.42, "0.4 s"), (12, "12 s"), (300, "5 min"), (7200, "2 h"), (200_000, "2 days")],
    )
    def test_spans(self, seconds: float, shown: str) -> None:
        assert output.span(seconds) == shown

    def test_sizes_and_counts(self) -> None:
        assert [output.size(n) for n in (0, 512, 1536, 5 << 30)] == [
            "0 B",
            "512 B",
            "1.5 KiB",
            "5.0 GiB",
        ]
        assert [output.count(n, "gap") for n in (0, 1, 1200)] == ["0 gaps", "1 gap", "1,200 gaps"]


class TestLogs:
    def record(self, message: str, level: int = logging.WARNING, **extra: object) -> str:
        made = logging.getLogger("bemi.test").makeRecord(
            "bemi.test", level, "f", 1, message, (), None, extra=extra
        )
        return "\n".join(each().format(made) for each in (logs._Json, logs._Text))

    def test_json_lines_have_the_fields(self) -> None:
        line, text = self.record("waiting", reason="refused", pid=7, fix=None).splitlines()
        read = json.loads(line)
        assert read.pop("time").endswith("+00:00")
        assert read == {
            "level": "warning",
            "message": "waiting",
            "reason": "refused",
            "pid": 7,
            "fix": None,
        }
        assert text.endswith("warning: waiting: refused pid=7")

    @pytest.mark.parametrize(
        "url", [UNREACHABLE, f"host=x password={PASSWORD} user=y", f"password = '{PASSWORD} x'"]
    )
    def test_passwords_are_struck_out(self, url: str) -> None:
        written = self.record(f"tried {url}", reason=url)
        assert PASSWORD not in written
        assert written.count("***") == 4


def test_warnings_beside_a_baseline_say_of_what_they_are() -> None:
    lines: list[str] = []
    log = logging.getLogger("bemi.watch")
    with taking.warnings_told(lines.append):
        log.warning(
            "table not tracked",
            extra={
                "table": "public.nokey",
                "reason": "it has no primary key",
                "fix": "alter table public.nokey replica identity full;",
            },
        )
        log.warning("coverage ended", extra={"table": "public.t", "cause": "untracked"})
        log.info("table covered", extra={"table": "public.t"})
    assert lines == [
        "table not tracked: public.nokey: it has no primary key",
        "  fix: alter table public.nokey replica identity full;",
        "coverage ended: public.t: untracked",
    ]


@pytest.mark.parametrize(
    ("done", "total", "rate", "shown"),
    [
        (70_000, 200_000, 12_345.6, "70,000/200,000 rows, 12,346 rows/s"),
        (70_000, None, 900.0, "70,000 rows, 900 rows/s"),
        (70_000, 200_000, None, "70,000/200,000 rows"),
    ],
)
def test_progress_has_a_rate_and_separators(
    done: int, total: int | None, rate: float | None, shown: str
) -> None:
    assert taking.so_far(done, total, rate) == shown


def test_the_bar_of_a_baseline_has_rows_rate_and_time_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    with taking.reporting(quiet=False) as reports:
        reports.table("public.big", 0, 200_000)
        for done in (10_000, 40_000, 70_000):
            reports.rows(done)
    shown = terminal.getvalue()
    assert re.search(r"70,000/200,000 rows, [0-9,]+ rows/s", shown)
    assert re.search(r"0:0\d:\d\d", shown)


def test_lines_of_progress_are_not_taken_for_the_result(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taking, "_LINE_EVERY", -1.0)
    with taking.reporting(quiet=False) as reports:
        reports.table("public.big", 0, 0)
        reports.rows(200_000)
        reports.finished(Result("public.big", rows=200_000))
    begins, progress, finished = capsys.readouterr().out.splitlines()
    assert begins == "public.big: begins"
    assert progress.startswith("public.big: so far 200,000 rows, ")
    assert finished == "public.big: 200,000 rows"
