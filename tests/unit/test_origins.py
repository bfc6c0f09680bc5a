"""Which requests pages of other origins make, and under which names the server is reached."""

import socket

import pytest

from bemi import server
from bemi.api.origins import is_foreign, is_own, origin_of
from bemi.errors import ConfigError

OWN = frozenset({"https://history.example"})


@pytest.mark.parametrize(
    ("headers", "foreign", "own"),
    [
        ({}, False, False),
        ({"origin": "https://history.example"}, False, True),
        ({"origin": "http://history.example"}, True, False),
        ({"origin": "https://history.example.evil.example"}, True, False),
        ({"origin": "null"}, True, False),
        ({"sec-fetch-site": "same-origin"}, False, True),
        ({"sec-fetch-site": "none"}, False, False),
        ({"sec-fetch-site": "same-site"}, True, False),
        ({"sec-fetch-site": "cross-site"}, True, False),
        ({"sec-fetch-site": "same-origin", "origin": "https://evil.example"}, True, True),
        ({"sec-fetch-site": "cross-site", "origin": "https://history.example"}, True, False),
    ],
)
def test_what_browsers_say(headers: dict[str, str], foreign: bool, own: bool) -> None:
    for method in ("GET", "POST"):
        assert is_foreign(method, headers, OWN) is foreign
        assert is_own(headers, OWN) is own


def test_to_follow_a_link_is_nothing_foreign_but_to_send_a_form_is() -> None:
    for destination, foreign in (("document", False), ("iframe", True), ("image", True)):
        headers = {
            "sec-fetch-site": "cross-site",
            "sec-fetch-mode": "navigate",
            "sec-fetch-dest": destination,
        }
        assert is_foreign("GET", headers, OWN) is foreign
        assert is_foreign("POST", headers, OWN) is True


def test_an_origin_is_spelled_as_browsers_do() -> None:
    assert origin_of("https://History.example:443/") == "https://history.example"
    assert origin_of("http://[::1]:8420") == "http://[::1]:8420"
    for wrong in ("history.example", "ftp://x", "https://a@b", "https://x/y", "https://x?y", "//"):
        with pytest.raises(ValueError, match=r"has more|is not of"):
            origin_of(wrong)


def test_who_others_reach_says_under_which_name() -> None:
    assert server.origins_of("127.0.0.1", 80, None) == ("http://127.0.0.1", "http://localhost")
    assert "http://[::1]:8420" in server.origins_of("::1", 8420, None)
    assert server.origins_of("0.0.0.0", 80, "https://x.example") == ("https://x.example",)
    for host, public in (("0.0.0.0", None), ("10.0.0.1", None), ("127.0.0.1", "x.example")):
        with pytest.raises(ConfigError, match=r"--public-url|under which name") as caught:
            server.origins_of(host, 8420, public)
        assert caught.value.fix


def test_a_port_that_is_taken_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match=r"can't listen on 127\.0\.0\.1"):
            server.listen("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(ConfigError, match="can't listen"):
        server.listen("no-such-host.invalid", 0)


@pytest.mark.parametrize(
    ("host", "public", "clear"),
    [
        ("127.0.0.1", None, False),
        ("::1", None, False),
        ("0.0.0.0", "https://x.example", False),
        ("127.0.0.1", "https://x.example", False),
        ("0.0.0.0", "http://x.example", True),
        ("127.0.0.1", "http://x.example", True),  # behind a proxy without TLS
        ("0.0.0.0", "http://localhost:8420", True),
        ("127.0.0.1", "http://localhost:8420", False),
    ],
)
def test_what_goes_over_a_network_in_the_clear(host: str, public: str | None, clear: bool) -> None:
    assert server.is_in_the_clear(host, server.origins_of(host, 8420, public)) is clear
