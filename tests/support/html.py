"""What a browser makes of a page: its elements, its text, where its links lead."""

from html.parser import HTMLParser
from typing import Final

_EMPTY: Final = frozenset({"meta", "link", "input", "br", "img", "hr"})

_INLINE: Final = frozenset({"a", "bdi", "code", "del", "ins", "kbd", "mark", "span", "time"})


class Page(HTMLParser):
    """`elements`: each with its attributes. Raises AssertionError where tags do not nest."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.source = source
        self.elements: list[tuple[str, dict[str, str]]] = []
        self._open: list[str] = []
        self._text: list[str] = []
        self.feed(source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len({*names}), (tag, names)
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in _EMPTY:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        self._text.append("" if tag in _INLINE else " ")
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self._text.append(data)

    @property
    def text(self) -> str:
        """With single blanks."""
        return " ".join("".join(self._text).split())

    @property
    def links(self) -> list[str]:
        return [given["href"] for tag, given in self.elements if tag == "a"]

    def link(self, **wanted: str) -> str | None:
        """Where the first one with these attributes leads."""
        for tag, given in self.elements:
            if tag == "a" and all(given.get(name) == value for name, value in wanted.items()):
                return given["href"]
        return None
