"""Runs one PostgreSQL program for a parent that may vanish, and ends it when it does.

The parent holds the other end of standard input and writes how to stop: `fast`, `immediate` or
`kill`. The end of input means that the parent is gone, however it went (SIGKILL leaves no other
trace): the program is stopped and the parent's temporary folders are removed. Linux's parent death
signal would be shorter, but fires when the *thread* that started the server ends, and is lost when
the user changes. Runs as a script, with the standard library only.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from typing import Any

SIGNALS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT, "kill": signal.SIGKILL}
# Longer than a shutdown checkpoint of a small server takes.
PATIENCE = 10.0


def main(order: dict[str, Any]) -> None:
    account = order["account"]
    identity = {"user": account[0], "group": account[1], "extra_groups": []} if account else {}
    with open(order["log"], "ab") as log:  # noqa: PTH123 (pathlib takes a third of the start)
        child = subprocess.Popen(
            order["command"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", **identity
        )

    # A terminal's Ctrl-C does not reach this process, which has a session of its own. A signal that
    # does was meant for it alone, or for everything at a shutdown of the machine.
    def stop_fast(_number: int, _frame: object) -> None:
        child.send_signal(SIGNALS["fast"])

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop_fast)

    orphaned = threading.Event()

    def follow() -> None:
        code = child.wait()
        if not orphaned.is_set():
            os._exit(code if code >= 0 else 128 - code)

    threading.Thread(target=follow, daemon=True).start()
    # A broken pipe: the parent is gone already, which the next read says too.
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(f"{child.pid}\n")
        sys.stdout.flush()
    for line in sys.stdin:
        child.send_signal(SIGNALS[line.strip()])

    orphaned.set()
    for way in ("fast", "immediate", "kill"):
        child.send_signal(SIGNALS[way])
        try:
            child.wait(PATIENCE)
            break
        except subprocess.TimeoutExpired:
            continue
    for folder in order["remove"]:
        shutil.rmtree(folder, ignore_errors=True)
    # Not the ordinary way out: it would complain about the broken pipe of standard output.
    os._exit(0)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
