"""What runs inside the user's application stays light."""

import json
import subprocess
import sys

import pytest

PROBE = """
import sys
before = set(sys.modules)
import {module}
import json
names = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(json.dumps(sorted(names - sys.stdlib_module_names - {{"bemi"}})))
"""


@pytest.mark.parametrize(
    "module",
    [
        "bemi",
        "bemi.context.sender",
        "bemi.integrations",
        "bemi.integrations.asgi",
        "bemi.integrations.wsgi",
        "bemi.embedded",
    ],
)
def test_import_loads_only_the_standard_library(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(module=module)],
        check=True,
        capture_output=True,
        text=True,
    )
    assert json.loads(done.stdout) == []
