"""`bemi status --coverage`, and how long it takes until a slot is lost."""

import contextlib
import io
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from bemi.cli import app, coverage
from bemi.config import Settings
from bemi.lsn import Lsn
from bemi.store import completeness
from bemi.store.extent import (
    Missing,
    SourceCoverage,
    Span,
    State,
    Stretch,
    TableCoverage,
)
from bemi.store.moments import Moment
from tests.integration.conftest import Track
from tests.support.baselines import take
from tests.support.plain_server import plain_servers
from tests.support.tracked import Tracked
from tests.support.tracking import environment, track

OUT = "alter publication bemi drop table only {}"
IN = "alter publication bemi add table only {}"
NOON = datetime(2026, 5, 3, 12, tzinfo=UTC)


class Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


class Bemi:
    """Commands, called in this process with the settings of a source."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
        for name, value in environment(settings).items():
            if name.startswith("BEMI_"):
                monkeypatch.setenv(name, value)

    def __call__(self, *arguments: str) -> tuple[int, str]:
        raw = io.BytesIO()
        written = io.TextIOWrapper(raw, encoding="utf-8")
        with contextlib.redirect_stdout(written), pytest.raises(SystemExit) as ended:
            app.main(arguments)
        written.flush()
        assert isinstance(ended.value.code, int)
        return ended.value.code, raw.getvalue().decode()

    def on_terminal(self, *arguments: str) -> list[str]:
        """Lines as a window shows them."""
        raw = io.BytesIO()
        written = Terminal(raw, encoding="utf-8")
        with contextlib.redirect_stdout(written), pytest.raises(SystemExit):
            app.main(arguments)
        written.flush()
        return re.sub(r"\x1b\[[0-9;]*m", "", raw.getvalue().decode()).splitlines()

    def status(self, *arguments: str) -> tuple[int, Any]:
        code, out = self("status", "--json", *arguments)
        return code, json.loads(out)


def read(tracked: Tracked, glob: str | None = None) -> dict[str, TableCoverage]:
    with psycopg.connect(tracked.settings.destination_url, autocommit=True) as conn:
        (found,) = completeness.read(conn, "bemi", glob=glob)
    return {table.name: table for table in found.tables}


def here(tracked: Tracked) -> Lsn:
    row = tracked.source.execute("select pg_current_wal_insert_lsn()::text").fetchone()
    assert row is not None
    return Lsn.parse(row[0])


@pytest.fixture
def at(tracked: Track) -> Tracked:
    """Tables of each kind, after what can happen to a table's coverage has happened."""
    found = tracked(
        "create table fresh (id int primary key)",
        "create table old (id int primary key)",
        "insert into old values (1)",
        "create table away (id int primary key)",
        "create table back (id int primary key)",
        "create table gone (id int primary key)",
        "create table parts (id int primary key) partition by range (id)",
        "create table parts_a partition of parts for values from (0) to (10)",
        "create table parts_b partition of parts for values from (10) to (20)",
    )
    # What is taken out of the publication is not to be put in again at once.
    found.settings = replace(found.settings, new_tables="warn")
    for table in ("fresh", "old", "away", "back", "gone", "parts"):
        found.source.execute(f"insert into {table} values (7)".encode())
    found.catch_up()
    _fill(found)
    found.catch_up()
    for table in ("away", "back"):
        found.source.execute(OUT.format(table).encode())
        found.source.execute(f"insert into {table} values (8)".encode())
    found.source.execute("drop table gone")
    found.source.execute("insert into fresh values (8)")
    found.catch_up()
    _fill(found)
    found.source.execute(IN.format("back").encode())
    found.source.execute("insert into fresh values (9)")
    found.catch_up()
    found.source.execute("insert into back values (10)")
    _fill(found)
    found.catch_up()
    return found


def _fill(tracked: Tracked) -> None:
    """Log between two events, so that each has cells of its own in a bar."""
    tracked.source.execute("select pg_logical_emit_message(true, 'x', repeat('x', 300000))")


def test_what_is_complete_since_when_and_what_is_missing_and_why(at: Tracked) -> None:
    tables = read(at)
    assert {name: table.state for name, table in tables.items()} == {
        "public.away": "ended",
        "public.back": "behind_gap",
        "public.fresh": "known",
        "public.gone": "ended",
        "public.old": "no_baseline",
        "public.parts_a": "known",
        "public.parts_b": "known",
    }
    (checkpoint,) = at.query("select position from bemi.checkpoints")
    rows = at.query("select * from bemi.changes")
    for table in tables.values():
        own = [row for row in rows if row["table"] == table.table]
        begun = [row for row in own if row["primary_key"] == "7"]
        if begun and table.name != "public.parts_b":
            start = table.stretches[0].start
            assert start.position <= begun[0]["commit_position"]
            assert start.time is not None
            assert start.time <= begun[0]["committed_at"]
        assert table.last.open is (table.state != "ended")
        if table.last.open:
            assert table.last.end.position == checkpoint["position"]
            assert table.last.end.time == max(row["committed_at"] for row in rows)
    assert tables["public.fresh"].missing == tables["public.gone"].missing == ()
    (away,) = tables["public.away"].missing
    assert (away.cause, away.end) == ("untracked", None)
    (back,) = tables["public.back"].missing
    assert back.cause == "untracked"
    before, behind = tables["public.back"].stretches
    assert back.start.position == before.end.position
    assert back.end is not None
    assert back.end.position == behind.start.position
    (again,) = [row for row in rows if row["table"] == "back" and row["primary_key"] == "10"]
    assert back.end.position <= again["commit_position"]


def test_positions_are_of_any_size(at: Tracked) -> None:
    """Some in the first 2 GB of a log, which have 32 bits, and some behind them."""
    at.destination.execute("update bemi.checkpoints set position = position + (1::bigint << 33)")
    assert read(at)["public.fresh"].state == "known"


def test_a_baseline_makes_the_rows_known(at: Tracked) -> None:
    before = here(at)
    take(at.settings)
    table = read(at)["public.old"]
    assert (table.state, table.last.state_by) == ("known", "baseline")
    assert table.last.state is not None
    assert table.last.state.position > before
    assert table.baseline is not None
    assert (table.baseline.rows, table.baseline.failed) == (2, None)
    assert table.baseline.finished_at is not None


def test_changes_missing_behind_the_baseline_make_the_rows_unknown(at: Tracked) -> None:
    (source,) = at.query("select source_id, epoch, position from bemi.checkpoints")
    fresh = read(at)["public.fresh"]
    at.destination.execute(
        "insert into bemi.gaps (source_id, epoch, relation, from_position, to_position, cause, "
        "changes) values (%s, %s, %s, %s, %s, 'ignored', 3)",
        [
            source["source_id"],
            source["epoch"],
            fresh.relation,
            fresh.last.start.position + 1,
            source["position"],
        ],
    )
    fresh = read(at)["public.fresh"]
    assert fresh.state == "outdated"
    (missing,) = fresh.missing
    assert (missing.cause, missing.changes, missing.accepted) == ("ignored", 3, False)


def test_a_glob_names_tables_by_their_own_name_or_their_roots(at: Tracked) -> None:
    for glob, found in (
        ("*a*", ["public.away", "public.back", "public.parts_a", "public.parts_b"]),
        ("parts", ["public.parts_a", "public.parts_b"]),
        ("public.parts_b", ["public.parts_b"]),
        ("other.*", []),
    ):
        assert list(read(at, glob)) == found, glob


def test_it_is_shown_to_people_and_to_programs(
    at: Tracked, monkeypatch: pytest.MonkeyPatch
) -> None:
    bemi = Bemi(monkeypatch, at.settings)
    code, out = bemi("status", "--coverage")
    assert code == 1
    lines = out.splitlines()
    assert lines[0] == at.settings.source
    bars = {
        line.split()[0].rstrip(","): line.rsplit("  ", 1)[1]
        for line in lines
        if re.fullmatch(rf"  \S.*  [-#x.|]{{{coverage.WIDTH}}}", line)
    }
    assert set(bars) == {
        f"public.{name}" for name in ("away", "back", "fresh", "gone", "old", "parts")
    }
    # That they were empty was seen a little behind the place from where on they are captured.
    for name, cells in {
        "fresh": "-*#+",
        "parts": "-*#+",
        "old": r"\.*-+",
        "away": "-*#+x+",
        "back": "-*#+x+-+",
        "gone": r"-*#+\.+",
    }.items():
        assert re.fullmatch(cells, bars[f"public.{name}"]), (name, bars)
    assert "public.parts, 2 partitions" in out
    assert out.count("taken out of the publication (untracked)") == 2
    assert "until now" in out
    assert "`bemi snapshot` takes its baseline" in out
    assert "`bemi recover` finds out" in out
    assert "\x1b" not in out

    code, value = bemi.status("--coverage", "--table", "back")
    (source,) = value["sources"]
    (table,) = source["coverage"]["tables"]
    (missing,) = table["missing"]
    (gap,) = [
        row
        for row in at.query("select from_position, to_position, closed from bemi.intervals")
        if row["closed"] == "untracked"
        and missing["start"]["position"] == str(Lsn(row["to_position"]))
    ][:1]
    assert missing["cause"] == gap["closed"]
    assert table["state"] == "behind_gap"
    assert [stretch["open"] for stretch in table["stretches"]] == [False, True]
    assert source["coverage"]["end"]["position"] == source["position"]

    code, out = bemi("status")
    assert "3 tables complete with every row" in out
    assert "2 tables with every change, but not every row" in out
    assert "1 table not captured any more; 1 table dropped" in out
    assert bemi("status", "--table", "back")[0] == 2


def test_a_gap_of_the_whole_source_is_one_of_each_table(
    at: Tracked, monkeypatch: pytest.MonkeyPatch
) -> None:
    at.source.execute("insert into fresh values (11)")
    at.skip_ahead()
    at.catch_up(accept_gap=True)
    at.source.execute("insert into fresh values (12)")
    at.catch_up()
    fresh = read(at)["public.fresh"]
    (missing,) = fresh.missing
    assert missing.cause == "slot_ahead"
    assert fresh.state == "behind_gap"
    _, out = Bemi(monkeypatch, at.settings)("status", "--coverage")
    assert "missing in all tables: from" in out
    assert "(slot_ahead)" in out


def test_a_publication_that_is_gone_or_not_whole_needs_attention(
    at: Tracked, monkeypatch: pytest.MonkeyPatch
) -> None:
    bemi = Bemi(monkeypatch, at.settings)
    at.source.execute("alter publication bemi set (publish = 'insert')")
    code, status = bemi.status()
    assert code == 1
    (found,) = [each for each in status["findings"] if "publication bemi" in each]
    assert "leaves out some of insert, update" in found
    assert "alter publication" in found
    at.source.execute("drop publication bemi")
    code, status = bemi.status()
    assert code == 1
    (found,) = [each for each in status["findings"] if "publication bemi" in each]
    assert "its publication bemi is gone from the source" in found
    assert "`bemi recover`" in found


def test_a_gap_of_one_table_needs_attention_until_somebody_looked(
    at: Tracked, monkeypatch: pytest.MonkeyPatch
) -> None:
    bemi = Bemi(monkeypatch, at.settings)
    for arguments in ((), ("--coverage",)):
        code, status = bemi.status(*arguments)
        (found,) = status["findings"]
        assert code == 1
        assert "what became of the rows of public.back while it was not captured" in found
        assert "`bemi recover` finds out" in found
    take(at.settings)
    code, status = bemi.status()
    assert (code, status["findings"]) == (0, [])


# --- bars, from what was read


def moment(position: int, epoch: int = 1) -> Moment:
    return Moment(epoch, Lsn(position), NOON + timedelta(microseconds=position))


def stretch(
    start: int, end: int, *, state: int | None, open: bool = False, epoch: int = 1
) -> Stretch:
    return Stretch(
        start=moment(start, epoch),
        end=moment(end, epoch),
        open=open,
        verified=Lsn(start),
        state=None if state is None else moment(state, epoch),
        state_by=None if state is None else "empty",
        opened="init",
        opened_at=NOON,
        closed=None if open else "untracked",
        closed_at=None if open else NOON,
    )


def table(
    *stretches: Stretch, missing: tuple[Missing, ...] = (), state: State = "known", name: str = "t"
) -> TableCoverage:
    return TableCoverage(1, "public", name, None, stretches, missing, state, None)


def source(*spans: tuple[int, int], missing: tuple[Missing, ...] = ()) -> SourceCoverage:
    found = tuple(Span(at, Lsn(low), Lsn(high)) for at, (low, high) in enumerate(spans, 1))
    return SourceCoverage(
        "shop", found, moment(spans[0][0]), moment(spans[-1][1], len(spans)), missing, ()
    )


def lost(start: int, end: int | None, cause: str = "untracked", **more: Any) -> Missing:
    return Missing(moment(start), None if end is None else moment(end), cause, "", **more)


WIDE = (0, 40_000)


@pytest.mark.parametrize(
    ("of", "shown"),
    [
        (table(stretch(0, 40_000, state=0, open=True)), "#" * 40),
        (table(stretch(10_000, 40_000, state=20_000, open=True)), "." * 10 + "-" * 10 + "#" * 20),
        (table(stretch(10_000, 40_000, state=None, open=True)), "." * 10 + "-" * 30),
        # However short it is.
        (
            table(
                stretch(0, 5_000, state=0),
                stretch(5_001, 40_000, state=5_001, open=True),
                missing=(lost(5_000, 5_001),),
            ),
            "#" * 5 + "x" + "#" * 34,
        ),
        (table(stretch(0, 5_000, state=0), missing=(lost(5_000, None),)), "#" * 5 + "x" * 35),
        (table(stretch(0, 5_000, state=0)), "#" * 5 + "." * 35),
        # What rules left out makes the rows unknown from there on.
        (
            table(
                stretch(0, 40_000, state=0, open=True), missing=(lost(20_000, 20_500, "ignored"),)
            ),
            "#" * 20 + "x" + "-" * 19,
        ),
        # Older values that may be outdated are no missing change.
        (
            table(
                stretch(0, 40_000, state=0, open=True),
                missing=(lost(20_000, 20_500, "rewrite", columns=("a",)),),
            ),
            "#" * 40,
        ),
    ],
)
def test_a_bar_shows_what_holds(of: TableCoverage, shown: str) -> None:
    assert coverage.bar(source(WIDE), of) == shown


def test_epochs_stand_side_by_side_and_a_gap_goes_over_both() -> None:
    gap = Missing(moment(20_000), moment(1_000, 2), "epoch_changed", "")
    shown = coverage.bar(
        source((0, 30_000), (0, 10_000), missing=(gap,)),
        table(
            stretch(0, 20_000, state=0),
            stretch(1_000, 10_000, state=1_000, open=True, epoch=2),
            missing=(gap,),
        ),
    )
    assert re.fullmatch(r"#+x+\|x#+", shown), shown
    assert len(shown) == coverage.WIDTH


def told(*tables: TableCoverage, spans: tuple[int, int] = WIDE) -> str:
    found = msgspec.structs.replace(source(spans), tables=tables)
    return "\n".join(line for line, _ in coverage.lines(found))


def test_times_are_told_so_that_nothing_is_claimed_too_long() -> None:
    """Whole seconds: a stretch begins at the next and ends at the last, a gap the reverse."""
    text = told(table(stretch(1, 3_000_000, state=1), missing=(lost(2, 3),), state="ended"))
    assert "was complete since 2026-05-03 12:00:01 UTC (0/1), to 2026-05-03 12:00:03 UTC" in text
    assert "missing: from 2026-05-03 12:00:00 UTC (0/2) to 2026-05-03 12:00:01 UTC (0/3)" in text


@pytest.mark.parametrize(
    ("start", "end", "shown"),
    [
        (1, 39_000, "12:00:00.001 UTC (0/1), to 2026-05-03 12:00:00.039 UTC (0/9858)"),
        (1, 999, "12:00:00.000001 UTC (0/1), to 2026-05-03 12:00:00.000999 UTC (0/3E7)"),
        (7, 7, "12:00:00.000007 UTC (0/7), to 2026-05-03 12:00:00.000007 UTC (0/7)"),
        (0, 0, "12:00:00 UTC (0/0), to 2026-05-03 12:00:00 UTC (0/0)"),
    ],
)
def test_times_of_a_short_stretch_are_told_finer(start: int, end: int, shown: str) -> None:
    text = told(table(stretch(start, end, state=start), state="ended"), spans=(start, end))
    assert f"was complete since 2026-05-03 {shown}" in text
    assert f"log from 2026-05-03 {shown.split(',')[0]}" in text


def test_a_stretch_without_a_change_has_no_times() -> None:
    """The first change behind its beginning is behind its end, too."""
    one = msgspec.structs.replace(
        stretch(5_000_000, 6_000_000, state=None),
        start=moment(5_000_000),
        end=msgspec.structs.replace(moment(6_000_000), time=NOON),
    )
    assert f"was complete since {Lsn(5_000_000)}, to {Lsn(6_000_000)}" in told(
        table(one, state="ended")
    )


def test_a_table_that_was_dropped_and_made_anew_is_two() -> None:
    dropped = msgspec.structs.replace(stretch(0, 10_000, state=0), closed="table_dropped")
    new = table(stretch(20_000, 40_000, state=20_000, open=True))
    found = msgspec.structs.replace(
        source(WIDE),
        tables=(table(dropped, state="ended"), msgspec.structs.replace(new, relation=2)),
    )
    shown = [(line.strip(), bar) for line, bar in coverage.lines(found) if bar is not None]
    assert shown == [
        ("public.t, dropped", "#" * 10 + "." * 30),
        ("public.t", "." * 20 + "#" * 20),
    ]


def test_a_table_that_came_back_as_a_partitioned_one_stands_beside_it() -> None:
    dropped = msgspec.structs.replace(stretch(0, 10_000, state=0), closed="table_dropped")
    part = msgspec.structs.replace(
        table(stretch(20_000, 40_000, state=20_000, open=True)), partition="public.t_1"
    )
    found = msgspec.structs.replace(source(WIDE), tables=(table(dropped, state="ended"), part))
    shown = [(line.strip(), bar) for line, bar in coverage.lines(found) if bar is not None]
    assert shown == [
        ("public.t, dropped", "#" * 10 + "." * 30),
        ("public.t, 1 partition", "." * 20 + "#" * 20),
    ]


def test_partitions_that_differ_are_shown_each() -> None:
    one = table(stretch(0, 40_000, state=0, open=True))
    parts = [
        msgspec.structs.replace(one, partition="public.a"),
        msgspec.structs.replace(
            table(stretch(0, 5_000, state=0), missing=(lost(5_000, None),), state="ended"),
            partition="public.b",
        ),
    ]
    found = msgspec.structs.replace(source(WIDE), tables=tuple(parts))
    shown = [(line.strip(), bar) for line, bar in coverage.lines(found) if bar is not None]
    assert shown == [
        ("public.t, 2 partitions", "#" * 5 + "x" * 35),
        ("public.a", "#" * 40),
        ("public.b", "#" * 5 + "x" * 35),
    ]


def test_on_a_terminal_its_lines_are_as_wide_as_the_window(
    at: Tracked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "64")
    monkeypatch.setenv("TERM", "xterm")
    bemi = Bemi(monkeypatch, at.settings)
    lines = bemi.on_terminal("status", "--coverage")
    shown = lines[: lines.index("needs attention")]
    assert max(map(len, shown)) <= 64
    piped = bemi("status", "--coverage")[1].splitlines()
    assert max(map(len, piped)) > 100

    def bars(lines: list[str]) -> list[str]:
        found = (re.search(rf" ([-#x.|]{{{coverage.WIDTH}}})$", line) for line in lines)
        return [bar[1] for bar in found if bar is not None]

    assert bars(shown) == bars(piped)


@pytest.mark.parametrize("window", [60, 80])
def test_it_is_cut_to_the_window(window: int) -> None:
    one = table(stretch(0, 40_000, state=0, open=True), missing=(lost(20_000, 20_500, "ignored"),))
    long = msgspec.structs.replace(one, table="a_name_that_is_longer_than_others", relation=2)
    found = msgspec.structs.replace(source(WIDE), tables=(long, one))
    whole = list(coverage.lines(found))
    shown = [
        (part, bar)
        for line, bar in coverage.lines(found, window=window)
        for part in coverage.wrapped(line, window)
    ]
    for line, bar in shown:
        assert len(line) + (0 if bar is None else 2 + len(bar)) <= window
    assert len({len(line) for line, bar in shown if bar is not None}) == 1, "bars stand below"
    assert [bar for _, bar in shown if bar] == [bar for _, bar in whole if bar]
    words = " ".join(line for line, _ in shown).split()
    assert words == " ".join(line for line, _ in whole).split()


def test_names_cannot_command_a_terminal() -> None:
    one = table(stretch(0, 40_000, state=0, open=True), name="\x1b[31mred")
    found = msgspec.structs.replace(source(WIDE), tables=(one,))
    assert not any("\x1b" in line for line, _ in coverage.lines(found))


def test_a_glob_that_matches_no_table_is_an_error(
    at: Tracked, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = Bemi(monkeypatch, at.settings)("status", "--coverage", "--table", "nosuch")
    assert (code, out) == (1, "")
    assert "--table nosuch matches no table of the history" in capsys.readouterr().err


# --- the time until a slot is lost


@pytest.fixture
def bounded(postgres_bin: Path | None) -> Iterator[Settings]:
    """A source that keeps little of its log."""
    with plain_servers(postgres_bin) as make:
        server = make(wal_level="logical", max_slot_wal_keep_size="64MB")
        url = server.create_database("shop")
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("create table t (id int primary key)")
        yield track(url, url, schemas=["public"])


def test_the_time_until_the_slot_is_lost(
    bounded: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    bemi = Bemi(monkeypatch, bounded)
    stop = threading.Event()

    def write() -> None:
        with psycopg.connect(bounded.source_url, autocommit=True) as conn:
            while not stop.is_set():
                conn.execute(
                    "select pg_logical_emit_message(true, 'x', repeat('x', 30000)), pg_sleep(0.02)"
                )

    writer = threading.Thread(target=write)
    writer.start()
    try:
        code, status = bemi.status()
    finally:
        stop.set()
        writer.join()
    live = status["sources"][0]["live"]
    assert live["wal_rate"] > 0
    assert live["seconds_to_full"] == pytest.approx(live["safe_wal_size"] / live["wal_rate"])
    (finding,) = status["findings"]
    assert "is lost in" in finding
    assert code == 1

    with psycopg.connect(bounded.source_url, autocommit=True) as conn:
        for _ in range(30):
            conn.execute("select pg_logical_emit_message(true, 'x', repeat('x', 4000000))")
    code, status = bemi.status()
    assert status["sources"][0]["live"]["wal_status"] == "unreserved"
    (finding,) = status["findings"]
    assert "may be lost at any moment" in finding
    assert code == 1

    with psycopg.connect(bounded.source_url, autocommit=True) as conn:
        conn.execute("select pg_switch_wal()")
        conn.execute("checkpoint")
    code, out = bemi("status")
    assert code == 1
    assert "`bemi recover` makes a new one" in out
    assert re.search(r"kept WAL +0 B, lost$", out, re.MULTILINE)


def test_without_a_limit_no_rate_is_measured(at: Tracked, monkeypatch: pytest.MonkeyPatch) -> None:
    bemi = Bemi(monkeypatch, at.settings)
    _, status = bemi.status()
    live = status["sources"][0]["live"]
    assert (live["wal_rate"], live["seconds_to_full"]) == (None, None)
    assert "without a limit" in bemi("status")[1]
