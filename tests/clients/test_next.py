"""Next.js: route handlers and server actions have the context of their request, many at once."""

import shutil

import pytest

from tests.support import javascript

ENVIRONMENT = {"NEXT_TELEMETRY_DISABLED": "1"}
APPLICATION = javascript.PACKAGE / "test" / "next"


@pytest.mark.timeout(300)  # the first time, a third of a gigabyte is installed
def test_requests_of_a_real_application_keep_their_contexts_apart() -> None:
    """What Next.js makes of the application, and of this package, which it bundles."""
    package = javascript.built()
    folder = javascript.CACHE / "next"
    with javascript.locked("next"):
        shutil.copytree(APPLICATION, folder, dirs_exist_ok=True)
        javascript.install(folder)
        installed = folder / "node_modules" / "bemi"
        shutil.rmtree(installed, ignore_errors=True)
        shutil.copytree(package / "dist", installed / "dist")
        shutil.copy(package / "package.json", installed)
        said = javascript.run([javascript.node(), "check.mjs"], cwd=folder, env=ENVIRONMENT)
    assert "requests: 200, actions: 50" in said
