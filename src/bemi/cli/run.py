"""`bemi run`: the workers, from the first signal that they may start to the one that ends them."""

import os
import signal
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from bemi import config
from bemi.cli.options import Names, SourcesFlags
from bemi.errors import ConfigError

if TYPE_CHECKING:
    from bemi.capture.fleet import Fleet
    from bemi.config import Settings


def command(
    *,
    source: Names = (),
    until_caught_up: bool = False,
    accept_gap: bool = False,
    slot_wait: float | None = None,
    new_tables: Literal["track", "warn"] | None = None,
    log_format: Literal["text", "json"] | None = None,
    stop_with_stdin: bool = False,
    connection: SourcesFlags = SourcesFlags(),  # noqa: B008 - frozen
) -> int:
    """Capture changes until stopped.

    Waits by itself for what passes, such as a server that restarts, and says so in its log on
    standard error. Ends with exit code 1 when something has to be put right first. Ctrl-C and
    SIGTERM end it in order: what it has read is stored; a second one ends it at once. It may be
    killed at any time: nothing is lost, and nothing is stored twice.

    Of several sources, one that fails is tried again every 30 seconds, and the others go on. When
    the file of settings changes, or at SIGHUP, it is read again: what is new in it holds from
    there on, without a change lost. A wrong one is told in the log, and changes nothing.

    Parameters
    ----------
    source
        Name of a source to capture, where the file has several; repeatable. Without it, all.
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
    from bemi.cli.reload import SettingsWatch

    def read() -> "Sequence[Settings]":
        return connection.several(source, slot_wait=slot_wait, new_tables=new_tables)

    watch = SettingsWatch(config.file_of(connection.config), read)
    if accept_gap and len(watch.settings) > 1:
        raise ConfigError(
            "--accept-gap is for one source at a time: each gap is a question of its own",
            fix="name it with --source NAME",
        )

    from bemi.capture.fleet import SOURCE, Fleet

    logs.start(log_format, source=SOURCE)
    fleet = Fleet(
        watch.settings,
        until_caught_up=until_caught_up,
        accept_gap=accept_gap,
        refresh=None if until_caught_up else watch.look,
    )
    _obey_signals(fleet)
    if stop_with_stdin:
        threading.Thread(target=_stop_at_end_of_input, args=[fleet.stop], daemon=True).start()
    return 0 if fleet.run() else 1


def _obey_signals(fleet: "Fleet") -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    had_terminal = os.isatty(0)

    def stop(_number: int, _frame: object) -> None:
        fleet.stop()
        for number, handler in before.items():
            signal.signal(number, handler)

    def hang_up(_number: int, _frame: object) -> None:
        if had_terminal and not os.isatty(0):
            fleet.stop()  # the terminal was closed, which is how people end what runs in it
        else:
            fleet.reload()

    for number in before:
        signal.signal(number, stop)
    signal.signal(signal.SIGHUP, hang_up)


def _stop_at_end_of_input(stop: Callable[[], None]) -> None:
    # Not sys.stdin: its lock, held by this thread, would hold up the end of the process.
    while os.read(0, 4096):
        pass
    stop()
