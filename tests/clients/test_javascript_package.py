"""What `npm pack` gives works in a project of somebody else's."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import javascript

TYPED = """
import { currentContext, withContext } from "bemi";
%(imports)s
const user: unknown = withContext({ user_id: 42 }, currentContext)["user_id"];
interface Mine {
  user_id: number;
}
const mine: Mine = { user_id: 42 };
const found: number = withContext(mine, () => 7);
// @ts-expect-error: a context is an object
withContext(7, () => 7);
console.log(user, found%(names)s);
"""


def subpaths() -> list[str]:
    files = sorted(path.stem for path in (javascript.PACKAGE / "src").glob("*.ts"))
    return ["bemi" if name == "index" else f"bemi/{name}" for name in files]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Has the package from its archive; of what that is optionally for, links to what we have."""
    folder = tmp_path_factory.mktemp("project")
    package = javascript.built()
    packed = javascript.run(
        javascript.npm_command("pack", "--json", "--pack-destination", str(folder))
    )
    archive = json.loads(packed)
    (folder / "package.json").write_text('{"private": true}')
    install = ("install", "--offline", "--legacy-peer-deps", f"./{archive[0]['filename']}")
    javascript.run(javascript.npm_command(*install), cwd=folder)
    installed = folder / "node_modules"
    for name in _dependencies(package):
        (installed / name).parent.mkdir(exist_ok=True)
        (installed / name).symlink_to(package / "node_modules" / name)
    return folder


def _dependencies(package: Path) -> Iterator[str]:
    yield from json.loads((package / "package.json").read_text())["devDependencies"]


def test_it_holds_what_it_should(project: Path) -> None:
    installed = project / "node_modules" / "bemi"
    assert {path.name for path in installed.iterdir()} == {
        *("package.json", "README.md", "LICENSE", "NOTICE", "src", "dist"),
    }
    assert {path.name for path in (installed / "dist").iterdir()} == {"esm", "cjs"}
    for name in ("LICENSE", "NOTICE"):
        assert (installed / name).read_text() == (javascript.ROOT / name).read_text()
    about = json.loads((installed / "package.json").read_text())
    assert "dependencies" not in about
    assert set(about.get("peerDependenciesMeta", {})) == set(about.get("peerDependencies", {}))


@pytest.mark.parametrize("path", subpaths())
def test_each_part_is_imported_and_required(project: Path, path: str) -> None:
    code = f"""
        import {{ createRequire }} from "node:module";
        const required = createRequire(process.cwd() + "/app.js")({path!r});
        const imported = await import({path!r});
        const names = Object.keys(imported).filter((name) => name !== "default");
        console.log(JSON.stringify([names.sort(), Object.keys(required).sort()]));
    """
    said = javascript.run([javascript.node(), "--input-type=module", "--eval", code], cwd=project)
    imported, required = json.loads(said)
    assert imported
    assert imported == [name for name in required if name not in ("default", "module.exports")]


def test_what_is_inside_is_nobody_elses(project: Path) -> None:
    code = """import("bemi/context/wire").catch((error) => console.log(error.code))"""
    said = javascript.run([javascript.node(), "--eval", code], cwd=project)
    assert said == "ERR_PACKAGE_PATH_NOT_EXPORTED\n"


@pytest.mark.parametrize(
    ("file", "options"),
    [
        ("app.mts", {"module": "node16"}),
        ("app.cts", {"module": "node16"}),
        ("app.ts", {"module": "esnext", "moduleResolution": "bundler"}),
    ],
)
def test_typescript_knows_its_types(project: Path, file: str, options: dict[str, str]) -> None:
    paths = [path for path in subpaths() if path != "bemi"]
    names = [f"part{number}" for number in range(len(paths))]
    imports = "\n".join(
        f'import * as {name} from "{path}";' for name, path in zip(names, paths, strict=True)
    )
    (project / file).write_text(
        TYPED % {"imports": imports, "names": "".join(f", {name}" for name in names)}
    )
    settings = {
        "compilerOptions": {
            "strict": True,
            "noEmit": True,
            "target": "es2022",
            "skipLibCheck": True,
            "types": ["node"],
            **options,
        },
        "files": [file],
    }
    (project / "tsconfig.json").write_text(json.dumps(settings))
    tsc = javascript.PACKAGE / "node_modules" / "typescript" / "bin" / "tsc"
    javascript.run([javascript.node(), str(tsc), "-p", "."], cwd=project)
