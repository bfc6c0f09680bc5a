"""What changes are grouped and counted by: the same words for all who ask."""

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec

if TYPE_CHECKING:
    from bemi.store.reader import StoredChange

NAMES: Final = ("transaction", "table", "operation", "source", "user")
_CONTEXT: Final = "context."
_INDEX: Final = re.compile("-?[0-9]{1,9}")
_decode: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_either: Final = msgspec.json.Decoder(dict[str, msgspec.Raw] | list[msgspec.Raw]).decode


class Dimension(msgspec.Struct, frozen=True):
    """A name such as `table` or `context.tenant.id`; `user` is `context.user_id`."""

    name: str
    path: tuple[str, ...] = ()
    """Of a member of the context; else empty."""

    @classmethod
    def parse(cls, name: str) -> Self:
        """Raises ValueError for what is none."""
        if name in NAMES:
            return cls(name, ("user_id",) if name == "user" else ())
        member = name.removeprefix(_CONTEXT)
        if member in ("", name):
            raise ValueError(
                f"{name!r} is nothing that changes have: there are {', '.join(NAMES)}, and"
                " context.KEY, as in context.endpoint"
            )
        return cls(name, tuple(member.split(".")))

    def of(self, change: "StoredChange") -> Any:
        """Its value of a change: of a context the member's text, as filters compare it, and None
        where there is no such member, or it is null."""
        if self.path:
            return _member(change.context, self.path)
        return _OF[self.name](change)


_OF: Final[Mapping[str, Callable[["StoredChange"], Any]]] = {
    "transaction": lambda change: change.transaction_id,
    "table": lambda change: f"{change.schema}.{change.table}",
    "operation": lambda change: change.operation,
    "source": lambda change: change.source,
}


def _member(context: msgspec.Raw, path: tuple[str, ...]) -> str | None:
    found = _text(_reached(context, path))
    return _text(_decode(context).get(".".join(path))) if found is None else found


def _reached(raw: msgspec.Raw | None, path: tuple[str, ...]) -> msgspec.Raw | None:
    """As `#>>` goes, through arrays too."""
    for name in path:
        if raw is None or bytes(raw)[:1] not in (b"{", b"["):
            return None
        within = _either(raw)
        if isinstance(within, dict):
            raw = within.get(name)
        elif _INDEX.fullmatch(name) and -len(within) <= int(name) < len(within):
            raw = within[int(name)]
        else:
            return None
    return raw


def _text(raw: msgspec.Raw | None) -> str | None:
    if raw is None or bytes(raw) == b"null":
        return None
    text = bytes(raw).decode()
    return msgspec.json.decode(text, type=str) if text.startswith('"') else text
