"""`bemi run`: the worker, from the first signal that it may start to the one that it must end."""

import os
import signal
import threading
from typing import Literal

from bemi.cli.options import SettingsFlags


def command(
    *,
    until_caught_up: bool = False,
    accept_gap: bool = False,
    slot_wait: float | None = None,
    new_tables: Literal["track", "warn"] | None = None,
    log_format: Literal["text", "json"] | None = None,
    stop_with_stdin: bool = False,
    connection: SettingsFlags = SettingsFlags(),  # noqa: B008 - frozen
) -> int:
    """Capture changes until stopped.

    Waits by itself for what passes, such as a server that restarts, and says so in its log on
    standard error. Ends with exit code 1 when something has to be put right first. Ctrl-C and
    SIGTERM end it in order: what it has read is stored; a second one ends it at once. It may be
    killed at any time: nothing is lost, and nothing is stored twice.

    Parameters
    ----------
    until_caught_up
        End when the history holds all that was committed before this command began, also when
        another worker is the one who stores it.
    accept_gap
        Record changes that can't be had any more as a gap, and go on behind it.
    slot_wait
        Seconds to wait for a slot that another process holds, instead of BEMI_SLOT_WAIT.
    new_tables
        What to do about tables that are created later, instead of BEMI_NEW_TABLES.
    log_format
        Lines of text or of JSON; without this, text on a terminal and JSON elsewhere.
    stop_with_stdin
        End when standard input ends: with the program that started this one, however that ended.
    """
    from bemi.cli import logs

    settings = connection.settings(slot_wait=slot_wait, new_tables=new_tables)
    logs.start(log_format)

    from bemi.capture import worker

    stop = threading.Event()
    _stop_on_signals(stop)
    if stop_with_stdin:
        threading.Thread(target=_stop_at_end_of_input, args=[stop], daemon=True).start()
    worker.run(settings, stop=stop, until_caught_up=until_caught_up, accept_gap=accept_gap)
    return 0


def _stop_on_signals(stop: threading.Event) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(_number: int, _frame: object) -> None:
        stop.set()
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in before:
        signal.signal(number, handle)


def _stop_at_end_of_input(stop: threading.Event) -> None:
    # Not sys.stdin: its lock, held by this thread, would hold up the end of the process.
    while os.read(0, 4096):
        pass
    stop.set()
