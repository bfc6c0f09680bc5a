"""The text of a row's primary key, as the store keeps it and people type it."""

from bemi.capture.values import quote
from bemi.change import UNCHANGED, Row, Table
from bemi.keys import MAX_KEY, digested


def key_text(table: Table, row: Row) -> bytes | None:
    """The primary key's text: the value's own, or a JSON array of texts for several columns.

    `None` where a part of it was not sent.
    """
    if len(table.key) == 1:
        value = row[table.key[0]]
        return None if value is UNCHANGED else value
    texts = []
    for value in (row[at] for at in table.key):
        if value is None or value is UNCHANGED:
            return None
        texts.append(quote(value))
    return b"[" + b",".join(texts) + b"]"


def stored_key(table: Table, row: Row) -> tuple[bytes | None, bool]:
    """The key as it is stored, and whether that is a digest of one that is too long."""
    key = key_text(table, row)
    if key is None or len(key) <= MAX_KEY:
        return key, False
    return digested(key), True


def key_as_stored(table: Table, row: Row, encoding: str) -> str | None:
    """The key under which the store has a row with these values, which are in `encoding`.

    The encoder measures and digests it in UTF-8, with `\\xNN` for bytes that are no text.
    """
    values = list(row)
    for at in table.key:
        value = values[at]
        if isinstance(value, bytes) and not value.isascii():
            values[at] = value.decode(encoding, "backslashreplace").encode()
    key, _ = stored_key(table, tuple(values))
    return None if key is None else key.decode()
