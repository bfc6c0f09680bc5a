"""Whether a request was made by a page of our own, a program, or somebody else's page. Pure.

Browsers say it in headers that no page can set: `Sec-Fetch-Site`
(https://www.w3.org/TR/fetch-metadata/), and `Origin` where there is a body to send.
"""

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})


def origin_of(url: str) -> str:
    """Scheme, host and port of a URL. Raises ValueError for what is no http(s) URL."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
        raise ValueError(f"{url!r} is not of the form https://HOST or https://HOST:PORT")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(f"{url!r} has more than a host and a port")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    port = parts.port
    if port is None or port == {"http": 80, "https": 443}[parts.scheme]:
        return f"{parts.scheme}://{host}"
    return f"{parts.scheme}://{host}:{port}"


def host_of(origin: str) -> str:
    """As the header `Host` has it."""
    return origin.partition("://")[2]


def is_foreign(method: str, headers: Mapping[str, str], origins: frozenset[str]) -> bool:
    """Whether the page of another origin had it made. To follow a link is no such thing."""
    origin = headers.get("origin")
    if origin is not None and origin not in origins:
        return True
    site = headers.get("sec-fetch-site")
    if site is None or site in ("same-origin", "none"):
        return False
    is_navigation = headers.get("sec-fetch-mode") == "navigate"
    return not (
        method in SAFE and is_navigation and headers.get("sec-fetch-dest", "") in ("", "document")
    )


def is_own(headers: Mapping[str, str], origins: frozenset[str]) -> bool:
    """Whether it surely is one of our own pages': what a cookie alone does not say."""
    site = headers.get("sec-fetch-site")
    origin = headers.get("origin")
    return site == "same-origin" or (site is None and origin is not None and origin in origins)
