"""CSV as RFC 4180 says it, in UTF-8: https://www.rfc-editor.org/rfc/rfc4180

Texts are quoted, numbers and booleans are not; JSON is its text. Null is nothing, which is what
`copy … with (format csv)` takes for it; an empty text is `""`. Values are exact: a text that a
spreadsheet would take for a formula stays as it is.
"""

import csv
import sys
import tempfile
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Final

import msgspec

# Numbers stay numbers, with all of their digits.
_encode: Final = msgspec.json.Encoder(decimal_format="number").encode
_row: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class _Bare(str):
    """Goes for a number with the csv module, which does not quote those."""

    def __float__(self) -> float:
        raise NotImplementedError


_NULL: Final = _Bare()
_PIECE: Final = 1 << 16


def _to_output(line: bytes) -> None:
    sys.stdout.buffer.write(line)


class Table:
    """Writes its header, to standard output or wherever it is told, then a line per row."""

    def __init__(self, *columns: str, to: Callable[[bytes], object] = _to_output) -> None:
        self._to = to
        self._writer = csv.writer(self, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\r\n")
        self._writer.writerow(columns)

    def add(self, values: Iterable[object]) -> None:
        self._writer.writerow([_cell(value) for value in values])

    def write(self, line: str) -> None:
        # In one piece, so that a reader at the other end of a pipe never sees half a line.
        self._to(line.encode())


def print_rows(rows: Iterable[Mapping[str, object]], known: Iterable[str]) -> None:
    """To standard output, as `pieces` has them."""
    for piece in pieces(rows, known):
        _to_output(piece)


def pieces(rows: Iterable[Mapping[str, object]], known: Iterable[str]) -> Generator[bytes]:
    """Rows of which not all have the same columns: `known` comes first. Whole lines, some together.

    All columns are known behind the last row only, so that they wait in a file for the header.
    """
    ready = bytearray()
    columns = dict.fromkeys(known)
    with tempfile.TemporaryFile() as waiting:
        for row in rows:
            columns |= dict.fromkeys(row)
            waiting.write(_encode(row) + b"\n")
        waiting.seek(0)
        table = Table(*columns, to=ready.extend)
        for line in waiting:
            values = _row(line)
            table.add(values.get(column) for column in columns)
            if len(ready) >= _PIECE:
                yield bytes(ready)
                ready.clear()
    yield bytes(ready)


def _cell(value: object) -> object:
    if value is None or isinstance(value, str):
        return _NULL if value is None else value
    text = _encode(value).decode()
    if text.startswith('"'):
        return msgspec.json.decode(text, type=str)
    if text == "null":
        return _NULL
    return text if text.startswith(("{", "[")) else _Bare(text)
