"""The OpenAPI document is what the application is, and what it says is so."""

import json
import re
from pathlib import Path

from bemi.api.routing import OPEN, PREFIX, STATIC
from tests.support import openapi
from tests.support.web import Web

ROOT = Path(__file__).parents[3]


def test_the_document_says_what_the_code_says() -> None:
    written = openapi.FILE.read_text(encoding="utf-8")
    assert written == openapi.rendered(), "run `python -m tests.support.openapi`"


def test_the_document_is_whole() -> None:
    document = json.loads(openapi.FILE.read_text(encoding="utf-8"))
    names = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
    assert names <= {*document["components"]["schemas"]}
    for path, each in document["paths"].items():
        for method, operation in each.items():
            assert operation["description"], (method, path)
            if path not in OPEN:
                takes = "embed" if path.startswith(f"{PREFIX}/embed/") else "token"
                assert operation["security"] == [{takes: []}], (method, path)


def test_every_path_is_in_the_page() -> None:
    page = (ROOT / "docs/how-to/serve.md").read_text(encoding="utf-8")
    document = json.loads(openapi.FILE.read_text(encoding="utf-8"))
    for path in document["paths"]:
        plain = re.sub(r"/\{\w+\}.*", "", path.removeprefix("/api/v1"))
        assert f"`{plain}`" in page or f"`{plain}/" in page, path
    for path in OPEN - {"/sign-in", "/embed.js", "/embed/{kid}"}:
        assert f"`{path}`" in page
    assert STATIC


def test_the_document_takes_no_token_and_is_the_file(web: Web) -> None:
    served = web.nobody.get("/openapi.json").json()
    assert served == json.loads(openapi.FILE.read_text(encoding="utf-8"))
