"""Somebody who reads pages, as a browser without scripts gets them."""

import re
from typing import Any, Final

import httpx

from tests.support.html import Page
from tests.support.web import Web

HTML: Final = {"Accept": "text/html,application/xhtml+xml"}


class Reader:
    """Somebody with a browser, who follows links and gets pages that are as they should be."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client

    def get(self, address: str, status: int = 200, /, **query: Any) -> Page:
        answer = self.client.get(address, params=query or None, headers=HTML, follow_redirects=True)
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        page = Page(answer.text)
        require_harmless(page)
        return page


def require_harmless(page: Page) -> None:
    """Nothing runs in it but our own script, nothing is loaded from elsewhere, and links lead to
    pages of our own."""
    for tag, given in page.elements:
        if tag == "svg":  # a chart of ours
            assert {*given} - {"role", "aria-label"} == {"viewbox", "preserveaspectratio"}
        assert tag not in ("img", "style", "iframe", "object", "base", "b", "i"), tag
        assert not [name for name in given if name.startswith("on") or name == "style"], given
        if tag == "script":
            assert given == {"src": "/static/bemi.js", "defer": ""}
        for name in ("href", "src", "action"):
            assert given.get(name, "/")[:2] not in ("//", "/\\"), given
            assert given.get(name, "/")[0] in "/#", given
    assert not re.search("[\0-\x08\x0b\x0c\x0e-\x1f\u200e\u200f\u202a-\u202e]", page.text)


def reader(web: Web, *scopes: Any, role: Any = "viewer") -> Reader:
    name = f"grace {len(web._clients)}"
    _, session = web.person(f"{name} {web.base}", role, list(scopes) or None)
    return Reader(web.browser(session))
