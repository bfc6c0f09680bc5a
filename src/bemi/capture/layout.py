"""How the rows of a table are asked for: its names as SQL, and an order to page them by.

Names and values are the bytes that the server sent, in the source's encoding, so that no name is
too odd and no value is altered.
"""

from collections.abc import Sequence
from typing import Final, TypeAlias

import msgspec
import psycopg
from psycopg import pq

from bemi.change import Table
from bemi.errors import PassingError, TableError

ReadRow: TypeAlias = tuple[bytes | None, ...]


class RawSession:
    """Speaks to libpq: what psycopg does for values and names is left out."""

    def __init__(self, pgconn: pq.abc.PGconn) -> None:
        self._pgconn = pgconn

    def run(self, statements: bytes) -> None:
        """Several statements, in one round trip."""
        result = self._pgconn.exec_(statements)
        if result.status == pq.ExecStatus.FATAL_ERROR:
            raise _error(result)

    def rows(self, statement: bytes, *values: bytes) -> list[ReadRow]:
        """The rows of one statement, if it has some, each value as text; None is NULL."""
        result = self._pgconn.exec_params(statement, values)
        if result.status not in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK):
            raise _error(result)
        get, width = result.get_value, range(result.nfields)
        return [tuple([get(row, at) for at in width]) for row in range(result.ntuples)]

    def row(self, statement: bytes, *values: bytes) -> ReadRow:
        rows = self.rows(statement, *values)
        return rows[0] if rows else (None,)

    def end_transaction(self) -> None:
        """Roll back, if there is one."""
        if self._pgconn.transaction_status in (
            pq.TransactionStatus.INTRANS,
            pq.TransactionStatus.INERROR,
        ):
            self.run(b"rollback")


class Layout(msgspec.Struct, frozen=True):
    """A table's names as SQL, and the columns of an index by whose order its rows can be read."""

    table: Table
    name: bytes
    columns: bytes
    paging: tuple[int, ...]
    """Empty where there is no such index."""
    paging_names: tuple[bytes, ...]
    paging_types: tuple[bytes, ...]
    search_path: bytes | None
    """Another than the session's, where that does not lead to the index's own operators. To be
    had while a statement is read, not while values are: names in them are spelled by it."""

    def page(self, step: int, *, onward: bool) -> bytes:
        """The next rows in order; `onward`: behind the values of the paging columns."""
        names = b", ".join(self.paging_names)
        condition = b""
        if onward:
            condition = b" where (%b) > (%b)" % (names, self._parameters(0))
        return b"select %b from only %b%b order by %b limit %d" % (
            self.columns,
            self.name,
            condition,
            names,
            step,
        )

    def place(self) -> bytes:
        """The values of the paging columns alone, read as what they are."""
        return b"select " + self._parameters(0)

    def by_keys(self, count: int) -> bytes:
        """The rows with so many values of the paging columns."""
        width = len(self.paging)
        places = b", ".join(b"(%b)" % self._parameters(at * width) for at in range(count))
        names = b", ".join(self.paging_names)
        return b"select %b from only %b where (%b) in (%b)" % (
            self.columns,
            self.name,
            names,
            places,
        )

    def everything(self) -> bytes:
        return b"select %b from only %b" % (self.columns or b"null", self.name)

    def _parameters(self, behind: int) -> bytes:
        return b", ".join(
            b"$%d::%b" % (behind + at, kind) for at, kind in enumerate(self.paging_types, start=1)
        )


def lay_out(session: RawSession, relation: int, table: Table) -> Layout:
    """Raises `TableError` for a table that is gone, and `PassingError` for one just altered."""
    oid = str(relation).encode()
    (name,) = session.row(_NAME, oid)
    if name is None:
        raise TableError("the table was dropped")
    quoted = {row[0]: row[1] for row in session.rows(_COLUMNS, oid)}
    numbers = [str(column.number).encode() for column in table.columns]
    if not all(number in quoted for number in numbers):
        raise PassingError("a table was altered just now")
    columns = b", ".join(quoted[number] or b"" for number in numbers)
    paging: list[int] = []
    schemas: list[bytes] = []
    for number, usable, schema in session.rows(_PAGING, oid):
        if usable != b"t" or number not in numbers or schema is None:
            paging = []
            break
        paging.append(numbers.index(number))
        if schema not in schemas:
            schemas.append(schema)
    types = ",".join(str(table.columns[at].type_oid) for at in paging)
    spelled = [row[0] or b"" for row in session.rows(_TYPES, f"{{{types}}}".encode())]
    (path,) = session.row(_SEARCH_PATH, _text_array(schemas))
    return Layout(
        table=table,
        name=name,
        columns=columns,
        paging=tuple(paging),
        paging_names=tuple(quoted[numbers[at]] or b"" for at in paging),
        paging_types=tuple(spelled),
        search_path=path,
    )


def shape_of(table: Table) -> str:
    """What must stay as it is while a table's rows are read in pieces.

    Of `alter column … type … using`, which may leave the type as it is, the stamp tells.
    """
    columns = [
        f"{column.number} {column.type} {column.stamp} {column.name}" for column in table.columns
    ]
    key = [str(table.columns[at].number) for at in table.key]
    return "\n".join([*columns, ",".join(key)])


def _error(result: pq.abc.PGresult) -> psycopg.Error:
    error = psycopg.errors.error_from_result(result, encoding="utf-8")
    # Without a code it is libpq that speaks: the connection is gone.
    return error if error.sqlstate is not None else psycopg.OperationalError(str(error))


def _text_array(texts: Sequence[bytes]) -> bytes:
    quoted = (text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') for text in texts)
    return b"{" + b",".join(b'"' + text + b'"' for text in quoted) + b"}"


_NAME: Final = b"""
select format('%I.%I', n.nspname, c.relname)
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.oid = $1::oid
"""

_COLUMNS: Final = b"""
select a.attnum::text, quote_ident(a.attname)
from pg_catalog.pg_attribute a
where a.attrelid = $1::oid and a.attnum > 0 and not a.attisdropped
"""

# That of the replica identity where it names one, else the primary key's: unique, without nulls,
# and what a change is known by. Usable
# is one that is in the order of the types' own operators, by which `order by` and `>` go; the
# schema is where those operators are.
_PAGING: Final = b"""
select a.attnum::text,
    am.amname = 'btree' and k.options = 0 and oc.opcdefault
        and k.collation = a.attcollation,
    (select n.nspname
     from pg_catalog.pg_amop o
     join pg_catalog.pg_operator p on p.oid = o.amopopr
     join pg_catalog.pg_namespace n on n.oid = p.oprnamespace
     where o.amopfamily = oc.opcfamily and o.amopstrategy = 5
         and o.amoplefttype = oc.opcintype and o.amoprighttype = oc.opcintype)
from (
    select * from pg_catalog.pg_index i
    where i.indrelid = $1::oid and i.indisvalid and i.indisunique
        and (i.indisprimary or i.indisreplident)
        and i.indpred is null and i.indexprs is null
    order by (select c.relreplident = 'i' from pg_catalog.pg_class c where c.oid = i.indrelid)
        = i.indisreplident desc, i.indisprimary desc
    limit 1
) i
join pg_catalog.pg_class ic on ic.oid = i.indexrelid
join pg_catalog.pg_am am on am.oid = ic.relam
cross join lateral (
    select key as attnum, i.indclass[n - 1] as class, i.indoption[n - 1] as options,
        i.indcollation[n - 1] as collation, n
    from unnest(i.indkey::int2[]) with ordinality each (key, n)
    where n <= i.indnkeyatts
) k
join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
join pg_catalog.pg_opclass oc on oc.oid = k.class
order by k.n
"""

_SEARCH_PATH: Final = b"""
select current_setting('search_path') || ', ' || string_agg(quote_ident(s), ', ')
from unnest($1::text[]) s
where s <> all (current_schemas(true))
"""

# With -1 for the modifier: `character` alone would be one character.
_TYPES: Final = b"""
select format_type(t, -1) from unnest($1::oid[]) with ordinality each (t, n) order by n
"""
