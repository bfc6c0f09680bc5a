"""`tests/README.md` says which test shows which fact: all of these, and no others."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
FACTS = TESTS / "integration" / "facts"


def named() -> set[str]:
    text = (TESTS / "README.md").read_text(encoding="utf-8")
    return set(re.findall(r"`(test_\w+)`", text))


def functions(folder: Path) -> set[str]:
    return {
        name
        for path in folder.rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)\(", path.read_text("utf-8"), re.MULTILINE)
    }


def test_every_test_that_is_named_exists() -> None:
    assert named() - functions(TESTS) == set()


def test_every_test_of_a_fact_is_named() -> None:
    assert functions(FACTS) - named() == set()


def test_every_file_that_is_named_exists() -> None:
    text = (TESTS / "README.md").read_text(encoding="utf-8")
    files = re.findall(r"`((?:unit|integration|e2e)/[\w/]+\.py)`", text)
    assert files
    assert [name for name in files if not (TESTS / name).exists()] == []
