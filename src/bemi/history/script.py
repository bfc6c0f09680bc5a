"""A plan as a script of SQL, to be read, and to be run where Bemi can't be."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, LiteralString

from psycopg import sql

from bemi.history.applying import context_of
from bemi.history.op import Op
from bemi.history.order import Write
from bemi.history.plan import About
from bemi.history.target import STREAM, WRITTEN_BY, Table

_TAG: Final = "bemi"


def script(about: About, rounds: Sequence[Sequence[Write]], by: str | None = None) -> str:
    """One DO block: all of it, or nothing where a row is not as the plan found it."""
    writes = [each for some in rounds for each in some]
    written = Counter(id(each.op) for each in writes if not each.op.keyed)
    moving = {op: n for n, (op, times) in enumerate(written.items()) if times > 1}
    kept = (sql.SQL("current_setting({})").format(sql.Literal(name)) for name in WRITTEN_BY)
    declared = [_text("kept text[] := array[{}];", sql.SQL(", ").join(kept))]
    declared += (f"relation_{n} oid; place_{n} tid;" for n in moving.values())
    body = "".join(f"    {line}\n" for line in _body(about, writes, moving, by))
    declares = "".join(f"    {line}\n" for line in declared)
    tag = _TAG
    while f"${tag}$" in body:
        tag += "_"
    return (
        f"-- {about.what.capitalize()} of {about.changes:,} change{'s' * (about.changes > 1)}"
        f" of {_comment(about.source)}.\n"
        "-- That rows are as the plan found them, and what foreign keys want, is checked again when"
        " this\n-- runs; rows that have come to refer to deleted ones since are not looked for.\n"
        f"do ${tag}$\ndeclare\n{declares}begin\n{body}end\n${tag}$;\n"
    )


def _comment(text: str) -> str:
    return text.encode("unicode_escape").decode()


def _body(
    about: About, writes: Sequence[Write], moving: Mapping[int, int], by: str | None
) -> Iterator[str]:
    context = context_of(about, by, {})
    yield _text("perform pg_logical_emit_message(true, '_bemi', {});", sql.Literal(context))
    for name, value in STREAM.items():
        yield _text("perform set_config({}, {}, true);", sql.Literal(name), sql.Literal(value))
    ops = {id(each.op): each.op for each in writes}
    for op in sorted(ops.values(), key=_in_order):
        if op.present is not None:
            yield _text("perform from {} where {} for update;", _rows(op), _as_found(op))
            yield _unless_found(op)
    # What triggers write by is the session's again.
    for n, name in enumerate(WRITTEN_BY, 1):
        yield _text(f"perform set_config({{}}, kept[{n}], true);", sql.Literal(name))
    yield "set constraints all deferred;"
    written: set[int] = set()
    moved: set[int | None] = set()
    for each in writes:
        number = moving.get(id(each.op))
        yield _text(
            "{}{};", _statement(each, written, number if number in moved else None), _kept(number)
        )
        yield _unless_found(each.op)
        moved.add(number)
        if each.part == "write":
            written.add(id(each.op))


def _in_order(op: Op) -> tuple[str, tuple[str, ...]]:
    """That of tables and keys, in which everyone locks rows."""
    return op.table.label, tuple(part or "" for part in op.key)


def _unless_found(op: Op) -> str:
    return _text(
        "if not found then raise exception using message = {}; end if;",
        sql.Literal(f"{op.table.label} {op.label} is not as the plan found it"),
    )


def _text(text: LiteralString, *parts: sql.Composable) -> str:
    return sql.SQL(text).format(*parts).as_string(None)


def _kept(number: int | None) -> sql.SQL:
    """Where the row is from now on, if that is needed."""
    if number is None:
        return sql.SQL("")
    return sql.SQL(f" returning tableoid, ctid into relation_{number}, place_{number}")


def _statement(each: Write, written: set[int], moved: int | None) -> sql.Composed:
    """`written`: the ops that have been; `moved`: by which number it is known where the row is."""
    op = each.op
    match each.part:
        case "loosen":
            values: dict[str, str | None] = dict.fromkeys(each.columns)
        case "fill":
            new = op.new(each.columns)
            assert new is not None
            values = dict(zip(each.columns, new, strict=True))
        case "write":
            values = {
                name: None if name in each.columns else value for name, value in op.values.items()
            }
    if each.part == "write" and op.action == "insert":
        identity = any(op.table.columns[name].identity for name in values)
        return sql.SQL("insert into {} ({}){} values ({})").format(
            sql.Identifier(op.table.schema, op.table.name),
            sql.SQL(", ").join(map(sql.Identifier, values)),
            sql.SQL(" overriding system value" if identity else ""),
            sql.SQL(", ").join(_value(op.table, *pair) for pair in values.items()),
        )
    if moved is None:
        where = _found(op, written)
    else:
        where = sql.SQL(f"tableoid = relation_{moved} and ctid = place_{moved}").format()
    if each.part == "write" and op.action == "delete":
        return sql.SQL("delete from {} where {}").format(_rows(op), where)
    sets = sql.SQL(", ").join(
        sql.SQL("{} = {}").format(sql.Identifier(name), _value(op.table, name, value))
        for name, value in values.items()
    )
    return sql.SQL("update {} set {} where {}").format(_rows(op), sets, where)


def _rows(op: Op) -> sql.Composed:
    table = sql.Identifier(op.table.schema, op.table.name)
    return sql.SQL("only {}" if op.table.only else "{}").format(table)


def _value(table: Table, column: str, value: str | None) -> sql.Composable:
    if value is None:
        return sql.SQL("null")
    spelled = sql.SQL(table.columns[column].type)
    return sql.SQL("cast({} as {})").format(sql.Literal(value), spelled)


def _found(op: Op, written: set[int]) -> sql.Composed:
    if op.keyed:
        pairs = zip(op.key_columns, op.found_by(written), strict=True)
        return sql.SQL(" and ").join(
            sql.SQL("{} = {}").format(sql.Identifier(name), _value(op.table, name, part))
            for name, part in pairs
        )
    assert op.at is not None
    return sql.SQL("tableoid = {} and ctid = {}").format(*map(sql.Literal, op.at))


def _as_found(op: Op) -> sql.Composed:
    """That the row is as the plan found it."""
    assert op.present is not None
    names = dict.fromkeys(field.column for field in op.fields if field.mark == "set")
    names |= dict.fromkeys(op.untold if op.keyed else (*op.key_columns, *op.untold))
    held = (_holds(name, op.present[name]) for name in names)
    return sql.SQL(" and ").join([_found(op, set()), *held])


def _holds(column: str, text: str | None) -> sql.Composed:
    return sql.SQL("{}::text is not distinct from {}").format(
        sql.Identifier(column), sql.SQL("null") if text is None else sql.Literal(text)
    )
