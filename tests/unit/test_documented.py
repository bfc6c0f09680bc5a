"""Every command, flag and setting is documented, and what the pages show exists."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from bemi import config
from bemi.cli.app import COMMANDS
from bemi.cli.options import FilterFlags
from bemi.config import OidcSettings, Settings
from bemi.history.asking import _READERS, Filtering
from bemi.store.filters import Filters
from tests.support import reference

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("spec/*.md")])


@pytest.mark.parametrize("page", ["commands", "settings"])
def test_the_reference_says_what_the_code_says(page: str) -> None:
    written = (reference.PAGES / f"{page}.md").read_text(encoding="utf-8")
    rendered = getattr(reference, page)()
    assert written == rendered, "run `python -m tests.support.reference`"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_has_a_text(name: str) -> None:
    without = [flag.names[0] for flag in reference.flags(name) if not flag.parameter.help]
    assert without == []


def test_every_setting_has_a_text() -> None:
    every = [*fields(Settings), *fields(OidcSettings)]
    assert [setting.name for setting in every if not setting.metadata.get("doc")] == []


def test_every_command_has_a_module_and_every_module_of_a_command_is_one() -> None:
    folder = ROOT / "src" / "bemi" / "cli"
    modules = {
        path.stem
        for path in folder.glob("*.py")
        if re.search(r"^(def command\(|command = )", path.read_text("utf-8"), re.MULTILINE)
    }
    assert modules == set(COMMANDS)


def test_the_filter_flags_are_the_filters() -> None:
    """The same words everywhere; a change by its id has a command of its own."""
    no_choice = ("by_log", "within", "scope", "own")
    names = [each.name for each in fields(Filters) if each.name not in no_choice]
    assert [flag.name for flag in fields(FilterFlags)] == [name for name in names if name != "id"]
    assert [*Filtering.__annotations__] == [*_READERS] == names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_flags_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    code = "\n".join(
        [
            *re.findall(r"^```(?:sh|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL),
            *re.findall(r"`([^`\n]+)`", text),
        ]
    )
    wrong: list[str] = []
    for line in code.replace("\\\n", " ").splitlines():
        found = re.search(r"(?:^|[\s/])bemi ([a-z]+)\b([^#|;&]*)", line)
        if found is None or re.search(r"pip install|import", line):
            continue
        name, rest = found.groups()
        if name not in COMMANDS:
            wrong.append(f"bemi {name}")
            continue
        known = {flag.names[0] for flag in reference.flags(name)} | {"--help"}
        wrong += [
            f"bemi {name} {flag}"
            for flag in re.findall(r"(?<!\S)--[\w-]+", rest)
            if flag not in known
        ]
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pictures_that_a_page_shows_are_there_and_have_words(page: Path) -> None:
    for words, file in re.findall(r"!\[([^\]]*)\]\(([^)]*)\)", page.read_text(encoding="utf-8")):
        assert len(words) > 20, file
        assert 0 < (page.parent / file).stat().st_size < 150_000, file


def test_the_first_page_links_to_all_others_but_the_decisions() -> None:
    linked = _linked("index.md") | {
        f"integrations/{page}" for page in _linked("integrations/index.md")
    }
    pages = {str(page.relative_to(ROOT / "docs")) for page in ROOT.glob("docs/**/*.md")}
    assert {page for page in pages - linked if not page.startswith("decisions/")} == {"index.md"}


def _linked(page: str) -> set[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return set(re.findall(r"\]\(([\w/-]+\.md)", text))


def test_what_a_worker_logs_is_in_the_page_for_operators() -> None:
    operate = (ROOT / "docs" / "how-to" / "operate.md").read_text(encoding="utf-8")
    logged = {
        message.replace("%s", "source")
        for path in (ROOT / "src" / "bemi").rglob("*.py")
        if path.parent.name != "history"  # what it says is for applications
        for message in re.findall(
            r'log\.(?:info|warning|error)\(\s*"([^"]+)"', path.read_text(encoding="utf-8")
        )
    }
    assert {message for message in logged if f"`{message}`" not in operate} == set()
    assert len(logged) > 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_variables_that_a_page_names_exist(page: Path) -> None:
    pattern = r"\bBEMI_[A-Z_]+\b"
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    of_tests = {name for text in sources for name in re.findall(pattern, text)}
    # BEMI_CONTEXT is a setting of Django's.
    others = {
        "BEMI_CONFIG",
        "BEMI_CONTEXT",
        *(name for name in of_tests if name.startswith("BEMI_TEST_")),
    }
    known = (
        {config.variable(key) for key in (*config.KEYS, *config.OIDC_KEYS)}
        | others
        | {"BEMI_REQUIRE_ALL"}
    )
    named = set(re.findall(pattern, page.read_text(encoding="utf-8")))
    assert named - known == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_make_targets_that_a_page_names_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z]+)", page.read_text(encoding="utf-8"), re.MULTILINE))
    assert named - targets == set()


def test_settings_that_a_page_shows_as_a_file_are_valid(tmp_path: Path) -> None:
    shown = 0
    for page in PAGES:
        for block in re.findall(
            r"^```toml\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
        ):
            if "[tool." in block or "[project" in block:
                continue  # another file's
            file = tmp_path / "bemi.toml"
            file.write_text(block, encoding="utf-8")
            environ = {"BEMI_HASH_KEY": "0123456789abcdef"}
            if "[sources." not in block:
                environ["BEMI_SOURCE_URL"] = "dbname=todo"
            config.load_all({}, environ, file)
            shown += 1
    assert shown
