"""`make bench`: the figures that matter, as ratios of medians taken in one run.

Runs on two embedded PostgreSQL servers and measures what this machine gives; nothing fails
for being slow. Absolute figures of two machines, or of a busy one, can't be compared; ratios
nearly can.
"""

import argparse
import dataclasses
import functools
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from benchmarks import drain, end_to_end, history, latency, memory, orders, sending, servers, web
from benchmarks.figures import Contest, Latency, Memory
from benchmarks.history import Answer, Streamed
from benchmarks.sending import Sending
from rich import box
from rich.console import Console
from rich.table import Table

Figure = Answer | Contest | Latency | Memory | Sending | Streamed
PARTS: Final = ("drain", "end-to-end", "latency", "memory", "sending", "history", "web")


def main() -> None:
    options = _arguments()
    quick, full = options.quick, options.full
    rows = 50_000 if quick else 200_000
    large = 1_000_000 if full else rows
    repeats = options.repeats or (3 if quick else 5)
    began = time.monotonic()
    with servers.running() as running:
        plans: dict[str, list[Callable[[], Figure]]] = {
            "drain": [
                functools.partial(drain.measure, running, workload, repeats)
                for workload in (
                    orders.inserts(rows),
                    orders.updates(rows),
                    orders.one_transaction(large),
                    orders.single_rows(rows // 4),
                )
            ],
            "end-to-end": [
                functools.partial(end_to_end.measure, running, workload, repeats)
                for workload in (orders.inserts(rows), orders.mixed(rows))
            ],
            "latency": [
                functools.partial(measure, running, 100 if quick else 400)
                for measure in (latency.polled, latency.streamed, latency.served)
            ],
            "memory": [functools.partial(memory.measure, running, 200_000 if quick else 1_000_000)],
        }
        found: dict[str, list[Figure]] = {}
        for part in options.only or PARTS:
            print(f"measuring: {part}", file=sys.stderr)
            match part:
                case "sending":
                    found[part] = [*sending.measure(running, repeats, 20 if quick else 200)]
                case "history":
                    found[part] = [
                        *history.measure(options.changes or (500_000 if quick else 10_000_000))
                    ]
                case "web":
                    asked = options.changes or (500_000 if quick else 10_000_000)
                    found[part] = [*web.measure(asked, 20 if quick else 120)]
                case _:
                    found[part] = [plan() for plan in plans[part]]
        version = running.source_conn.info.server_version
    machine = {
        "postgresql": f"{version // 10000}.{version % 10000}",
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "seconds": round(time.monotonic() - began),
    }
    if options.json:
        figures = {part: [dataclasses.asdict(one) for one in all_] for part, all_ in found.items()}
        print(json.dumps({"machine": machine, **figures}, indent=2))
    else:
        _print(machine, [figure for all_ in found.values() for figure in all_])


def _print(machine: dict[str, Any], figures: list[Figure]) -> None:
    console = Console()
    console.print(
        "PostgreSQL {postgresql}, Python {python}, {cores} cores, load {load}; {seconds} s".format(
            **machine
        )
    )
    throughput = Table("rows", "rows/s", "against", "rows/s", "ratio", box=box.SIMPLE)
    for column in throughput.columns[1::2] + throughput.columns[4:]:
        column.justify = "right"
    contexts = Table(
        "library", "what", "µs without", "with Bemi", "by comment", "round trips", "with Bemi",
        box=box.SIMPLE,
    )  # fmt: skip
    for column in contexts.columns[2:]:
        column.justify = "right"
    answers = Table(
        "question", "asked", "median, ms", "p95, ms", "goal, ms", "cpu, ms", box=box.SIMPLE
    )
    streams = Table(
        "stream", "rows", "s", "s a million", "goal", "cpu, s a million", "MB more", box=box.SIMPLE
    )
    for figure in figures:
        match figure:
            case Answer():
                answers.add_row(
                    figure.question,
                    f"{figure.asked}",
                    f"{figure.median}",
                    f"{figure.p95}",
                    _held(figure.p95, figure.goal),
                    "" if figure.cpu is None else f"{figure.cpu}",
                )
            case Streamed():
                streams.add_row(
                    figure.what,
                    f"{figure.rows:,}",
                    f"{figure.seconds}",
                    f"{figure.seconds * 1e6 / max(figure.rows, 1):.1f}",
                    _held(figure.seconds * 1e6 / max(figure.rows, 1), figure.goal),
                    f"{figure.cpu * 1e6 / max(figure.rows, 1):.1f}",
                    f"{figure.grown:.0f}",
                )
            case Sending():
                contexts.add_row(
                    figure.library,
                    figure.kind,
                    *(f"{x:.0f}" for x in (figure.without, figure.sent, figure.commented)),
                    *(f"{x:.1f}" for x in (figure.trips_without, figure.trips_sent)),
                )
            case Contest():
                throughput.add_row(
                    figure.name,
                    f"{figure.rows_per_second:,.0f}",
                    figure.against,
                    f"{figure.against_rows_per_second:,.0f}",
                    f"{figure.ratio:.2f}",
                )
            case Latency():
                console.print(
                    f"{figure.name}, idle, {figure.commits} commits: "
                    f"median {figure.median} ms, p95 {figure.p95} ms, p99 {figure.p99} ms"
                    + (f" (one poll takes {figure.poll} ms)" if figure.poll else "")
                )
            case Memory(peak=0):
                console.print("worker's peak memory: not told by this system")
            case Memory():
                console.print(
                    f"worker's peak memory, one transaction of {figure.rows:,} rows: "
                    f"{figure.peak:.0f} MB (idle {figure.idle:.0f} MB)"
                )
    if throughput.rows:
        console.print(throughput)
    for table in (contexts, answers, streams):
        if table.rows:
            console.print(table)


def _held(found: float, goal: float) -> str:
    return f"{goal:g} {'held' if found <= goal else 'missed'}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON value")
    parser.add_argument("--quick", action="store_true", help="small, in under a minute")
    parser.add_argument("--full", action="store_true", help="1,000,000 rows in one transaction")
    parser.add_argument("--changes", type=int, help="in the history that is asked")
    parser.add_argument("--repeats", type=int, help="turns of each contestant")
    parser.add_argument("--only", action="append", choices=PARTS, help="one part; repeatable")
    return parser.parse_args()


if __name__ == "__main__":
    main()
