"""The built wheel, installed into an empty environment outside the repository, is all of Bemi."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, check=False, capture_output=True, text=True, timeout=100
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # From a copy, since building writes into the folder that it builds.
    shutil.copytree(
        ROOT / "src",
        folder / "source" / "src",
        ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"),
    )
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, folder / "source")
    built = run(
        sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet",
        "--wheel-dir", folder, folder / "source", cwd=folder,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    (found,) = folder.glob("bemi-*.whl")
    return found


def install(wheel: Path, extras: str, folder: Path, *more: str) -> Path:
    """Install into a new environment below `folder`; the environment's programs."""
    # Without pip, which takes longer to come than all that is installed then.
    assert run(sys.executable, "-m", "venv", "--without-pip", "env", cwd=folder).returncode == 0
    programs = folder / "env" / "bin"
    uv: list[str | Path] = [
        sys.executable,
        "-m",
        "uv",
        "pip",
        "install",
        "--quiet",
        "--python",
        programs / "python",
    ]
    if run(*uv, f"{wheel}{extras}", *more, cwd=folder).returncode:
        # As `make setup` does where uv is missing or can't reach the packages.
        pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", programs / "python"]
        installed = run(*pip, "install", "--quiet", f"{wheel}{extras}", *more, cwd=folder)
        assert installed.returncode == 0, installed.stderr
    return programs


def test_all_files_of_the_package_are_in_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
    source = ROOT / "src"
    files = {
        str(path.relative_to(source))
        for path in (source / "bemi").rglob("*")
        if path.is_file() and path.suffix not in (".pyc", ".md") and ".cache" not in path.parts
    }
    assert files - names == set()


def test_without_extras_it_is_importable_and_says_how_to_get_the_commands(
    wheel: Path, tmp_path: Path
) -> None:
    programs = install(wheel, "", tmp_path)
    assert run(programs / "python", "-c", "import bemi; bemi.context", cwd=tmp_path).returncode == 0
    told = run(programs / "bemi", "doctor", cwd=tmp_path)
    assert told.returncode == 1
    assert "pip install 'bemi[worker]'" in told.stderr
    assert "Traceback" not in told.stderr


def test_with_its_extras_the_demo_works(wheel: Path, tmp_path: Path) -> None:
    programs = install(wheel, "[demo]", tmp_path)
    told = run(programs / "bemi", "demo", cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    assert "6 changes" in told.stdout


@pytest.mark.parametrize(
    ("extra", "more"),
    [
        ("asyncpg", ()),
        ("celery", ()),
        ("django", ()),
        ("peewee", ()),
        ("piccolo", ()),
        ("psycopg", ("psycopg[binary]",)),
        ("rq", ()),
        ("sqlalchemy", ()),
        ("sqlmodel", ()),
        ("tortoise", ()),
    ],
)
def test_each_extra_is_what_its_integration_needs(
    wheel: Path, tmp_path: Path, extra: str, more: tuple[str, ...]
) -> None:
    programs = install(wheel, f"[{extra}]", tmp_path, *more)
    module = "sqlalchemy" if extra == "sqlmodel" else extra
    imported = f"import bemi.integrations.{module}"
    if extra == "django":
        imported += ".apps, bemi.integrations.django.middleware, bemi.integrations.django.options"
    told = run(programs / "python", "-c", imported, cwd=tmp_path)
    assert told.returncode == 0, told.stderr
