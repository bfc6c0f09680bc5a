"""Writes spec/openapi.json from the application: `python -m tests.support.openapi`."""

import json
from pathlib import Path
from typing import Final

from bemi import server
from bemi.api.archive import Archive
from bemi.api.serving import Serving
from bemi.capture.connector import Connector

FILE: Final = Path(__file__).parents[2] / "spec" / "openapi.json"


def rendered() -> str:
    """Nothing is connected to."""
    archive = Archive("postgresql://localhost/history", "bemi")
    app = server.build(Serving(archive, ("http://127.0.0.1:8420",), connector=Connector({})))
    return json.dumps(app.openapi(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(rendered(), encoding="utf-8")
