"""On how many processors the threads that fetch may run."""

from __future__ import annotations

import contextlib
import os


def confine(count: int) -> None:
    """Let this thread run on at most `count` of the processors it may run on now; other ones for other processes."""
    allowed = sorted(os.sched_getaffinity(0))
    if count < len(allowed):
        first = os.getpid() * count
        with contextlib.suppress(OSError):  # a sandbox may forbid it
            os.sched_setaffinity(0, {allowed[(first + number) % len(allowed)] for number in range(count)})
