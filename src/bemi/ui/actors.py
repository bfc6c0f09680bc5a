"""Who made a change, and where, as its context says. Pure."""

from typing import Final

import msgspec

from bemi.ui import links
from bemi.ui.values import brief

_MOST: Final = 60
_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Actor(msgspec.Struct, frozen=True):
    """`href` leads to all that the same one did. `where`: which request, which job, or
    that it was an undo."""

    text: str
    href: str = ""
    where: str = ""
    trace: str = ""
    """What the request, or the trace, is called; and which of both it is."""
    trace_is: str = "request"
    trace_href: str = ""


def actor_of(context: msgspec.Raw) -> Actor:
    given = _scalars(context)
    trace = given.get("request_id") or given.get("trace_id") or ""
    return Actor(
        *_who(given),
        where=_where(given) or _redone(context),
        trace=brief(trace, _MOST),
        trace_is="request" if given.get("request_id") else "trace",
        trace_href=links.trace(trace) if 0 < len(trace) <= links.LONGEST else "",
    )


def members(context: msgspec.Raw, most: int) -> list[tuple[str, str]]:
    """All that a context has, as people read it."""
    return [
        (brief(name, _MOST), brief(_text(raw), most)) for name, raw in _members(context).items()
    ]


def _who(given: dict[str, str]) -> tuple[str, str]:
    for name, words in (("user_id", "user"), ("user", "user"), ("job", "the job")):
        found = given.get(name)
        if found is not None:
            href = links.url("/", {"context": f"{name}={found}"})
            return f"{words} {brief(found, _MOST)}", href if len(found) <= links.LONGEST else ""
    return "somebody", ""


def _where(given: dict[str, str]) -> str:
    endpoint = " ".join(given[name] for name in ("method", "endpoint") if given.get(name))
    job = given.get("job")
    # Without a user it is the job that did it.
    is_told = job is not None and ("user_id" in given or "user" in given)
    return brief(endpoint or (f"job {job}" if is_told else ""), _MOST)


def _redone(context: msgspec.Raw) -> str:
    """What stands in the place of a request where Bemi itself wrote."""
    told = _members(context)
    return "an undo" if "revert" in told else "a replay" if "replay" in told else ""


def _scalars(context: msgspec.Raw) -> dict[str, str]:
    """Those that are no objects nor lists, as filters compare them."""
    found = {}
    given = _members(context)
    for name in ("user_id", "user", "job", "method", "endpoint", "request_id", "trace_id"):
        raw = given.get(name)
        if raw is not None and bytes(raw)[:1] not in (b"{", b"[", b"n"):
            found[name] = _text(raw)
    return found


def _text(raw: msgspec.Raw) -> str:
    """Numbers with all of their digits."""
    text = bytes(raw).decode()
    return str(msgspec.json.decode(text, type=str)) if text.startswith('"') else text
