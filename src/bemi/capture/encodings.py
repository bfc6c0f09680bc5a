"""Which encoding the stream comes in, and how Python reads it.

A server converts its text for UTF8 clients, but ends the stream for ever at the first byte
that has no character: any byte in SQL_ASCII, 0x81 in WIN1252. So it is asked not to convert,
wherever Python decodes exactly as PostgreSQL would.
https://www.postgresql.org/docs/current/multibyte.html
"""

from typing import Final

import msgspec

from bemi.errors import SetupError

# Checked against PostgreSQL's conversions, code by code: no character differs.
_CODECS: Final = {
    "EUC_CN": "gb2312",
    "ISO_8859_5": "iso8859-5",
    "ISO_8859_6": "iso8859-6",
    "ISO_8859_7": "iso8859-7",
    "ISO_8859_8": "iso8859-8",
    "KOI8R": "koi8-r",
    "KOI8U": "koi8-u",
    "LATIN1": "iso8859-1",
    "LATIN2": "iso8859-2",
    "LATIN3": "iso8859-3",
    "LATIN4": "iso8859-4",
    "LATIN5": "iso8859-9",
    "LATIN6": "iso8859-10",
    "LATIN7": "iso8859-13",
    "LATIN8": "iso8859-14",
    "LATIN9": "iso8859-15",
    "LATIN10": "iso8859-16",
    "WIN866": "cp866",
    "WIN874": "cp874",
    "WIN1250": "cp1250",
    "WIN1251": "cp1251",
    "WIN1252": "cp1252",
    "WIN1253": "cp1253",
    "WIN1254": "cp1254",
    "WIN1255": "cp1255",
    "WIN1256": "cp1256",
    "WIN1257": "cp1257",
    "WIN1258": "cp1258",
}

# Python lacks characters that PostgreSQL has (`①` in EUC_JP), or knows others for them: the
# server converts. These are good enough for contexts, which are mostly ASCII.
_APPROXIMATE: Final = {
    "EUC_JIS_2004": "euc_jis_2004",
    "EUC_JP": "euc_jp",
    "EUC_KR": "euc_kr",
}


class Encoding(msgspec.Struct, frozen=True):
    """How text comes from one source. The last two are names of Python's codecs."""

    client: str
    """What the stream comes in, as PostgreSQL names it."""
    text: str
    """Of the values and names in the stream."""
    messages: str
    """Of what `pg_logical_emit_message` wrote, which is never converted."""


def encoding_of(server: str) -> Encoding:
    """How to read the text of a server whose encoding is `server`.

    Raises `SetupError` for one that Python has no codec for.
    """
    if server in ("UTF8", "SQL_ASCII"):
        return Encoding(server, "utf-8", "utf-8")
    if server in _APPROXIMATE:
        return Encoding("UTF8", "utf-8", _APPROXIMATE[server])
    if server in _CODECS:
        return Encoding(server, _CODECS[server], _CODECS[server])
    raise SetupError(
        f"the source's encoding is {server}, which Bemi can't read",
        fix="move to a database in UTF8",
    )
