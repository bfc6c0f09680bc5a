"""Two states of a table beside each other, on disk, so that tables of any size can be compared.

A temporary file of SQLite's, gone when it is closed. Rows are paired by their key, or by what
became of it; of rows without one, those that are alike are counted.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Self

import msgspec

from bemi.errors import BemiError, UsageError
from bemi.history.state import StateRow

_MADE: Final = """
pragma journal_mode = off;
pragma synchronous = off;
create table earlier (
    key text primary key, image text, form text, flags text, pair text
) without rowid;
create table later (key text primary key, image text, form text, flags text) without rowid;
create table plain (image text, form text, flags text, side int);
create table moves (key text primary key, origin text, relation int) without rowid;
"""

# A row that moved is the one that its key became; the one that came to that key before is gone.
_PAIRED: Final = """
delete from moves where key = origin
    or origin not in (select key from earlier) or key not in (select key from later);
create unique index origins on moves (origin);
update earlier set pair = coalesce(
    (select m.key from moves m where m.origin = earlier.key),
    case when key not in (select key from moves) then key end
);
create index pairs on earlier (pair);
"""

_DIFFERENT: Final = """
select a.key, b.key, b.image, b.flags, a.key, a.image, a.flags
from later a left join earlier b on b.pair = a.key
where b.key is null or b.key <> a.key or b.image <> a.image or b.form <> a.form
union all
select b.key, b.key, b.image, b.flags, null, null, null
from earlier b
where not exists (select 1 from later a where a.key = b.pair)
order by 1
"""

_BEFORE: Final = "insert into earlier (key, image, form, flags) values (?, ?, ?, ?)"
_AFTER: Final = "insert into later (key, image, form, flags) values (?, ?, ?, ?)"
_PLAIN: Final = "insert into plain (image, form, flags, side) values (?, ?, ?, ?)"
_FORMS: Final = ("text:", "json_null:")
"""Flags that say what a value is."""

_COUNTED: Final = """
select image, min(flags), sum(side) from plain group by image, form having sum(side) <> 0
order by image
"""

_decode: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode: Final = msgspec.json.Encoder(order="sorted").encode
_flags: Final = msgspec.json.Decoder(frozenset[str]).decode


class Spool:
    def __init__(self) -> None:
        # Whoever reads the pairs may do so on another thread than the one that began.
        self._db = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._db.executescript(_MADE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._db.close()

    def before(self, rows: Iterable[StateRow]) -> int:
        """How many rows these were."""
        return self._add(_BEFORE, rows, -1)

    def after(self, rows: Iterable[StateRow]) -> int:
        return self._add(_AFTER, rows, 1)

    def _add(self, statement: str, rows: Iterable[StateRow], side: int) -> int:
        count = 0
        for row in rows:
            count += 1
            # One spelling: the columns' order is that of the table's versions.
            image = _encode(_decode(row.image)).decode()
            flags = sorted(row.flags)
            form = [flag for flag in flags if flag.startswith(_FORMS)]
            values = (image, _encode(form).decode(), _encode(flags).decode())
            if row.key is None:
                self._execute(_PLAIN, (*values, side))
                continue
            try:
                self._execute(statement, (row.key, *values))
            except sqlite3.IntegrityError:
                raise UsageError(
                    f"several partitions have a row with the key {row.key}, and which became which"
                    " can't be told",
                    fix="ask for each partition by its name",
                ) from None
        return count

    def moved(self, old: str, new: str, relation: int) -> None:
        """The row that had the key `old` has `new` from here on."""
        origin = self.origin(old)
        self.gone(old)
        self.came(new, origin, relation)

    def origin(self, key: str) -> str:
        row = self._execute("select origin from moves where key = ?", (key,)).fetchone()
        return key if row is None else str(row[0])

    def came(self, key: str, origin: str, relation: int) -> None:
        self._execute("insert or replace into moves values (?, ?, ?)", (key, origin, relation))

    def gone(self, key: str) -> None:
        self._execute("delete from moves where key = ?", (key,))

    def emptied(self, relation: int) -> None:
        self._execute("delete from moves where relation = ?", (relation,))

    def moves_of(self, key: str) -> set[str]:
        """The keys with which `key` has to do."""
        found = self._execute(
            "select key, origin from moves where key = ? or origin = ?", (key, key)
        )
        return {key}.union(*found)

    def different(self) -> Iterator[tuple[StateRow | None, StateRow | None, int]]:
        """Pairs that are not alike, in the order of their keys, and how many there are of each."""
        with _writing():
            self._db.executescript(_PAIRED)
            for _, *before_and_after in self._db.execute(_DIFFERENT):
                yield _row(*before_and_after[:3]), _row(*before_and_after[3:]), 1
            for image, flags, number in self._db.execute(_COUNTED):
                row = StateRow(None, msgspec.Raw(image.encode()), _flags(flags))
                yield (None, row, number) if number > 0 else (row, None, -number)

    def _execute(self, statement: str, values: tuple[object, ...]) -> sqlite3.Cursor:
        with _writing():
            return self._db.execute(statement, values)


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise BemiError(
            f"the temporary file that rows are compared in can't be written: {error}",
            fix="SQLITE_TMPDIR names another folder for it, with room for both states",
        ) from error


def _row(key: str | None, image: str | None, flags: str | None) -> StateRow | None:
    if image is None or flags is None:
        return None
    return StateRow(key, msgspec.Raw(image.encode()), _flags(flags))
