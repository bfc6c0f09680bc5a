"""Where the servers of the tests keep their data: in memory, where there is room for it.

A test makes and drops databases of three hundred files each. Some file systems (ext4 without a
journal) search long for inodes that were not deleted lately: five times what PostgreSQL takes.
"""

import os
import shutil
import tempfile
from pathlib import Path

MEMORY = Path("/dev/shm")
# What they take at most in all processes, under load too, and as much again for everything else.
NEEDED = 12 << 30


def use_memory() -> None:
    """Of this process, and of all that it starts. A TMPDIR that somebody set is left alone."""
    if "TMPDIR" not in os.environ and _has_room():
        os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)


def _has_room() -> bool:
    try:
        mounted = os.statvfs(MEMORY)
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return False
    kilobytes = dict(line.split()[:2] for line in lines)
    free = min(shutil.disk_usage(MEMORY).free, int(kilobytes["MemAvailable:"]) << 10)
    runs_programs = not mounted.f_flag & os.ST_NOEXEC
    return MEMORY.is_mount() and os.access(MEMORY, os.W_OK) and runs_programs and free >= NEEDED
