"""`bemi verify` over a million changes: time, and the most memory that it held.

Run as `python -m benchmarks.verify`. Each row of the table is inserted and then updated nine
times, 100 rows a transaction, under REPLICA IDENTITY FULL.
"""

import argparse
import os
import resource
import subprocess
import sys
import threading
import time

import psycopg
from benchmarks import orders

from bemi.capture import worker
from bemi.capture.setup import init
from bemi.config import Settings
from bemi.embedded import Server


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.verify", description=__doc__)
    parser.add_argument("--changes", type=int, default=1_000_000)
    changes = parser.parse_args().changes
    server_settings = {"shared_buffers": "512MB", "max_wal_size": "16GB", "fsync": "off"}
    with Server(settings=server_settings) as server:
        settings = Settings(
            source_url=server.create_database("shop"),
            destination_url=server.create_database("history"),
        )
        with psycopg.connect(settings.source_url, autocommit=True) as conn:
            conn.execute(orders.TABLE)
            init(settings, report=lambda _done: None)
            orders.inserts(changes // 10).write(conn)
            for _ in range(9):
                # The same rows, over and over.
                orders.updates(changes // 10).write(conn)
        worker.run(settings, stop=threading.Event(), until_caught_up=True)
        command = [sys.executable, "-m", "bemi", "verify"]
        began = time.monotonic()
        done = subprocess.run(
            command,
            env={**os.environ, "BEMI_DESTINATION_URL": settings.destination_url},
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.monotonic() - began
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        with psycopg.connect(settings.destination_url) as conn:
            row = conn.execute(
                "select (select count(*) from bemi.row_changes), temp_bytes / 1048576"
                " from pg_stat_database where datname = current_database()"
            ).fetchone()
    assert row is not None
    print(done.stdout.strip(), done.stderr.strip())
    print(
        f"{row[0]:,} changes in {seconds:.1f} s, {row[0] / seconds:,.0f} a second, load"
        f" {os.getloadavg()[0]:.1f}; {peak:.0f} MB at most in the command (or in the server's"
        f" starter), {row[1]:,} MB of temporary files in the destination"
    )


if __name__ == "__main__":
    main()
