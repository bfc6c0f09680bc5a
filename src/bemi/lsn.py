"""A log sequence number: a place in PostgreSQL's write-ahead log.

https://www.postgresql.org/docs/current/datatype-pg-lsn.html
"""

import re

_TEXT = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")


class Lsn(int):
    """An LSN, ordered as the log is, printed in PostgreSQL's form: `0/16B3748`."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> "Lsn":
        """Read `X/Y`, two hexadecimal numbers of up to 32 bits.

        Raises `ValueError` for anything else.
        """
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ValueError(f"not an LSN: {text!r} (expected a form like 0/16B3748)")
        return cls(int(match[1], 16) << 32 | int(match[2], 16))

    def __str__(self) -> str:
        return f"{self >> 32:X}/{self & 0xFFFFFFFF:X}"

    def __repr__(self) -> str:
        return f"Lsn({str(self)!r})"
